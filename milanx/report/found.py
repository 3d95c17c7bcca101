"""Units that were found, in the terminal."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from rich.table import Table

from milanx.report.cells import TEXT, address, headline, layers, numbered, sure_cell
from milanx.report.cells import units as number_of
from milanx.report.screen import Screen, styled
from milanx.report.sure import calibrated, ordered, sureness
from milanx.rows import UNCLEAR

if TYPE_CHECKING:
    from milanx.runs import Run


def print_found(
    run: Run, words: str, said: Sequence[int], like: Mapping[int, float], beside: Mapping[int, str],
    sort: str,
) -> None:  # fmt: skip
    """Print the units that were found, those of one text in one line.

    Args:
        run: that they are of.
        words: that were looked for.
        said: places in the run's table of those that say them.
        like: place -> likeness of others; the likest first.
        beside: place -> the candidate of others that says them.
        sort: of texts that are found equally well.
    """
    console = Screen()
    wide = console.width
    sure = sureness(run.rows)
    rank = {place: i for i, place in enumerate(ordered(run.rows, sort, sure))}
    count = len(said) + len(like) + len(beside)
    console.print(f"{headline(run)}: {count} of {len(run)} units")

    def first(places: Sequence[int]) -> int:
        return min(rank[place] for place in places)

    def text(place: int) -> str:
        return str(run.rows[place]["description"])

    if said:
        head = f"{number_of(len(said))} {'says' if len(said) == 1 else 'say'} {words}"
        console.print(styled(head, "bold"))
        groups = _grouped(said, text, first)
        console.print(_table(run, [(name, "", own) for name, own in groups], sure, rank, wide))
    if like:
        head = f"{number_of(len(like))} nearest by meaning"
        console.print(styled(head if said else f"no unit says {words}; {head}:", "bold"))
        groups = _grouped(list(like), text, lambda own: (-round(like[own[0]], 2), first(own)))
        made = [(name, f"{like[own[0]]:.2f}", own) for name, own in groups]
        console.print(_table(run, made, sure, rank, wide, "likeness"))
    if beside:
        head = f"{number_of(len(beside))} with another candidate that says {words}"
        console.print(styled(head, "bold"))
        groups = _grouped(list(beside), lambda place: beside[place], first)
        console.print(_table(run, [(name, "", own) for name, own in groups], None, rank, wide))


def _grouped(
    places: Sequence[int], text: Callable[[int], str], key: Callable[[list[int]], object]
) -> list[tuple[str, list[int]]]:
    """Bring units of one text together."""
    groups: dict[str, list[int]] = {}
    for place in places:
        groups.setdefault(text(place), []).append(place)
    return sorted(groups.items(), key=lambda group: key(group[1]))  # type: ignore[arg-type,return-value]


def _table(
    run: Run,
    groups: Sequence[tuple[str, str, list[int]]],
    sure: Sequence[float | None] | None,
    rank: Mapping[int, int],
    width: int,
    figure: str = "",
) -> Table:
    """Make a table of texts, a figure of each, and its units, the surest first, whole addresses.

    Args:
        run: that the units are of.
        groups: text, its figure, and the places of its units.
        sure: of each row; None where the texts are not the units' descriptions.
        rank: of each row.
        width: of the terminal, in columns.
        figure: what the texts' figures are; none are shown when empty.
    """
    told, alone = calibrated(run.rows), len(layers(run)) == 1
    name = numbered if alone else address
    lines = [(text, value, sorted(places, key=rank.__getitem__)) for text, value, places in groups]
    named = [[name(run.rows[place]) for place in own] for _, _, own in lines]
    widest = max(len(unit) for units in named for unit in units) + 1  # and a comma
    table = Table()
    table.add_column("text", ratio=1)
    if figure:
        table.add_column(figure, justify="right", no_wrap=True)
    table.add_column("units", overflow="fold", ratio=1, min_width=min(widest, width - TEXT))
    if sure is not None:
        table.add_column("confidence" if told else "surer than", justify="right", no_wrap=True)
    for (text, value, own), units in zip(lines, named, strict=True):
        status = [run.rows[place]["status"] for place in own]
        guesses = f", {status.count(UNCLEAR)} unclear" if sure and UNCLEAR in status else ""
        many = f"{len(units)} units{guesses}: " if len(units) > 1 else ""
        table.add_row(text, *([value] if figure else []), many + ", ".join(units),
                      *([sure_cell(sure[own[0]], told, status[0])] if sure is not None else []),
                      style="dim" if sure and set(status) == {UNCLEAR} else None)  # fmt: skip
    return table
