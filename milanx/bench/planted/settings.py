"""What is planted, and how many photos plant it, weigh it and report it."""

from __future__ import annotations

from dataclasses import dataclass

from milanx.errors import InputError
from milanx.images.sources import BUILTIN

# What a user types who looks for units of writing: P2's phrases of "text", which were written
# before any description was seen.
WORDS = ("text", "letter", "word", "writing", "lettering", "caption")


@dataclass(frozen=True)
class TextPlanting:
    """Detectors of lettering in a model, and what they are looked for among.

    Attributes:
        model: a timm name; its last convolution, the normalisation behind it and the classifier
            are ``conv``, ``norm`` and ``classifier``.
        weights: a checkpoint; the model's own when None.
        conv: name of the last convolution, 1 x 1.
        norm: name of what normalises and rectifies it; its channels are the units.
        classifier: name of the linear layer behind the pooling.
        detectors: how many channels are replaced.
        others: further channels of the layer that are described.
        probed: photos that detectors are learned on, at most.
        probe: images that units are described on beside the photos.
        lettered: whether units are described a second time, on these and lettered photos.
        skip: so many of the labelled photos, the first ones, are left out.
        limit: at most so many of the others.
        draws: random prunings.
        seed: of everything that is drawn.
    """

    model: str = "tf_efficientnet_lite0"
    weights: str | None = None
    conv: str = "conv_head"
    norm: str = "bn2"
    classifier: str = "classifier"
    detectors: int = 20
    others: int = 200
    probed: int = 160
    probe: str = BUILTIN
    lettered: bool = False
    skip: int = 0
    limit: int | None = None
    draws: int = 20
    seed: int = 0

    def __post_init__(self) -> None:
        for what, value, least in (("detectors", self.detectors, 1), ("others", self.others, 0),
                                   ("probed", self.probed, 8), ("skip", self.skip, 0),
                                   ("draws", self.draws, 1)):  # fmt: skip
            if value < least:
                raise InputError(f"{what} cannot be {value}", f"it is {least} or more")
        if self.limit is not None and self.limit < 1:
            raise InputError(f"{self.limit} photos are none", "--limit is 1 or more")
