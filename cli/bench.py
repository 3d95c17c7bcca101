"""`milanx bench`: how fast it is on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from milanx.cli import common as c
from milanx.cli import planted

app = typer.Typer(help="Measure speed on this machine.", no_args_is_help=True)

app.add_typer(planted.app, name="planted")


@app.callback()
def main() -> None:
    """Measure speed on this machine."""


@app.command("corrupt")
@c.explained
def corrupt(
    images: Annotated[
        str, typer.Option(help="Folder, .parquet file or builtin:probe.")
    ] = "builtin:probe",
    count: Annotated[int, typer.Option(help="Images.", min=1)] = 16,
    workers: c.Workers = 2,
    as_json: c.Json = False,
    quiet: c.Quiet = False,
    debug: c.Debug = False,
) -> None:
    """The corruptions of ImageNet-C by type, by one thread and by several."""
    c.starting(quiet, as_json, f"milanx bench corrupt --images {images}")
    from milanx.bench.corrupt import bench_corrupt

    progress = c.reporter(quiet, as_json)
    found = bench_corrupt(images, count=count, workers=workers, progress=progress)
    if as_json:
        c.print_json(found)
        return
    for name, row in found.pop("types").items():
        typer.echo(f"{name:18s} {row['seconds']:8.2f} s  {row['share']:6.1%}")
    for name, value in found.items():
        typer.echo(f"{name:18s} {value:.4g}" if isinstance(value, float) else f"{name:18s} {value}")


@app.command("describe")
@c.explained
def describe(
    run: Annotated[Path, typer.Argument(help="A run folder with exemplars.")],
    units: Annotated[int, typer.Option(help="Units of its first layer.", min=1)] = 192,
    as_json: c.Json = False,
    quiet: c.Quiet = False,
    debug: c.Debug = False,
) -> None:
    """Describing over the arithmetic of its matrix products at this machine's rate."""
    c.starting(quiet, as_json, f"milanx bench describe {run}")
    from milanx.bench.describe import bench_describe

    found = bench_describe(run, units=units, progress=c.reporter(quiet, as_json))
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

    print_bench(rows)


@app.command("models")
@c.explained
def models(
    model: Annotated[
        list[str] | None, typer.Argument(help="Targets [a small one of each family].")
    ] = None,
    as_json: c.Json = False,
    quiet: c.Quiet = False,
    debug: c.Debug = False,
) -> None:
    """What of timm's families can be described, each layer checked against plain hooks.

    Units, the order of the images, places and nonlinearity; random weights, nothing is loaded.
    The table is Markdown, as in docs/models.md.
    """
    c.starting(quiet, as_json, "milanx bench models")
    from milanx.bench.models import bench_models, markdown

    rows = bench_models(model or None, progress=c.reporter(quiet, as_json))
    if as_json:
        c.print_json(rows)
        return
    typer.echo(markdown(rows))
