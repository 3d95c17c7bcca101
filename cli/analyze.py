"""`milanx analyze`: what kinds of things units detect, and what such units are worth."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from milanx.cli import common as c


@c.explained
def analyze(
    run: c.RunFolder,
    images: Annotated[
        list[str] | None,
        typer.Option("--images", help="Labelled images of the target's classes: importance too."),
    ] = None,
    sample: Annotated[int, typer.Option(min=1, help="At most so many labelled images.")] = 250,
    orders: Annotated[int, typer.Option(help="In which units are ablated.")] = 5,
    step: Annotated[float, typer.Option(help="Share of the units a step ablates.")] = 0.02,
    most: Annotated[float, typer.Option(help="The last step.")] = 0.18,
    classes: Annotated[
        Path | None, typer.Option(help="The target's classes, one a line, unless ImageNet's.")
    ] = None,
    weights: c.Weights = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder of the report [RUN/analysis].")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of orders and intervals.")] = 0,
    as_json: c.Json = False,
    quiet: c.Quiet = False,
    debug: c.Debug = False,
) -> None:
    """Count what the descriptions of a run name: colours, textures, objects, animals and more.

    With labelled images it also sets units of each kind to zero, beside random ones.
    """
    c.starting(quiet, as_json, f"milanx analyze {run}")
    from milanx.act.analyze import analyze as run_analysis
    from milanx.act.importance import ImportanceSettings
    from milanx.report.analysis import print_analysis, write_analysis
    from milanx.runs import open_run

    opened = open_run(run)
    made = run_analysis(
        opened,
        images or None,
        weights=str(weights) if weights else None,
        classes=classes,
        sample=sample,
        settings=ImportanceSettings(step=step, most=most, orders=orders, seed=seed),
        progress=c.reporter(quiet, as_json),
    )
    files = write_analysis(made, out or opened.results / "analysis")
    if as_json:
        c.print_json(made.to_dict())
    else:
        print_analysis(made, files)
