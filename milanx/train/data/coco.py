"""COCO as its json files say it: captions and regions of photos, masks from polygons and runs."""

from __future__ import annotations

import io
import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from milanx.errors import InputError


def is_coco(path: Path) -> bool:
    """Whether a json looks like COCO's, by its first bytes and size alone."""
    with path.open(encoding="utf-8", errors="replace") as file:
        head = file.read(1 << 16)
        if '"annotations"' in head or '"images"' in head:
            return True
    return path.name.startswith(("instances", "captions", "panoptic"))


class Coco:
    """What the json files of one folder say about its photos, which are known by their names.

    Args:
        files: of instances, captions or panoptic segments.

    Attributes:
        photos: height and width of each photo, 0 where they are not said.
        captions: the sentences of each photo.
        shapes: name, COCO segmentation and crowd of each region of a photo.
        panoptic: the PNG of each photo, and name and crowd of the numbers in it.

    Raises:
        InputError: a file that is damaged or no COCO annotations.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        self.photos: dict[str, tuple[int, int]] = {}
        self.captions: dict[str, list[str]] = defaultdict(list)
        self.shapes: dict[str, list[tuple[str, Any, bool]]] = defaultdict(list)
        self.panoptic: dict[str, tuple[Path, dict[int, tuple[str, bool]]]] = {}
        for path in files:
            self._read(path)

    def _read(self, path: Path) -> None:
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            names = {i["id"]: str(i["file_name"]) for i in content["images"]}
            for image in content["images"]:
                self.photos[str(image["file_name"])] = image.get("height", 0), image.get("width", 0)
            kinds = {c["id"]: str(c["name"]) for c in content.get("categories", ())}
            for annotation in content["annotations"]:
                self._add(path, names[annotation["image_id"]], annotation, kinds)
        except (ValueError, KeyError, TypeError) as error:
            why = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
            raise InputError(f"{path} cannot be read as COCO annotations", why,
                             "it needs images, annotations and, for regions, categories"
                             ) from error  # fmt: skip

    def _add(self, path: Path, photo: str, annotation: dict[str, Any], kinds: Any) -> None:
        if "caption" in annotation:
            self.captions[photo].append(" ".join(str(annotation["caption"]).split()))
        elif "segments_info" in annotation:
            segments = {int(s["id"]): (kinds[s["category_id"]], bool(s.get("iscrowd")))
                        for s in annotation["segments_info"]}  # fmt: skip
            self.panoptic[photo] = path.with_suffix("") / annotation["file_name"], segments
        elif annotation.get("segmentation"):
            name, crowd = kinds[annotation["category_id"]], bool(annotation.get("iscrowd"))
            self.shapes[photo].append((name, annotation["segmentation"], crowd))

    def regions(self, photo: str, size: tuple[int, int]) -> Iterator[dict[str, Any]]:
        """Make the regions of a photo of ``size`` (height, width).

        Yields:
            ``name``, ``mask`` (bytes of a PNG as large as the photo, 0 and 255), ``crowd``.

        Raises:
            InputError: the PNG of its panoptic segments is missing.
        """
        for name, shape, crowd in self.shapes[photo]:
            yield {"name": name, "mask": _png(segmentation_mask(shape, size)), "crowd": crowd}
        if photo in self.panoptic:
            path, segments = self.panoptic[photo]
            if not path.is_file():
                raise InputError(f"{path} is missing", "it holds the panoptic segments of a photo",
                                 "put the folder of PNGs beside its json")  # fmt: skip
            colours = np.asarray(Image.open(path).convert("RGB")).astype(np.int64)
            numbers = colours @ np.array([1, 256, 65536])
            for number, (name, crowd) in segments.items():
                yield {"name": name, "mask": _png(numbers == number), "crowd": crowd}


def _png(mask: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(mask.astype(np.uint8) * 255).save(buffer, "PNG")
    return buffer.getvalue()


def segmentation_mask(shape: Any, size: tuple[int, int]) -> np.ndarray:
    """Make a mask of a COCO segmentation.

    Args:
        shape: polygons (lists of x, y in pixels from the upper left corner), or run lengths
            ``{"counts": list or compressed text, "size": [height, width]}``.
        size: height and width of the photo.

    Returns:
        bool [height, width]; a pixel is in a polygon where its centre is.

    Raises:
        ValueError: run lengths that do not fill the photo.
    """
    if isinstance(shape, dict):
        counts = shape["counts"]
        return run_length_mask(
            run_lengths(counts) if isinstance(counts, str | bytes) else counts, shape["size"]
        )
    from skimage.draw import polygon

    mask = np.zeros(size, bool)
    for points in shape:
        x, y = np.asarray(points[0::2], float) - 0.5, np.asarray(points[1::2], float) - 0.5
        mask[polygon(y, x, size)] = True
    return mask


def run_lengths(text: str | bytes) -> list[int]:
    """Decode COCO's compressed run lengths (``rleFrString`` of cocoapi's maskApi.c).

    Each number is written in groups of five bits, lowest first, a character of code 48 and up a
    group, whose sixth bit says that another follows; the last group's fifth bit is the sign. From
    the fourth number on, the difference to the number two before is written.
    """
    codes = text.encode() if isinstance(text, str) else text
    counts: list[int] = []
    value = shift = 0
    for code in codes:
        bits = code - 48
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            if bits & 16:
                value -= 1 << shift
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            value = shift = 0
    return counts


def run_length_mask(counts: Sequence[int], size: Sequence[int]) -> np.ndarray:
    """Turn run lengths, 0 and 1 by turns down the columns, into a mask bool [height, width].

    Raises:
        ValueError: they do not fill the mask.
    """
    height, width = size
    if sum(counts) != height * width or min(counts, default=0) < 0:
        raise ValueError(f"run lengths of {sum(counts)} pixels for {height} x {width}")
    flat = np.zeros(height * width, bool)
    ends = np.cumsum([0, *counts])
    for i, (start, end) in enumerate(pairwise(ends.tolist())):
        flat[start:end] = i % 2
    return flat.reshape(width, height).T
