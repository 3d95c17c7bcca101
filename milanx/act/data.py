"""Images that edits are measured on: views, labels as the model numbers them, groups, tags.

An `EvalSet` is handed to everything that measures; whoever makes images of another kind, such as
corrupted ones, hands in a function that makes the view of image i.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from milanx.errors import InputError, did_you_mean
from milanx.images.splits import held_out
from milanx.language.words import normalise_text

if TYPE_CHECKING:
    from milanx.images.probe import ImageRecord, ProbeImages
    from milanx.targets.zoo import Target

WNID = re.compile(r"n\d{8}")
SHOWN = 4  # labels of either side that an error shows
# Images of a step through a whole network: on a CPU the maps of more leave its caches, and each
# takes up to half as long again.
CPU_STEP, OTHER_STEP = 16, 64
SAME_CLASSES = 0.5  # share of a model's names from which its classes are ImageNet's
MIN_SIDE = 10  # images that either side of the split into validation and test needs


@dataclasses.dataclass(frozen=True)
class EvalSet:
    """Images to measure on, in a fixed order.

    Attributes:
        name: what people call it.
        read: gives the view of image i, uint8 [H, W, 3], the same at every call.
        groups: one an image; images of one group are one photograph: they stay on one side of a
            split and are drawn together in an interval.
        labels: int64 [n], the model's class of each image; None where there are none.
        tags: one an image, such as ``fog 3``; empty where there are none.
        parts: one an image: among these the worst group is looked for; empty: by label.
        clean: the same images, in the same order, before anything was done to them; None where
            these are.
    """

    name: str
    read: Callable[[int], np.ndarray]
    groups: tuple[str, ...]
    labels: np.ndarray | None = None
    tags: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()
    clean: EvalSet | None = None

    def __post_init__(self) -> None:
        for what, column in (("labels", self.labels), ("tags", self.tags), ("parts", self.parts)):
            if column is not None and len(column) not in (0, len(self.groups)):
                raise ValueError(f"{len(column)} {what} for {len(self.groups)} images")
        if self.clean is not None and len(self.clean) != len(self):
            raise ValueError(f"{len(self.clean)} clean images for {len(self)}")

    def __len__(self) -> int:
        return len(self.groups)

    def batches(self, size: int, workers: int = 2) -> Iterator[torch.Tensor]:
        """Yield views uint8 [b, 3, H, W] in order; two batches are made ahead."""
        starts = list(range(0, len(self), size))
        with ThreadPoolExecutor(max(1, workers)) as pool:
            ahead = []
            for start in [*starts, -1, -1]:
                if start >= 0:
                    here = range(start, min(start + size, len(self)))
                    ahead.append([pool.submit(self.read, i) for i in here])
                if ahead and (start < 0 or len(ahead) > 2):
                    views = np.stack([f.result() for f in ahead.pop(0)])
                    yield torch.from_numpy(views).permute(0, 3, 1, 2)

    def subset(self, indices: Sequence[int]) -> EvalSet:
        """Return some of its images, in the order of ``indices``."""
        chosen = [int(i) for i in indices]

        def pick(column: tuple[str, ...]) -> tuple[str, ...]:
            return tuple(column[i] for i in chosen) if column else ()

        return dataclasses.replace(
            self,
            read=lambda i: self.read(chosen[i]),
            groups=pick(self.groups),
            labels=None if self.labels is None else self.labels[chosen],
            tags=pick(self.tags),
            parts=pick(self.parts),
            clean=None if self.clean is None else self.clean.subset(chosen),
        )

    def split(self, share: float = 0.5, seed: int = 0) -> tuple[EvalSet, EvalSet]:
        """Split by group into validation and test, by a rule that anybody can repeat.

        Raises:
            InputError: a side would have too few images.
        """
        side = np.array([held_out(f"prune {seed} {group}", share) for group in self.groups])
        if min(side.sum(), (~side).sum()) < MIN_SIDE:
            raise InputError(
                f"{self.name} has too few images to choose on some and report on others",
                f"{side.sum()} and {(~side).sum()} of its {len(self)}, by photograph; "
                f"each side needs {MIN_SIDE}",
                "give more images, or others to choose on with --adversarial",
            )
        return self.subset(np.flatnonzero(side).tolist()), self.subset(
            np.flatnonzero(~side).tolist()
        )

    def without(self, groups: set[str]) -> EvalSet:
        """Return the images of other groups."""
        return self.subset([i for i, g in enumerate(self.groups) if g not in groups])


@dataclasses.dataclass(frozen=True)
class Classes:
    """What is known of a model's classes.

    Attributes:
        count: how many logits.
        names: the names of each class; empty where they are not known.
        wnids: the WordNet id of each; empty where they are not known.
    """

    count: int
    names: tuple[tuple[str, ...], ...] = ()
    wnids: tuple[str, ...] = ()


def model_classes(
    outputs: int, given: Sequence[str] | Path | None = None, own: Sequence[str] = ()
) -> Classes:
    """Return what is known of the classes of a model with ``outputs`` logits.

    Args:
        outputs: how many.
        given: names or WordNet ids in the order of the logits, or a file of them, one a line;
            when None, a model with 1,000 is taken for one of ImageNet-1k, unless it names others.
        own: the names that the model brings itself, several of one class with commas between.

    Raises:
        InputError: another number of names than of logits.
    """
    if given is None:
        return _own_classes(outputs, own)
    lines = given.read_text("utf-8").splitlines() if isinstance(given, Path) else list(given)
    named = [line.strip() for line in lines if line.strip()]
    if len(named) != outputs:
        raise InputError(
            f"{len(named)} classes are given for a model with {outputs} outputs",
            f"the first is {named[0]!r}" if named else "there are none",
            "one name a logit, in their order",
        )
    if all(WNID.fullmatch(n) for n in named):
        return Classes(outputs, wnids=tuple(named))
    return Classes(outputs, tuple((n,) for n in named))


def _own_classes(outputs: int, own: Sequence[str]) -> Classes:
    """Return the classes that a model names; ImageNet's, with their ids, where they are those."""
    imagenet = _imagenet() if outputs == 1000 else None
    if len(own) != outputs:
        return imagenet or Classes(outputs)
    if all(WNID.fullmatch(n) for n in own):
        return Classes(outputs, wnids=tuple(own))
    named = tuple(tuple(p.strip() for p in n.split(",") if p.strip()) or (n,) for n in own)
    if imagenet:
        same = sum(normalise_text(a[0]) == normalise_text(b[0])
                   for a, b in zip(named, imagenet.names, strict=True))  # fmt: skip
        if same > SAME_CLASSES * outputs:
            return imagenet
    return Classes(outputs, named)


def _imagenet() -> Classes:
    from timm.data import ImageNetInfo

    info = ImageNetInfo("imagenet-1k")
    names = tuple(
        tuple(part.strip() for part in info.index_to_description(i).split(",")) for i in range(1000)
    )
    return Classes(1000, names, tuple(info.index_to_label_name(i) for i in range(1000)))


def match_labels(
    records: Sequence[ImageRecord], classes: Classes, source: str
) -> np.ndarray | None:
    """Number the labels of images as the model does: by WordNet id, by name, else by index.

    Numbers are taken as they are only where the images bring no names, or the model's are not
    known; names of folders in alphabetical order where there are as many as outputs.

    Returns:
        int64 [n], or None where no image has a label.

    Raises:
        InputError: labels that fit no class; both sides are shown.
    """
    if not any(r.label is not None or r.name or r.wnid for r in records):
        return None
    wnids = [r.wnid or (r.name if r.name and WNID.fullmatch(r.name) else None) for r in records]
    if classes.wnids and all(wnids):
        places = {w: i for i, w in enumerate(classes.wnids)}
        return _numbered([str(w) for w in wnids], places, classes.wnids, source)
    names = [normalise_text(r.name) if r.name else "" for r in records]
    if classes.names and all(names):
        return _numbered(names, _by_name(classes), [n[0] for n in classes.names], source)
    numbers = [r.label for r in records]
    if all(n is not None for n in numbers):
        labels = np.array(numbers, np.int64)
        if labels.min() < 0 or labels.max() >= classes.count:
            raise InputError(
                f"the labels of {source} fit no class of the model",
                f"they go from {labels.min()} to {labels.max()}, the model's from 0 to "
                f"{classes.count - 1}",
                "give the classes of the model, in the order of its logits, with --classes FILE",
            )
        return labels
    distinct = sorted({str(n) for n in names})
    if all(names) and len(distinct) == classes.count:
        return np.array([distinct.index(n) for n in names], np.int64)
    unlabelled = sum(not (r.name or r.wnid or r.label is not None) for r in records)
    raise InputError(
        f"the labels of {source} fit no class of the model",
        f"{len(distinct)} names ({_some(distinct)}), {unlabelled} images without a label; the "
        f"model has {classes.count} outputs whose names are not known",
        "give the classes of the model, in the order of its logits, with --classes FILE",
    )


def _by_name(classes: Classes) -> dict[str, int]:
    """Return the class of every name that only one class has."""
    places: dict[str, int] = {}
    twice = set()
    for i, names in enumerate(classes.names):
        for name in {normalise_text(n) for n in names}:
            if name in places:
                twice.add(name)
            places[name] = i
    return {name: i for name, i in places.items() if name not in twice}


def _numbered(
    found: Sequence[str], places: dict[str, int], known: Sequence[str], source: str
) -> np.ndarray:
    absent = sorted({f for f in found if f not in places})
    if absent:
        raise InputError(
            f"the labels of {source} fit no class of the model",
            f"{len(absent)} of its {len(set(found))} labels are not the model's, or name several "
            f"classes: {_some(absent)}; the model's are {_some(known)}",
            did_you_mean(absent[0], places)
            or "give the classes of the model, in the order of its logits, with --classes FILE",
        )
    return np.array([places[f] for f in found], np.int64)


def _some(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:SHOWN])) + ", ..." * (len(names) > SHOWN)


def usual_step(target: Target) -> int:
    """Return how many images a step through the whole of a target has, where nobody says."""
    on_cpu = next((p.device.type for p in target.model.parameters()), "cpu") == "cpu"
    return CPU_STEP if on_cpu else OTHER_STEP


def image_set(
    images: ProbeImages, target: Target, classes: Classes | None = None, name: str | None = None
) -> EvalSet:
    """Make an `EvalSet` of opened images, as the target sees them; labels need the classes.

    Raises:
        InputError: labels that fit no class.
    """
    called = name or "+".join(s.name for s in images.sources)
    labels = None if classes is None else match_labels(images.records, classes, called)

    def read(i: int) -> np.ndarray:
        return target.preprocess.view(images.read(i))

    groups = tuple(r.group for r in images.records)
    return EvalSet(called, read, groups, labels)
