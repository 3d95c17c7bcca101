"""How hypotheses of p(d|E) are searched: settings that are checked when they are made."""

from __future__ import annotations

from dataclasses import dataclass

from milanx.errors import InputError, did_you_mean

STRATEGIES = ("beam", "diverse", "nucleus")


@dataclass(frozen=True)
class HypothesisSettings:
    """How texts are searched under p(d|E).

    Attributes:
        beam: hypotheses kept; 50 as of MILAN (Hernandez et al. 2022).
        max_tokens: of a text that is searched, its end token included; retrieved ones may be
            longer. 16 tokens hold nearly all descriptions that people wrote of units: their 95th
            percentile is 12 words.
        strategy: ``beam``; ``diverse``, a beam in groups that avoid each other's words
            (Vijayakumar et al. 2016); ``nucleus``, sampling (Holtzman et al. 2020).
        groups: of the diverse beam, which share ``beam`` equally.
        diversity: nats that a word costs a group for each hypothesis of the groups before it
            that has this word at this place; 0.5 is among the values of Vijayakumar et al.
        top_p: mass of the nucleus that words are drawn from; 0.95 as of Holtzman et al.
        samples: texts drawn for each unit, as many as the beam keeps.
        seed: of the draws. All units read the same draws, so that a unit's texts do not depend
            on the units beside it.
        stepwise: beams are ranked by log p(d|E) - stepwise * log p(d) at every step; 0 is off.
        min_tokens: least tokens of a description, its end token left out.
        no_repeat: n-grams of this many tokens never occur twice in a text; 0 is off.

    Raises:
        InputError: an unknown strategy, or values that no search can have.
    """

    beam: int = 50
    max_tokens: int = 16
    strategy: str = "beam"
    groups: int = 5
    diversity: float = 0.5
    top_p: float = 0.95
    samples: int = 50
    seed: int = 0
    stepwise: float = 0.0
    min_tokens: int = 0
    no_repeat: int = 0

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
