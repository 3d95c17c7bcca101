"""Training photos: read once, encoded once, kept as dense features on disk.

An epoch of the describer then costs the decoder alone. Every photo is seen as a target would see
it (a square crop) and degraded to a common range of resolution and compression, so that the
features tell little about which source a photo came from.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from milanx.describing.trained import group_of
from milanx.errors import InputError
from milanx.features.encoder import Encoder
from milanx.features.pixels import colour_cells
from milanx.features.shares import Shares, agreed
from milanx.files import atomic_path, cache_dir, fingerprint, read_json, write_json
from milanx.files.digests import FILES, is_whole, told
from milanx.files.lock import held
from milanx.images.near import picture_hash
from milanx.images.splits import photo_group
from milanx.train.code_key import code_key
from milanx.train.data.sources import fingerprint_source, photo_rows
from milanx.train.data.stacked import Stacked

if TYPE_CHECKING:
    from accelerate import PartialState

MIN_CROP = 0.7  # least share of the short side that a training crop keeps
DEGRADED = 0.7  # share of the views that are made smaller and compressed again
MIN_SIDE, MAX_SIDE = 64, 224  # range of the sides of degraded views, in pixels
MIN_QUALITY, MAX_QUALITY = 40, 95  # range of their JPEG qualities
LETTERS = list("aaabcdeeeeefghiiijklmnnnoooprrrsssttttuuvwxyz")  # about as often as in English
BATCH = 32  # views that are encoded at once
INDEX, FORMAT, VERSION = "photos.json", "milanx photo features", 2
MIN_REGION = 0.002  # regions under this share of the view are left out
ONE_COLOUR = 0.5  # share of a region's pixels that must be of a colour for the region to be of it
BOX = 0.97  # share of its own bounding box from which on a mask is a box, and says no colour
COLOUR_SIDE = 96  # pixels of the side at which colours are read


@dataclass(frozen=True)
class Region:
    """A named part of a view.

    Attributes:
        name: as its data set spells it.
        cells: share of each grid cell, 0..255, [g * g].
        part_of: the thing that it is a part of; empty where it is a thing itself.
        colour: the basic colour (`milanx.features.pixels.COLOURS`) of most of its pixels; empty
            where none is, or where its mask is but a box.
    """

    name: str
    cells: tuple[int, ...]
    part_of: str = ""
    colour: str = ""


@dataclass(frozen=True)
class Photo:
    """What is known of one encoded view of a photo.

    Attributes:
        source: stem of the file or folder that it came from.
        group: views of one group never fall on both sides of a split.
        name: class name, if it has one.
        wnid: WordNet id of the class, if it has one.
        captions: sentences about it.
        regions: what is named in it, and where.
        told: its group as a describer's folder tells it (`milanx.describing.trained.group_of`).
        picture: difference hash of the whole photo.
        origin: where the data set has it from, if it says so.
    """

    source: str
    group: str
    name: str | None
    wnid: str | None
    captions: tuple[str, ...]
    regions: tuple[Region, ...]
    told: str = ""
    picture: str = ""
    origin: str = ""


@dataclass(frozen=True)
class PhotoSource:
    """A file or folder of photos, how many rows of a class to take, and views of each.

    Attributes:
        path: the file or folder, in a layout of `milanx.train.data.sources`.
        per_class: rows of each class; all when None.
        views: views of each photo.
        text: how many views more are made with words written over the photo.
    """

    path: Path
    per_class: int | None = None
    views: int = 1
    text: int = 0


class PhotoFeatures:
    """Encoded photos: ``photos`` and their dense features.

    Args:
        roots: the folders of its sources.

    Attributes:
        photos: [n].
        dense: float16 [n, g * g, d], memory-mapped.
        key: 16 hex digits that stand for all of it.
    """

    def __init__(self, roots: Sequence[Path]) -> None:
        self.key = fingerprint([root.name for root in roots])
        self.photos = [
            Photo(**{**p, "captions": tuple(p["captions"]),
                     "regions": tuple(Region(**{**r, "cells": tuple(r["cells"])})
                                      for r in p["regions"])})
            for root in roots for p in read_json(root / INDEX, FORMAT, VERSION)["photos"]
        ]  # fmt: skip
        self.dense = Stacked(
            [np.load(root / "dense.npy", mmap_mode="r", allow_pickle=False) for root in roots]
        )

    def __len__(self) -> int:
        return len(self.photos)


def _crop_box(width: int, height: int, rng: np.random.Generator) -> tuple[int, int, int]:
    """Draw a square crop: left, top, side in pixels."""
    side = int(min(width, height) * rng.uniform(MIN_CROP, 1))
    left = int(rng.integers(0, width - side + 1))
    top = int(rng.integers(0, height - side + 1))
    return left, top, side


def _degrade(view: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Make a view smaller and compress it, as many sources' photos are."""
    side = int(np.exp(rng.uniform(np.log(MIN_SIDE), np.log(MAX_SIDE))))
    if side < view.width:
        view = view.resize((side, side), Image.Resampling.BILINEAR)
    buffer = io.BytesIO()
    view.save(buffer, "JPEG", quality=int(rng.integers(MIN_QUALITY, MAX_QUALITY + 1)))
    return Image.open(buffer).convert("RGB")


def _regions(
    regions: Sequence[dict[str, Any]], box: tuple[int, int, int], flip: bool, grid: int
) -> Iterator[tuple[Region, np.ndarray | None]]:
    """Bring regions into the crop and to the grid; also bool [s, s], where colours may be read."""
    left, top, side = box
    for region in regions:
        if region.get("crowd"):
            continue
        mask = Image.open(io.BytesIO(region["mask"])).convert("L").point(lambda v: 255 * (v > 0))
        boxed = _is_box(mask)
        mask = mask.crop((left, top, left + side, top + side))
        if flip:
            mask = mask.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        cells = np.asarray(mask.resize((grid, grid), Image.Resampling.BOX))
        if cells.mean() / 255 >= MIN_REGION:
            small = mask.resize((COLOUR_SIDE, COLOUR_SIDE), Image.Resampling.NEAREST)
            shares = tuple(int(v) for v in cells.ravel())
            yield (Region(str(region["name"]), shares, region.get("part_of", "")),
                   None if boxed else np.asarray(small) > 0)  # fmt: skip


def _is_box(mask: Image.Image) -> bool:
    """Whether a mask of 0 and 255 is hardly less than its own bounding box."""
    left, top, right, bottom = mask.getbbox() or (0, 0, 1, 1)
    return mask.histogram()[255] >= BOX * (right - left) * (bottom - top)


def _coloured(
    regions: Sequence[tuple[Region, np.ndarray | None]], view: Image.Image
) -> Iterator[Region]:
    """Say of which basic colour each region is, if of one."""
    if all(inside is None for _, inside in regions):
        yield from (region for region, _ in regions)
        return
    small = view.resize((COLOUR_SIDE, COLOUR_SIDE), Image.Resampling.BOX)
    colours = colour_cells(np.asarray(small, np.float32) / 255)
    for region, inside in regions:
        shares = {} if inside is None or not inside.any() else {
            name: float(shown[inside].mean()) for name, shown in colours.items()}  # fmt: skip
        colour = max(shares, key=lambda name: shares[name], default="")
        yield replace(region, colour=colour) if shares.get(colour, 0) >= ONE_COLOUR else region


def _write_words(
    view: Image.Image, rng: np.random.Generator
) -> tuple[Image.Image, list[tuple[str, Image.Image]]]:
    """Write one to three lines of text over a view; also return where, as a region's mask."""
    from PIL import ImageDraw, ImageFont

    view, mask = view.copy(), Image.new("L", view.size)
    low, high = (170, 256) if rng.random() < 0.5 else (0, 90)
    ink = tuple(int(v) for v in rng.integers(low, high, 3))
    size = int(view.width * rng.uniform(0.09, 0.24))
    font = ImageFont.load_default(size)
    top = int(rng.uniform(0, 0.75) * view.height)
    for line in range(int(rng.integers(1, 4))):
        word = "".join(rng.choice(LETTERS, int(rng.integers(3, 9))))
        word = word.upper() if rng.random() < 0.5 else word.capitalize()
        at = (int(rng.uniform(0, 0.5) * view.width), top + int(line * 1.15 * size))
        box = ImageDraw.Draw(view).textbbox(at, word, font)
        if rng.random() < 0.3:
            ground = tuple(255 - v for v in ink)
            ImageDraw.Draw(view).rectangle(box, fill=ground)
        ImageDraw.Draw(view).text(at, word, ink, font)
        ImageDraw.Draw(mask).rectangle(box, fill=255)
    return view, [("text", mask)]


def _rows(source: PhotoSource) -> Iterator[dict[str, Any]]:
    taken: dict[str, int] = {}
    for row in photo_rows(source.path):
        key = row["wnid"] or row["name"]
        taken[key] = taken.get(key, 0) + 1
        if source.per_class is None or key is None or taken[key] <= source.per_class:
            yield row


def _views(
    source: PhotoSource, size: int, grid: int, seed: int
) -> Iterator[tuple[Photo, np.ndarray]]:
    """Yield each view uint8 [size, size, 3] with what is known of it."""
    rng = np.random.default_rng([seed, int(fingerprint(source.path.name)[:8], 16)])
    for number, row in enumerate(_rows(source)):
        image = Image.open(io.BytesIO(row["image"])).convert("RGB")
        known = _known(source, row, image)
        written = number < source.text
        for view_number in range(source.views + written):
            box = _crop_box(*image.size, rng)
            left, top, side = box
            view = image.crop((left, top, left + side, top + side))
            flip = bool(rng.random() < 0.5)
            if flip:
                view = view.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            view = view.resize((size, size), Image.Resampling.BICUBIC)
            marks: list[tuple[str, Image.Image]] = []
            if view_number == source.views:
                view, marks = _write_words(view, rng)
            if rng.random() < DEGRADED:
                view = _degrade(view, rng).resize((size, size), Image.Resampling.BICUBIC)
            regions = [*_coloured([*_regions(row["regions"], box, flip, grid)], view)]
            for name, mask in marks:
                cells = np.asarray(mask.resize((grid, grid), Image.Resampling.BOX))
                regions.append(Region(name, tuple(int(v) for v in cells.ravel())))
            yield replace(known, regions=tuple(regions)), np.asarray(view)


def _known(source: PhotoSource, row: dict[str, Any], image: Image.Image) -> Photo:
    """Return what is known of a photo without its regions."""
    content = row["image"]
    group = photo_group(row["path"], row["group"] or fingerprint(content.hex()))
    return Photo(
        source.path.stem, group, row["name"], row["wnid"], tuple(row["captions"]), (),
        group_of(row["path"], content), picture_hash(image), row["origin"],
    )  # fmt: skip


def list_photos(source: PhotoSource) -> Iterator[tuple[Photo, int]]:
    """Yield what is known of each photo, without its regions, and how many views it has."""
    for number, row in enumerate(_rows(source)):
        image = Image.open(io.BytesIO(row["image"])).convert("RGB")
        yield _known(source, row, image), source.views + (number < source.text)


def photo_features(
    encoder: Encoder,
    sources: Sequence[PhotoSource],
    *,
    seed: int = 0,
    advance: Callable[[int], None] = lambda n: None,
    say: Callable[[str], None] = lambda text: None,
    process: PartialState | None = None,
) -> PhotoFeatures:
    """Encode the photos of ``sources``, or read what an earlier call with the same inputs wrote.

    Each source is kept by itself: one more costs its own photos alone. Of several processes that
    call this together (``process``) each encodes its share, and the main one writes.

    Raises:
        InputError: a source does not exist, or is in no layout that is known, or another process
            encodes the same photos.
    """
    missing = [str(s.path) for s in sources if not s.path.exists()]
    if missing:
        raise InputError(
            f"training photos not found: {', '.join(missing)}",
            "the recipe names them under data",
            "give the folder that holds them with data.root=FOLDER",
        )
    return PhotoFeatures([_source_features(encoder, source, seed, advance, say, process)
                          for source in sources])  # fmt: skip


def _source_features(
    encoder: Encoder,
    source: PhotoSource,
    seed: int,
    advance: Callable[[int], None],
    say: Callable[[str], None],
    process: PartialState | None,
) -> Path:
    """Return the folder of one source's features, made if need be."""
    read = [source.path.name, fingerprint_source(source.path)]
    settings = [source.per_class, source.views, source.text]
    key = fingerprint(encoder.fingerprint(), read, settings, seed, code_key(__name__))
    root = cache_dir("photos", key)
    index, main = root / INDEX, process is None or process.is_main_process
    with contextlib.ExitStack() as alone:
        there = main and is_whole(root, index)
        if main and not there:
            alone.enter_context(held(root, say))
            there = is_whole(root, index)  # the last holder may have made it
        if not agreed(process, there or not main):
            encoded = _encoded(encoder, source, seed, process)
            if main:
                if root.exists():  # damaged, or an earlier milanx wrote it
                    shutil.rmtree(root)
                with atomic_path(root) as temporary:
                    temporary.mkdir()
                    _write(encoder, encoded, temporary, advance)
            else:
                for photos, _ in encoded:
                    advance(len(photos))
    if process is not None and process.num_processes > 1:
        process.wait_for_everyone()
        if not index.exists():  # this machine does not see the main process's disk
            return _source_features(encoder, source, seed, advance, say, None)
    return root


Encoded = Iterator[tuple[list[Photo], np.ndarray]]


def _encoded(
    encoder: Encoder, source: PhotoSource, seed: int, process: PartialState | None
) -> Encoded:
    """Yield views in batches: what is known of them, and their features float16 [b, g * g, d]."""
    at_once = BATCH * (process.num_processes if process is not None else 1)
    views = _views(source, encoder.spec.image_size, encoder.spec.grid, seed)
    while some := list(itertools.islice(views, at_once)):
        shares = Shares(some, BATCH, process)
        dense = (
            encoder.dense(torch.from_numpy(np.stack([view for _, view in batch]))
                          .permute(0, 3, 1, 2)).flatten(1, 2).half()
            for batch in shares.own
        )  # fmt: skip
        for batch, made in shares.gathered(dense):
            yield [photo for photo, _ in batch], made.cpu().numpy()


def _write(encoder: Encoder, encoded: Encoded, root: Path, advance: Callable[[int], None]) -> None:
    """Write what `_encoded` yields as a folder that `PhotoFeatures` reads."""
    photos: list[Photo] = []
    with (root / "dense.raw").open("wb") as file:
        for here, dense in encoded:
            photos += here
            file.write(dense.tobytes())
            advance(len(here))
    shape = (len(photos), encoder.spec.grid**2, encoder.width)
    raw = np.memmap(root / "dense.raw", np.float16, "r", shape=shape)
    np.save(root / "dense.npy", raw, allow_pickle=False)
    del raw
    (root / "dense.raw").unlink()
    content = {"photos": [asdict(p) for p in photos], "count": len(photos), FILES: told(root)}
    write_json(root / INDEX, FORMAT, VERSION, json.loads(json.dumps(content)))
