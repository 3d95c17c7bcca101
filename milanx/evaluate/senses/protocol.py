"""How many single meanings are split, and of how many pairs of meanings both senses are found."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from milanx.describing.senses import SenseSettings, propose_senses
from milanx.errors import InputError
from milanx.evaluate.confidence.planted import answering, apart, at_random, meant_atoms
from milanx.evaluate.p2.photos import PlantedPhoto, read_photos
from milanx.evaluate.p2.planted import PlantedUnit
from milanx.evaluate.p2.protocol import plant_units
from milanx.evaluate.p2.texts import Table, committed_phrases, find_atoms, phrase_table
from milanx.evaluate.senses.lists import CHOSEN, REPORTED, Photos
from milanx.evaluate.senses.planted import double_units, single_units
from milanx.exemplars.planted import LAYER
from milanx.features.encoded import encoded_views
from milanx.files import write_json
from milanx.measures.intervals import wilson
from milanx.progress import Reporter, Silent
from milanx.scoring.column import MIN_SOURCE, Opened, Sides
from milanx.scoring.senses import Sense, keep_senses
from milanx.scoring.simulator import BUILTIN, Simulator

if TYPE_CHECKING:
    from milanx.describing.describer import Describer

FORMAT, VERSION = "milanx senses report", 1
SINGLE, DOUBLE, NOTHING = "one meaning", "two distant meanings", "photos at random"
PURE = 0.85  # share of the exemplars that show a meaning, which divides the units of two meanings
BATCH = 32


@dataclass(frozen=True)
class Asked:
    """How many units are planted, and in what.

    Attributes:
        images: files of the side.
        out: new folder for runs and the report.
        count: units of one meaning, and as many of two, of each seed.
        random: sets of photos at random of each seed.
        most: senses that a unit may have.
        per_file: photos that are read of a file.
        chosen: plant on the side on which numbers are chosen, not on that of the report.
        seeds: in place of the side's own.

    Raises:
        InputError: no images, files of the other side, or nothing to plant.
    """

    images: tuple[Path, ...]
    out: Path
    count: int = 100
    random: int = 30
    most: int = 2
    per_file: int = 1000
    chosen: bool = False
    seeds: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not self.images:
            raise InputError("no photos", "none were given", "--images FILE.parquet, repeatable")
        if self.count < 1 or self.random < 0 or self.most < 2:
            raise InputError("nothing to plant", "units are 1 or more, senses 2 or 3")
        self.side.check(self.images)

    @property
    def side(self) -> Photos:
        """On what is planted."""
        return CHOSEN if self.chosen else REPORTED


@dataclass(frozen=True)
class Planted:
    """A planted unit, and what was found of it.

    Attributes:
        kind: `SINGLE`, `DOUBLE` or `NOTHING`.
        unit: what was built.
        shows: which exemplars show which of its atoms, bool [k, atoms].
        proposed: whether its exemplars fall into groups whose texts differ.
        senses: those that were kept; none where it has one.
    """

    kind: str
    unit: PlantedUnit
    shows: np.ndarray
    proposed: bool
    senses: tuple[Sense, ...]

    @property
    def purity(self) -> float:
        """Share of the exemplars that show any of its atoms."""
        return float(self.shows.any(1).mean())

    def both_named(self, table: Table) -> bool:
        """Whether of a unit of two meanings each is named by a sense of its own."""
        named = [set(find_atoms(sense.text, table)) for sense in self.senses]
        first, second = self.unit.meaning.atoms
        return any(first in a and second in b for i, a in enumerate(named)
                   for j, b in enumerate(named) if i != j)  # fmt: skip

    def apart(self) -> float:
        """Share of the exemplars of its senses that show what most of their sense's show."""
        alone = self.shows[self.shows.sum(1) == 1]
        if not len(alone) or not self.senses:
            return float("nan")
        right = total = 0
        for sense in self.senses:
            own = self.shows[list(sense.exemplars)]
            own = own[own.sum(1) == 1]
            right, total = right + int(own.sum(0).max(initial=0)), total + len(own)
        return right / max(1, total)


def evaluate_senses(
    describer: Describer, asked: Asked, progress: Reporter | None = None
) -> dict[str, Any]:
    """Plant units of one meaning, of two and of none, and look for their senses.

    Returns:
        ``senses-report.json``: counts and shares with 95 % Wilson intervals, and all units.

    Raises:
        InputError: photos that cannot be used, or a describer that does not tell its training.
    """
    started, progress, cpu = time.monotonic(), progress or Silent(), time.process_time()
    simulator = Simulator.load(BUILTIN)
    found: list[Planted] = []
    for seed in asked.seeds or asked.side.seeds:
        found += _planted(describer, simulator, asked, seed, progress)
    table = phrase_table({a for p in found for a in p.unit.meaning.atoms}
                         | committed_phrases().keys())  # fmt: skip
    report = {
        "protocol": "senses", "rows": counted(found, table), "describer": describer.name,
        "fingerprint": describer.fingerprint,
        "meanings": asked.side.side.name, "files": [path.stem for path in asked.images],
        "seeds": list(asked.seeds or asked.side.seeds), "most": asked.most,
        "settings": asdict(SenseSettings(asked.most)), "units": [_told(p) for p in found],
        "seconds": round(time.monotonic() - started, 1),
        "cpu seconds": round(time.process_time() - cpu, 1),
    }  # fmt: skip
    write_json(asked.out / "senses-report.json", FORMAT, VERSION, report)
    return report


def counted(found: Sequence[Planted], table: Table) -> dict[str, dict[str, Any]]:
    """Count what was found: rows of n, count, share and its interval."""
    kinds = {kind: [p for p in found if p.kind == kind] for kind in (SINGLE, NOTHING, DOUBLE)}
    double = kinds[DOUBLE]
    sets: dict[str, tuple[list[Planted], Callable[[Planted], bool]]] = {
        f"{SINGLE}: split": (kinds[SINGLE], _several),
        **{
            f"  {name}: split": ([p for p in kinds[SINGLE] if p.unit.kinds == (name,)], _several)
            for name in sorted({k for p in kinds[SINGLE] for k in p.unit.kinds})
        },
        f"{NOTHING}: split": (kinds[NOTHING], _several),
        f"{DOUBLE}: two senses or more": (double, _several),
        f"  purity {PURE} or more": ([p for p in double if p.purity >= PURE], _several),
        f"  purity below {PURE}": ([p for p in double if p.purity < PURE], _several),
        f"{DOUBLE}: each named by a sense": (double, lambda p: p.both_named(table)),
        f"{SINGLE}: proposed": (kinds[SINGLE], lambda p: p.proposed),
        f"{DOUBLE}: proposed": (double, lambda p: p.proposed),
    }
    rows: dict[str, dict[str, Any]] = {}
    for name, (units, holds) in sets.items():
        count = sum(map(holds, units))
        if units:
            rows[name] = {"n": len(units), "count": count, "estimate": count / len(units),
                          "interval": list(wilson(count, len(units)))}  # fmt: skip
    shares = [p.apart() for p in double if p.senses]
    if shares:
        rows[f"{DOUBLE}, where found: exemplars in the right sense"] = {
            "n": len(shares), "estimate": float(np.nanmean(shares))}  # fmt: skip
    return rows


def _several(planted: Planted) -> bool:
    return len(planted.senses) > 1


def _told(planted: Planted) -> dict[str, Any]:
    """Return what the report says of a unit."""
    meaning = planted.unit.meaning.phrase
    return {"kind": planted.kind, "meaning": meaning, "kinds": list(planted.unit.kinds),
            "purity": planted.purity, "proposed": planted.proposed,
            "senses": [asdict(sense) for sense in planted.senses]}  # fmt: skip


def _planted(
    describer: Describer, simulator: Simulator, asked: Asked, seed: int, progress: Reporter
) -> list[Planted]:
    """Plant the units of one seed, and look for their senses."""
    side = asked.side
    photos = [meant_atoms(photo, side.side) for photo in read_photos(
        asked.images, describer.trained, per_file=asked.per_file, reported=not asked.chosen,
        seed=seed)]  # fmt: skip
    searched, aside = _judged(*apart([photo for photo in photos if photo.atoms], seed))
    every, rng = [*searched, *aside], np.random.default_rng(seed)
    single = single_units(searched, asked.count, rng)
    kinds = dict.fromkeys(range(asked.count), SINGLE)
    double = double_units(searched, asked.count, rng)
    kinds |= dict.fromkeys(range(len(kinds), len(kinds) + len(double)), DOUBLE)
    nothing = [at_random(searched, single, rng) for _ in range(asked.random)]
    kinds |= dict.fromkeys(range(len(kinds), len(kinds) + len(nothing)), NOTHING)
    units = [answering(u, searched, aside, rng) for u in (*single, *double, *nothing)]
    store = plant_units(asked.out / f"planted-{seed}", units, every, seed, aside=len(aside))
    with progress.stage("encode", len(store.view_indices())) as bar:
        features = encoded_views(describer.encoder, store, advance=bar.advance)
    how = SenseSettings(asked.most)
    proposed = propose_senses(describer, store, features, how, progress=progress)
    keys = [(unit, sign) for _, unit, sign in proposed]
    found = describer.describe(store, units={LAYER: keys}, features=features, progress=progress)
    texts = {(d.layer, d.unit, d.sign): [c.text for c in d.candidates] for d in found}
    with progress.stage("score", None):
        seen = Opened(Sides.of(store, seed), simulator, _looking(simulator, every), seed)
        kept = keep_senses(proposed, texts, store, seen)
    return [
        Planted(kinds[number], unit, _shows(unit, every), (LAYER, number, "+") in proposed,
                kept.get((LAYER, number, "+"), ()))
        for number, unit in enumerate(units)
    ]  # fmt: skip


def _judged(
    searched: Sequence[PlantedPhoto], aside: Sequence[PlantedPhoto]
) -> tuple[list[PlantedPhoto], list[PlantedPhoto]]:
    """Keep the sources of which enough photos are kept aside: no sense of others could hold."""
    counts = Counter(photo.source for photo in aside)
    found = [[p for p in some if counts[p.source] >= MIN_SOURCE] for some in (searched, aside)]
    return found[0], found[1]


def _looking(simulator: Simulator, photos: Sequence[PlantedPhoto]) -> Any:
    """Return what gives a simulator's features of planted photos, float16 [n, c]."""

    def look(indices: np.ndarray) -> np.ndarray:
        parts = []
        for start in range(0, len(indices), BATCH):
            views = np.stack([photos[i].view for i in indices[start : start + BATCH]])
            pixels = torch.from_numpy(views).permute(0, 3, 1, 2)
            parts.append(simulator.encode(pixels).numpy().astype(np.float16))
        return np.concatenate(parts)

    return look


def _shows(unit: PlantedUnit, photos: Sequence[PlantedPhoto]) -> np.ndarray:
    """Say which of a unit's exemplars show which of its atoms, bool [k, atoms]."""
    maps: list[Mapping[str, np.ndarray]] = [photos[i].atoms for i in unit.images if i >= 0]
    return np.array([[atom in shown and shown[atom].max() >= 0.5 for atom in unit.meaning.atoms]
                     for shown in maps], bool)  # fmt: skip
