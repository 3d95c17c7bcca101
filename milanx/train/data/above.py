"""Kinds above ImageNet's classes, as the package brings them: kind -> the numbers of its classes.

    python -m milanx.train.data.above KINDS.csv.gz

writes ``assets/words/kinds.json`` anew, of a table as `milanx.train.data.kinds.read_kinds` reads.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from milanx.files import write_json
from milanx.train.data.kinds import Kind, read_kinds

FEWEST, MOST = 2, 420  # classes of a kind: animals are 401; "artifact", with more, says little
# By these words people mean something else than the dictionary's kind of the same name:
# breastplates are plates there, sandbars bars, partridges game, manhole covers tops.
OTHERWISE = frozenset({
    "abstraction", "agent", "bar", "course", "dish", "game", "gear", "matter", "part", "piece",
    "plate", "racer", "relation", "ridge", "sheet", "shield", "solid", "support", "system", "tank",
    "top",
})  # fmt: skip


def classes_below(kinds: Sequence[Kind]) -> dict[str, list[int]]:
    """Return the numbers of the classes below each kind, which `milanx.describing.classes` reads.

    A dictionary may mean another thing by a class's name; a kind is left out where it may do so of
    half of its classes, and where it is none that people call so (`OTHERWISE`).

    Args:
        kinds: of all classes, in their order.
    """
    found: dict[str, list[int]] = {}
    for number, kind in enumerate(kinds):
        for name in dict.fromkeys(kind.hypernyms):
            found.setdefault(name, []).append(number)
    sure = {name: sum(kinds[n].sure for n in numbers) for name, numbers in found.items()}
    return {name: numbers for name, numbers in sorted(found.items())
            if FEWEST <= len(numbers) <= MOST and sure[name] > len(numbers) / 2
            and name not in OTHERWISE}  # fmt: skip


if __name__ == "__main__":
    import milanx.assets

    folder = Path(milanx.assets.__path__[0]) / "words"
    made = classes_below(read_kinds(Path(sys.argv[1])))
    content = {name: " ".join(map(str, numbers)) for name, numbers in made.items()}
    write_json(folder / "kinds.json", "milanx kinds", 1, {"kinds": content})
