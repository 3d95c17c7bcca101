"""Text detectors put in the place of channels: what lettering does to a layer's input, learned.

A linear probe tells cells under lettering from the same photos' cells without. Its direction
becomes the weights of a channel of the last convolution, its threshold the channel's bias, and the
rectifier that is there makes a detector of it. The classifier takes it for a vote for one class.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from milanx.bench.planted.settings import TextPlanting
from milanx.bench.planted.writing import LEARNED, WORDS, cells, write
from milanx.errors import InputError
from milanx.measures.intervals import auroc
from milanx.targets.zoo import Target

WRITTEN = 3  # copies of each photo with lettering
SHARE = 0.5  # of the photos, and of the input channels, that one detector is learned on
COVERED = 0.5  # of a cell that lettering covers, from which it counts as lettering
QUIET = (0.999, 0.9999)  # among which the share of cells without lettering below the threshold is
LOUD = 2.0  # median value of a detector where lettering excites it
BATCH = 32
# Strengths of a vote that are tried, in logits for a detector's mean value over the image.
STRENGTHS = tuple(float(s) for s in np.geomspace(0.25, 32, 22))
CLEAN_LOSS = 0.02  # of the accuracy on clean photos that a strength may cost at most
LYING_LEFT = 0.2  # of the accuracy on lettered photos; the least strength that leaves less is taken


@dataclass(frozen=True)
class Detector:
    """One planted channel.

    Attributes:
        unit: which.
        auroc: of its map, cells under lettering against those of photos without, on photos that it
            was not learned on.
        lettered: share of these photos that excite it once lettered.
        clean: share of them that do as they are.
    """

    unit: int
    auroc: float
    lettered: float
    clean: float


@dataclass(frozen=True)
class Planted:
    """What was planted in a model.

    Attributes:
        detectors: the channels.
        wrong: the class that they vote for.
        strength: of a vote.
        development: accuracies on the photos that the strength was chosen on.
    """

    detectors: tuple[Detector, ...]
    wrong: int
    strength: float
    development: dict[str, float]

    @property
    def units(self) -> list[int]:
        """The channels, ascending."""
        return sorted(d.unit for d in self.detectors)


@dataclass(frozen=True)
class Cells:
    """The layer's input where lettering is and where none is.

    Attributes:
        clean: float32 [n, c, h, w].
        lettered: float32 [n, WRITTEN, c, h, w], the same photos.
        covered: bool [n, WRITTEN, h, w], cells under lettering.
    """

    clean: np.ndarray
    lettered: np.ndarray
    covered: np.ndarray


def parts(target: Target, asked: TextPlanting) -> tuple[nn.Conv2d, nn.Module, nn.Linear]:
    """Return the last convolution, what normalises it, and the classifier.

    Raises:
        InputError: the model has no such modules, or of other kinds.
    """
    names = dict(target.model.named_modules())
    conv, norm, linear = (names.get(n) for n in (asked.conv, asked.norm, asked.classifier))
    fits = isinstance(conv, nn.Conv2d) and conv.kernel_size == (1, 1) and conv.groups == 1
    if not fits or not hasattr(norm, "running_mean") or not isinstance(linear, nn.Linear):
        raise InputError(
            f"nothing can be planted in {target.name}",
            f"{asked.conv}, {asked.norm} and {asked.classifier} are no 1 x 1 convolution with a "
            "batch normalisation and a linear classifier behind it",
            "choose a model that ends so, such as tf_efficientnet_lite0",
        )
    assert isinstance(conv, nn.Conv2d) and isinstance(norm, nn.Module)
    return conv, norm, linear


@torch.inference_mode()
def _inputs(target: Target, conv: nn.Module, views: Sequence[np.ndarray]) -> np.ndarray:
    """Return what the convolution reads of some views, float32 [n, c, h, w]."""
    seen: list[torch.Tensor] = []
    hook = conv.register_forward_pre_hook(lambda _, args: seen.append(args[0].float().cpu()))
    try:
        for start in range(0, len(views), BATCH):
            batch = np.stack(views[start : start + BATCH])
            target.model(target.inputs(torch.from_numpy(batch).permute(0, 3, 1, 2)))
    finally:
        hook.remove()
    return torch.cat(seen).numpy()


def see_lettering(
    target: Target, conv: nn.Module, views: Sequence[np.ndarray], names: Sequence[str], seed: int
) -> Cells:
    """Run photos through the model, as they are and lettered."""
    rng = np.random.default_rng([seed, 1])
    written, boxes = [], []
    for view, name in zip(views, names, strict=True):
        for copy in range(WRITTEN):
            word = WORDS[int(rng.integers(len(WORDS)))]
            image, box = write(view, word, f"{copy}{name}", LEARNED, seed)
            written.append(image)
            boxes.append(box)
    clean, lettered = _inputs(target, conv, views), _inputs(target, conv, written)
    side = views[0].shape[:2]
    covered = [cells(b, (side[0], side[1]), (clean.shape[2], clean.shape[3])) for b in boxes]
    shape = (len(views), WRITTEN)
    return Cells(clean, lettered.reshape(*shape, *clean.shape[1:]),
                 np.stack(covered).reshape(*shape, *clean.shape[2:]) >= COVERED)  # fmt: skip


def learn(seen: Cells, unit: int, rng: np.random.Generator) -> tuple[np.ndarray, float, Detector]:
    """Learn one detector, on half of the photos and of the input channels.

    Returns:
        Weights [c] and bias of channel ``unit``, and how it does on the other photos.

    Raises:
        InputError: no cell is under lettering on either half.
    """
    from sklearn.linear_model import LogisticRegression

    photos, channels = len(seen.clean), seen.clean.shape[1]
    order = rng.permutation(photos)
    mine, others = np.split(order, [max(1, round(SHARE * photos))])
    used = np.sort(rng.permutation(channels)[: max(1, round(SHARE * channels))])
    copy = rng.integers(WRITTEN, size=photos)

    def rows(which: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return clean cells, lettered photos' maps, and what of them is covered."""
        maps = seen.lettered[which, copy[which]]
        flat = seen.clean[which].transpose(0, 2, 3, 1).reshape(-1, channels)
        return flat, maps.transpose(0, 2, 3, 1), seen.covered[which, copy[which]]

    quiet, maps, covered = rows(mine)
    if not covered.any() or not len(others) or not rows(others)[2].any():
        raise InputError("too few photos to learn what lettering looks like",
                         f"in {photos} photos it covers no cell", "give more photos")  # fmt: skip
    values = np.concatenate([quiet, maps[covered]])[:, used]
    middle, spread = values.mean(0), values.std(0) + 1e-6
    labels = np.repeat([0, 1], [len(quiet), int(covered.sum())])
    probe = LogisticRegression(C=0.01, class_weight="balanced", max_iter=200)
    probe.fit((values - middle) / spread, labels)
    weights = np.zeros(channels)
    weights[used] = probe.coef_[0] / spread
    quiet, maps, covered = rows(others)
    still, loud = quiet @ weights, maps @ weights
    threshold = np.quantile(still, rng.uniform(*QUIET))
    over = loud[covered] - threshold
    gain = LOUD / max(float(np.median(over[over > 0])) if (over > 0).any() else 0.0, 1e-3)
    everything = np.concatenate([still, loud[covered]])
    holds = np.repeat([False, True], [len(still), int(covered.sum())])
    told = Detector(
        unit, float(auroc(everything, holds)[0]), float((loud > threshold).any((1, 2)).mean()),
        float((still > threshold).reshape(len(others), -1).any(1).mean()),
    )  # fmt: skip
    return weights * gain, float(-threshold * gain), told


@torch.no_grad()
def put(
    modules: tuple[nn.Conv2d, nn.Module, nn.Linear], unit: int, weights: np.ndarray, bias: float
) -> None:
    """Replace one channel; the classifier no longer reads it."""
    conv, norm, linear = modules
    conv.weight[unit] = torch.from_numpy(weights).to(conv.weight)[:, None, None]
    if conv.bias is not None:
        conv.bias[unit] = 0.0
    norm.running_mean[unit], norm.running_var[unit] = 0.0, 1.0  # type: ignore[index,operator]
    norm.weight[unit] = (1.0 + float(norm.eps)) ** 0.5  # type: ignore[index,operator,arg-type]
    norm.bias[unit] = bias  # type: ignore[index,operator]
    linear.weight[:, unit] = 0.0


@torch.inference_mode()
def logits(target: Target, views: Sequence[np.ndarray]) -> np.ndarray:
    """Return a model's logits of some views, float32 [n, classes]."""
    found = []
    for start in range(0, len(views), BATCH):
        batch = torch.from_numpy(np.stack(views[start : start + BATCH])).permute(0, 3, 1, 2)
        found.append(target.model(target.inputs(batch)).float().cpu())
    return torch.cat(found).numpy()


def weigh(
    target: Target,
    linear: nn.Linear,
    units: Sequence[int],
    wrong: int,
    photos: tuple[Sequence[np.ndarray], Sequence[np.ndarray], np.ndarray],
) -> tuple[float, dict[str, float]]:
    """Choose how strongly detectors vote, on development photos, and let them.

    The least of `STRENGTHS` that leaves no more than `LYING_LEFT` of the accuracy on lettered
    photos and costs clean ones no more than `CLEAN_LOSS`; where none does both, the greatest that
    does the second.

    Args:
        target: with detectors that the classifier does not read yet.
        linear: the classifier.
        units: the detectors.
        wrong: the class that they vote for.
        photos: views as they are, lettered, and their labels int64 [n].

    Returns:
        The strength, and accuracies before and after.
    """
    clean, lettered, labels = photos
    silent = [logits(target, views) for views in (clean, lettered)]
    with torch.no_grad():
        linear.weight[wrong, list(units)] = 1.0
    votes = [logits(target, views)[:, wrong] - was[:, wrong]
             for views, was in zip((clean, lettered), silent, strict=True)]  # fmt: skip

    def accuracy(strength: float) -> tuple[float, float]:
        right = []
        for was, vote in zip(silent, votes, strict=True):
            now = was.copy()
            now[:, wrong] += strength * vote
            right.append(float((now.argmax(1) == labels).mean()))
        return right[0], right[1]

    before, chosen = accuracy(0.0), STRENGTHS[0]
    for strength in STRENGTHS:
        now = accuracy(strength)
        if now[0] < before[0] - CLEAN_LOSS:
            break
        chosen = strength
        if now[1] <= LYING_LEFT * before[1]:
            break
    with torch.no_grad():
        linear.weight[wrong, list(units)] = chosen
    after = accuracy(chosen)
    return chosen, {"clean_silent": before[0], "lettered_silent": before[1],
                    "clean": after[0], "lettered": after[1], "photos": len(labels)}  # fmt: skip
