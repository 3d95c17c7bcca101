"""What a pruning found: the units, the curves, the number, and what it changed."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from milanx.act.ablate import KINDS, Edit
from milanx.act.corruptions import check_severities
from milanx.act.curve import ORDERS, SCREENED, Curve, Unit
from milanx.act.figures import Figure, Worst
from milanx.act.robustness.results import Robustness
from milanx.act.select import Choice
from milanx.errors import InputError

FORMAT, VERSION = "milanx-prune", 1
CONTROLS = {
    "all": "all units of the layers, sorted the same way",
    "all_best": "all units sorted the same way, as many as helped most",
    "random": "random units of the same layers",
    "reversed": "the chosen units in reversed order",
}


def default_out(target: str, looked_for: Sequence[str]) -> Path:
    """Return the first free ``milanx-edits/MODEL/NAME[-N]``, named by what was looked for."""
    name = re.sub(r"[^\w.+@-]+", "-", "+".join(looked_for))[:60].strip("-.") or "units"
    folder = Path("milanx-edits") / re.sub(r"[^\w.@-]+", "-", target).strip("-.")
    names = itertools.chain([name], (f"{name}-{n}" for n in itertools.count(2)))
    return next(folder / n for n in names if not (folder / n).exists())


@dataclass(frozen=True)
class PruneSettings:
    """How units are removed and measured.

    Attributes:
        kind: ``zero``, ``mean``, ``resample`` or ``scale``.
        factor: of scale.
        positions: of tokens: ``all``, ``patches`` or ``class``.
        order: in which units go: by ``effect`` on validation data, ``score`` or ``match``.
        draws: random sets.
        screened: units that are ablated one by one for the control of all units, at least; of
            layers that hold more, those that a gradient expects to help most.
        batch_size: images a step; when None, what `usual_step` says.
        sample: photos of the table of corruptions, at most; 75 pictures are made of each.
        severities: of that table.
        seed: of the split, the random sets, resampling and the intervals.
    """

    kind: str = "zero"
    factor: float = 0.0
    positions: str = "all"
    order: str = "effect"
    draws: int = 20
    screened: int = SCREENED
    batch_size: int | None = None
    sample: int = 40
    severities: tuple[int, ...] = (1, 2, 3, 4, 5)
    seed: int = 0

    def __post_init__(self) -> None:
        if self.order not in ORDERS:
            raise InputError(f"no order {self.order!r}", f"there are {', '.join(ORDERS)}")
        if self.kind not in KINDS:
            raise InputError(f"no ablation {self.kind!r}", f"there are {', '.join(KINDS)}")
        if self.kind == "scale" and self.factor == 1:
            raise InputError("scaling by 1 changes nothing", "--factor is 1", "--factor 0.5")
        for what, value in (("draws", self.draws), ("batch_size", self.batch_size),
                            ("screened", self.screened), ("sample", self.sample)):  # fmt: skip
            if value is not None and value < 1:
                raise InputError(f"{what} cannot be {value}", "it is 1 or more")
        check_severities(self.severities)
        Edit("", (0,), "zero" if self.kind in ("mean", "resample") else self.kind, self.positions,
             factor=self.factor)  # fmt: skip

    @property
    def like(self) -> Edit:
        """Return an edit of this kind, of which unit and values are not looked at."""
        values = (0.0,) if self.kind == "mean" else ()
        bank = torch.zeros(2, 1) if self.kind == "resample" else None
        return Edit("", (0,), self.kind, self.positions, values, self.factor, bank, self.seed)


@dataclass(frozen=True)
class PruneReport:
    """What a pruning found.

    Attributes:
        run: the run folder.
        target: its model.
        choice: the units that were found, and why.
        kind: of ablation.
        measure: ``accuracy``, or the agreement that stands for it without labels.
        order: the units in the order in which they go; empty for a dry run.
        count: how many of them go; None for a dry run.
        curves: on the validation images: ``chosen`` and the controls.
        figures: on the test images: ``target_before``, ``target_after``, ``target_change``,
            ``clean_...`` likewise, and ``over_CONTROL``: the gain over each control at the number.
        worst: the worst part of the test; None where no part has enough images or labels.
        images: how many images, by their use.
        notes: what a reader should know.
        edit: ``edit.json``, where one was written.
        weights: how the edit stands as weights, or why it does not.
        seconds: of each stage.
        robustness: of the model and its edit, on test photos, where it was asked for.
    """

    run: Path
    target: str
    choice: Choice
    kind: str
    measure: str = "accuracy"
    order: tuple[Unit, ...] = ()
    count: int | None = None
    curves: Mapping[str, Curve] = field(default_factory=dict)
    figures: Mapping[str, Figure] = field(default_factory=dict)
    worst: Worst | None = None
    images: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    edit: Path | None = None
    weights: tuple[str, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
    robustness: Robustness | None = None

    @property
    def gone(self) -> tuple[Unit, ...]:
        """The units that the edit takes."""
        return self.order[: self.count or 0]

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as json can write it."""
        units = [
            {"layer": c.layer, "unit": c.unit, "text": c.text, "score": c.score, "why": c.why,
             "exemplars": str(c.exemplars)}
            for c in self.choice.units
        ]  # fmt: skip
        curves = {
            name: {"sizes": list(c.sizes), "values": c.values.tolist(),
                   "order": [[list(u) for u in draw] for draw in c.order]}
            for name, c in self.curves.items()
        }  # fmt: skip
        return {
            "run": str(self.run), "target": self.target, "kind": self.kind,
            "measure": self.measure, "count": self.count, "units": units,
            "gone": [list(u) for u in self.gone], "order": [list(u) for u in self.order],
            "figures": {name: asdict(f) for name, f in self.figures.items()},
            "worst": asdict(self.worst) if self.worst else None, "images": dict(self.images),
            "controls": CONTROLS, "curves": curves, "notes": list(self.notes),
            "edit": str(self.edit) if self.edit else None, "weights": list(self.weights),
            "seconds": dict(self.seconds),
            "robustness": self.robustness.to_dict() if self.robustness else None,
        }  # fmt: skip
