"""Which images a number is chosen on, and which it is reported on: never the same photograph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from milanx.act.data import MIN_SIDE, Classes, EvalSet, image_set, match_labels, model_classes
from milanx.act.robustness.made import mixed
from milanx.errors import InputError
from milanx.images.sources import BUILTIN
from milanx.targets.units import first_tensor
from milanx.targets.zoo import Target

if TYPE_CHECKING:
    from milanx.runs import Run

IMAGENET_C = "imagenet-c"
Given = EvalSet | str | Path | Sequence[str | Path]


@dataclass(frozen=True)
class Sets:
    """The images of one pruning.

    Attributes:
        validation: the number of units is chosen on them.
        test: it is reported on them.
        clean: clean images that it is reported on besides; None where the test's are clean.
        notes: what a reader should know.
    """

    validation: EvalSet
    test: EvalSet
    clean: EvalSet | None
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Asked:
    """What a user names.

    Attributes:
        images: clean ones; the run's own when empty.
        adversarial: to choose on; none when empty.
        evaluate: what the edit is for; the clean ones when empty, ``imagenet-c`` these with one
            corruption each.
        classes: names or WordNet ids of the model's classes, or a file of them.
        limit: at most this many images of those that are opened here.
    """

    images: Given = ()
    adversarial: Given = ()
    evaluate: Given = ()
    classes: Sequence[str] | Path | None = None
    limit: int | None = None


def make_sets(asked: Asked, run: Run, target: Target, seed: int) -> Sets:
    """Open what a user names and split it by photograph.

    Raises:
        InputError: images that cannot be opened, labels that fit no class, or too few images.
    """
    classes = model_classes(outputs(target), asked.classes, target.classes)
    own = asked.evaluate.clean if isinstance(asked.evaluate, EvalSet) else None
    corrupts = asked.evaluate == IMAGENET_C
    given = [asked.images or own or run_images(run), asked.adversarial,
             () if corrupts else asked.evaluate]  # fmt: skip
    (clean, adversarial, evaluate), notes = _open(given, target, classes, asked.limit)
    assert clean is not None
    if corrupts:
        evaluate = mixed(clean, seed)
    whole = evaluate if evaluate is not None else clean
    if adversarial is None:
        validation, test = whole.split(seed=seed)
    else:
        validation, test = adversarial, whole
    other = None
    if evaluate is not None:
        other = clean if test.clean is None else test.clean
    kept, removed = _apart(test, validation)
    if removed:
        notes.append(f"{removed} images of {test.name} show photographs that were chosen on; "
                     "they are left out of the report")  # fmt: skip
    if len(kept) < MIN_SIDE:
        raise InputError(f"{test.name} has too few images to report on",
                         f"{len(kept)} show other photographs than those chosen on")  # fmt: skip
    if other is not None:
        other, _ = _apart(kept.clean or other, validation)
    if kept.labels is None:
        notes.append("no labels: the figure is the agreement with the unedited model on the clean "
                     "image, not accuracy")  # fmt: skip
        if evaluate is None and adversarial is None:
            notes.append("the images are clean and have no labels: the unedited model agrees with "
                         "itself on all, so that no edit can help")  # fmt: skip
    return Sets(validation, kept, other if other is None or len(other) else None, tuple(notes))


def outputs(target: Target) -> int:
    """Return how many logits a target has.

    Raises:
        InputError: its output is no row of logits an image.
    """
    views = torch.zeros(1, 3, *target.preprocess.size, dtype=torch.uint8)
    with torch.inference_mode():
        found = first_tensor(target.model(target.inputs(views)))
    if found is None or found.ndim != 2 or found.shape[1] < 2:
        shape = "nothing" if found is None else str(tuple(found.shape))
        raise InputError(f"{target.name} does not classify", f"it gives {shape} for an image",
                         "choose a model with a classifier: accuracy needs classes")  # fmt: skip
    return int(found.shape[1])


def run_images(run: Run) -> list[str]:
    """Return where the images of a run lie, as `milanx describe` was told."""
    return [s.get("path") or (BUILTIN if s.get("kind") == "builtin" else s["name"])
            for s in run.sources]  # fmt: skip


def _open(
    given: Sequence[Given], target: Target, classes: Classes, limit: int | None
) -> tuple[list[EvalSet | None], list[str]]:
    """Open several sets together, so that a photograph in two of them has one group.

    Returns:
        The sets, and what must be known of the images that were opened.
    """
    from milanx.images.probe import open_images

    specs = [_specs(g) for g in given]
    opened = open_images([s for some in specs for s in some], limit=limit) if any(specs) else None
    made: list[EvalSet | None] = []
    at = 0
    for one, some in zip(given, specs, strict=True):
        if isinstance(one, EvalSet):
            made.append(one)
        elif not some or opened is None:
            made.append(None)
        else:
            names = [s.name for s in opened.sources[at : at + len(some)]]
            at += len(some)
            places = [i for i, r in enumerate(opened.records) if r.source in names]
            records = [opened.records[i] for i in places]
            called = "+".join(names)
            part = image_set(opened, target, None, called).subset(places)
            labels = match_labels(records, classes, called)
            made.append(EvalSet(called, part.read, part.groups, labels))
    return made, list(opened.notes) if opened else []


def _specs(given: Given) -> list[str | Path]:
    if isinstance(given, EvalSet):
        return []
    return [given] if isinstance(given, str | Path) else list(given)


def _apart(images: EvalSet, validation: EvalSet) -> tuple[EvalSet, int]:
    """Return the images of photographs that the validation does not show, and how many do."""
    kept = images.without(set(validation.groups))
    return kept, len(images) - len(kept)
