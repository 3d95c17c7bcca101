"""What numbers are chosen on, and what reports use: nothing stands in both lists.

A test holds this, and that the second list has all that ``docs/believe.md`` reports. Whoever
reports a further layer, seed or file adds it there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from milanx.errors import InputError


@dataclass(frozen=True)
class Used:
    """Targets with their layers, seeds of planted units, and photos.

    Attributes:
        layers: target -> names of layers.
        seeds: of planted units.
        photos: files, by name. Of files with groups of their own reports take other photographs
            (`milanx.evaluate.p2.facts.is_for`).
    """

    layers: Mapping[str, tuple[str, ...]]
    seeds: tuple[int, ...]
    photos: tuple[str, ...]


# No layer is the last of its stage, which are those that reports take (rule 10 of the protocols),
# and no report is about this target. It is the tower of the bundled describer's encoder.
DEVELOPMENT = Used(
    {"tf_efficientnet_lite1": ("blocks.4.1.bn1", "blocks.5.2.bn1")},
    (101, 102),
    ("parts", "attributes", "tiny_imagenet_ten"),
)
REPORTED = Used(
    {
        "tf_efficientnet_lite0": ("classifier", "blocks.4.2.bn1", "blocks.5.3.bn1"),
        "vit_tiny_patch16_224": ("head", "blocks.6.mlp.fc1", "blocks.10.mlp.fc1"),
        "mobilenetv2_100": ("classifier",),
    },
    (0, 6, 7, 8),
    ("regions", "textures", "tiny_imagenet_val", "imagenet_sample", "captions", "caltech101"),
)
HALVED = ("parts", "attributes")  # of these, with groups of their own, reports take other photos
LEAST = 10  # units that a set must have
COCO = "coco:"  # photographs that many files hold: left out wherever weights are chosen


def for_development(group: str) -> bool:
    """Whether a photo of a development file may be used, by its group."""
    return not group.startswith(COCO)


def check_files(paths: Sequence[Path]) -> None:
    """Refuse files that are not for development.

    Raises:
        InputError: the first of them, or none was given.
    """
    names = ", ".join(DEVELOPMENT.photos)
    if not paths:
        raise InputError("no photos to choose weights on", "none were given",
                         f"--images FILE.parquet, of {names}")  # fmt: skip
    for path in paths:
        if path.stem not in DEVELOPMENT.photos:
            said = "reports use it" if path.stem in REPORTED.photos else "it is on no list"
            raise InputError(
                f"weights are not chosen on {path}", said,
                f"the files for development are {names}; milanx/evaluate/weights/lists.py says so",
            )  # fmt: skip


@dataclass(frozen=True)
class WeightsAsked:
    """On how much weights are chosen; on what, `DEVELOPMENT` says.

    Attributes:
        images: files for development.
        out: new folder for runs and ``weights.json``.
        count: planted units of each seed.
        sets: exemplar sets of each class and seed, as logits have them.
        units: the first units of each layer that are described.
        limit: images that the target is shown.
        per_file: photos of a file that units are planted on.
        seed: of folds and draws.

    Raises:
        InputError: files that are not for development, or numbers that are too small.
    """

    images: tuple[Path, ...]
    out: Path
    count: int = 100
    sets: int = 4
    units: int = 96
    limit: int = 1200
    per_file: int = 1200
    seed: int = 0

    def __post_init__(self) -> None:
        check_files(self.images)
        if min(self.count, self.units) < 2 * LEAST:
            raise InputError(f"{min(self.count, self.units)} units are too few",
                             f"weights are chosen on {2 * LEAST} or more of each kind")  # fmt: skip
