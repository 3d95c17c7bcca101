"""SARIF 2.1.0 as GitHub's code scanning takes it.

A unit has no line of code, and GitHub refuses results without one: each result points at the
unit's line in ``units.jsonl``, which is to be committed beside it. Fields, from
docs.github.com/code-security/code-scanning ("SARIF support") and the OASIS standard: ``$schema``,
rules with ``id``, ``shortDescription``, ``fullDescription`` and ``help``; a relative ``uri`` with a
``region``; ``partialFingerprints.primaryLocationLineHash``. At most 25,000 results a run are taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from milanx.act.audit.findings import Audit, Finding
from milanx.act.audit.rules import Rule
from milanx.files import fingerprint
from milanx.files.jsons import json_text
from milanx.rows import UNCLEAR

SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
MOST_RESULTS = 25_000


def unit_lines(audit: Audit) -> list[str]:
    """Return the lines of ``units.jsonl``: a unit each, in the order of the run's table."""
    return [json_text(row, ascii_only=True) for row in audit.units]


def to_sarif(audit: Audit, uri: str) -> dict[str, Any]:
    """Return an audit as a SARIF log; beyond 25,000 results the mildest are left out, and it says.

    Args:
        audit: the audit.
        uri: of ``units.jsonl``, relative to the root of the repository.
    """
    from milanx import __version__

    lines = unit_lines(audit)
    places = {(r["layer"], r["unit"], r["sign"]): n for n, r in enumerate(audit.units, 1)}
    index = {rule.id: number for number, rule in enumerate(audit.rules)}
    results = []
    for finding in audit.findings[:MOST_RESULTS]:  # worst first
        line = places[finding.layer, finding.unit, finding.sign]
        results.append(_result(audit, finding, index[finding.rule], (uri, line, lines[line - 1])))
    run: dict[str, Any] = {
        "tool": {"driver": {
            "name": "milanx", "semanticVersion": __version__, "version": __version__,
            "rules": [_rule(rule) for rule in audit.rules],
        }},
        "automationDetails": {"id": f"milanx/{audit.target}/"},
        "columnKind": "utf16CodeUnits",
        "properties": {k: v for k, v in audit.facts.items() if k != "versions"},
        "results": results,
    }  # fmt: skip
    left = len(audit.findings) - len(results)
    if left:
        run["invocations"] = [{
            "executionSuccessful": True,
            "toolExecutionNotifications": [{"level": "warning", "message": {
                "text": f"{left} findings are left out: GitHub takes {MOST_RESULTS} a run."}}],
        }]  # fmt: skip
    return {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}


def _rule(rule: Rule) -> dict[str, Any]:
    return {
        "id": rule.id, "name": "".join(part.capitalize() for part in rule.id.split("-")),
        "shortDescription": {"text": rule.name}, "fullDescription": {"text": rule.text},
        "help": {"text": rule.advice, "markdown": rule.advice},
        "defaultConfiguration": {"level": rule.severity},
        "properties": {"tags": ["audit", "interpretability"], "precision": "medium"},
    }  # fmt: skip


def _result(
    audit: Audit, finding: Finding, rule: int, place: tuple[str, int, str]
) -> dict[str, Any]:
    uri, line, text = place
    guess = f" ({finding.status})" if finding.status == UNCLEAR else ""
    told = " ".join([f'{finding.address}, "{finding.description}"{guess}: {finding.reason}.',
                     finding.correlates, finding.causes])  # fmt: skip
    score = {} if finding.score is None else {"score": finding.score}
    sure = {} if finding.confidence is None else {"confidence": finding.confidence}
    return {
        "ruleId": finding.rule, "ruleIndex": rule, "level": finding.severity,
        "message": {"text": told},
        "locations": [{
            "physicalLocation": {
                "artifactLocation": {"uri": quote(uri)},
                "region": {"startLine": line, "startColumn": 1, "endLine": line,
                           "endColumn": len(text) + 1},
            },
            "logicalLocations": [{"fullyQualifiedName": f"{audit.target}/{finding.address}",
                                  "name": finding.address, "kind": "element"}],
        }],
        # The same unit of the same model stays the same alert, wherever its line moves.
        "partialFingerprints": {"primaryLocationLineHash": fingerprint(
            audit.facts.get("target_fingerprint"), finding.layer, finding.unit, finding.sign,
            finding.rule) + ":1"},
        "properties": {"exemplars": [e["path"] for e in finding.exemplars], **score, **sure},
    }  # fmt: skip


def relative_uri(path: Path, root: Path | None = None) -> str:
    """Return a file's path from the root of its repository.

    Args:
        path: the file.
        root: the repository; found by its ``.git`` when None, else the working folder where the
            file lies below it, else the file's own folder.
    """
    full = path.resolve()
    roots: Sequence[Path] = [root.resolve()] if root else [
        *(p for p in full.parents if (p / ".git").exists()), Path.cwd()]  # fmt: skip
    for parent in roots:
        if full.is_relative_to(parent):
            return full.relative_to(parent).as_posix()
    return full.name
