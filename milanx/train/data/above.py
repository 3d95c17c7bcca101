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

FEWEST, MOST = 2, 420  # classes of a kind: animals are 401, and what has more is "artifact"


def classes_below(kinds: Sequence[Kind]) -> dict[str, list[int]]:
    """Return the numbers of the classes below each kind, which `milanx.describing.classes` reads.

    A dictionary may mean another thing by a class's name; a kind is left out where it may do so of
    half of its classes.

    Args:
        kinds: of all classes, in their order.
    """
    found: dict[str, list[int]] = {}
    for number, kind in enumerate(kinds):
        for name in dict.fromkeys(kind.hypernyms):
            found.setdefault(name, []).append(number)
    sure = {name: sum(kinds[n].sure for n in numbers) for name, numbers in found.items()}
    return {name: numbers for name, numbers in sorted(found.items())
            if FEWEST <= len(numbers) <= MOST and sure[name] > len(numbers) / 2}  # fmt: skip


if __name__ == "__main__":
    import milanx.assets

    folder = Path(milanx.assets.__path__[0]) / "words"
    made = classes_below(read_kinds(Path(sys.argv[1])))
    content = {name: " ".join(map(str, numbers)) for name, numbers in made.items()}
    write_json(folder / "kinds.json", "milanx kinds", 1, {"kinds": content})
