"""`milanx export`: a run as what another tool reads."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from milanx.cli import common as c

KNOWN = "milan, maia, fiftyone, semanticlens (folders); csv, jsonl, clip-dissect (files)."


@c.explained
def export(
    run: Annotated[str, typer.Argument(help="Run folder, or OWNER/NAME.")],
    to: Annotated[str, typer.Argument(metavar="FORMAT", help=KNOWN)],
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder or file.")],
    describer: Annotated[
        str, typer.Option(help="Whose encoder makes SemanticLens' concept database.")
    ] = "builtin",
    overwrite: c.Overwrite = False,
    as_json: c.Json = False,
    quiet: c.Quiet = False,
    debug: c.Debug = False,
) -> None:
    """Write a run in the format of another tool, and say what that cannot hold."""
    c.starting(quiet, as_json, f"milanx export {run} {to}")
    from milanx.share.exchange.export import export_run

    done = export_run(run, to, out, describer=describer, overwrite=overwrite,
                      progress=c.reporter(quiet, as_json))  # fmt: skip
    if as_json:
        c.print_json(done.to_dict())
        return
    for note in () if quiet else done.notes:
        c.say(f"left out: {note}", err=True)
    c.say(f"{done.units} units, {done.bytes:,} bytes", err=True)
    c.say(str(done.root))
