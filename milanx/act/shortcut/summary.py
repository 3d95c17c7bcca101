"""Figures of all seeds together, with intervals over seeds and images."""

from __future__ import annotations

from typing import Any

import numpy as np

from milanx.act.shortcut.prune import ORDERS
from milanx.measures.intervals import crossed

FORMAT, VERSION = "milanx-shortcut-results", 1


def summarise(seeds: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return one entry a share.

    Args:
        seeds: of `milanx.act.shortcut.run.Runner.seeds`.
    """
    shares = sorted({found["share"] for found in seeds})
    return [_share(share, [s for s in seeds if s["share"] == share]) for share in shares]


def _share(share: int, seeds: list[dict[str, Any]]) -> dict[str, Any]:
    seeds = sorted(seeds, key=lambda s: s["seed"])
    right = {row: np.stack([s["right"][row] for s in seeds]) for row in seeds[0]["right"]}
    rows = {row: crossed(values) for row, values in right.items()}
    gains = {}
    for order in ORDERS:
        match = right[f"{order}: match"]
        gains[order] = {
            f"over {other}": crossed(match - right[row])
            for other, row in (
                ("unedited", "unedited"), ("all", f"{order}: all"),
                ("all, own count", f"{order}: all, own count"), ("random", f"{order}: random"),
                ("changed", f"{order}: changed"),
            )
        }  # fmt: skip
        gains[order]["plain"] = crossed(right[f"{order}: match, plain"] - right["unedited, plain"])
    return {
        "share": share,
        "seeds": [s["seed"] for s in seeds],
        "images": right["unedited"].shape[1],
        "units": seeds[0]["units"],
        "matched": [len(s["matched"]) for s in seeds],
        "auroc": [s["auroc"] for s in seeds],
        "counts": {order: [s["orders"][order]["count"] for s in seeds] for order in ORDERS},
        "rows": rows,
        "gains": gains,
        "per_seed": [
            {"seed": s["seed"], "texts": s["texts"], "because": s["because"],
             "matched": s["matched"], "auroc": s["auroc"],
             "follows": s["follows"], "orders": s["orders"], "random_curve": s["random_curve"],
             **{row: float(s["right"][row].mean()) for row in right}} for s in seeds
        ],
    }  # fmt: skip
