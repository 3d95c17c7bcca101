"""The tables of robustness that a pruning may be asked for, of the model and its edit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from milanx.act.corruptions import CORRUPTIONS
from milanx.act.data import EvalSet, model_classes
from milanx.act.pruned import PruneSettings
from milanx.act.robustness.cues import category_reading, open_cues
from milanx.act.robustness.evaluate import evaluate_robustness
from milanx.act.robustness.released import as_it_is, find_folders, open_released
from milanx.act.robustness.results import Robustness
from milanx.act.robustness.subjects import Subject
from milanx.act.sets import IMAGENET_C, outputs
from milanx.progress import Reporter
from milanx.targets.zoo import Target

CUES = "cue-conflict"
TABLES = (IMAGENET_C, CUES)


@dataclass(frozen=True)
class Table:
    """Which table.

    Attributes:
        kind: ``imagenet-c`` or ``cue-conflict``.
        images: the released ImageNet-C, or the images of cues in conflict; None for photos that
            are corrupted here.
        classes: names or WordNet ids of the model's classes, or a file of them.
    """

    kind: str
    images: Path | str | None
    classes: Sequence[str] | Path | None

    def check(self, target: Target, severities: Sequence[int]) -> None:
        """Refuse, before the work, images and classes that the table cannot be made of.

        Args:
            target: the unedited model.
            severities: that are asked for.

        Raises:
            InputError: images that are not there, or do not fit the model's classes.
        """
        if self.images is None:
            return
        classes = model_classes(outputs(target), self.classes, target.classes)
        if self.kind == CUES:
            category_reading(classes)
            open_cues(self.images, as_it_is(target.preprocess)[0])
            return
        (name, severity), *_ = find_folders(Path(self.images), tuple(CORRUPTIONS), severities)
        open_released(Path(self.images), (name,), (severity,)).labels(classes)

    def measure(
        self,
        models: Mapping[str, Subject],
        photos: EvalSet,
        settings: PruneSettings,
        progress: Reporter,
    ) -> Robustness:
        """Make the table.

        Args:
            models: the unedited one, and the edited one where there is an edit.
            photos: clean ones that took no part in the choice.
            settings: sample, severities, batch size and seed.
            progress: told about the pictures.

        Raises:
            InputError: images that cannot be used.
        """
        made_here = self.kind == IMAGENET_C and self.images is None
        # The photos are not those that the released pictures were made of.
        clean = photos if made_here else None
        return evaluate_robustness(
            models,
            self.images if self.kind == CUES else clean,
            kind=self.kind,
            released=self.images if self.kind == IMAGENET_C else None,
            severities=settings.severities,
            sample=settings.sample if made_here else None,
            seed=settings.seed,
            classes=self.classes,
            batch_size=settings.batch_size,
            progress=progress,
        )
