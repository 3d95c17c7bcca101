"""`milanx bench`: how fast it is on this machine."""

from __future__ import annotations

from typing import Annotated

import typer
from milanx.cli import common as c

app = typer.Typer(help="Measure speed on this machine.", no_args_is_help=True)


@app.callback()
def main() -> None:
    """Measure speed on this machine."""


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
    from milanx.bench import bench_extract

    rows = bench_extract(model or None, images=images, progress=c.reporter(quiet, as_json))
    if as_json:
        c.print_json(rows)
        return
    from milanx.report.terminal import print_bench

    print_bench(rows)
