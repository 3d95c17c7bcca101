"""The models that are compared: a target, as it is or edited while it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from milanx.act.ablate import ablate
from milanx.act.export import read_edit
from milanx.act.reopen import find_target
from milanx.errors import InputError
from milanx.files import fingerprint
from milanx.targets.units import LayerInfo
from milanx.targets.zoo import Target, load_target


@dataclass(frozen=True)
class Subject:
    """A model as it is measured.

    Attributes:
        target: the model. Several subjects may share one.
        edited: makes a context in which the target is edited, such as ``lambda: ablate(...)``; it
            is entered anew for every batch, and the model is the caller's outside of it.
        edit: stands for the edit in the key under which results are kept; "" for none.
        layers: that the edit changes, and no others; what comes before them is run once for all
            subjects of the target. Empty: not known.
    """

    target: Target
    edited: Callable[[], AbstractContextManager[None]] = nullcontext
    edit: str = ""
    layers: tuple[LayerInfo, ...] = ()

    def __post_init__(self) -> None:
        if (self.edited is not nullcontext) != bool(self.edit):
            raise ValueError("an edit needs a fingerprint, and a fingerprint an edit")

    @property
    def key(self) -> str:
        """What its results are kept under: weights, preprocessing, edit, kind of numbers."""
        like = next((p for p in self.target.model.parameters()), torch.zeros(0))
        return fingerprint(self.target.fingerprint, self.edit, str(like.dtype), like.device.type)

    @torch.no_grad()
    def logits(self, views: torch.Tensor) -> torch.Tensor:
        """Return float32 [b, classes] of ``views`` uint8 [b, 3, H, W], on the CPU."""
        with self.edited():
            return row_of_logits(self.target, self.target.model(self.target.inputs(views)))


def row_of_logits(target: Target, out: object) -> torch.Tensor:
    """Return a target's output as float32 [b, classes], on the CPU.

    Raises:
        InputError: it is no row of logits an image.
    """
    if not isinstance(out, torch.Tensor) or out.ndim != 2:
        raise InputError(
            f"{target.name} is no classifier",
            "its output is not one row of logits an image",
            "give a model with a classification head",
        )
    return out.float().cpu()


Model = str | nn.Module | Target | Subject


def stored_subjects(path: str | Path, device: str = "cpu") -> dict[str, Subject]:
    """Return the model of an ``edit.json`` as it was, by its name, and edited, by the file's path.

    Raises:
        MilanxError: no such edit, or a model that is not the one that was edited.
    """
    stored = read_edit(path)
    known = stored.content["target"]
    target = find_target(known, device=device, what=str(stored.path))
    edit = fingerprint(stored.content["edits"])
    layers = tuple(stored.infos.values())
    edited = Subject(target, lambda: ablate(target, stored.edits, stored.infos), edit, layers)
    return {known["name"]: Subject(target), str(path): edited}


def named_subjects(names: Sequence[str], device: str = "cpu") -> dict[str, Subject]:
    """Load targets by name; an ``edit.json`` brings its model as it was and edited."""
    found: dict[str, Subject] = {}
    for name in names:
        if name.endswith(".json"):
            stored = stored_subjects(name, device)
            found |= {k: s for k, s in stored.items() if k not in found}
        else:
            found.setdefault(name, Subject(load_target(name, device=device)))
    return found


def as_subjects(models: Mapping[str, Model]) -> dict[str, Subject]:
    """Make subjects of models given by name, module or target; the first is the reference.

    Raises:
        InputError: no model, or models that see images differently.
    """
    subjects = {name: _subject(model) for name, model in models.items()}
    if not subjects:
        raise InputError("no model to measure", "none was given", "give at least one")
    first_name, first = next(iter(subjects.items()))
    for name, subject in subjects.items():
        if _geometry(subject.target) != _geometry(first.target):
            raise InputError(
                f"{name} and {first_name} see images differently",
                f"resize, crop and interpolation are {_geometry(subject.target)} and "
                f"{_geometry(first.target)}; each picture is made once for all models",
                "measure them one by one, or give both the same preprocessing",
            )
    return subjects


def _subject(model: Model) -> Subject:
    if isinstance(model, Subject):
        return model
    return Subject(model if isinstance(model, Target) else load_target(model))


def _geometry(target: Target) -> tuple[object, ...]:
    p = target.preprocess
    return p.resize, p.size, p.interpolation


@contextmanager
def evaluating(subjects: Mapping[str, Subject]) -> Iterator[None]:
    """Hold every model in evaluation mode; each module comes back in the mode it was in."""
    modes = {id(m): (m, m.training) for s in subjects.values() for m in s.target.model.modules()}
    try:
        for subject in subjects.values():
            subject.target.model.eval()
        yield
    finally:
        for module, mode in modes.values():
            module.training = mode


def outputs_of(subjects: Mapping[str, Subject], views: torch.Tensor) -> int:
    """Return how many classes the models have.

    Raises:
        InputError: they differ, or one is no classifier.
    """
    counts = {name: subject.logits(views).shape[1] for name, subject in subjects.items()}
    if len(set(counts.values())) > 1:
        raise InputError(
            "the models have different classes",
            ", ".join(f"{name} has {n} outputs" for name, n in counts.items()),
            "compare models of the same classes",
        )
    return next(iter(counts.values()))
