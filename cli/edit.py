"""`milanx edit`: look at an edit, and take it back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from milanx.cli import common as c

app = typer.Typer(help="Look at an edit, and take it back.", no_args_is_help=True)
Edit = Annotated[Path, typer.Argument(help="edit.json, or its folder.")]


@app.command()
@c.explained
def show(path: Edit, as_json: c.Json = False, debug: c.Debug = False) -> None:
    """Show what an edit does to which units, and why."""
    from milanx.act.export import read_edit

    stored = read_edit(path)
    if as_json:
        c.print_json(stored.content)
        return
    from milanx.report.edits import print_edit

    print_edit(stored)


@app.command()
@c.explained
def undo(
    path: Edit,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="File of the weights.")] = None,
    debug: c.Debug = False,
) -> None:
    """Write the original weights anew from the edited ones."""
    from milanx.act.export import undo as run_undo

    c.say(str(run_undo(path, out)))
