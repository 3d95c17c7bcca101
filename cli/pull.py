"""`milanx pull`: fetch a describer, a run or a table from the Hugging Face Hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from milanx.cli import common as c


@c.explained
def pull(
    repo: Annotated[str, typer.Argument(help="OWNER/NAME or OWNER/NAME@REVISION.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="A folder for a copy [the cache alone].")
    ] = None,
    revision: Annotated[str | None, typer.Option(help="A branch, a tag or a commit.")] = None,
    force: Annotated[
        bool, typer.Option("--force-download", help="Fetch what is in the cache again.")
    ] = False,
    overwrite: c.Overwrite = False,
    as_json: c.Json = False,
    quiet: c.Quiet = False,
    debug: c.Debug = False,
) -> None:
    """Fetch what milanx push sent, compare it with its digests, and say where it lies.

    From then on OWNER/NAME stands for it without a network too, wherever a describer or a run is
    named.
    """
    c.starting(quiet, as_json, f"milanx pull {repo}")
    from milanx.share.pull import pull as run_pull

    found = run_pull(repo, out, revision=revision, force_download=force, overwrite=overwrite,
                     progress=c.reporter(quiet, as_json))  # fmt: skip
    if as_json:
        c.print_json(found.to_dict())
    else:
        c.say(f"{found.repo_id} is {found.kind}, at the commit {found.commit[:7]}", err=True)
        c.say(str(found.root))
