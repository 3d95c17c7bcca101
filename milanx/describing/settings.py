"""A describer's settings: how texts are found, what is read of a layer, and what ranks.

All of them stand in ``describer.json`` and in a describer's fingerprint. "Development layers" are
hidden layers, planted units and one model's logits on which numbers were chosen before there was a
list of what is for development: docs/believe.md says what that means for its figures. By the list,
`milanx bench weights` chooses.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from milanx.errors import InputError, did_you_mean
from milanx.language.settings import HypothesisSettings

METHODS = ("pmi", "argmax")


@dataclass(frozen=True)
class RankSettings:
    """What texts are ranked beside each other, and by what (`milanx.describing.ranker`).

    The weights are 0, none, unless a describer or a user gives them; those of the bundled
    describer, in brackets, were chosen on development layers.

    Attributes:
        lam: lambda of log p(d|E) - lambda log p(d); 0.2 as of MILAN (Hernandez et al. 2022).
        candidates: how many are kept beside the description.
        method: ``pmi``, all terms of the ranking; or ``argmax`` for log p(d|E) alone.
        agreement: weight of the agreement of text and exemplars (`milanx.describing.critic`)
            [3].
        response: weight of the correlation of text and activations
            (`milanx.describing.response`) [300].
        joined: nats taken from a text that joins two things, which fits by chance more easily
            than one [8].
        without: nats taken from a text that says what is missing ("A without B"): contrast views
            seldom bear it out [3].
        absent: nats taken from a text that joins two things of which the exemplars do not show one
            (`milanx.describing.halves`), by how far they do not.
        length_penalty: nats taken for each token (below 0: given) [0].
        dim: a correlation far below this may come about by chance: it counts by its cube. On some
            hundred views chance alone gives correlations of about 0.1 [0.06].
        unsure: nats that the likeliest text costs where p(d|E) by itself is no guide any more, and
            responses count in full; of development layers.
        least: what responses count at least, however sure p(d|E) is: many units are surely of
            dogs, and only responses tell of which; of development layers [0.8].
        retrieved: phrases that the critic finds to agree most, and as many that foretell the
            activations best where ``response`` has a weight, that are ranked beside what the
            search finds; 0 is none [12].
        composed: joined texts a connective, made of two retrieved phrases that foretell the
            activations better together than each does, that are ranked beside the others where
            ``response`` has a weight; 0 is none [4].
        classes: names of classes that are ranked beside the others: those of which the encoder's
            own classifier finds most evidence under the masks, where it has one
            (`milanx.features.classes`); 0 is none [4].
        cells: share that a correlation cell by cell counts as a response, of the masks with what a
            text says of pixels and places (`milanx.describing.where`); that of whole views counts
            where it is larger. 0 asks whole views alone [1].
        least_cells: what such a response counts at least, however sure p(d|E) is [0.2].
        place: nats taken from a text that says where a unit looks, and nothing of what is there
            [10].
        placed: texts that cells tell which are ranked beside the others: those that cover best what
            the masks do; 0 is none [4].
        others: units of a layer, at most, beside which one of them is described; bounds the time
            in layers of thousands of units.
        pseudo: sets without opinion that are counted among these units, so that few of them say
            little; of development layers.

    Raises:
        InputError: an unknown method, or counts below what they count.
    """

    lam: float = 0.2
    candidates: int = 10
    method: str = "pmi"
    agreement: float = 0.0
    response: float = 0.0
    joined: float = 0.0
    without: float = 0.0
    absent: float = 0.0
    length_penalty: float = 0.0
    dim: float = 0.12
    unsure: float = 2.5
    least: float = 0.3
    retrieved: int = 0
    composed: int = 0
    classes: int = 0
    cells: float = 0.0
    least_cells: float = 0.2
    place: float = 0.0
    placed: int = 0
    others: int = 256
    pseudo: int = 32

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise InputError(
                f"no way {self.method!r} of ranking",
                f"there are {', '.join(METHODS)}",
                did_you_mean(self.method, METHODS) or f"take {METHODS[0]}",
            )
        if min(self.candidates, self.others, self.pseudo) < 1 or self.unsure <= 0:
            raise InputError(
                f"candidates {self.candidates}, others {self.others}, pseudo {self.pseudo}, "
                f"unsure {self.unsure}",
                "the first three count something and are at least 1, the last is above 0",
                "leave them at 10, 256, 32 and 2.5",
            )


@dataclass(frozen=True)
class ResponseSettings:
    """How far a text foretells activations (`milanx.describing.response`).

    All were chosen on development layers.

    Attributes:
        no_opinion: photographs that tell nothing, which are counted beside the real ones: few
            say little.
        exact: share that a correlation read off pixels counts beside one of the joint space, which
            sees what a text names but dimly, so that its correlations are smaller [0.6].
        evident: share that a correlation read off the encoder's own classifier counts, where a text
            is the name of one of its classes and it has one (`milanx.features.classes`); the joint
            space's counts where it is larger. 0 asks the
            joint space alone [0.8].
        near: units whose exemplars look most alike, beyond which a unit's response is told.
        near_share: of what is taken off, their part; the rest is the layer's mean unit.

    Raises:
        InputError: counts below 0, or a share outside 0..1.
    """

    no_opinion: int = 200
    exact: float = 0.4
    evident: float = 0.0
    near: int = 8
    near_share: float = 0.25

    def __post_init__(self) -> None:
        if min(self.no_opinion, self.near) < 0 or not 0 <= self.near_share <= 1:
            raise InputError(
                f"no_opinion {self.no_opinion}, near {self.near}, near_share {self.near_share}",
                "the first two are counts, the last is a share",
                "leave them at 200, 8 and 0.25",
            )


@dataclass(frozen=True)
class SearchSettings(ResponseSettings, RankSettings, HypothesisSettings):
    """All that a describer's texts depend on beside its weights and the shape of its networks.

    One flat object for whoever asks; each part of a describer is told the settings of its own:
    `milanx.language.settings.HypothesisSettings`, `RankSettings`, `ResponseSettings`, where every
    attribute is explained.

    Raises:
        InputError: values without meaning.
    """

    def __post_init__(self) -> None:
        for f in fields(self):
            value = getattr(self, f.name)
            if isinstance(value, float) and not math.isfinite(value):
                raise InputError(f"{f.name} cannot be {value}", "it is a number, and finite",
                                 f"leave it at {f.default}")  # fmt: skip
        HypothesisSettings.__post_init__(self)
        RankSettings.__post_init__(self)
        ResponseSettings.__post_init__(self)
