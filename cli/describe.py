"""`milanx describe`: the main job."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from milanx.cli import common as c


@c.explained
def describe(
    model: Annotated[str, typer.Argument(help=c.TARGET)] = "tf_efficientnet_lite0",
    layer: c.LayersOrDefault = None,
    images: c.Images = ["builtin:probe"],  # noqa: B006 - typer copies it
    units: c.Units = None,
    limit: c.Limit = None,
    out: c.Out = None,
    describer: c.DescribedBy = "builtin",
    beam: Annotated[int | None, typer.Option(min=1, help="Hypotheses of the search.")] = None,
    lam: Annotated[float | None, typer.Option(help="lambda of the weighted PMI.")] = None,
    rank: Annotated[str | None, typer.Option(help="Of candidates: pmi or argmax.")] = None,
    strategy: Annotated[str | None, typer.Option(help="beam, diverse or nucleus.")] = None,
    method: Annotated[
        str,
        typer.Option(
            help="describer; milan (MILAN's own, of --describer FOLDER); over a list, without "
            "language models: concepts (softWPMI), nearest; "
            "by overlap with the images' regions: netdissect, compexp."
        ),
    ] = "describer",
    concepts: Annotated[
        Path | None, typer.Option(help="For concepts and nearest: one a line [the bundled list].")
    ] = None,
    weights: c.Weights = None,
    random_weights: c.RandomWeights = False,
    sign: c.Sign = ["+"],  # noqa: B006
    read: c.Read = "auto",
    sae: c.Sae = None,
    directions: c.Directions = None,
    k: c.K = 15,
    quantile: c.Quantile = 0.99,
    device: c.Device = "auto",
    dtype: c.Dtype = "float32",
    batch_size: c.BatchSize = None,
    seed: c.Seed = 0,
    workers: c.Workers = 2,
    score: Annotated[
        bool,
        typer.Option(
            "--score/--no-score",
            help="Measure how well each text foretells its unit on images kept aside.",
        ),
    ] = True,
    senses: Annotated[
        int, typer.Option(help="Senses that a unit may have, 1 to 3, where unseen images agree.")
    ] = 1,
    sort: c.Sort = "sure",
    overwrite: c.Overwrite = False,
    as_json: c.Json = False,
    quiet: c.Quiet = False,
    debug: c.Debug = False,
) -> None:
    """Describe the units of a model's layers in words.

    Without arguments: a late layer of tf_efficientnet_lite0 on built-in images, offline.
    """
    c.starting(quiet, as_json, f"milanx describe {model}")
    from milanx.report.sure import check_order

    check_order(sort)
    from milanx.exemplars.request import ExtractSettings
    from milanx.pipeline import check
    from milanx.pipeline import describe as run_describe

    asked: dict[str, Any] = {
        "layers": layer, "images": images, "units": units, "limit": limit, "out": out,
        "method": method, "concepts": concepts, "weights": weights,
        "random_weights": random_weights, "read": read, "sae": sae, "directions": directions,
        "signs": sign, "device": device, "dtype": dtype, "score": score, "senses": senses,
        "settings": ExtractSettings(k, quantile, seed=seed, batch_size=batch_size, workers=workers),
        "overwrite": overwrite,
    }  # fmt: skip
    check(model, **asked)
    progress = c.reporter(quiet, as_json)
    with progress.stage("load describer", None):
        loaded = c.load_describer(
            method, describer, device, beam=beam, lam=lam, method=rank, strategy=strategy
        )
    run = run_describe(model, **asked, describer=loaded, progress=progress)
    from milanx.describing.texts import sentences
    from milanx.report.page import write_page
    from milanx.report.terminal import print_run

    with progress.stage("page", None):
        page = write_page(run, sort, sentences(loaded))
    if as_json:
        c.print_json({"run": str(run.root), "page": str(page), "units": run.rows})
        return
    print_run(run, page, sort)
