"""`milanx bench planted`: is what was planted found?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from milanx.cli import common as c

app = typer.Typer(help="Is what was planted found?", no_args_is_help=True)


@app.callback()
def main() -> None:
    """Is what was planted found?"""


PlantedOut = Annotated[
    Path | None, typer.Option("--out", "-o", help="New folder for all that is made [none].")
]


@app.command("text")
@c.explained
def planted_text(
    images: Annotated[str, typer.Option(help="Labelled photos: folder or .parquet file.")],
    model: Annotated[str, typer.Option(help="Target.")] = "tf_efficientnet_lite0",
    weights: Annotated[str | None, typer.Option(help="Its checkpoint.")] = None,
    detectors: Annotated[int, typer.Option(help="Channels that are replaced.", min=1)] = 20,
    others: Annotated[int, typer.Option(help="Other channels described.", min=0)] = 200,
    lettered: Annotated[
        bool, typer.Option("--lettered", help="Describe on lettered photos as well.")
    ] = False,
    skip: Annotated[int, typer.Option(help="Leave out the first photos.", min=0)] = 0,
    limit: c.Limit = None,
    describer: c.DescribedBy = "builtin",
    out: PlantedOut = None,
    seed: Annotated[int, typer.Option(help="Of everything that is drawn.")] = 0,
    as_json: c.Json = False,
    quiet: c.Quiet = False,
    debug: c.Debug = False,
) -> None:
    """Text detectors put in a model: do words find them, and does pruning them help?"""
    c.starting(quiet, as_json, f"milanx bench planted text --images {images}")
    from milanx.bench.planted.settings import TextPlanting
    from milanx.bench.planted.text import plant_text

    asked = TextPlanting(model, weights, detectors=detectors, others=others,
                         lettered=lettered, skip=skip, limit=limit, seed=seed)  # fmt: skip
    found = plant_text(images, asked, out=out, describer=describer,
                       progress=c.reporter(quiet, as_json))  # fmt: skip
    if as_json:
        c.print_json(found)
        return
    from milanx.report.planted import print_text

    print_text(found)


@app.command("audit")
@c.explained
def planted_audit(
    images: Annotated[
        list[Path] | None,
        typer.Option(help="Annotated .parquet, its held-out photos are used; repeatable."),
    ] = None,
    whole: Annotated[
        list[Path] | None, typer.Option(help="The same, never trained on; repeatable.")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="At most this many units.", min=1)] = None,
    impure: Annotated[
        bool, typer.Option("--impure", help="Exemplars and masks as noisy as those of p2.")
    ] = False,
    describer: c.DescribedBy = "builtin",
    out: PlantedOut = None,
    seed: Annotated[int, typer.Option(help="Of everything that is drawn.")] = 0,
    as_json: c.Json = False,
    quiet: c.Quiet = False,
    debug: c.Debug = False,
) -> None:
    """Units of known meaning: what do the rules of the audit find, miss and mistake?"""
    c.starting(quiet, as_json, "milanx bench planted audit")
    from milanx.bench.planted.annotated import UnitsAsked
    from milanx.bench.planted.audited import audit_planted

    asked = UnitsAsked(tuple(images or ()), tuple(whole or ()), limit=limit,
                       impure=impure, seed=seed)  # fmt: skip
    found = audit_planted(asked, out=out, describer=describer,
                          progress=c.reporter(quiet, as_json))  # fmt: skip
    if as_json:
        c.print_json(found)
        return
    from milanx.report.planted import print_audit

    print_audit(found)
