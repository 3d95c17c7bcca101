"""Gated MLPs: two layers that read one input, whose product a down projection reads.

The unit is the product, which is the down projection's input; that they are such is seen in what
reads and makes the tensors of a forward pass, not in names.
"""

from __future__ import annotations

from torch import nn

from milanx.targets.probing import Probed, Seen
from milanx.targets.watch import Watch

PROJECTIONS = (nn.Linear, nn.Conv1d, nn.Conv2d)


def find_gates(probed: Probed) -> dict[str, str]:
    """Return the down projection of each layer that is a gate or a gate's value, by its name."""
    watch = probed.watch
    projections = [r for r in probed.seen.values() if isinstance(r.module, PROJECTIONS)]
    makers = {r.number: r for r in projections if r.calls == 1}
    found: dict[str, str] = {}
    for down in projections:
        if down.calls > 1 or down.given not in watch.products or down.source is None:
            continue
        product = watch.products[down.given]
        sides = [_maker(watch, makers, number) for number in (product.left, product.right)]
        if any(side is None for side in sides):
            continue
        (left, left_bends), (right, right_bends) = (s for s in sides if s is not None)
        bends = left_bends or right_bends or product.left == product.right
        if bends and left.given is not None and left.given == right.given:
            found.update({left.name: down.name, right.name: down.name})
    return found


def _maker(watch: Watch, makers: dict[int, Seen], number: int) -> tuple[Seen, bool] | None:
    """Return the layer whose output, or half of it, one side of a product is; whether it is bent.

    A side may be the output itself or a nonlinearity of it.
    """
    bent = number in watch.bent_from
    number = watch.bent_from.get(number, number)
    number = watch.part_of.get(number, number)
    if number in makers:
        return makers[number], bent
    return None
