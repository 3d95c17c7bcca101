"""Units that people described as training units: the exemplar sets of MILANNOTATIONS.

Their views are encoded a unit at a time; what is kept on disk are the features pooled under each
mask and over each view, in the format of `milanx.train.units.table`, a row a view. A unit's
exemplars are what they are: nothing is planted, no mask is loosened, no two units are joined.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from milanx.errors import InputError
from milanx.features.encoder import (
    MASKED,
    WHOLE,
    Encoder,
    geometry,
    pool,
    read_width,
    tells_shown,
    with_shown,
)
from milanx.files import write_json
from milanx.images.splits import held_out
from milanx.language.words import normalise_text
from milanx.train.data.milannotations import AnnotatedUnit, Milannotations
from milanx.train.data.sources import fingerprint_source
from milanx.train.recipe import Data
from milanx.train.units.corpus import FULL_SET, MIN_EXEMPLARS, NO_CONTRAST, Corpus, Unit
from milanx.train.units.table import FORMAT, NEAR, VERSION, Entry, Joint
from milanx.train.units.vocabulary import LISTS, MAX_WORDS, VAGUE

KIND = "annotated"
MAX_VOCABULARY = 3000  # phrases that can be retrieved, those that most units have first
UNITS_AT_ONCE = 256  # whose near views are searched together


def build_annotated_table(
    encoder: Encoder,
    data: Milannotations,
    checked: float,
    root: Path,
    advance: Callable[[int], None] = lambda n: None,
) -> dict[str, Any]:
    """Pool the exemplars of ``data`` and write them to ``root`` as a table.

    Args:
        encoder: gives dense features.
        data: units, views, masks.
        checked: share of the units that the trainings are checked on. They may share photos with
            others: the units of a network were shown one set.
        root: the table's folder.
        advance: told how many more units are done.

    Returns:
        How many units there are of each network, and what is odd about the data.
    """
    counts = [len(data.masks(unit)) for unit in data.units]
    starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    shapes = {"d": read_width(encoder), "j": encoder.spec.joint}
    arrays = {
        name: np.lib.format.open_memmap(
            root / f"{name}.npy", "w+", np.float16, (int(starts[-1]), shapes[width])
        )
        for name, width in (("masked", "d"), ("whole", "d"), ("masked_joint", "j"),
                            ("whole_joint", "j"))
    }  # fmt: skip
    same: list[str] = []  # a view's picture, since several units show one
    for number, (unit, views, masks) in enumerate(data):
        here = slice(starts[number], starts[number + 1])
        pooled = _pooled(encoder, views, masks)
        with torch.inference_mode():
            joint = encoder.joint(pooled)
        for place, name in ((MASKED, "masked"), (WHOLE, "whole")):
            arrays[name][here] = pooled[:, place].cpu().numpy()
            arrays[f"{name}_joint"][here] = joint[:, place].cpu().numpy()
        same += [hashlib.sha1(f"{unit.network}".encode() + v.tobytes()).hexdigest() for v in views]
        advance(1)
    for array in arrays.values():
        array.flush()
    held = [checked_unit(unit, checked) for unit in data.units]
    np.save(root / "checked.npy", np.repeat(held, counts), allow_pickle=False)
    np.save(root / "photo.npy", np.arange(starts[-1], dtype=np.int32), allow_pickle=False)
    np.save(root / "source.npy", np.zeros(starts[-1], np.int16), allow_pickle=False)
    np.save(root / "group.npy", np.arange(starts[-1], dtype=np.int32), allow_pickle=False)
    near = near_views([u.network for u in data.units], starts, arrays["whole_joint"], same)
    entries = [
        {"texts": list(unit.descriptions), "kind": KIND, "countable": False,
         "start": int(start), "photos": count, "variants": 1, "near": close.tolist()}
        for unit, start, count, close in zip(data.units, starts, counts, near, strict=False)
    ]  # fmt: skip
    write_json(root / "table.json", FORMAT, VERSION, {"entries": entries})
    return {"units": dict(Counter(u.network for u in data.units)), "checked_units": sum(held),
            "notes": data.notes}  # fmt: skip


@torch.inference_mode()
def _pooled(encoder: Encoder, views: np.ndarray, masks: np.ndarray) -> torch.Tensor:
    """Pool views uint8 [k, 3, H, W] under masks [k, 1, H, W]: [k, 2, d], as they are read."""
    dense = encoder.dense(torch.from_numpy(np.ascontiguousarray(views)))
    if tells_shown(encoder):
        half = dense.flatten(1, 2).cpu().numpy().astype(np.float16)
        dense = torch.from_numpy(with_shown(half)).unflatten(1, dense.shape[1:3]).to(dense.device)
    share = F.adaptive_avg_pool2d(torch.from_numpy(masks).float(), encoder.spec.grid)
    share = share[:, 0].to(dense.device)
    where = torch.stack([geometry(share), geometry(torch.ones_like(share))], 1)
    return torch.cat([pool(dense, share), where], -1)


def checked_unit(unit: AnnotatedUnit, share: float) -> bool:
    """Whether the trainings are checked on a unit, for a share of all: no training sees it."""
    return held_out(f"checked:{unit.network} {unit.layer} {unit.unit}", share)


def near_views(
    networks: Sequence[str], starts: np.ndarray, joint: np.ndarray, same: Sequence[str]
) -> list[np.ndarray]:
    """For each unit views of its network that are near its exemplars and none of them, int64 [c].

    The nearest are skipped, as many as the unit has exemplars, and every second after these is
    taken: what is very near may well excite the unit, of which only the exemplars are known.

    Args:
        networks: of each of u units.
        starts: int64 [u + 1], the first row of each unit, and the end.
        joint: [rows, j], whole views in the joint space, unit rows.
        same: of each row, what stands for its picture.
    """
    found: list[np.ndarray] = [np.zeros(0, np.int64)] * len(networks)
    for network in dict.fromkeys(networks):
        units = [u for u, name in enumerate(networks) if name == network]
        first: dict[str, int] = {}
        for unit in units:
            for row in range(starts[unit], starts[unit + 1]):
                first.setdefault(same[row], row)
        views = np.array(list(first.values()), np.int64)
        place = {picture: i for i, picture in enumerate(first)}
        vectors = torch.from_numpy(joint[views]).float()
        for begin in range(0, len(units), UNITS_AT_ONCE):
            part = units[begin : begin + UNITS_AT_ONCE]
            means = torch.stack([
                torch.from_numpy(joint[starts[u] : starts[u + 1]]).float().mean(0) for u in part
            ])  # fmt: skip
            scores = means @ vectors.T
            for unit, row in zip(part, scores, strict=True):
                own = range(starts[unit], starts[unit + 1])
                row[[place[same[r]] for r in own]] = -torch.inf
                wanted = min(len(own) + 2 * NEAR, int((row > -torch.inf).sum()))
                found[unit] = views[row.topk(wanted).indices.numpy()][len(own) :: 2]
    return found


class AnnotatedCorpus(Corpus):
    """Draws units that people described, each with one of its descriptions."""

    varied = False
    least = (1, 1)  # a unit is what people saw of it, however few its exemplars are

    def _senses(self, rng: np.random.Generator) -> tuple[list[Entry], str, int | None]:
        """Draw one unit and one of its texts."""
        entry = self._entry(rng)
        return [entry], str(rng.choice(entry.texts)), None

    def unit(self, rng: np.random.Generator) -> Unit:
        """Draw one unit with its exemplars in any order, sometimes not all of them."""
        (entry,), text, _ = self._senses(rng)
        k = min(self.exemplars, entry.photos)
        if rng.random() >= FULL_SET:
            k = int(rng.integers(min(MIN_EXEMPLARS, k), k + 1))
        rows = entry.start + rng.permutation(entry.photos)[:k]
        count = self.contrast if rng.random() >= NO_CONTRAST else 0
        near = rng.permutation(entry.near)[:count]
        return Unit(rows, False, near, text, KIND, (entry.texts,))

    def all_texts(self) -> list[str]:
        """Return nothing: people misspell, so that their words must be met several times."""
        return []

    def vocabulary(self) -> list[str]:
        """Return short phrases of the descriptions, those that most units have before others."""
        entries = self.by_kind.get(KIND, [])
        counts = Counter(t for e in entries for t in {normalise_text(t) for t in e.texts})
        short = [
            text for text, _ in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
            if 1 <= len(words := text.split()) <= MAX_WORDS
            and not set(words) <= VAGUE and not re.search(LISTS, text)
        ]  # fmt: skip
        return sorted((short or list(counts))[:MAX_VOCABULARY])


class AnnotatedUnits:
    """Units that people described (`milanx.train.units.source.UnitSource`).

    Args:
        data: of the recipe; names folder and split, of which the part for training is used.
        seed: of the split.
        say: told what is odd about the units, a sentence each.

    Raises:
        InputError: there are none, or a file is missing, damaged or does not fit.
    """

    corpus = AnnotatedCorpus

    def __init__(self, data: Data, seed: int, say: Callable[[str], None]) -> None:
        photos = Path(data.imagenet) if data.imagenet else None
        root = Path(data.milannotations)
        self.data = data
        self.units = Milannotations(root, data.split, "train", photos=photos, seed=seed)
        if not len(self.units):
            raise InputError(
                f"no units of the split {data.split} in {root}",
                "no annotated unit has three annotations and arrays",
                "choose another data.split",
            )
        for note in self.units.notes:
            say(note)

    @cached_property
    def identity(self) -> object:
        """What stands for the units, their views and their texts."""
        photos = self.units.photo_root
        shown = fingerprint_source(photos) if photos is not None else None
        return fingerprint_source(self.units.root), shown, self.data.split, self.data.checked

    def build_table(
        self, encoder: Encoder, folder: Path, joint: Joint | None, advance: Callable[[int], None]
    ) -> dict[str, Any]:
        """Pool the exemplars; an encoder for these has a joint space of its own."""
        return build_annotated_table(encoder, self.units, self.data.checked, folder, advance)

    def texts(self) -> list[str]:
        """Return the descriptions of all but the checked units."""
        trained = (u for u in self.units.units if not checked_unit(u, self.data.checked))
        return [text for unit in trained for text in unit.descriptions]

    def people(self) -> list[str]:
        """Return nothing: what people wrote are the units' own texts."""
        return []

    def trained(self) -> None:
        """Return nothing: the views come without the photos that they were cut from."""
        return None

    def facts(self) -> dict[str, Any]:
        """Return what a describer's folder says of what was trained on and held out."""
        return {"split": self.data.split, "units": len(self.units)}
