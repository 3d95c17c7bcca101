"""Units made from the encoder itself: of phrases that it can see, and of its own channels.

The similarity of a phrase to each cell of a view is an activation map like any other; the views
where it peaks, with the phrase, are a training unit for words that no label names. A channel of
the encoder's feature maps is a real unit of a real model; its description is the phrase that
predicts best where it peaks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch.nn import functional as F

from milanx.features.encoder import Encoder
from milanx.train.data.photos import PhotoFeatures
from milanx.train.units.meanings import MIN_POSITIVES, Meaning
from milanx.train.units.pixels import shown_cells
from milanx.train.units.vocabulary import (
    MIN_GROUNDING,
    MIN_WORD_GROUNDING,
    auroc,
    caption_phrases,
    name_words,
    person_phrases,
)

WINDOW, STRIDE = 4, 2  # of the windows that a phrase may fill, in cells
PHRASE_PHOTOS = 60  # best views of a phrase
CHANNEL_PHOTOS = 45  # best views of a channel
CHANNEL_QUANTILE = 0.98  # of a channel's cells, above which its mask lies
MAX_PHRASES = 3000  # of captions, and as many of people's descriptions
MAX_LABEL = 3  # words of a phrase that describes a channel
NEAR_SHARE = 0.85  # of the best correlation that a second text must reach
MIN_CORRELATION = 0.15  # of a channel and its text
APART = 0.6  # cosine below which two phrases say different things
PHOTOS_AT_ONCE = 128


@dataclass
class Space:
    """The training photos in the joint image-text space.

    Attributes:
        encoder: whose space it is.
        photos: all of them, n views.
        keep: bool [n], those that may be trained on.
        cells: float16 [n, g * g, j], unit rows.
        windows: float16 [n, w, j], unit rows: overlapping windows, and the whole view last.
    """

    encoder: Encoder
    photos: PhotoFeatures
    keep: np.ndarray
    cells: np.ndarray
    windows: np.ndarray


@torch.inference_mode()
def embed(encoder: Encoder, photos: PhotoFeatures, keep: np.ndarray) -> Space:
    """Bring every cell and window of the photos into the joint space."""
    channels, grid = encoder.last_channels, encoder.spec.grid
    across = math.ceil((grid - WINDOW) / STRIDE) + 1  # the last may reach beyond an odd grid
    cells = np.empty((len(photos), grid**2, encoder.spec.joint), np.float16)
    windows = np.empty((len(photos), across**2 + 1, encoder.spec.joint), np.float16)
    for start in range(0, len(photos), PHOTOS_AT_ONCE):
        last = photos.dense[start : start + PHOTOS_AT_ONCE, :, :channels]
        dense = torch.from_numpy(np.ascontiguousarray(last)).to(encoder.device).float()
        maps = dense.transpose(1, 2).unflatten(2, (grid, grid))
        pooled = F.avg_pool2d(maps, WINDOW, STRIDE, ceil_mode=True).flatten(2).transpose(1, 2)
        both = torch.cat([dense, pooled, dense.mean(1, keepdim=True)], 1)
        joint = encoder.joint(both).half().cpu().numpy()
        cells[start : start + len(dense)] = joint[:, : grid**2]
        windows[start : start + len(dense)] = joint[:, grid**2 :]
    return Space(encoder, photos, keep, cells, windows)


def _best_windows(windows: np.ndarray, texts: torch.Tensor) -> np.ndarray:
    """Largest similarity of each text [t, j] to any window of views [n, w, j]: float32 [n, t]."""
    found = np.empty((len(windows), len(texts)), np.float32)
    for start in range(0, len(found), PHOTOS_AT_ONCE):
        part = torch.from_numpy(windows[start : start + PHOTOS_AT_ONCE]).to(texts)
        found[start : start + len(part)] = (part @ texts.T).amax(1).cpu().numpy()
    return found


def _phrase_maps(
    space: Space, text: torch.Tensor, rows: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Similarity of a text [j] to the cells of views ``rows``, cut at a drawn quantile: grids."""
    maps = space.cells[rows].astype(np.float32) @ text.cpu().numpy()
    low = np.quantile(maps, rng.uniform(0.55, 0.9, len(rows)), axis=1).diagonal()[:, None]
    high = maps.max(1, keepdims=True)
    return (255 * np.clip(1.5 * (maps - low) / (high - low + 1e-6), 0, 1)).astype(np.uint8)


def locate(space: Space, meanings: Sequence[Meaning], seed: int) -> list[Meaning]:
    """Give meanings without masks those of their first text's similarity to the cells."""
    rng = np.random.default_rng(seed)
    text = space.encoder.texts([m.texts[0] for m in meanings])
    return [
        replace(m, grids=_phrase_maps(space, text[i], m.photos, rng)) if m.grids is None else m
        for i, m in enumerate(meanings)
    ]


def phrase_meanings(
    space: Space,
    descriptions: Sequence[str],
    names: Sequence[str],
    allowed: Callable[[str], bool],
    seed: int,
) -> list[Meaning]:
    """Make a meaning of every phrase that the joint space sees.

    Args:
        space: of the photos.
        descriptions: people's descriptions of units.
        names: of classes and regions, whose words count as seen.
        allowed: whether a phrase may be trained on.
        seed: of the masks' looseness.
    """
    phrases = _seen_phrases(space, descriptions, names, allowed)
    if not phrases:
        return []
    rng = np.random.default_rng(seed)
    usable = np.flatnonzero(space.keep)
    text, windows = space.encoder.texts(phrases), space.windows[usable]
    best = np.concatenate([
        np.argsort(-_best_windows(windows, text[i : i + 512]), axis=0)[:PHRASE_PHOTOS].T
        for i in range(0, len(phrases), 512)
    ])  # fmt: skip
    return [
        Meaning((phrase,), "phrase", usable[rows],
                _phrase_maps(space, text[i], usable[rows], rng), countable=False)
        for i, (phrase, rows) in enumerate(zip(phrases, best, strict=True))
    ]  # fmt: skip


def _seen_phrases(
    space: Space,
    descriptions: Sequence[str],
    names: Sequence[str],
    allowed: Callable[[str], bool],
) -> list[str]:
    """Return the phrases of captions that the space sees, best first, then people's."""
    captioned, says = caption_phrases(space.photos, space.keep)
    phrases = sorted(p for p in says if allowed(p))
    if not phrases:
        return []
    scores = _best_windows(space.windows[captioned], space.encoder.texts(phrases))
    found: dict[str, float] = {}
    for column, phrase in enumerate(phrases):
        positive = np.zeros(len(captioned), bool)
        positive[list(says[phrase])] = True
        found[phrase] = auroc(scores[:, column], positive)
    ranked = sorted(phrases, key=lambda p: -found[p] * np.log(len(says[p])))
    kept = [p for p in ranked if found[p] >= MIN_GROUNDING][:MAX_PHRASES]
    seen = {p for p in phrases if " " not in p and found[p] >= MIN_WORD_GROUNDING}
    people = [p for p in person_phrases(descriptions, seen | name_words(names)) if allowed(p)]
    return list(dict.fromkeys([*kept, *people[:MAX_PHRASES]]))


def channel_meanings(space: Space, vocabulary: Sequence[str]) -> list[Meaning]:
    """Make a meaning of every channel of the encoder's own feature maps that a text explains.

    Its exemplars are the views where it peaks, its masks the cells above its quantile. Its text is
    the phrase of ``vocabulary``, or of what pixels show, that correlates most with its peaks over
    all views, within each source (`milanx.evaluate.p3.protocol` asks the same of a description); a
    second one that says something else joins the first.
    """
    vocabulary = [t for t in vocabulary if len(t.split()) <= MAX_LABEL and " and " not in t]
    encoder, photos = space.encoder, space.photos
    usable = np.flatnonzero(space.keep)
    channels = encoder.width - encoder.spec.pixel_channels
    peaks = np.stack([photos.dense[i][:, :channels].max(0) for i in usable]).astype(np.float32)
    sample = np.concatenate([photos.dense[i][:, :channels] for i in usable[::40]])
    threshold = np.quantile(sample, CHANNEL_QUANTILE, axis=0)
    order = np.argsort(-peaks, axis=0)[:CHANNEL_PHOTOS]
    cells = shown_cells(photos, usable)
    shares = np.stack([shown.mean(1) for shown in cells.values()], 1).astype(np.float32)
    texts = encoder.texts(vocabulary).cpu()
    sources = np.array([photos.photos[i].source for i in usable])
    scores = correlations(peaks, shares, space.windows[usable, -1], texts, sources)
    labels = [*(texts_[0] for texts_ in cells), *vocabulary]
    vectors = torch.cat([encoder.texts(labels[: len(cells)]).cpu(), texts])
    found = []
    for c, row in enumerate(scores):
        rows = usable[order[:, c]]
        if len(rows) < MIN_POSITIVES or peaks[order[-1, c], c] <= 0 or row.max() < MIN_CORRELATION:
            continue
        dense = np.asarray(photos.dense[rows][..., c], np.float32)
        mask = dense > threshold[c]
        empty = ~mask.any(1)
        mask[empty] = dense[empty] >= dense[empty].max(1, keepdims=True)
        said = _nearest_texts(row, labels, vectors)
        grids = (255 * mask).astype(np.uint8)
        found.append(Meaning(said, "channel", rows, grids, countable=False))
    return found


def correlations(
    peaks: np.ndarray,
    shares: np.ndarray,
    views: np.ndarray,
    texts: torch.Tensor,
    sources: np.ndarray,
) -> np.ndarray:
    """Pearson correlation of channels and texts over views, within each source.

    Args:
        peaks: float32 [n, c].
        shares: float32 [n, p], of what pixels show in each view.
        views: [n, j], whole views in the joint space.
        texts: [t, j].
        sources: [n], names; each counts by its number of views.

    Returns:
        float32 [c, p + t]: first of the shares, then of the texts' similarities.
    """
    total = np.zeros((peaks.shape[1], shares.shape[1] + len(texts)), np.float32)
    for source in sorted(set(sources)):
        here = np.flatnonzero(sources == source)
        told = np.concatenate([shares[here], views[here].astype(np.float32) @ texts.numpy().T], 1)
        both = []
        for values in (peaks[here], told):
            centred = values - values.mean(0)
            both.append(centred / (np.linalg.norm(centred, axis=0) + 1e-6))
        total += len(here) / len(sources) * (both[0].T @ both[1])
    return total


def _nearest_texts(
    scores: np.ndarray, labels: Sequence[str], vectors: torch.Tensor
) -> tuple[str, ...]:
    """The best text, and the best joined to others nearly as good that say something else."""
    order = np.argsort(-scores)[:12]
    first = order[0]
    others = [
        i for i in order[1:]
        if scores[i] > NEAR_SHARE * scores[first] and float(vectors[i] @ vectors[first]) < APART
    ]  # fmt: skip
    name = labels[first]
    return (name, *(f"{name} or {labels[i]}" for i in others[:2]))
