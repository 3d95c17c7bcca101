"""`milanx show`: one unit in the terminal."""

from __future__ import annotations

from typing import Annotated

import typer
from milanx.cli import common as c


@c.explained
def show(
    run: c.RunFolder,
    unit: Annotated[str | None, typer.Option(help="Address: blocks.6:17, blocks.6:-17.")] = None,
    as_json: c.Json = False,
    debug: c.Debug = False,
) -> None:
    """Show a run's table, or one unit's candidates and scores."""
    from milanx.errors import InputError
    from milanx.report.terminal import print_run, print_unit
    from milanx.runs import open_run
    from milanx.targets.units import parse_address

    opened = open_run(run)
    if unit is None:
        if as_json:
            c.print_json(opened.rows)
        else:
            print_run(opened, None)
        return
    address = parse_address(unit)
    if not address.units or len(address.units) != 1:
        raise InputError(f"cannot show {unit!r}", "it names no single unit", "--unit LAYER:17")
    view = opened[address.layer, address.units[0], address.sign]
    if as_json:
        c.print_json(view.row)
    else:
        print_unit(opened, view)
