"""Calibrate a describer's confidence, and report how far it holds, each on its own side.

Right is what P1 and P2 count: a logit's text names its class first; a planted unit's has an
attribute F1 of two thirds or more. A set of photos at random means nothing, and no text is right.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from milanx.describing.confidence import INPUTS, Calibration
from milanx.errors import InputError
from milanx.evaluate.confidence.controls import EMPTY, Controlled, make_controls
from milanx.evaluate.confidence.fit import calibrate, inputs_of, with_threshold
from milanx.evaluate.confidence.lists import CALIBRATION, DIVIDED, REPORT, SAMPLE, Side
from milanx.evaluate.confidence.named import PHOTOS, Shown, named_units, write_photos
from milanx.evaluate.confidence.planted import Plot, planted_units
from milanx.evaluate.confidence.units import RANDOM, Judged
from milanx.files import write_json
from milanx.measures.calibration import figures, reliability
from milanx.measures.crossing import Crossing
from milanx.measures.intervals import wilson
from milanx.progress import Reporter, Silent

if TYPE_CHECKING:
    from milanx.describing.describer import Describer

FORMAT, VERSION = "milanx confidence report", 1


@dataclass(frozen=True)
class Asked:
    """On how much confidence is calibrated, or reported; on what, `lists` says.

    Attributes:
        images: files of the side.
        out: new folder for runs and the report.
        count: planted units of each seed.
        per_class: photos of a class that a target's logits are shown.
        classes: whose logits are described, at most.
        controls: units of each control; 0 makes none.
        limit: images that the target of controls is shown.
        weights: a checkpoint of the side's target, where none is installed.
        seed: of folds and draws.

    Raises:
        InputError: no images, or nothing to plant.
    """

    images: tuple[Path, ...]
    out: Path
    count: int = 60
    per_class: int = 12
    classes: int = 60
    controls: int = 60
    limit: int = 600
    weights: Path | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.images:
            raise InputError("no photos", "none were given", "--images FILE.parquet, repeatable")
        if self.count < 1 or min(self.per_class, self.classes) < 1 or self.controls < 0:
            raise InputError("nothing to describe", "numbers of units are 1 or more")


def fit_confidence(
    describer: Describer, asked: Asked, progress: Reporter | None = None
) -> Calibration:
    """Calibrate a describer's confidence and choose its threshold, where no report looks.

    ``confidence.json`` is written into ``out``; `milanx.describing.folder.keep_calibration` puts it
    into the describer's folder.

    Raises:
        InputError: files of the other side, too few units, or a describer that does not tell its
            training.
    """
    started, progress = time.monotonic(), progress or Silent()
    judged = _judged_units(describer, CALIBRATION, asked, progress)
    found = calibrate(judged, describer.fingerprint, asked.seed)
    controls = [unit for unit in judged if unit.kind == RANDOM]
    if asked.controls:
        made = make_controls(describer, _controlled(CALIBRATION, asked), progress)
        controls += [unit for name in EMPTY for unit in made[name]]
    found = with_threshold(found, controls)
    facts = {**found.facts, "kinds": _kinds(judged), "controls": len(controls),
             "calibrated on": _used(CALIBRATION),
             "seconds": round(time.monotonic() - started, 1)}  # fmt: skip
    found = replace(found, facts=facts)
    found.write(asked.out)
    return found


def report_confidence(
    describer: Describer, asked: Asked, progress: Reporter | None = None
) -> dict[str, Any]:
    """Measure a describer's confidence on targets, meanings and photos that did not calibrate it.

    Returns:
        ``confidence-report.json``: figures with intervals of all units and of each kind, the bins
        of a reliability diagram, and how many of each control are unclear.

    Raises:
        InputError: the describer says no confidence, or files of the other side.
    """
    started, progress = time.monotonic(), progress or Silent()
    calibration = _calibration(describer)
    judged = _judged_units(describer, REPORT, asked, progress)
    controls = {}
    if asked.controls:
        controls = make_controls(describer, _controlled(REPORT, asked), progress)
    report = {**measured(calibration, judged, controls, asked.seed),
              "describer": describer.name, "fingerprint": describer.fingerprint,
              "reported on": _used(REPORT),
              "seconds": round(time.monotonic() - started, 1)}  # fmt: skip
    write_json(asked.out / "confidence-report.json", FORMAT, VERSION, report)
    return report


def measured(
    calibration: Calibration,
    judged: list[Judged],
    controls: dict[str, list[Judged]],
    seed: int = 0,
) -> dict[str, Any]:
    """Measure a calibration on units, and say how many of the controls are unclear."""
    meant = [unit for unit in judged if unit.kind != RANDOM]
    sets = {"all": meant} | {k: [u for u in meant if u.kind == k] for k in _kinds(meant)}
    blank = {name: units for name, units in controls.items() if units}
    if len(meant) < len(judged):
        blank[RANDOM] = [unit for unit in judged if unit.kind == RANDOM]
    rows: dict[str, Any] = {}
    for name, units in sets.items():
        sure, right = calibration(inputs_of(units)), np.array([u.right for u in units])
        draws = Crossing([unit.shown for unit in units], seed)
        clear = sure >= calibration.threshold
        rows[name] = {"n": len(units), "right": draws.interval(right),
                      "confidence": float(sure.mean()), **figures(sure, right, draws),
                      "described": draws.interval(clear.astype(float)),
                      "right where described": draws.interval(right, clear)}  # fmt: skip
    sure, right = calibration(inputs_of(meant)), np.array([u.right for u in meant])
    return {
        "protocol": "confidence",
        "rows": rows,
        "controls": {name: unclear(calibration, units) for name, units in blank.items()},
        "threshold": calibration.threshold,
        "bins": reliability(sure, right).tolist(),
        "weights": dict(zip(INPUTS, calibration.weights, strict=True)),
    }


def unclear(calibration: Calibration, units: list[Judged]) -> dict[str, Any]:
    """Say how many units are unclear: n, share, 95 % interval, mean confidence."""
    sure = calibration(inputs_of(units))
    count = int((sure < calibration.threshold).sum())
    return {"n": len(sure), "unclear": count / len(sure), "confidence": float(sure.mean()),
            "interval": list(wilson(count, len(sure)))}  # fmt: skip


def _calibration(describer: Describer) -> Calibration:
    """Return a describer's calibration.

    Raises:
        InputError: it has none that fits.
    """
    judge = describer.judge()
    if judge.calibration is None:
        raise InputError(f"{describer.name} says no confidence", judge.reason,
                         "milanx bench confidence fit ... --keep")  # fmt: skip
    return judge.calibration


def _judged_units(
    describer: Describer, side: Side, asked: Asked, progress: Reporter
) -> list[Judged]:
    """Plant units and describe logits of a side's meanings."""
    mixed, classes = side.sort(asked.images)
    found: list[Judged] = []
    if mixed:
        for seed in side.used.seeds:
            plot = Plot(asked.count, max(1, asked.count // 4), seed)
            found += planted_units(describer, (side, mixed), plot,
                                   asked.out / f"planted-{seed}", progress)  # fmt: skip
    if classes:
        shown = Shown(classes, asked.per_class, asked.classes, asked.weights)
        found += named_units(describer, side, shown, asked.out / "named", progress)
    return found


def _controlled(side: Side, asked: Asked) -> Controlled:
    """Return which layer of the side's target controls are made of, and on which photos."""
    (target, (_, layer)), *_ = side.used.layers.items()
    files = tuple(p for p in asked.images if p.stem == SAMPLE)
    if not files:
        raise InputError(f"no photos for the controls of {target}",
                         f"they are shown those of {SAMPLE}",
                         "give these too, or --controls 0")  # fmt: skip
    out = asked.out / "controls"
    out.mkdir(parents=True, exist_ok=True)
    write_photos(Shown(files, asked.limit, asked.limit), side, out / PHOTOS)
    return Controlled(target, layer, (str(out / PHOTOS),), out, asked.controls, asked.limit,
                      asked.weights, asked.seed)  # fmt: skip


def _used(side: Side) -> dict[str, Any]:
    """Return what a side uses, and the files of which the other side reads the other part."""
    return {**asdict(side.used), "photos divided with the other side": DIVIDED}


def _kinds(judged: list[Judged]) -> dict[str, int]:
    kinds = dict.fromkeys(unit.kind for unit in judged)
    return {kind: sum(unit.kind == kind for unit in judged) for kind in kinds}


def control(
    describer: Describer, asked: Controlled, progress: Reporter | None = None
) -> dict[str, dict[str, Any]]:
    """Say how many of a layer's units, and of each control of it, are unclear.

    Raises:
        InputError: the describer says no confidence, or what is asked for cannot be used.
    """
    calibration = _calibration(describer)
    made = make_controls(describer, asked, progress)
    return {name: unclear(calibration, units) for name, units in made.items() if units}
