"""How candidates are found and ranked: one object of settings, checked when it is made."""

from __future__ import annotations

from dataclasses import dataclass

from milanx.errors import InputError, did_you_mean

STRATEGIES = ("beam", "diverse", "nucleus")


@dataclass(frozen=True)
class SearchSettings:
    """How descriptions are searched.

    Attributes:
        beam: hypotheses kept.
        max_tokens: of a text that is searched, its end token included; retrieved ones may be
            longer.
        lam: lambda of log p(d|E) - lambda log p(d).
        candidates: how many are kept beside the description.
        method: ``pmi``, or ``argmax`` for log p(d|E) alone.
        strategy: ``beam``; ``diverse``, a beam in groups that avoid each other's words;
            ``nucleus``, sampling.
        groups: of the diverse beam, which share ``beam`` equally.
        diversity: nats that a word costs a group for each hypothesis of the groups before it
            that has this word at this place.
        top_p: mass of the nucleus that words are drawn from.
        samples: texts drawn for each unit.
        seed: of the draws. All units read the same draws, so that a unit's texts do not depend
            on the units beside it.
        stepwise: beams are ranked by log p(d|E) - stepwise * log p(d) at every step; 0 is off.
        min_tokens: least tokens of a description, its end token left out.
        no_repeat: n-grams of this many tokens never occur twice in a text; 0 is off.
        length_penalty: nats taken for each token when candidates are ranked (below 0: given).
        agreement: weight of the agreement of text and exemplars (`milanx.describing.critic`) in
            the ranking.
        response: weight of the correlation of text and activations (`milanx.describing.response`)
            in the ranking.
        retrieved: phrases that the critic finds to agree most, and as many that foretell the
            activations best where ``response`` has a weight, that are ranked beside what the
            strategy finds; 0 is none.
        composed: joined texts a connective, made of two retrieved phrases that foretell the
            activations better together than each does, that are ranked beside the others where
            ``response`` has a weight; 0 is none.
        joined: nats taken in the ranking from a text that joins two things, which fits by chance
            more easily than one.
        without: nats taken in the ranking from a text that says what is missing ("A without B"):
            contrast views seldom bear it out.

    Raises:
        InputError: an unknown strategy, or values that no search can have.
    """

    beam: int = 50
    max_tokens: int = 16
    lam: float = 0.2
    candidates: int = 10
    method: str = "pmi"
    strategy: str = "beam"
    groups: int = 5
    diversity: float = 0.5
    top_p: float = 0.95
    samples: int = 50
    seed: int = 0
    stepwise: float = 0.0
    min_tokens: int = 0
    no_repeat: int = 0
    length_penalty: float = 0.0
    agreement: float = 0.0
    response: float = 0.0
    retrieved: int = 0
    composed: int = 0
    joined: float = 0.0
    without: float = 0.0

    def __post_init__(self) -> None:
        if self.strategy not in STRATEGIES:
            hint = did_you_mean(self.strategy, STRATEGIES)
            ways = [hint] if hint else [f"take {', '.join(STRATEGIES)}"]
            raise InputError(
                f"no search strategy {self.strategy!r}", f"there are {', '.join(STRATEGIES)}", ways
            )
        if self.strategy == "diverse" and not 1 <= self.groups <= self.beam:
            raise InputError(
                f"{self.groups} groups of a beam of {self.beam}",
                "every group of a diverse beam holds at least one hypothesis",
                "take fewer groups or a wider beam",
            )
        if self.strategy == "nucleus" and not (0 < self.top_p <= 1 and self.samples > 0):
            raise InputError(
                f"a nucleus of {self.top_p} and {self.samples} samples",
                "the nucleus is a share above 0 up to 1, and at least one text is drawn",
                "take top_p=0.95 samples=50",
            )
        if self.strategy == "nucleus" and self.stepwise:
            raise InputError(
                "nucleus sampling cannot weigh log p(d) at every step",
                "samples are drawn, not ranked",
                ("take the strategy beam or diverse", "leave stepwise at 0"),
            )
        if not 0 <= self.min_tokens < self.max_tokens:
            raise InputError(
                f"at least {self.min_tokens} tokens of at most {self.max_tokens}",
                "the end token is one of the most, so that no text can be so long",
                "take a smaller min_tokens or a larger max_tokens",
            )
