"""Text detectors planted in a real model: are they found by words, and does pruning them help?"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from milanx.act.data import EvalSet, model_classes
from milanx.bench.planted.detectors import (
    Planted,
    learn,
    logits,
    parts,
    put,
    see_lettering,
    weigh,
)
from milanx.bench.planted.found import LETTERED, PHOTOS, Finder
from milanx.bench.planted.photos import (
    Photos,
    hexadecimal,
    read_photos,
    without_class,
    write_photos,
)
from milanx.bench.planted.settings import TextPlanting
from milanx.errors import InputError
from milanx.files import write_json
from milanx.pipeline import describe
from milanx.progress import Reporter, Silent
from milanx.targets.zoo import Target, load_target

if TYPE_CHECKING:
    from milanx.describing.describer import Describer
    from milanx.runs import Run

FORMAT, VERSION = "milanx-planted-text", 1


def plant_text(
    images: str | Path,
    asked: TextPlanting | None = None,
    *,
    out: Path | None = None,
    describer: str | Path | Describer = "builtin",
    progress: Reporter | None = None,
) -> dict[str, Any]:
    """Plant text detectors in a model, describe them among others, find and prune them by words.

    Args:
        images: labelled photos.
        asked: what is planted.
        out: where the model, the photos, the runs and the report are written; a temporary folder
            when None.
        describer: what describes.
        progress: told about the stages.

    Returns:
        The report: what was planted, accuracies, a row for each way to look for the detectors, and
        what each detector was called.

    Raises:
        InputError: photos, a model or a folder that cannot be used.
    """
    asked, progress = asked or TextPlanting(), progress or Silent()
    if out is not None and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} is not overwritten", "something is there", "choose another --out")
    with tempfile.TemporaryDirectory() as folder:
        place = out or Path(folder) / "planted"
        place.mkdir(parents=True, exist_ok=True)
        report = _Work(asked, place, describer, progress).all(images)
        write_json(place / "planted.json", FORMAT, VERSION, report)
    return report


@dataclass(frozen=True)
class _Work:
    """One proof, from the photos to the report."""

    asked: TextPlanting
    out: Path
    describer: str | Path | Describer
    progress: Reporter

    def all(self, source: str | Path) -> dict[str, Any]:
        """Do all of it."""
        asked = self.asked
        target = load_target(asked.model, weights=Path(asked.weights) if asked.weights else None)
        classes = model_classes(parts(target, asked)[2].out_features)
        photos = read_photos(source, target, classes, asked)
        rng = np.random.default_rng([asked.seed, 0])
        wrong = int(rng.integers(classes.count))
        users = without_class(photos.users, wrong)
        choosing, test = users.split(seed=asked.seed)
        with self.progress.stage("the model as it was", None):
            before = _accuracies(target, test)
        planted, others = self._plant(target, photos, wrong, rng)
        self._write_model(target)
        runs = self._describe(choosing, [*planted.units, *others])
        finder = Finder(target, self._weights, asked, planted.units, users, self.progress)
        return {
            "asked": asdict(asked), "planted": asdict(planted), "others": len(others),
            "votes_for": photos.names[wrong], "before_planting": before,
            "photos": {"learned": len(photos.learned), "development": len(photos.development),
                       "choosing": len(choosing), "reported": len(test)},
            **finder.report(runs, wrong),
        }  # fmt: skip

    def _plant(
        self, target: Target, photos: Photos, wrong: int, rng: np.random.Generator
    ) -> tuple[Planted, list[int]]:
        """Learn detectors and put them in; returns them and the other units to describe."""
        asked, modules = self.asked, parts(target, self.asked)
        drawn = rng.permutation(modules[0].out_channels).tolist()
        units = drawn[: asked.detectors]
        with self.progress.stage("look at lettering", None):
            views = [photos.learned.read(i) for i in range(len(photos.learned))]
            names = [hexadecimal(group) for group in photos.learned.groups]
            seen = see_lettering(target, modules[0], views, names, asked.seed)
        detectors = []
        with self.progress.stage("learn detectors", len(units)) as bar:
            for number, unit in enumerate(units):
                own = np.random.default_rng([asked.seed, 2, number])
                weights, bias, detector = learn(seen, unit, own)
                put(modules, unit, weights, bias)
                detectors.append(detector)
                bar.advance()
        with self.progress.stage("weigh votes", None):
            few = without_class(photos.development, wrong)
            assert few.clean is not None and few.labels is not None
            clean, lettered = (_views(side) for side in (few.clean, few))
            strength, told = weigh(target, modules[2], units, wrong, (clean, lettered, few.labels))
        planted = Planted(tuple(detectors), wrong, strength, told)
        return planted, drawn[asked.detectors :][: asked.others]

    @property
    def _weights(self) -> Path:
        return self.out / "model.safetensors"

    def _write_model(self, target: Target) -> None:
        from safetensors.torch import save_file

        state = target.model.state_dict()
        save_file({k: v.detach().cpu().contiguous() for k, v in state.items()}, self._weights)

    def _describe(self, choosing: EvalSet, units: Sequence[int]) -> dict[str, Run]:
        """Describe units on the built-in images and the user's photos, as they are and lettered."""
        assert choosing.clean is not None
        layer = f"{self.asked.norm}:{','.join(map(str, sorted(units)))}"
        runs = {}
        probes = {PHOTOS: choosing.clean} | ({LETTERED: choosing} if self.asked.lettered else {})
        for kind, images in probes.items():
            file = self.out / f"{kind}.parquet"
            write_photos(file, images)
            runs[kind] = describe(
                self.asked.model, layers=[layer], images=[self.asked.probe, str(file)],
                weights=self._weights, out=self.out / f"run-{kind}", describer=self.describer,
                progress=self.progress,
            )  # fmt: skip
        return runs


def _views(photos: EvalSet) -> list[np.ndarray]:
    return [photos.read(i) for i in range(len(photos))]


def _accuracies(target: Target, lying: EvalSet) -> dict[str, float]:
    """Return a model's accuracy on photos as they are and lettered."""
    assert lying.clean is not None and lying.labels is not None
    return {name: float((logits(target, _views(side)).argmax(1) == lying.labels).mean())
            for name, side in (("clean", lying.clean), ("lying", lying))}  # fmt: skip
