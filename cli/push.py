"""`milanx push`: send a describer, a run or a table to the Hugging Face Hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from milanx.cli import common as c


@c.explained
def push(
    path: Annotated[str, typer.Argument(help="A describer, builtin, a run, or a units.parquet.")],
    repo: Annotated[str, typer.Argument(help="OWNER/NAME on the Hugging Face Hub.")],
    public: Annotated[bool, typer.Option("--public", help="Everybody may see it.")] = False,
    revision: Annotated[
        str | None, typer.Option(help="A branch, made where it is not there, or refs/pr/N.")
    ] = None,
    create_pr: Annotated[bool, typer.Option("--create-pr", help="Open a pull request.")] = False,
    message: Annotated[str | None, typer.Option(help="Of the commit, one line.")] = None,
    licence: Annotated[str | None, typer.Option("--license", help="Of the card.")] = None,
    examples: Annotated[
        Path | None, typer.Option(help="A run of this describer: ten of its units in the card.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List files and bytes; nothing is sent.")
    ] = False,
    as_json: c.Json = False,
    quiet: c.Quiet = False,
    debug: c.Debug = False,
) -> None:
    """Send a describer, a run or a table to the Hugging Face Hub: private unless --public.

    One commit holds all of it. An upload that was interrupted goes on where it stopped when the
    same command is run again. The token is that of `hf auth login`, or HF_TOKEN.
    """
    c.starting(quiet, as_json, f"milanx push {path} {repo}")
    from milanx.hub.address import read_address
    from milanx.hub.send import Destination, send
    from milanx.report.sharing import print_parcel, print_sent
    from milanx.share.push import Push, packed

    to = Destination(read_address(repo).at(revision), not public, create_pr, message=message)
    progress = c.reporter(quiet, as_json)
    with packed(Push(path, to, licence, examples), progress) as parcel:
        if dry_run:
            if as_json:
                c.print_json(parcel.to_dict())
            else:
                print_parcel(parcel, to)
            return
        for line in () if to.private else parcel.notes:
            progress.say(f"{to.address} will be public: {line}")
        sent = send(parcel, to, progress)
    if as_json:
        c.print_json(sent.to_dict())
    else:
        print_sent(sent)
