"""A target with the layers that a pruning edits: benches, tails and logits of any images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from milanx.act.curve import Bench, Editor, right_classes
from milanx.act.data import EvalSet, usual_step
from milanx.act.pruned import PruneSettings
from milanx.act.tail import Tail
from milanx.progress import Reporter
from milanx.targets.units import LayerInfo, first_tensor
from milanx.targets.zoo import Target


@dataclass(frozen=True)
class Rig:
    """What the measurements of one pruning share.

    Attributes:
        target: the model.
        infos: the layers whose units are edited, by name.
        settings: of the pruning.
        progress: told about passes over images.
    """

    target: Target
    infos: Mapping[str, LayerInfo]
    settings: PruneSettings
    progress: Reporter

    @property
    def step(self) -> int:
        """How many images a step has."""
        return self.settings.batch_size or usual_step(self.target)

    def tail(self, images: EvalSet) -> Tail:
        """Return the tail of the model behind the first of the layers; the caller enters it."""
        return Tail(self.target, list(self.infos.values()), images,
                    batch_size=self.step, progress=self.progress)  # fmt: skip

    def bench(self, tail: Tail, editor: Editor, clean: torch.Tensor | None = None) -> Bench:
        """Return a bench of the images of a tail; ``clean`` are the logits of their clean ones."""

        def unedited(images: EvalSet) -> torch.Tensor:
            return self.logits(images) if clean is None else clean

        return Bench(tail, right_classes(tail.images, tail.before, unedited), editor, self.progress)

    @torch.inference_mode()
    def logits(self, images: EvalSet) -> torch.Tensor:
        """Return the whole model's logits of some images, float32 [n, classes]."""
        made = []
        with self.progress.stage("clean images", len(images)) as bar:
            for views in images.batches(self.step):
                output = first_tensor(self.target.model(self.target.inputs(views)))
                assert output is not None
                made.append(output.float().cpu())
                bar.advance(len(views))
        return torch.cat(made)
