"""Units of known meaning, described and audited: what the shipped rules find, miss and mistake."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from milanx.act.audit.match import Matcher, recall_and_precision
from milanx.act.audit.rules import load_rules
from milanx.bench.planted.annotated import UnitsAsked, read_annotated
from milanx.bench.planted.meanings import ABSENT, CONCERNS
from milanx.environment import pick_device
from milanx.errors import InputError
from milanx.evaluate.p2.atoms import TEXT
from milanx.evaluate.p2.photos import PlantedPhoto
from milanx.evaluate.p2.planted import (
    BACKGROUND,
    MIN_IMAGES,
    K,
    PlantedUnit,
    SourcePool,
    build,
)
from milanx.evaluate.p2.protocol import plant_units
from milanx.exemplars.planted import Meaning
from milanx.files import write_json
from milanx.measures.intervals import wilson
from milanx.progress import Reporter, Silent

if TYPE_CHECKING:
    from milanx.describing.describer import Describer

FORMAT, VERSION = "milanx-planted-audit", 1
SHOWN = 0.5  # of a cell that a thing covers in a photo that shows it
Labels = list[tuple[set[str], set[str]]]  # of each unit the rules that must and that may find it


def audit_planted(
    asked: UnitsAsked,
    *,
    out: Path | None = None,
    describer: str | Path | Describer = "builtin",
    progress: Reporter | None = None,
) -> dict[str, Any]:
    """Plant units of known meaning, describe and audit them, and count what each rule finds.

    Args:
        asked: which units, on which photos.
        out: where the report is written, with the units' exemplars beside it; a temporary folder
            when None.
        describer: what describes.
        progress: told about the stages.

    Returns:
        The report: a row a rule with recall and precision, by descriptions and by true texts, and
        what each unit means and was called.

    Raises:
        InputError: photos or a folder that cannot be used, or too few photos for any unit.
    """
    from milanx.describing.describer import Describer

    progress = progress or Silent()
    if out is not None and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} is not overwritten", "something is there", "choose another --out")
    if not isinstance(describer, Describer):
        describer = Describer.load(describer, pick_device("auto"))
    with progress.stage("read photos", None):
        photos = read_annotated(asked)
        units = draw_units(photos, asked)
    with tempfile.TemporaryDirectory() as folder:
        place = (out or Path(folder)) / "run"
        store = plant_units(place, units, photos, asked.seed)
        found = describer.describe(store, progress=progress)
        report = {
            "asked": asdict(asked), "describer": describer.name, "photos": len(photos),
            **score([u.meaning.phrase for u in units], [d.text for d in found]),
        }  # fmt: skip
        write_json(place.parent / "planted.json", FORMAT, VERSION, _plain(report))
    return report


def _plain(report: dict[str, Any]) -> dict[str, Any]:
    asked = {k: [str(p) for p in v] if isinstance(v, tuple) else v
             for k, v in report["asked"].items()}  # fmt: skip
    return {**report, "asked": asked}


def draw_units(photos: Sequence[PlantedPhoto], asked: UnitsAsked) -> list[PlantedUnit]:
    """Draw units of every thing that enough photos of a source show.

    A thing that several sources show is drawn from them by turns.

    Raises:
        InputError: too few photos for any.
    """
    rng = np.random.default_rng([asked.seed, 1])
    pools = [SourcePool(photos, s, asked.seed) for s in sorted({p.source for p in photos})]
    able: dict[str, list[SourcePool]] = {}
    for pool in pools:
        for name in pool.names:
            usable = [p for p in pool.photos if name == TEXT or p.text is None]
            showing = sum(name in p.atoms and p.atoms[name].max() >= SHOWN for p in usable)
            if showing >= MIN_IMAGES:
                able.setdefault(name, []).append(pool)
    wanted = []
    for name, has in sorted(able.items()):
        count = asked.meant if CONCERNS[name].must else asked.other
        if name == TEXT:
            count = max(count, len(has))  # on every source's photos once
        wanted += [(turn, name, has[turn % len(has)]) for turn in range(count)]
    if not wanted:
        raise InputError("too few photos to plant units",
                         f"nothing is shown by {MIN_IMAGES} of {len(photos)} photos",
                         "give more photos")  # fmt: skip
    if asked.limit is not None:
        wanted = [wanted[i] for i in sorted(rng.permutation(len(wanted))[: asked.limit].tolist())]
    make = build if asked.impure else extracted
    return [make(pool, Meaning((name,)), len(photos), rng) for _, name, pool in wanted]


def extracted(
    pool: SourcePool, meaning: Meaning, photos: int, rng: np.random.Generator
) -> PlantedUnit:
    """Build a unit with the exemplars that extraction would find for it, and its own maps.

    Its map is how much of each cell the meaning covers. Half of the photos that show it are its
    probe images, so that units of one meaning differ; the k with the highest maximum are its
    exemplars, of equal ones those with the higher mean.
    """
    activation = pool.activation(meaning)
    peak, mean = activation.max((1, 2)), activation.mean((1, 2))
    usable = (peak >= SHOWN) & (pool.plain | (TEXT in meaning.atoms))
    showing = rng.permutation(np.flatnonzero(usable))
    probed = showing[: max(len(showing) // 2, MIN_IMAGES)]
    best = probed[np.lexsort((probed, -mean[probed], -peak[probed]))][:K]
    images = np.full(K, -1, np.int64)
    images[: len(best)] = pool.places[best]
    maps = np.zeros((K, *activation.shape[1:]), np.float32)
    maps[: len(best)] = activation[best]
    everywhere = rng.uniform(0, BACKGROUND, photos).astype(np.float32)
    everywhere[pool.places] += peak * (1 - BACKGROUND)
    return PlantedUnit(meaning, (), images, maps, pool.group(meaning), "", everywhere)


def score(meanings: Sequence[str], texts: Sequence[str]) -> dict[str, Any]:
    """Count what each rule finds among descriptions, and among the units' own meanings.

    Args:
        meanings: what units mean, of `CONCERNS`.
        texts: their descriptions.
    """
    rules = load_rules()
    hits = Matcher(rules)(list(texts))
    true = Matcher(rules)(list(meanings))
    concerns = [CONCERNS[m] for m in meanings]
    labels: Labels = [(set(c.must), set(c.may)) for c in concerns]
    rows = []
    for rule in rules:
        must = sum(rule.id in c.must for c in concerns)
        row: dict[str, Any] = {"rule": rule.id, "must": must,
                               "things": sorted({m for m, c in zip(meanings, concerns, strict=True)
                                                 if rule.id in c.must}),
                               "must_not": sum(rule.id not in c.must | c.may for c in concerns),
                               "absent": ABSENT.get(rule.id, "") if not must else ""}  # fmt: skip
        for name, found in (("described", hits), ("true", true)):
            right, missed, wrong = recall_and_precision(found, labels, rule.id)
            row[name] = {"right": right, "missed": missed, "wrong": wrong,
                         "recall": _share(right, right + missed),
                         "precision": _share(right, right + wrong)}  # fmt: skip
        rows.append(row)
    units = [{"meaning": m, "description": t, "rules": sorted(h)}
             for m, t, h in zip(meanings, texts, hits, strict=True)]  # fmt: skip
    return {"n": len(meanings), "rows": rows, "units": units}


def _share(successes: int, n: int) -> dict[str, Any]:
    return {"share": successes / n if n else None, "interval": list(wilson(successes, n))}
