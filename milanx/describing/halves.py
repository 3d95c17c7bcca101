"""Whether exemplars show both of the things that a text joins: one of them is easily said too much.

"A or B" fits any set that shows A a little better than A does wherever a few of its exemplars look
like B. So each exemplar is asked which of both it shows, beside what masks all over the layer show.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from milanx.describing.signs import Crowd
    from milanx.describing.texts import TextSpace

SEEN = 1.0  # standard deviations above what is usual in a layer, from which on a thing is seen
ENOUGH = 0.2  # share of the exemplars that must show the less shown half
PARTS_AT_ONCE = 256  # that exemplars are compared with together


@dataclass(frozen=True)
class Sets:
    """What the masks of some units show, beside their layer.

    Attributes:
        shown: [u, k, j], in the joint space, centred unit rows.
        valid: bool [u, k], which exemplars there are.
        crowd: of their layer.
    """

    shown: torch.Tensor
    valid: torch.Tensor
    crowd: Crowd

    def absent(self, texts: Sequence[str], space: TextSpace) -> torch.Tensor:
        """Return how far one of the things that texts join is not shown: [u, t] in 0..1.

        0 for a text of one thing, and where each half is shown by `ENOUGH` of the exemplars: of
        "A or B" by those that show it more than the other one. Of "A without B" only A is asked.
        """
        found = self.shown.new_zeros(len(self.shown), len(texts))
        divided = {i: parts for i, parts in enumerate(map(space.split, texts)) if parts}
        if not divided:
            return found
        names = sorted({part for first, _, second in divided.values() for part in (first, second)})
        place = {name: i for i, name in enumerate(names)}
        seen = self._deviations(space.centred(names))
        count = self.valid.sum(1).clamp_min(1)
        for i, (first, connective, second) in divided.items():
            a, b = seen[place[first]], seen[place[second]]
            own, other = a >= SEEN, b >= SEEN
            if connective == "or":
                own, other = own & (a >= b), other & (b > a)
            shares = (own & self.valid).sum(1) / count
            if connective != "without":
                shares = torch.minimum(shares, (other & self.valid).sum(1) / count)
            found[:, i] = (1 - shares / ENOUGH).clamp_min(0)
        return found * self.crowd.share

    def _deviations(self, vectors: torch.Tensor) -> torch.Tensor:
        """Return how far above the usual exemplars show things: [parts, u, k] deviations."""
        found = []
        for some in vectors.split(PARTS_AT_ONCE):
            usual = self.crowd.shown @ some.T
            mean, spread = usual.mean(0), usual.std(0, correction=0).clamp_min(1e-6)
            found.append((((self.shown @ some.T) - mean) / spread).permute(2, 0, 1))
        return torch.cat(found)
