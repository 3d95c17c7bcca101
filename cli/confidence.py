"""`milanx bench confidence`: calibrate how sure a describer is, report how far it holds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from milanx.cli import common as c

app = typer.Typer(help="How sure descriptions are.", no_args_is_help=True)

Out = Annotated[Path, typer.Argument(help="New folder for runs and what is found.")]
Photos = Annotated[list[Path] | None, typer.Option("--images", help=".parquet; repeatable.")]
Count = Annotated[int, typer.Option(help="Planted units of each seed.", min=1)]
PerClass = Annotated[int, typer.Option(help="Photos of a class that logits are shown.", min=1)]
Classes = Annotated[int, typer.Option(help="Whose logits are described.", min=1)]
Controls = Annotated[int, typer.Option(help="Units of each control; 0: none.", min=0)]


@app.callback()
def main() -> None:
    """How sure descriptions are.

    What confidence is calibrated on, and what it is reported on, stands in
    milanx/evaluate/confidence/lists.py: no target, meaning or photo is both.
    """


@app.command("fit")
@c.explained
def fit(
    out: Out,
    images: Photos = None,
    describer: c.DescribedBy = "builtin",
    count: Count = 60,
    per_class: PerClass = 12,
    classes: Classes = 60,
    controls: Controls = 60,
    limit: Annotated[int, typer.Option(help="Images that controls are shown.")] = 600,
    weights: c.Weights = None,
    keep: Annotated[
        bool, typer.Option("--keep", help="Put confidence.json into the describer's folder.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Of folds and draws.")] = 0,
    quiet: c.Quiet = False,
    debug: c.Debug = False,
) -> None:
    """Calibrate a describer's confidence, and choose below which a unit is unclear."""
    c.starting(quiet, False, f"milanx bench confidence fit {out}")
    from milanx.describing.describer import Describer
    from milanx.describing.folder import keep_calibration
    from milanx.evaluate.confidence.protocol import Asked, fit_confidence
    from milanx.report.confidence import print_calibration

    asked = Asked(
        tuple(images or ()), out, count, per_class, classes, controls, limit, weights, seed
    )
    loaded = Describer.load(describer)
    found = fit_confidence(loaded, asked, c.reporter(quiet, False))
    if keep and loaded.root is not None:
        keep_calibration(loaded.root, found)
    print_calibration(found)


@app.command("report")
@c.explained
def report(
    out: Out,
    images: Photos = None,
    describer: c.DescribedBy = "builtin",
    count: Count = 60,
    per_class: PerClass = 12,
    classes: Classes = 60,
    controls: Controls = 60,
    limit: Annotated[int, typer.Option(help="Images that controls are shown.")] = 600,
    weights: c.Weights = None,
    seed: Annotated[int, typer.Option(help="Of draws.")] = 0,
    as_json: c.Json = False,
    quiet: c.Quiet = False,
    debug: c.Debug = False,
) -> None:
    """Calibration error, right told from wrong, and controls, on what did not calibrate.

    Writes confidence-report.json and a reliability diagram, reliability.png.
    """
    c.starting(quiet, as_json, f"milanx bench confidence report {out}")
    from milanx.describing.describer import Describer
    from milanx.evaluate.confidence.protocol import Asked, report_confidence
    from milanx.report.confidence import draw_reliability, print_confidence

    asked = Asked(
        tuple(images or ()), out, count, per_class, classes, controls, limit, weights, seed
    )
    found = report_confidence(Describer.load(describer), asked, c.reporter(quiet, as_json))
    draw_reliability(found, out / "reliability.png")
    if as_json:
        c.print_json(found)
    else:
        print_confidence(found)


@app.command("controls")
@c.explained
def controls(
    out: Out,
    model: Annotated[str, typer.Option(help="A target by name.")],
    layer: Annotated[str, typer.Option("--layer", "-l", help="One of its layers.")],
    images: Annotated[
        list[str] | None, typer.Option("--images", help="Probe images; repeatable.")
    ] = None,
    describer: c.DescribedBy = "builtin",
    units: Annotated[int, typer.Option(help="Of each control.", min=1)] = 100,
    limit: c.Limit = None,
    weights: c.Weights = None,
    seed: Annotated[int, typer.Option(help="Of directions and draws.")] = 0,
    as_json: c.Json = False,
    quiet: c.Quiet = False,
    debug: c.Debug = False,
) -> None:
    """How many descriptions of nothing are unclear: random weights, directions, sets, masks."""
    c.starting(quiet, as_json, f"milanx bench confidence controls {out}")
    from milanx.describing.describer import Describer
    from milanx.evaluate.confidence.controls import Controlled
    from milanx.evaluate.confidence.protocol import control
    from milanx.report.confidence import print_controls

    shown = tuple(images or ("builtin:probe",))
    asked = Controlled(model, layer, shown, out, units, limit, weights, seed)
    found = control(Describer.load(describer), asked, c.reporter(quiet, as_json))
    if as_json:
        c.print_json(found)
    else:
        print_controls(found)
