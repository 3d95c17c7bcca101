"""`milanx exemplars`: extraction alone."""

from __future__ import annotations

from typing import Annotated

import typer
from milanx.cli import common as c


@c.explained
def exemplars(
    model: Annotated[str, typer.Argument(help=c.TARGET)],
    layer: c.Layers,
    images: c.Images = ["builtin:probe"],  # noqa: B006
    units: c.Units = None,
    limit: c.Limit = None,
    out: c.Out = None,
    weights: c.Weights = None,
    random_weights: c.RandomWeights = False,
    sign: c.Sign = ["+"],  # noqa: B006
    read: c.Read = "auto",
    sae: c.Sae = None,
    directions: c.Directions = None,
    k: c.K = 15,
    quantile: c.Quantile = 0.99,
    aside: Annotated[
        float, typer.Option(help="Share of the images, by group, that no exemplar is taken from.")
    ] = 0.2,
    device: c.Device = "auto",
    dtype: c.Dtype = "float32",
    batch_size: c.BatchSize = None,
    seed: c.Seed = 0,
    workers: c.Workers = 2,
    overwrite: c.Overwrite = False,
    as_json: c.Json = False,
    quiet: c.Quiet = False,
    debug: c.Debug = False,
) -> None:
    """Find the images that excite the units most, with masks of where.

    With many processes: accelerate launch --num-processes N -m milanx exemplars ...
    """
    c.starting(quiet, as_json, f"milanx exemplars {model}")
    from milanx.exemplars.request import ExtractSettings
    from milanx.pipeline import extract

    store = extract(
        model,
        layers=layer,
        images=images,
        units=units,
        limit=limit,
        out=out,
        weights=weights,
        random_weights=random_weights,
        read=read,
        sae=sae,
        directions=directions,
        signs=sign,
        settings=ExtractSettings(k, quantile, aside, seed, batch_size, workers),
        device=device,
        dtype=dtype,
        overwrite=overwrite,
        progress=c.reporter(quiet, as_json),
    )
    rows = {name: len(store.units(name)) for name in store.layers}
    if as_json:
        c.print_json({"run": str(store.root), "layers": rows})
        return
    for name, count in rows.items():
        found = (store.images(name) >= 0).sum(1)
        few, none = int(((found > 0) & (found < k)).sum()), int((found == 0).sum())
        short = f"; {few} have fewer than {k}, {none} none" if few or none else ""
        c.say(f"{name}: exemplars of {count} units in {store.root}{short}")
