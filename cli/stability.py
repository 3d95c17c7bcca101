"""`milanx bench stability`: the same units under other settings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from milanx.cli import common as c


@c.explained
def stability(
    out: Annotated[Path, typer.Argument(help="Folder for runs, texts and the report.")],
    layer: c.Layers,
    model: Annotated[str, typer.Option(help=c.TARGET)] = "tf_efficientnet_lite0",
    images: c.Images = ["builtin:probe"],  # noqa: B006 - typer copies it
    probe: Annotated[
        list[str] | None, typer.Option(help="Another set of probe images; repeatable.")
    ] = None,
    depth: Annotated[
        list[str] | None,
        typer.Option(help="A further layer, under the usual settings alone; repeatable."),
    ] = None,
    units: Annotated[int, typer.Option(help="The first ones of each layer.", min=2)] = 64,
    vary: Annotated[
        list[str] | None,
        typer.Option(
            help="k, quantile, seed, share, images, lam, beam, retrieved or strategy, with values "
            "or without: lam=0,0.2; repeatable [all]."
        ),
    ] = None,
    limit: c.Limit = None,
    weights: c.Weights = None,
    describer: c.DescribedBy = "builtin",
    device: c.Device = "auto",
    into: c.Into = None,
    as_json: c.Json = False,
    quiet: c.Quiet = False,
    debug: c.Debug = False,
) -> None:
    """Describe the same units with more or fewer exemplars, other masks, searches and images.

    How alike a unit's texts are, less those of different units, beside the share of distinct texts
    and the score. Writes stability.json and stability.png; run it again to go on where it stopped.
    """
    c.starting(quiet, as_json, f"milanx bench stability {out}")
    from milanx.bench.table import STABILITY, write_between
    from milanx.describing.describer import Describer
    from milanx.environment import pick_device
    from milanx.evaluate.stability.measure import measure_stability
    from milanx.evaluate.stability.settings import StabilityAsked, read_axes
    from milanx.report.stability import draw_stability, markdown, print_stability

    asked = StabilityAsked(
        model, tuple(layer), tuple(images), out, units, tuple(probe or ()), tuple(depth or ()),
        read_axes(vary or ()), weights, limit, device,
    )  # fmt: skip
    loaded = Describer.load(describer, pick_device(device))
    report = measure_stability(loaded, asked, c.reporter(quiet, as_json))
    picture = draw_stability(report, out / "stability.png")
    if into:
        write_between(into, STABILITY, markdown(report))
    if as_json:
        c.print_json(report)
        return
    print_stability(report)
    c.say(f"figure {picture}")
