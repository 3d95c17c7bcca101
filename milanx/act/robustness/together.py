"""Several models on the same pictures: edits of one model share what comes before them.

What an unedited model computes up to the first layer that its edit changes, the edited one computes
too. It is kept while a batch runs and given to the edited model, whose logits are those of the
whole model, bit by bit; where the first batch says otherwise, the whole model runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as Names

import torch

from milanx.act.calls import Key, cut, replaced
from milanx.act.robustness.subjects import Subject, row_of_logits
from milanx.targets.zoo import Target

TRIAL = 2  # images of the forward passes in which the calls are looked at


class Together:
    """Runs models on batches.

    Args:
        subjects: the models by name.
    """

    def __init__(self, subjects: Mapping[str, Subject]) -> None:
        self.subjects = subjects
        plain = {id(s.target): name for name, s in subjects.items() if not s.edit}
        # Of each edited model, the unedited one that shares its first part.
        self._bases = {name: plain[id(s.target)] for name, s in subjects.items()
                       if s.layers and id(s.target) in plain}  # fmt: skip
        self._first: dict[str, _First] = {}

    @torch.no_grad()
    def logits(self, views: torch.Tensor, names: Names[str]) -> dict[str, torch.Tensor]:
        """Return the logits of some models, float32 [b, classes], of ``views`` [b, 3, H, W]."""
        found: dict[str, torch.Tensor] = {}
        for base in dict.fromkeys(self._bases.values()):
            others = [name for name, of in self._bases.items() if of == base and name in names]
            if base in names and others:
                found |= self._shared(base, others, views)
        alone = {n: s.logits(views) for n, s in self.subjects.items() if n in names - found.keys()}
        return found | alone

    def _shared(
        self, base: str, others: Sequence[str], views: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Run an unedited model, and after its first part those that share it."""
        target = self.subjects[base].target
        inputs = target.inputs(views)
        untried = base not in self._first
        if untried:
            layers = [i for name, of in self._bases.items() if of == base
                      for i in self.subjects[name].layers]  # fmt: skip
            self._first[base] = _First(target, *cut(target.model, layers, inputs[:TRIAL]))
        first = self._first[base]
        found = {base: row_of_logits(target, first.run(inputs))}
        for name in others:
            subject = self.subjects[name]
            try:
                with subject.edited():
                    found[name] = row_of_logits(target, first.again(inputs))
            except Exception:  # whatever a model does with a result that it did not make
                if not untried:
                    raise
            if untried and not torch.equal(found.get(name, views), whole := subject.logits(views)):
                found[name] = whole
                del self._bases[name]
        first.kept.clear()
        return found


class _First:
    """The first part of a model on one batch.

    Args:
        target: the model.
        keys: the calls of its first part.
        needed: those whose results the rest reads.
    """

    def __init__(self, target: Target, keys: list[Key], needed: set[Key]) -> None:
        self.target, self.keys, self.needed = target, keys, needed
        self.kept: dict[Key, torch.Tensor] = {}

    def run(self, inputs: torch.Tensor) -> object:
        """Return the output of the whole model; keep what the first part gives."""

        def keep(key: Key, compute: Callable[[], torch.Tensor]) -> torch.Tensor:
            output = compute()
            # A copy: a later module may work in place.
            empty = output.new_zeros(()).expand(output.shape)
            self.kept[key] = output.clone() if key in self.needed else empty
            return output

        return self._run(inputs, keep)

    def again(self, inputs: torch.Tensor) -> object:
        """Return the output for the same inputs; the first part is given from what is kept."""

        def give(key: Key, compute: Callable[[], torch.Tensor]) -> torch.Tensor:
            value = self.kept[key]
            return value.clone() if key in self.needed else value

        return self._run(inputs, give)

    def _run(
        self, inputs: torch.Tensor, run: Callable[[Key, Callable[[], torch.Tensor]], torch.Tensor]
    ) -> object:
        with replaced(self.target.model, self.keys, run) as begin:
            begin()
            return self.target.model(inputs.clone())
