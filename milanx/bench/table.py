"""The table of families as Markdown, by itself or within a page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from milanx.bench.models import LISTS
from milanx.errors import InputError
from milanx.files import atomic_path

# Between these lines of a page stands what is written anew.
BEGINS, ENDS = "<!-- families: milanx bench models --into -->", "<!-- end of families -->"
STABILITY = ("<!-- tables: milanx bench stability --into -->", "<!-- end of tables -->")
HEAD = ("| model | picture | described | maps | wrong | untold | left out |",
        "|---|---:|---:|---:|---:|---:|---:|")  # fmt: skip


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """Return a table for each library of `bench_models`' rows, with its counts and its time.

    Below each stand what is wrong, and why layers are left out.
    """
    libraries: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        libraries.setdefault(row["library"], []).append(row)
    return "\n\n".join(_section(name, own) for name, own in libraries.items())


def _section(library: str, rows: Sequence[dict[str, Any]]) -> str:
    lines = [f"### {library}", "", *_summary(rows), "", *HEAD]
    reasons: Counter[str] = Counter()
    for row in rows:
        lines.append(_line(row))
        reasons.update(row.get("reasons", {}))
    wrong = [f"- `{row['model']}`: {kind}: {', '.join(row[kind])}" for row in rows
             for kind in LISTS[:-1] if row.get(kind)]  # fmt: skip
    if wrong:
        lines += ["", "Wrong:", "", *wrong]
    if reasons:
        lines += ["", "Why layers are left out, and how many:", ""]
        lines += [f"- {count}: {why}" for why, count in reasons.most_common()]
    return "\n".join(lines)


def _summary(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return how many models and layers are read, and how long it took."""
    takes, read = [r for r in rows if r["image"]], [r for r in rows if "error" not in r]
    sums = {key: sum(r[key] for r in read)
            for key in ("described", "maps", "wrong", "refused")}  # fmt: skip
    untold = sum(len(r["untold"]) for r in read)
    seconds = sum(r["seconds"] for r in rows)
    spent = f"{seconds / 60:.0f} minutes" if seconds > 600 else f"{seconds:.0f} seconds"
    share = f" ({len(read) / len(takes):.0%})" if takes else ""
    others = len(rows) - len(takes)
    besides = f"; {others} more take no image alone" if others else ""
    return [
        f"{len(read)} of {len(takes)} models that take an image are read{share}{besides}.",
        f"{sums['described']} layers are described, {sums['maps']} of them maps: {sums['wrong']} "
        f"wrong, {untold} untold; {sums['refused']} are left out.",
        f"{spent} of one processor's time.",
    ]


def _line(row: dict[str, Any]) -> str:
    options = ", ".join(f"{k}={v}" for k, v in row["options"].items())
    kind = f" {row['class']}" if ":" in row["model"] and "class" in row else ""
    name = f"`{row['model']}`{kind}" + (f" ({options})" if options else "")
    if "error" in row:
        return f"| {name} | - | - | - | - | - | {row['error']} |"
    cells = (row["side"], row["described"], row["maps"], row["wrong"], len(row["untold"]),
             row["refused"])  # fmt: skip
    return f"| {name} | " + " | ".join(str(c) for c in cells) + " |"


def write_into(page: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Put the tables of some rows between the marks of a page; see `write_between`."""
    write_between(page, (BEGINS, ENDS), markdown(rows))


def write_between(page: Path, marks: tuple[str, str], tables: str) -> None:
    """Put tables between two marks of a page, in place of what stands there.

    Raises:
        InputError: there is no such page, or it has not both marks once.
    """
    try:
        text = page.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{page} cannot be read", str(error), "name a page of Markdown") from error
    first, last = marks
    before, begins, rest = text.partition(first)
    _, ends, after = rest.partition(last)
    if not begins or not ends or first in rest or last in after:
        raise InputError(f"{page} is left as it is", f"it has not both {first} and {last} once",
                         "put them where the tables belong")  # fmt: skip
    with atomic_path(page) as path:
        path.write_text(f"{before}{first}\n{tables}\n{last}{after}", encoding="utf-8")
