"""Where training units come from: what every source can give."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from milanx.describing.trained import TrainedPhoto
from milanx.features.encoder import Encoder
from milanx.train.units.corpus import Corpus
from milanx.train.units.table import Joint


class UnitSource(Protocol):
    """Units to train on, with their texts."""

    @property
    def corpus(self) -> type[Corpus]:
        """What draws the units of a table."""

    @property
    def identity(self) -> object:
        """What the units and texts are known by in cache keys."""

    def build_table(
        self, encoder: Encoder, folder: Path, joint: Joint | None, advance: Callable[[int], None]
    ) -> dict[str, Any]:
        """Write the table of pooled features (`milanx.train.units.table`).

        Args:
            encoder: gives features.
            folder: is written to.
            joint: brings features to the joint space in place of the encoder's own projection.
            advance: told how many more units are done.

        Returns:
            What a describer's folder says of it.
        """

    def texts(self) -> list[str]:
        """Return the text for pretraining, without what is held out."""

    def people(self) -> list[str]:
        """Return people's descriptions of units elsewhere, without those held out."""

    def trained(self) -> list[TrainedPhoto] | None:
        """Return the photos that a training reads; None where they are not known as such."""

    def facts(self) -> dict[str, Any]:
        """Return what a describer's folder says of what was trained on and held out."""
