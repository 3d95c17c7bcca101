"""`milanx show`: a run's surest units, or one unit, in the terminal."""

from __future__ import annotations

import re
from typing import Annotated

import typer
from milanx.cli import common as c


@c.explained
def show(
    run: c.AnyRun = None,
    unit: Annotated[
        str | None, typer.Option(help="Address: blocks.6:17, blocks.6:-17; 17 of a lone layer.")
    ] = None,
    sort: c.Sort = "sure",
    top: Annotated[int, typer.Option("--top", "-n", min=1, help="At most so many units.")] = 20,
    as_json: c.Json = False,
    debug: c.Debug = False,
) -> None:
    """Show a run's table, or one unit's candidates, scores, and why its text won."""
    from milanx.errors import InputError
    from milanx.report.sure import check_sort
    from milanx.report.terminal import print_run
    from milanx.report.unit import print_unit
    from milanx.runs import newest_run, open_run
    from milanx.targets.units import parse_address

    opened = newest_run() if run is None else open_run(run)
    check_sort(sort, opened.rows)
    if unit is None:
        if as_json:
            c.print_json(opened.rows)
        else:
            print_run(opened, None, sort, top)
        return
    layers = list(dict.fromkeys(row["layer"] for row in opened.rows))
    if len(layers) == 1 and re.fullmatch(r"-?\d+", unit):  # as a table of one layer tells it
        unit = f"{layers[0]}:{unit}"
    address = parse_address(unit, layers)
    if not address.units or len(address.units) != 1:
        raise InputError(f"cannot show {unit!r}", "it names no single unit", "--unit LAYER:17")
    view = opened[address.layer, address.units[0], address.sign]
    if as_json:
        c.print_json(view.row)
    else:
        print_unit(opened, view)
