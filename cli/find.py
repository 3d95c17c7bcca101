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
        str, typer.Option("--in", help="candidates: all texts of a unit; or description alone.")
    ] = "candidates",
    threshold: Annotated[
        float, typer.Option(help="Likeness of meanings, as the page tells it.")
    ] = 0.45,
    sort: c.Sort = "sure",
    as_json: c.Json = False,
    debug: c.Debug = False,
) -> None:
    """Find the units whose texts say words, or are near to them: milanx find water."""
    c.hush()
    from milanx.act.search import search
    from milanx.report.found import print_found
    from milanx.report.sure import check_sort
    from milanx.runs import newest_run, open_run

    opened = newest_run() if run is None else open_run(run)
    check_sort(sort, opened.rows)
    found = search(opened, words, within=within, meaning=meaning, threshold=threshold)
    if as_json:
        made = [(place, 1.0, "says it") for place in found.said]
        made += [(place, value, "by meaning") for place, value in found.like.items()]
        made += [(place, 0.0, f"candidate {text!r}") for place, text in found.beside.items()]
        c.print_json([{**opened.rows[p], "strength": s, "why": why} for p, s, why in made])
    else:
        print_found(opened, found.words, found.said, found.like, found.beside, sort)
