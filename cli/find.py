"""`milanx find`: units of a run by words and by meaning."""

from __future__ import annotations

from typing import Annotated

import typer
from milanx.cli import common as c


@c.explained
def find(
    words: Annotated[str, typer.Argument(help="A word, a phrase, a meaning: water.")],
    run: c.AnyRun = None,
    meaning: Annotated[
        bool, typer.Option("--meaning/--words", help="By meaning too, or by the words alone.")
    ] = True,
    within: Annotated[
        str, typer.Option("--in", help="description, or candidates: all texts of a unit.")
    ] = "description",
    threshold: Annotated[float, typer.Option(help="Likeness of meanings, a cosine.")] = 0.5,
    sort: c.Sort = "sure",
    as_json: c.Json = False,
    debug: c.Debug = False,
) -> None:
    """Find the units whose texts hold words, or are like them: milanx find water."""
    c.hush()
    from milanx.act.find import search
    from milanx.report.found import print_found
    from milanx.report.sure import check_sort
    from milanx.runs import newest_run, open_run

    opened = newest_run() if run is None else open_run(run)
    check_sort(sort, opened.rows)
    hits = search(opened, words, within=within, meaning=meaning, threshold=threshold)
    if as_json:
        rows = [{**opened.rows[place], "strength": hits[place][0], "why": hits[place][1]}
                for place in sorted(hits, key=lambda place: (-hits[place][0], place))]  # fmt: skip
        c.print_json(rows)
    else:
        print_found(opened, hits, sort)
