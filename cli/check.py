"""`milanx check`: is a folder what was written?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from milanx.cli import common as c


@c.explained
def check(
    folder: Annotated[
        Path, typer.Argument(help="A run, a describer, a simulator, an edit, or builtin.")
    ],
    seal: Annotated[
        bool,
        typer.Option(
            "--seal", help="Tell a describer's or simulator's files as they lie there now."
        ),
    ] = False,
    as_json: c.Json = False,
    quiet: c.Quiet = False,
    debug: c.Debug = False,
) -> None:
    """Read every file of a folder and compare it with the sha256 digest that its index tells.

    Folders of an earlier milanx have no digests: that is said. A file that is damaged is named.
    """
    c.hush()
    from milanx.report.check import check as run_check
    from milanx.report.check import seal as run_seal

    if seal:
        c.say(f"sealed {run_seal(folder)}")
    found = run_check(folder, c.reporter(quiet, as_json))
    if as_json:
        damaged = [{"what": fault.what, "why": fault.why} for fault in found.faults]
        c.print_json({"folder": str(found.root), "kind": found.kind, "files": found.files,
                      "untold": found.untold, "damaged": damaged})  # fmt: skip
    found.require()
    if not as_json:
        c.say(f"{found.root} is {found.kind}; its {found.files} files are what was written")
        if found.untold:
            c.say(f"an earlier milanx wrote {', '.join(found.untold)}, without digests: nothing "
                  "tells whether they are what was written")  # fmt: skip
