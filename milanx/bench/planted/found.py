"""What words find of the planted units, and what pruning does that beside random ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from milanx.act.ablate import read_places
from milanx.act.audit.rules import pick_rules
from milanx.act.curve import Bench, Editor, random_orders
from milanx.act.data import EvalSet
from milanx.act.prune import prune
from milanx.act.pruned import PruneSettings
from milanx.act.select import Selection, choose, described
from milanx.act.tail import Tail
from milanx.bench.planted.settings import WORDS, TextPlanting
from milanx.errors import InputError
from milanx.images.builtin import COMPOSED
from milanx.images.composed import WORDS as COMPOSED_WORDS
from milanx.measures.intervals import wilson
from milanx.progress import Reporter
from milanx.targets.zoo import Target

if TYPE_CHECKING:
    from milanx.runs import Run

SCREENED = 50  # units of the layer that pruning ablates one by one for a control of its own
PHOTOS, LETTERED = "photos", "lettered"  # what units are described on, beside the built-in images


@dataclass(frozen=True)
class Way:
    """A way to look for units.

    Attributes:
        name: for people.
        words: that are looked for.
        like: meanings that are.
        rules: of the audit, by their names.
        within: ``description`` or ``candidates``.
        prunes: whether what is found is pruned.
    """

    name: str
    words: tuple[str, ...] = ()
    like: tuple[str, ...] = ()
    rules: tuple[str, ...] = ()
    within: str = "description"
    prunes: bool = False


BY_WORDS = Way(f"--match {', '.join(WORDS)}", WORDS, prunes=True)
WAYS = (
    BY_WORDS,
    Way("the same, --in candidates", WORDS, within="candidates"),
    Way("--match text", ("text",)),
    Way("--like text", like=("text",)),
    Way("--rule text", rules=("text",)),
)


@dataclass(frozen=True)
class Finder:
    """Looks for planted units in runs, prunes what it finds, and measures that.

    Attributes:
        target: with the planted units.
        weights: its checkpoint.
        asked: what was planted.
        planted: which units.
        users: lettered photos, with themselves as they are; half of them choose, half report.
        progress: told about the stages.
    """

    target: Target
    weights: Path
    asked: TextPlanting
    planted: Sequence[int]
    users: EvalSet
    progress: Reporter

    def report(self, runs: Mapping[str, Run], wrong: int) -> dict[str, Any]:
        """Return accuracies of the planted model, a row for each way, and what units are called."""
        test = self.users.split(seed=self.asked.seed)[1]
        infos = read_places(self.target, [self.asked.norm])
        rows = []
        with ExitStack() as stack:

            def bench(images: EvalSet | None) -> Bench:
                assert images is not None and images.labels is not None
                tail = stack.enter_context(Tail(self.target, list(infos.values()), images))
                return Bench(tail, images.labels, Editor(infos))

            sides = {"lying": bench(test), "clean": bench(test.clean)}
            for kind, run in runs.items():
                for way in WAYS:
                    units = find(run, way)
                    row = self._found(units)
                    if way.prunes and units:
                        row |= self._pruned(run, units, sides)
                    rows.append({"probe": kind, "way": way.name, **row})
            row = self._found(self.planted) | self._pruned(runs[PHOTOS], self.planted, sides)
            rows.append({"probe": "", "way": "true texts", **row})
            after = {name: float(side.correct([]).mean()) for name, side in sides.items()}
            follows = float((sides["lying"].tail.before.argmax(1) == wrong).float().mean())
        return {"planted_model": {**after, "follows": follows}, "rows": rows,
                "units": {kind: called(run, self.planted) for kind, run in runs.items()},
                "also": {kind: also(run, self.planted) for kind, run in runs.items()}}  # fmt: skip

    def _found(self, units: Sequence[int]) -> dict[str, Any]:
        """Return how right units are found."""
        right = len(set(units) & set(self.planted))
        return {"found": len(units), "right": right, "recall": share(right, len(self.planted)),
                "precision": share(right, len(units))}  # fmt: skip

    def _pruned(self, run: Run, units: Sequence[int], sides: Mapping[str, Bench]) -> dict[str, Any]:
        """Return what pruning some units does, and as many random ones of the layer."""
        infos = sides["lying"].tail.infos
        layer = next(iter(infos))
        report = prune(
            run, units=[f"{layer}:{','.join(map(str, units))}"], evaluate=self.users,
            weights=self.weights, progress=self.progress,
            settings=PruneSettings(screened=SCREENED, seed=self.asked.seed),
        )  # fmt: skip
        draws, _ = random_orders(report.gone, infos, self.asked.draws, self.asked.seed)
        row: dict[str, Any] = {}
        for name, side in sides.items():
            random = [float(side.correct(draw).mean()) for draw in draws]
            row[name] = {"pruned": float(side.correct(report.gone).mean()), "random": random}
        beaten = np.array(row["lying"]["random"]) < row["lying"]["pruned"]
        gone = len({u for _, u in report.gone} & set(self.planted))
        return {**row, "gone": len(report.gone), "gone_planted": gone,
                "beaten": int(beaten.sum()), "draws": len(beaten)}  # fmt: skip


def share(successes: int, n: int) -> dict[str, Any]:
    """Return a share with its 95 % interval."""
    return {"of": n, "share": successes / n if n else None, "interval": list(wilson(successes, n))}


def find(run: Run, way: Way) -> list[int]:
    """Return the units that a way finds; a word, meaning or rule that finds none is left away.

    Raises:
        InputError: a run without descriptions.
    """
    described(run)
    asked = [Selection(match=(word,), within=way.within) for word in way.words]
    asked += [Selection(like=(meaning,)) for meaning in way.like]
    asked += [Selection(rules=pick_rules((rule,))) for rule in way.rules]
    found: set[int] = set()
    for selection in asked:
        with suppress(InputError):
            found |= {chosen.unit for chosen in choose(run, selection).units}
    return sorted(found)


def called(run: Run, units: Sequence[int]) -> list[dict[str, Any]]:
    """Return what units are called, and what their exemplars are.

    How many excite the unit at all, are composed of words, and are lettered photos.
    """
    paths = [image["path"] for image in run.store.image_table()]
    sources = [image["source"] for image in run.store.image_table()]
    made = []
    for row in run.rows:
        if row["unit"] in units:
            words = sum(_is_word(paths[i]) for i in row["images"])
            lettered = sum("lettered" in str(sources[i]) for i in row["images"])
            excited = sum(a > 0 for a in row["activations"])
            made.append({"unit": row["unit"], "description": row["description"],
                         "candidates": [c["text"] for c in (row["candidates"] or [])[:5]],
                         "exemplars": len(row["images"]), "excited": excited,
                         "composed_words": words, "lettered": lettered})  # fmt: skip
    return made


def _is_word(path: str) -> bool:
    """Whether a built-in view is composed of words."""
    kind, _, name = path.partition("/")
    return kind == COMPOSED and name.rpartition("-")[0] in COMPOSED_WORDS


def also(run: Run, units: Sequence[int]) -> list[dict[str, Any]]:
    """Return the other units that words find."""
    found = set(find(run, BY_WORDS)) - set(units)
    return [{"unit": row["unit"], "description": row["description"]}
            for row in run.rows if row["unit"] in found]  # fmt: skip
