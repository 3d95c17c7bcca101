"""`milanx bench`: how fast it is on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from milanx.cli import common as c
from milanx.cli import confidence, planted, stability

from milanx.errors import InputError

app = typer.Typer(help="Measure speed on this machine.", no_args_is_help=True)

app.add_typer(planted.app, name="planted")
app.add_typer(confidence.app, name="confidence")
app.command("stability")(stability.stability)


@app.callback()
def main() -> None:
    """Measure speed on this machine."""


@app.command("act")
@c.explained
def act(
    model: Annotated[list[str] | None, typer.Argument(help="Targets [resnet18, lite0].")] = None,
    layer: Annotated[
        list[str], typer.Option("--layer", "-l", help="Their layers [some late ones].")
    ] = [],  # noqa: B006 - typer copies it
    units: Annotated[int, typer.Option(help="Points of the curve.", min=1)] = 100,
    images: Annotated[int, typer.Option(help="Images of every point.", min=2)] = 128,
    as_json: c.Json = False,
    quiet: c.Quiet = False,
    debug: c.Debug = False,
) -> None:
    """A curve of ablations through the tail of a network over running all of it at every point."""
    c.starting(quiet, as_json, "milanx bench act")
    from milanx.bench.act import bench_act

    rows = bench_act(model or None, layers=layer, units=units, images=images,
                     progress=c.reporter(quiet, as_json))  # fmt: skip
    if as_json:
        c.print_json(rows)
        return
    from milanx.report.terminal import print_bench

    print_bench(rows, "a curve through the tail of a network, over all of it")


@app.command("corrupt")
@c.explained
def corrupt(
    images: Annotated[
        str, typer.Option(help="Folder, .parquet file or builtin:probe.")
    ] = "builtin:probe",
    count: Annotated[int, typer.Option(help="Images.", min=1)] = 16,
    workers: Annotated[str, typer.Option(help="Numbers of workers.")] = "1,2,4",
    as_json: c.Json = False,
    quiet: c.Quiet = False,
    debug: c.Debug = False,
) -> None:
    """The corruptions of ImageNet-C by type, and how much workers help."""
    c.starting(quiet, as_json, f"milanx bench corrupt --images {images}")
    from milanx.bench.corrupt import bench_corrupt

    progress = c.reporter(quiet, as_json)
    found = bench_corrupt(images, count=count, workers=c.whole_numbers(workers, "--workers"),
                          progress=progress)  # fmt: skip
    if as_json:
        c.print_json(found)
        return
    typer.echo(f"{found['images']} images, {found['pictures']} pictures of 224 x 224")
    for name, row in found["types"].items():
        typer.echo(f"{name:18s} {row['seconds']:8.2f} s  {row['share']:6.1%}")
    for number, row in found["workers"].items():
        typer.echo(
            f"{number:>2s} workers {row['seconds']:16.2f} s  "
            f"{row['pictures_per_s']:6.1f} pictures/s, {row['speedup']:.2f} times the first"
        )


@app.command("describe")
@c.explained
def describe(
    run: Annotated[Path, typer.Argument(help="A run folder with exemplars.")],
    units: Annotated[int, typer.Option(help="Units of its first layer.", min=1)] = 192,
    busy: Annotated[
        int, typer.Option(help="Measure again beside so many busy processes.", min=0)
    ] = 0,
    as_json: c.Json = False,
    quiet: c.Quiet = False,
    debug: c.Debug = False,
) -> None:
    """Describing over the arithmetic of its matrix products at this machine's rate."""
    c.starting(quiet, as_json, f"milanx bench describe {run}")
    from milanx.bench.describe import bench_describe

    found = bench_describe(run, units=units, busy=busy, progress=c.reporter(quiet, as_json))
    if as_json:
        c.print_json(found)
        return
    for name, value in found.items():
        typer.echo(f"{name:18s} {value:.4g}" if isinstance(value, float) else f"{name:18s} {value}")


@app.command("extract")
@c.explained
def extract(
    model: Annotated[
        list[str] | None, typer.Argument(help="Targets [lite0, vit_tiny, resnet18].")
    ] = None,
    images: Annotated[int, typer.Option(help="Images of each measurement.", min=32)] = 256,
    as_json: c.Json = False,
    quiet: c.Quiet = False,
    debug: c.Debug = False,
) -> None:
    """Extraction over the fastest bare forward pass of the same model."""
    c.starting(quiet, as_json, "milanx bench extract")
    from milanx.bench.extract import bench_extract

    rows = bench_extract(model or None, images=images, progress=c.reporter(quiet, as_json))
    if as_json:
        c.print_json(rows)
        return
    from milanx.report.terminal import print_bench

    print_bench(rows, "extraction over the fastest bare forward pass")


@app.command("models")
@c.explained
def models(
    model: Annotated[list[str] | None, typer.Argument(help="Targets, such as resnet18.")] = None,
    every: Annotated[
        bool, typer.Option("--all", help="A small member of every family, in an hour or two.")
    ] = False,
    library: Annotated[
        list[str],
        typer.Option(help="Every family of one library: timm, transformers, torchvision."),
    ] = [],  # noqa: B006 - typer copies it
    keep: Annotated[
        Path | None, typer.Option(help="File of rows, which a stopped run goes on with.")
    ] = None,
    into: c.Into = None,
    as_json: c.Json = False,
    quiet: c.Quiet = False,
    debug: c.Debug = False,
) -> None:
    """What of many families of models can be described, each layer checked against plain hooks.

    Units, the order of the images, places and nonlinearity; random weights, nothing is loaded.
    The table is Markdown, as in docs/models.md.
    """
    c.starting(quiet, as_json, "milanx bench models")
    if bool(model) + every + bool(library) != 1:
        raise InputError("which models?", "name some, a library, or all of them",
                         ["resnet18", "--library transformers", "--all"])  # fmt: skip
    from milanx.bench.models import LIBRARIES, bench_models
    from milanx.bench.table import markdown, write_into

    rows = bench_models(model or None, libraries=library or tuple(LIBRARIES), keep=keep,
                        progress=c.reporter(quiet, as_json))  # fmt: skip
    if into:
        write_into(into, rows)
    if as_json:
        c.print_json(rows)
    elif not into:
        typer.echo(markdown(rows))


@app.command("senses")
@c.explained
def senses(
    out: Annotated[Path, typer.Argument(help="New folder for runs and senses-report.json.")],
    images: Annotated[
        list[Path] | None, typer.Option(help="Photos to plant units in, .parquet; repeatable.")
    ] = None,
    describer: c.DescribedBy = "builtin",
    count: Annotated[
        int, typer.Option(help="Units of one meaning, and of two, of each seed.", min=1)
    ] = 100,
    random: Annotated[int, typer.Option(help="Sets of photos at random of each seed.", min=0)] = 30,
    most: Annotated[int, typer.Option(help="Senses of a unit.", min=2, max=3)] = 2,
    per_file: Annotated[int, typer.Option(help="Photos of a file.", min=1)] = 1000,
    chosen: Annotated[
        bool, typer.Option("--chosen", help="On what numbers are chosen, not on what is reported.")
    ] = False,
    as_json: c.Json = False,
    quiet: c.Quiet = False,
    debug: c.Debug = False,
) -> None:
    """Are units of one meaning split, and two distant meanings told apart?

    What is planted where stands in milanx/evaluate/senses/lists.py.
    """
    c.starting(quiet, as_json, f"milanx bench senses {out}")
    from milanx.describing.describer import Describer
    from milanx.evaluate.senses.protocol import Asked, evaluate_senses

    asked = Asked(tuple(images or ()), out, count, random, most, per_file, chosen)
    found = evaluate_senses(Describer.load(describer), asked, c.reporter(quiet, as_json))
    if as_json:
        c.print_json(found)
        return
    from milanx.report.senses import print_senses

    print_senses(found)


@app.command("weights")
@c.explained
def weights(
    out: Annotated[Path, typer.Argument(help="New folder for runs and weights.json.")],
    images: Annotated[
        list[Path] | None,
        typer.Option(help="Photos for development, .parquet; repeatable."),
    ] = None,
    describer: c.DescribedBy = "builtin",
    count: Annotated[int, typer.Option(help="Planted units of each seed.")] = 100,
    units: Annotated[int, typer.Option(help="Units of each layer.")] = 96,
    limit: Annotated[int, typer.Option(help="Images that the target is shown.")] = 1200,
    as_json: c.Json = False,
    quiet: c.Quiet = False,
    debug: c.Debug = False,
) -> None:
    """Which weights of the ranking are best on layers, units and photos that no report uses?

    The lists of what is for development stand in milanx/evaluate/weights/lists.py.
    """
    c.starting(quiet, as_json, f"milanx bench weights {out}")
    from milanx.describing.describer import Describer
    from milanx.evaluate.weights.choose import choose_weights
    from milanx.evaluate.weights.lists import WeightsAsked

    asked = WeightsAsked(tuple(images or ()), out, count=count, units=units, limit=limit)
    found = choose_weights(Describer.load(describer), asked, c.reporter(quiet, as_json))
    if as_json:
        c.print_json(found)
        return
    from milanx.report.weights import print_weights

    print_weights(found)
