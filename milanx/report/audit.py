"""What an audit looks like: a table, and the folder with its json, SARIF and page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from milanx.act.audit.findings import FORMAT, LEVEL, VERSION, Audit, Finding
from milanx.act.audit.sarif import relative_uri, to_sarif, unit_lines
from milanx.act.audit.versus import Versus
from milanx.files import atomic_files, write_json, write_text
from milanx.files.jsons import json_text
from milanx.images.photos import LICENCES
from milanx.report.cells import number, sure_cell
from milanx.report.page import builtin_photos, script_json, thumbnails
from milanx.report.screen import Screen, styled
from milanx.rows import UNCLEAR

if TYPE_CHECKING:
    from milanx.runs import Run

SHOWN = 20  # findings in the terminal; the page has them all
WIDTH = 120  # columns of a terminal that the findings take at least
PICTURES = 8  # exemplars of a finding on the page
COLOURS = {"error": "red", "warning": "yellow", "note": "cyan"}
PAGE_VERSION = 1


def write_audit(audit: Audit, run: Run, out: Path, root: Path | None = None) -> dict[str, Path]:
    """Write an audit: ``findings.json``, ``units.jsonl``, ``audit.sarif`` and ``index.html``.

    Args:
        audit: the audit.
        run: of which it is, for the pictures.
        out: the folder; other files in it are left alone.
        root: of the repository that the folder is committed to; found when None.

    Returns:
        The files by what they are: ``json``, ``units``, ``sarif``, ``page``.
    """
    files = {"json": out / "findings.json", "units": out / "units.jsonl",
             "sarif": out / "audit.sarif", "page": out / "index.html"}  # fmt: skip
    log = to_sarif(audit, relative_uri(files["units"], root))
    with atomic_files(*files.values()) as (whole, units, sarif, page):
        write_json(whole, FORMAT, VERSION, audit.to_dict())
        write_text(units, "\n".join(unit_lines(audit)) + "\n")
        write_text(sarif, json_text(log, indent=1, ascii_only=True) + "\n")
        write_text(page, page_html(audit, run))
    return files


def page_html(audit: Audit, run: Run) -> str:
    """Return the page of an audit: one file that loads nothing from anywhere."""
    from jinja2 import Environment, PackageLoader, select_autoescape

    environment = Environment(
        loader=PackageLoader("milanx.report"), autoescape=select_autoescape(default=True)
    )
    shown = sorted({e["image"] for f in audit.findings for e in f.exemplars[:PICTURES]})
    groups: dict[str, list[dict[str, Any]]] = {}
    for finding in audit.findings:  # worst first
        pictures = [e["image"] for e in finding.exemplars[:PICTURES]]
        groups.setdefault(finding.rule, []).append({"it": finding, "pictures": pictures})
    return environment.get_template("audit.html").render(
        version=PAGE_VERSION,
        target=audit.target,
        count=len(audit.findings),
        notes=audit.notes,
        shares=audit.shares(),
        rules={rule.id: rule for rule in audit.rules},
        groups=groups,
        how_sure=sure_cell,
        credits=builtin_photos(run, shown)[1],
        licences=LICENCES,
        views=script_json(thumbnails(run, shown)),
    )  # fmt: skip


def _percent(share: float, interval: Sequence[float]) -> str:
    return f"{100 * share:.1f} % [{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]"


def print_audit(audit: Audit, files: dict[str, Path]) -> None:
    """Print the shares of the rules, the worst findings, and where the rest is."""
    console = Screen(width=max(Screen().width, WIDTH))
    guesses = f", {audit.unclear} unclear" if audit.unclear else ""
    table = Table(title=f"{audit.target}: {audit.described} described{guesses}",
                  title_justify="left")  # fmt: skip
    for name in ("rule", "severity", "units", "share"):
        table.add_column(name, justify="right" if name in ("units", "share") else "left")
    for row in audit.shares():
        colour = COLOURS[row["severity"]]
        table.add_row(row["rule"], styled(row["severity"], colour), str(row["units"]),
                      _percent(row["share"], row["interval"]))  # fmt: skip
    console.print(table)
    if audit.findings:
        console.print(_findings_table(audit.findings[:SHOWN]))
        if any("p_fdr" in finding.apart for finding in audit.findings):
            console.print("* apart from .5 at a false discovery rate of 5 % over all findings")
    if len(audit.findings) > SHOWN:
        console.print(f"... and {len(audit.findings) - SHOWN} more: see the page", highlight=False)
    for note in audit.notes:
        console.print(note, highlight=False)
    for name, path in files.items():
        console.print(f"{name:5} {path}", highlight=False, soft_wrap=True)


def _findings_table(findings: Sequence[Finding]) -> Table:
    table = Table(title="findings, worst first", title_justify="left")
    names = ("rule", "unit", "description", "confidence", "score", "goes together",
             "does to the classes")  # fmt: skip
    for name in names:  # an address is what other commands are given: texts give way
        table.add_column(name, justify="right" if name in ("confidence", "score") else "left",
                         overflow="fold", no_wrap=name == "unit")  # fmt: skip
    for finding in findings:
        table.add_row(
            finding.rule, finding.address, finding.description,
            sure_cell(finding.confidence, True, finding.status), number(finding.score),
            _apart(finding.apart), _effect(finding),
            style="dim" if finding.status == UNCLEAR else None,
        )  # fmt: skip
    return table


def _apart(apart: dict[str, Any]) -> str:
    if "why" in apart:
        return "not measured"
    low, high = apart["interval"]
    star = "*" if apart["p_fdr"] < LEVEL else ""
    return f"AUROC {apart['auroc']:.2f} [{low:.2f}, {high:.2f}]{star}"


def _effect(finding: Finding) -> str:
    effect = finding.effect
    if isinstance(effect, str):
        return "not measured"
    verdict = f"{effect.falls} falls" if effect.stands_out else "no more than others"
    return f"above {effect.beside}/{effect.random_units} random: {verdict}"


def print_versus(versus: Versus) -> None:
    """Print two models side by side."""
    table = Table(title=f"A {versus.first}   B {versus.second}", title_justify="left")
    for name in ("rule", "A", "B", "A - B, points", "p (Holm)"):
        table.add_column(name, justify="left" if name == "rule" else "right")
    for row in versus.rows:
        sides = [f"{s['units']} of {s['of']} = {100 * s['share']:.1f} %"
                 for s in (row["first"], row["second"])]  # fmt: skip
        low, high = row["interval"]
        difference = f"{100 * row['difference']:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"
        table.add_row(row["rule"], *sides, difference, f"{row['p_holm']:.3f}")
    console = Screen(width=max(Screen().width, 110))
    console.print(table)
    for note in versus.notes:
        console.print(note, highlight=False)
