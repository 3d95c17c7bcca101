"""`milanx audit`: units that rules find, and two models compared."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from milanx.cli import common as c


@c.explained
def audit(
    run: c.RunFolder,
    versus: Annotated[
        Path | None, typer.Option(help="Another run: compare the shares of units a rule.")
    ] = None,
    rules: c.RulesFile = None,
    fail_on: Annotated[
        str | None, typer.Option(help="Exit 1 on a finding of this severity: note, warning, error.")
    ] = None,
    images: Annotated[
        list[str] | None, typer.Option("--images", help="Where the probe images lie now.")
    ] = None,
    weights: c.Weights = None,
    ablate: Annotated[
        int, typer.Option(min=0, help="Found units that are ablated, worst first; 0: none.")
    ] = 40,
    min_confidence: c.MinConfidence = None,
    random_units: Annotated[
        int, typer.Option(min=1, help="Random units of each layer, ablated beside them.")
    ] = 20,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder of the report [RUN/audit].")
    ] = None,
    repository: Annotated[
        Path | None, typer.Option(help="Root that SARIF's paths start from [found by .git].")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the choice of random units.")] = 0,
    as_json: c.Json = False,
    quiet: c.Quiet = False,
    debug: c.Debug = False,
) -> None:
    """Find units whose descriptions concern faces, skin, text, watermarks, rulers and more.

    Writes findings.json, units.jsonl, audit.sarif and a page. With --versus it compares two runs.
    """
    c.starting(quiet, as_json, f"milanx audit {run}")
    if versus is not None:
        from milanx.act.audit.versus import audit_versus
        from milanx.report.audit import print_versus

        found = audit_versus(run, versus, rules=rules, min_confidence=min_confidence)
        if as_json:
            c.print_json(found.to_dict())
        else:
            print_versus(found)
        return
    from milanx.act.audit.findings import audit as run_audit
    from milanx.act.audit.findings import check_severity
    from milanx.report.audit import print_audit, write_audit
    from milanx.runs import open_run

    if fail_on is not None:
        check_severity(fail_on)
    opened = open_run(run)
    made = run_audit(
        opened, rules=rules, images=images or (), weights=str(weights) if weights else None,
        ablated=ablate, random_units=random_units, min_confidence=min_confidence, seed=seed,
        progress=c.reporter(quiet, as_json),
    )  # fmt: skip
    files = write_audit(made, opened, out or opened.results / "audit", repository)
    if as_json:
        c.print_json(made.to_dict())
    else:
        print_audit(made, files)
    if fail_on is not None and made.at_least(fail_on):
        raise typer.Exit(1)
