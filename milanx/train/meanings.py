"""Meanings: what training units mean, which photos show it, and where.

Five kinds: classes and kinds above them, named regions, textures, words of captions that the
encoder's joint space can see, and colours and brightness computed from pixels.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F

from milanx.encode import PIXEL_CHANNELS, Encoder
from milanx.splits import held_out
from milanx.train.photos import PhotoFeatures
from milanx.train.phrases import KINDS, clean_name, held_out_names, mentions, whole_words
from milanx.train.splits import HELD_OUT_CALTECH, HELD_OUT_TINY

MIN_POSITIVES = 6
MIN_WORD_PHOTOS = 20
MIN_GROUNDING = 0.78  # AUROC of the joint space for the photos whose captions hold a word
STOP = frozenset({
    "a", "an", "the", "is", "are", "was", "were", "be", "been", "being", "am", "of", "in",
    "on", "at", "to", "from", "by", "with", "and", "or", "as", "it", "its", "this", "that",
    "there", "their", "his", "her", "he", "she", "they", "them", "who", "which", "what",
    "while", "for", "into", "onto", "over", "under", "up", "down", "out", "off", "near",
    "next", "some", "another", "other", "others", "one", "two", "three", "four", "five",
    "six", "several", "many", "very", "each", "all", "both", "has", "have", "had", "having",
    "get", "gets", "getting", "do", "does", "doing", "not", "no", "can", "so", "than", "then",
    "where", "when", "through", "around", "along", "across", "behind", "front", "back",
    "side", "top", "bottom", "between", "him", "himself", "herself", "themselves", "you",
    "your", "our", "photo", "picture", "image", "something", "someone", "go", "goes", "left",
    "right", "same", "different", "like", "just", "about", "after", "before", "during", "i",
    "we", "if", "s", "t", "shot", "view",
})  # fmt: skip
COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (0.75, 0.12, 0.12), "green": (0.2, 0.5, 0.15), "blue": (0.15, 0.3, 0.7),
    "yellow": (0.85, 0.75, 0.15), "orange": (0.9, 0.5, 0.12), "pink": (0.9, 0.55, 0.65),
    "purple": (0.45, 0.2, 0.55), "brown": (0.42, 0.27, 0.15),
}  # fmt: skip


@dataclass(frozen=True)
class Meaning:
    """One thing that a unit can mean.

    Attributes:
        texts: ways to say it, each a complete phrase.
        kind: class, kind, region, texture, word or pixel.
        photos: int64 [m], views that show it.
        grids: uint8 [m, g * g], where (share of each cell, 0..255); None: the whole view, or
            wherever the object is.
        countable: whether a plural may be made of it.
    """

    texts: tuple[str, ...]
    kind: str
    photos: np.ndarray
    grids: np.ndarray | None = None
    countable: bool = True


def training_photos(
    photos: PhotoFeatures, held_out_captions: float, held_out_photos: float
) -> np.ndarray:
    """Return which views may be trained on, bool [n].

    Held out are a share of the captioned photos, a share of the photos with regions or textures,
    all photos of held-out classes, and captioned photos of which every caption names one.
    """
    words = whole_words(held_out_names())
    keep = np.ones(len(photos), bool)
    for i, photo in enumerate(photos.photos):
        share = held_out_captions if photo.source == "captions" else held_out_photos
        if photo.wnid in HELD_OUT_TINY or photo.name in HELD_OUT_CALTECH:
            keep[i] = False
        elif photo.name is None or photo.source == "textures":
            keep[i] = not held_out(photo.group, share)
        if photo.captions and any(mentions(c, words) for c in photo.captions):
            keep[i] = False
    held_groups = {photos.photos[i].group for i in np.flatnonzero(~keep)}
    return np.array([k and p.group not in held_groups
                     for k, p in zip(keep, photos.photos, strict=True)])  # fmt: skip


def named_meanings(photos: PhotoFeatures, keep: np.ndarray) -> list[Meaning]:
    """Classes, kinds above classes, textures and regions."""
    by_name: dict[str, list[int]] = {}
    regions: dict[str, list[tuple[int, tuple[int, ...]]]] = {}
    raw_regions: dict[str, list[tuple[int, tuple[int, ...]]]] = {}
    textures = set()
    for i in np.flatnonzero(keep).tolist():
        photo = photos.photos[i]
        if photo.name and not photo.name.lower().startswith("background"):
            by_name.setdefault(photo.name, []).append(i)
            if photo.source == "textures":
                textures.add(photo.name)
        for name, grid in photo.regions:
            regions.setdefault(clean_name(name), []).append((i, grid))
            raw_regions.setdefault(name, []).append((i, grid))
    merged: dict[str, list[int]] = {}
    for name, indices in by_name.items():
        merged.setdefault(clean_name(name), []).extend(indices)
    texture_names = {clean_name(t) for t in textures}
    found = [
        Meaning((name,), "texture" if name in texture_names else "class", np.array(indices),
                countable=name not in texture_names)
        for name, indices in merged.items()
    ]  # fmt: skip
    for name, shown in regions.items():
        if len(shown) >= MIN_POSITIVES:
            grids = np.array([g for _, g in shown], np.uint8)
            found.append(Meaning((name,), "region", np.array([i for i, _ in shown]), grids))
    for kind, members in KINDS.items():
        whole = [i for m in members for i in by_name.get(m, [])[:25]]
        if len(whole) >= MIN_POSITIVES:
            found.append(Meaning((kind,), "kind", np.array(whole), countable=False))
    return found


def pixel_meanings(photos: PhotoFeatures, keep: np.ndarray) -> list[Meaning]:
    """Colours, brightness and plainness, from each cell's mean and deviation of R, G, B."""
    kept = np.flatnonzero(keep)
    pixels = np.stack([photos.dense[i][:, -PIXEL_CHANNELS:] for i in kept]).astype(np.float32)
    mean, deviation = pixels[..., :3], pixels[..., 3:].mean(-1)
    brightness = mean.mean(-1)
    maps: dict[tuple[str, ...], np.ndarray] = {
        ("bright areas", "white areas", "light backgrounds", "bright lights"): brightness - 0.8,
        ("dark areas", "black areas", "dark backgrounds", "shadows"): 0.15 - brightness,
        ("plain smooth surfaces", "smooth backgrounds", "empty areas"): 0.025 - deviation,
        ("busy textures", "fine detail", "cluttered textures"): deviation - 0.2,
    }
    for name, colour in COLOURS.items():
        distance = np.abs(mean - np.array(colour, np.float32)).max(-1)
        colour_texts = (f"{name} areas", f"{name} things", f"the color {name}", f"{name} objects")
        maps[colour_texts] = 0.16 - distance
    found = []
    for texts, values in maps.items():
        cells = values > 0
        share = cells.mean(1)
        shown = np.flatnonzero((share > 0.06) & (share < 0.9))
        if len(shown) >= MIN_POSITIVES:
            shown = shown[np.argsort(-share[shown])][:600]
            grids = (cells[shown] * 255).astype(np.uint8)
            found.append(Meaning(texts, "pixel", kept[shown], grids, countable=False))
    return found


def _caption_words(captions: tuple[str, ...]) -> set[str]:
    """Words and pairs of words of a photo's captions, stop words left out."""
    found: set[str] = set()
    for sentence in captions:
        words = re.findall(r"[a-z]+", sentence.lower())
        found |= {w for w in words if w not in STOP and len(w) > 2}
        pairs = itertools.pairwise(words)
        found |= {f"{a} {b}" for a, b in pairs if not ({a, b} & STOP)}
    return found


def word_meanings(
    encoder: Encoder, photos: PhotoFeatures, keep: np.ndarray, limit: int = 900
) -> list[Meaning]:
    """Words of captions whose photos the joint space tells apart, with similarity maps as masks.

    A word is kept when the similarity of its text to whole views ranks the photos whose captions
    hold it above the others with an AUROC of at least `MIN_GROUNDING`.
    """
    captioned = [i for i in np.flatnonzero(keep) if photos.photos[i].captions]
    words_of = [_caption_words(photos.photos[i].captions) for i in captioned]
    counts = Counter(w for words in words_of for w in words)
    names = sorted(w for w, n in counts.items() if MIN_WORD_PHOTOS <= n < 0.3 * len(captioned))
    if not names:
        return []
    channels = encoder.last_channels
    text = encoder.texts(names)
    cells = []
    for i in captioned:
        dense = torch.from_numpy(photos.dense[i][:, :channels].astype(np.float32))
        with torch.inference_mode():
            cells.append(encoder.joint(torch.cat([dense, dense.mean(0, keepdim=True)])).half())
    joint = torch.stack(cells).float()  # [m, g * g + 1, joint], the whole view last
    whole = (joint[:, -1] @ text.T).numpy()
    found: list[tuple[float, Meaning]] = []
    holds = {name: np.zeros(len(captioned), bool) for name in names}
    for row, words in enumerate(words_of):
        for word in words & holds.keys():
            holds[word][row] = True
    for column, name in enumerate(names):
        positive = holds[name]
        ranks = whole[:, column].argsort().argsort()
        n = int(positive.sum())
        auroc = (ranks[positive].sum() - n * (n - 1) / 2) / (n * (len(captioned) - n))
        if auroc < MIN_GROUNDING:
            continue
        # Photos that hold the word and look like it; captions do not name everything that shows.
        score = whole[:, column]
        chosen = np.flatnonzero(positive & (score >= np.quantile(score, 0.7)))
        chosen = chosen[np.argsort(-score[chosen])][:150]
        if len(chosen) < MIN_POSITIVES:
            continue
        maps = (F.normalize(joint[chosen, :-1], dim=-1) @ text[column]).numpy()
        low = np.quantile(maps, 0.6, axis=1, keepdims=True)
        high = maps.max(1, keepdims=True)
        grids = (255 * np.clip((maps - low) / (high - low + 1e-6), 0, 1)).astype(np.uint8)
        photo_rows = np.array([captioned[r] for r in chosen])
        weight = auroc * np.log(n)
        found.append((weight, Meaning((name,), "word", photo_rows, grids, countable=False)))
    found.sort(key=lambda pair: -pair[0])
    return [meaning for _, meaning in found[:limit]]
