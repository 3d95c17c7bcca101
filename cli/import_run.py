"""`milanx import`: a run made of what another tool wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from milanx.cli import common as c
from milanx.cli.export import KNOWN


@c.explained
def import_run(
    of: Annotated[str, typer.Argument(metavar="FORMAT", help=KNOWN)],
    place: Annotated[Path, typer.Argument(help="The folder or file.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The run folder.")],
    target: Annotated[str | None, typer.Option(help="The model's name, if it is known.")] = None,
    overwrite: c.Overwrite = False,
    as_json: c.Json = False,
    quiet: c.Quiet = False,
    debug: c.Debug = False,
) -> None:
    """Make a run of what another tool wrote, and say what a run does not take over."""
    c.starting(quiet, as_json, f"milanx import {of} {place}")
    from milanx.share.exchange.taking import import_run as run_import

    run = run_import(of, place, out, target=target, overwrite=overwrite,
                     progress=c.reporter(quiet, as_json))  # fmt: skip
    left_out = run.settings["imported"]["left_out"]
    if as_json:
        c.print_json({"root": str(run.root), "units": len(run), "notes": left_out})
        return
    for note in () if quiet else left_out:
        c.say(f"left out: {note}", err=True)
    c.say(f"{len(run)} units", err=True)
    c.say(str(run.root))
