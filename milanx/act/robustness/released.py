"""The published ImageNet-C: ``ROOT/CORRUPTION/SEVERITY/WNID/*.JPEG``, 224 x 224, no second resize.

The four archives unpack to that layout; a folder of their names (noise, blur, weather, digital) in
between is fine. A second resize would change rankings (RobustBench #59).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from milanx.act.data import Classes, EvalSet, match_labels
from milanx.errors import InputError
from milanx.files import fingerprint
from milanx.images.decoding import decode, suffixes
from milanx.images.preprocess import Preprocess
from milanx.images.probe import ImageRecord

SIDE = 224  # pixels, of the released files
SHOWN = 10  # missing folders that an error names

View = Callable[[Image.Image], np.ndarray]


def as_it_is(preprocess: Preprocess) -> tuple[View, str]:
    """Return how a finished picture of 224 x 224 becomes a view, and what is to be said of it.

    It is only cropped, as the authors' ``test.py`` does; a target that wants more pixels gets the
    whole picture enlarged.
    """
    height, width = preprocess.size
    if max(height, width) <= SIDE:
        only_crop = Preprocess(preprocess.size, None)
        return only_crop.view, ""
    enlarge = Preprocess(preprocess.size, preprocess.size, preprocess.interpolation)
    return enlarge.view, (
        f"the model takes {height} x {width} pixels and the pictures have {SIDE} x {SIDE}: they "
        "were enlarged, so figures are not comparable with those of models that take them as is"
    )


@dataclass(frozen=True)
class Released:
    """The published images that are asked for, checked.

    Attributes:
        folders: of each (corruption, severity).
        names: ``WNID/FILE`` of every image, the same in all folders.
        side: pixels that either side of each picture must have; None: any.
    """

    folders: dict[tuple[str, int], Path]
    names: tuple[str, ...]
    side: int | None = SIDE

    def subset(self, count: int | None, seed: int) -> Released:
        """Return a seeded sample of the images, the same in all folders."""
        if count is None or count >= len(self.names):
            return self
        chosen = np.sort(np.random.default_rng(seed).choice(len(self.names), count, replace=False))
        return replace(self, names=tuple(self.names[i] for i in chosen))

    def images(self, name: str, severity: int, view: View, labels: np.ndarray) -> EvalSet:
        """Return the images of one corruption and severity, with the labels of `labels`."""
        folder = self.folders[name, severity]

        def read(i: int) -> np.ndarray:
            return view(_decoded(folder / self.names[i], self.side))

        tags = (f"{name} {severity}",) * len(self.names)
        return EvalSet(f"{name} {severity}", read, self.names, labels, tags)

    def labels(self, classes: Classes) -> np.ndarray:
        """Number the folders' WordNet ids as the model does, int64 [n].

        Raises:
            InputError: they fit no class of the model.
        """
        records = [_record(i, name) for i, name in enumerate(self.names)]
        labels = match_labels(records, classes, "the released images")
        assert labels is not None
        return labels

    def key(self, name: str, severity: int) -> str:
        """Stand for the files of one folder: names, sizes, times of change."""
        folder = self.folders[name, severity]
        stats = [(folder / n).stat() for n in self.names]
        return fingerprint(list(self.names), [(s.st_size, s.st_mtime_ns) for s in stats])


def _record(index: int, name: str) -> ImageRecord:
    wnid = name.partition("/")[0]
    return ImageRecord(index, "released", name, name, name, name=wnid)


def _decoded(path: Path, side: int | None) -> Image.Image:
    try:
        image = decode(path.read_bytes())
    except (OSError, SyntaxError, ValueError) as error:
        raise InputError(
            f"cannot read {path}", str(error).splitlines()[0], "unpack the archive again"
        ) from error
    if side is not None and image.size != (side, side):
        raise InputError(
            f"{path} has {image.width} x {image.height} pixels",
            f"the released images of ImageNet-C have {side} x {side}",
            "leave --eval-images out and give clean images: then corruptions are made on the fly",
        )
    return image


def find_folders(
    root: Path, corruptions: Sequence[str], severities: Sequence[int]
) -> dict[tuple[str, int], Path]:
    """Return the folder of each corruption and severity of the published images.

    Raises:
        InputError: some have none; they are listed.
    """
    wanted = [(name, severity) for name in corruptions for severity in severities]
    found = {cell: _folder(root, *cell) for cell in wanted}
    missing = [f"{name}/{severity}" for (name, severity), path in found.items() if path is None]
    if missing:
        more = f" and {len(missing) - SHOWN} more" if len(missing) > SHOWN else ""
        raise InputError(
            f"{root} lacks {len(missing)} of {len(wanted)} folders of ImageNet-C",
            f"there is no {', '.join(missing[:SHOWN])}{more}",
            ("unpack all of blur.tar, digital.tar, noise.tar and weather.tar there",
             "ask only for what is there: --severities, and of milanx robustness --corruption"),
        )  # fmt: skip
    return {cell: path for cell, path in found.items() if path is not None}


def open_released(root: Path, corruptions: Sequence[str], severities: Sequence[int]) -> Released:
    """Find the folders of the published images and check that all are there and hold the same.

    Raises:
        InputError: corruptions or severities without a folder, which are listed, or folders that
            do not hold the same images.
    """
    folders = find_folders(root, corruptions, severities)
    names: tuple[str, ...] = ()
    for (name, severity), folder in folders.items():
        here = tuple(sorted(_files(folder)))
        if not here:
            raise InputError(f"no images in {folder}", "it holds no WNID/*.JPEG", "unpack it again")
        if names and here != names:
            odd = sorted(set(here) ^ set(names))
            raise InputError(
                f"{name}/{severity} does not hold the images that the other folders hold",
                f"{len(odd)} are in one alone, such as {odd[0]}",
                "unpack the archives again",
            )
        names = here
    return Released(folders, names)


def _folder(root: Path, name: str, severity: int) -> Path | None:
    above = sorted(root.iterdir()) if root.is_dir() else []
    places = [root / name / str(severity), *(p / name / str(severity) for p in above)]
    return next((p for p in places if p.is_dir()), None)


def _files(folder: Path) -> Iterator[str]:
    for inside in folder.iterdir():
        if inside.is_dir():
            for path in inside.iterdir():
                if path.suffix.lower() in suffixes() and not path.name.startswith("."):
                    yield f"{inside.name}/{path.name}"
