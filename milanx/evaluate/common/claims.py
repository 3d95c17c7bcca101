"""What is claimed of two methods: differences with intervals, corrected for how many there are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from milanx.measures.intervals import holm, p_value, with_interval

Difference = tuple[float, np.ndarray]  # its estimate, and its bootstrap draws [d]


def settled(differences: Mapping[str, Difference]) -> dict[str, dict[str, Any]]:
    """Return differences with their intervals and Holm's p values over all of them.

    ``ahead``: the interval lies above zero and so it stays under Holm's correction.
    """
    adjusted = holm([p_value(draws) for _, draws in differences.values()])
    made = {}
    for (name, (estimate, draws)), p in zip(differences.items(), adjusted, strict=True):
        claim = with_interval(estimate, draws)
        claim["p_holm"] = p
        claim["ahead"] = claim["interval"][0] > 0 and p < 0.05
        made[name] = claim
    return made
