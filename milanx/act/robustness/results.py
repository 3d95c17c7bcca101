"""What an evaluation found: figures of all models, in words what they are, as json."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from milanx.errors import FormatError
from milanx.files import read_json, write_json
from milanx.files.digests import AGAIN, SEAL

FORMAT, VERSION = "milanx-robustness", 1


@dataclass(frozen=True)
class Robustness:
    """Figures of one evaluation.

    Attributes:
        kind: imagenet-c, cue-conflict or labelled.
        source: the images, in words.
        measure: ``error``, ``accuracy``, ``decision``, or ``disagreement`` with the first model on
            the clean image where images have no labels.
        models: their names; the first is the reference of all differences.
        images: how many.
        groups: how many photographs they are of.
        settings: seed, sample and what else the pictures depend on.
        figures: all in %: of each model, and the differences to the first; every figure has an
            ``estimate`` and a 95 % ``interval`` over images.
        notes: what must be known to read them.
    """

    kind: str
    source: str
    measure: str
    models: tuple[str, ...]
    images: int
    groups: int
    settings: dict[str, Any]
    figures: dict[str, Any]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as json can write it."""
        return asdict(self)

    def write(self, path: Path) -> None:
        """Write it as json, atomically."""
        write_json(path, FORMAT, VERSION, self.to_dict())


def read_robustness(path: Path) -> Robustness:
    """Read what `Robustness.write` wrote.

    Raises:
        FormatError: no such file, or of another format or version.
    """
    content = read_json(path, FORMAT, VERSION)
    for frame in ("format", "version", SEAL):
        content.pop(frame, None)
    try:
        lists = {name: tuple(content[name]) for name in ("models", "notes")}
        return Robustness(**{**content, **lists})
    except (KeyError, TypeError) as error:
        raise FormatError(f"{path} is damaged", f"what it says of {error} cannot be read",
                          AGAIN) from error  # fmt: skip
