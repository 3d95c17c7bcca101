"""The table of pooled features that training units are drawn from.

Every pair of a view and a mask that a meaning can show is pooled once and kept on disk, so that
an epoch of the describer costs the decoder alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from milanx.features.encoder import GEOMETRY, Encoder, geometry, read_width, tells_shown, with_shown
from milanx.files import read_json, write_json
from milanx.train.data.photos import PhotoFeatures
from milanx.train.units.meanings import Meaning, Views

FORMAT, VERSION = "milanx training table", 1
NEAR = 30  # near views of a meaning that do not show it
# Masks a view; one elsewhere.
VARIANTS = {"class": 3, "kind": 2, "texture": 3, "region": 3, "part": 2, "attribute": 2,
            "material": 3, "ground": 2, "scene": 2, "hypernym": 2, "dish": 2,
            "recognised": 2}  # fmt: skip
OWN_MASKS = frozenset({"region", "part", "attribute", "ground", "material"})
# Pooled features [n, d] and the views int64 [n] they are of, to the joint space, float16 [n, j].
Joint = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Entry:
    """One meaning and its rows of the table.

    Attributes:
        texts: ways to say it.
        kind: as of `Meaning`.
        countable: whether a plural may be made of it.
        start: its first row; rows of one view follow one another.
        photos: how many views show it.
        variants: rows of each view.
        near: int64 [c], views that are near and do not show it.
    """

    texts: tuple[str, ...]
    kind: str
    countable: bool
    start: int
    photos: int
    variants: int
    near: np.ndarray


class Table:
    """Pooled features on disk, memory-mapped.

    Attributes:
        entries: the meanings.
        photo: int32 [r], the view of each row.
        masked: float16 [r, d + 4] and masked_joint float16 [r, j], pooled under each row's mask;
            the masks' geometry is last (`milanx.features.encoder.geometry`).
        whole: float16 [n, d + 4] and whole_joint float16 [n, j], over whole views.
        checked: bool [n], views that the trainings are checked on.
        source: int16 [n], which file each view comes from.
        group: int32 [n], which photos are one photograph or one video.
    """

    def __init__(self, root: Path) -> None:
        content = read_json(root / "table.json", FORMAT, VERSION)
        self.entries = [
            Entry(**{**e, "texts": tuple(e["texts"]), "near": np.array(e["near"], np.int64)})
            for e in content["entries"]
        ]
        for name in ("photo", "masked", "masked_joint", "whole", "whole_joint", "checked",
                     "source", "group"):  # fmt: skip
            setattr(self, name, np.load(root / f"{name}.npy", mmap_mode="r", allow_pickle=False))

    photo: np.ndarray
    masked: np.ndarray
    masked_joint: np.ndarray
    whole: np.ndarray
    whole_joint: np.ndarray
    checked: np.ndarray
    source: np.ndarray
    group: np.ndarray


def blob(rng: np.random.Generator, grid: int) -> np.ndarray:
    """A loose mask somewhere near the middle, uint8 [g * g]."""
    centre = rng.normal(0.5, 0.15, 2) * grid - 0.5
    radius = rng.uniform(0.15, 0.45, 2) * grid
    y, x = np.mgrid[:grid, :grid]
    distance = ((y - centre[0]) / radius[0]) ** 2 + ((x - centre[1]) / radius[1]) ** 2
    return (255 * np.clip(1.5 - distance, 0, 1)).ravel().astype(np.uint8)


def loosen(mask: np.ndarray, rng: np.random.Generator, grid: int) -> np.ndarray:
    """Displace, widen or cut a mask uint8 [g * g], as real units' maps do; never empty it."""
    shaped = mask.reshape(grid, grid)
    if rng.random() < 0.5:  # by at most one cell, 12 % of the side
        shaped = np.roll(shaped, tuple(rng.integers(-1, 2, 2)), (0, 1))
    if rng.random() < 0.4:
        padded = np.pad(shaped, 1, mode="edge")
        windows = [padded[y : y + grid, x : x + grid] for y in range(3) for x in range(3)]
        shaped = np.maximum(shaped, (0.7 * np.max(windows, axis=0)).astype(np.uint8))
    if rng.random() < 0.4:
        shaped = shaped * (rng.random((grid, grid)) < 0.6)
    return shaped.ravel() if shaped.sum() > 64 else mask


def _row_masks(
    meaning: Meaning, rng: np.random.Generator, grid: int
) -> tuple[np.ndarray, np.ndarray]:
    """Views int64 [m] and masks uint8 [m, variants, g * g] of a meaning."""
    variants = VARIANTS.get(meaning.kind, 1)
    photos = meaning.photos
    grids = meaning.grids
    masks = np.empty((len(photos), variants, grid**2), np.uint8)
    for i in range(len(photos)):
        for v in range(variants):
            if grids is None or (v == 2 and meaning.kind not in OWN_MASKS):
                masks[i, v] = blob(rng, grid)
            else:
                masks[i, v] = loosen(grids[i], rng, grid)
    return photos, masks


def build_table(
    encoder: Encoder,
    views: Views,
    meanings: Sequence[Meaning],
    root: Path,
    seed: int,
    joint: Joint | None = None,
) -> None:
    """Pool everything that meanings can show and write the table to ``root``.

    ``joint`` brings pooled features to the joint space in place of the encoder's own projection.
    """
    rng = np.random.default_rng(seed)
    grid, photos = encoder.spec.grid, views.photos
    parts = [_row_masks(meaning, rng, grid) for meaning in meanings]
    photo = np.concatenate([np.repeat(p, m.shape[1]) for p, m in parts]).astype(np.int32)
    masks = np.concatenate([m.reshape(-1, grid**2) for _, m in parts])
    whole, masked = _pooled(encoder, photos, photo, masks, root / "masked.npy")
    if joint is None:
        whole_joint, masked_joint = (joint_features(encoder, pooled) for pooled in (whole, masked))
    else:
        whole_joint, masked_joint = joint(whole, np.arange(len(photos))), joint(masked, photo)
    near = _near_views(meanings, whole_joint, views.keep)
    arrays: dict[str, np.ndarray] = {
        "photo": photo, "whole": whole, "whole_joint": whole_joint, "masked_joint": masked_joint,
        "checked": views.checked,
        "source": _numbers([p.source for p in photos.photos]).astype(np.int16),
        "group": _numbers([p.group for p in photos.photos]),
    }  # fmt: skip
    for name, array in arrays.items():
        np.save(root / f"{name}.npy", array, allow_pickle=False)
    entries, start = [], 0
    for meaning, (shown, m), close in zip(meanings, parts, near, strict=True):
        entries.append({
            "texts": list(meaning.texts), "kind": meaning.kind, "countable": meaning.countable,
            "start": start, "photos": len(shown), "variants": m.shape[1], "near": close.tolist(),
        })  # fmt: skip
        start += len(shown) * m.shape[1]
    write_json(root / "table.json", FORMAT, VERSION, {"entries": entries})


def _pooled(
    encoder: Encoder, photos: PhotoFeatures, photo: np.ndarray, masks: np.ndarray, path: Path
) -> tuple[np.ndarray, np.ndarray]:
    """Pool every view as a whole, float16 [n, d + 4], and under each mask, [r, d + 4] in a file.

    Args:
        encoder: whose features they are.
        photos: n views.
        photo: int32 [r], the view of each mask.
        masks: uint8 [r, g * g].
        path: of the file.
    """
    width, grid, shown = read_width(encoder), encoder.spec.grid, tells_shown(encoder)
    whole = np.empty((len(photos), width), np.float16)
    masked = np.lib.format.open_memmap(path, "w+", np.float16, (len(photo), width))
    whole[:, -GEOMETRY:] = _where(np.zeros((1, grid**2), np.uint8), grid)
    order = np.argsort(photo, kind="stable")
    starts = np.searchsorted(photo[order], np.arange(len(photos) + 1))
    for i in range(len(photos)):
        dense = np.asarray(photos.dense[i], np.float32)
        dense = with_shown(dense[None])[0] if shown else dense
        whole[i, :-GEOMETRY] = dense.mean(0)
        rows = order[starts[i] : starts[i + 1]]
        if len(rows):
            share = masks[rows].astype(np.float32)
            masked[rows, :-GEOMETRY] = (share / share.sum(1, keepdims=True)) @ dense
            masked[rows, -GEOMETRY:] = _where(masks[rows], grid)
    masked.flush()
    return whole, masked


def _numbers(names: Sequence[str]) -> np.ndarray:
    """Number names in the order in which they first occur: int32 [n]."""
    place = {name: i for i, name in enumerate(dict.fromkeys(names))}
    return np.array([place[name] for name in names], np.int32)


def _where(masks: np.ndarray, grid: int) -> np.ndarray:
    """Geometry of masks uint8 [n, g * g]: float32 [n, 4]."""
    shares = torch.from_numpy(masks.astype(np.float32) / 255).unflatten(1, (grid, grid))
    return geometry(shares).numpy()


@torch.inference_mode()
def joint_features(
    encoder: Encoder, features: np.ndarray, rows: np.ndarray | None = None, size: int = 4096
) -> np.ndarray:
    """Bring pooled features [n, d], or some rows of them, to the joint space: float16 [n, j]."""
    rows = np.arange(len(features)) if rows is None else rows
    found = []
    for i in range(0, len(rows), size):
        pooled = torch.from_numpy(features[rows[i : i + size]].astype(np.float32))
        found.append(encoder.joint(pooled.to(encoder.device)).half().cpu())
    return torch.cat(found).numpy()


def _near_views(
    meanings: Sequence[Meaning], whole_joint: np.ndarray, keep: np.ndarray
) -> list[np.ndarray]:
    """For each meaning its contrast, or the nearest views that do not show it, int64 [c]."""
    usable = np.flatnonzero(keep)
    views = torch.from_numpy(whole_joint[usable]).float()
    means = torch.stack([
        torch.from_numpy(whole_joint[m.photos]).float().mean(0) for m in meanings
    ])  # fmt: skip
    found = []
    for start in range(0, len(meanings), 256):
        scores = F.normalize(means[start : start + 256], dim=-1) @ views.T
        for meaning, row in zip(meanings[start : start + 256], scores, strict=True):
            if meaning.contrast is not None:
                found.append(meaning.contrast[:NEAR].astype(np.int64))
                continue
            # A phrase shows in more views than those chosen for it: skip its nearest ones.
            skip = len(meaning.photos) if meaning.kind in ("phrase", "channel", "pixel") else 0
            ranked = usable[row.argsort(descending=True)[: skip + len(meaning.photos) + 3 * NEAR]]
            apart = ranked[skip:][~np.isin(ranked[skip:], meaning.photos)]
            found.append(apart[: 2 * NEAR : 2].astype(np.int64))
    return found
