"""How alike the texts of one unit are under two settings, less those of different units.

Texts that are alike for every unit are alike under every setting too: so what different units share
is taken off, and the share of distinct texts stands beside.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from milanx.evaluate.stability.vary import Said, Unit
from milanx.language.words import normalise_text
from milanx.measures.intervals import bootstrap, paired, wilson
from milanx.runs import Run

Embed = Callable[[Sequence[str]], np.ndarray]  # texts -> unit rows float32 [n, d]


def compare(base: Said, other: Said, embed: Embed) -> dict[str, Any]:
    """Compare what is said of the same units under two settings.

    Args:
        base: under the defaults.
        other: under another setting.
        embed: texts in a space where like ones are near.

    Returns:
        ``n`` units that have a text under both; ``within``, the similarity of one unit's two texts;
        ``between``, that of texts of different units of a layer; ``stability``, the first less the
        second, with its interval over units; ``same``, the share of like texts; ``distinct``,
        ``most`` and ``score`` of the other's texts; ``gain``, its score less the base's.
    """
    units = [u for u, text in base.texts.items() if text and other.texts.get(u)]
    own, others = _similarities(units, base.texts, other.texts, embed)
    same = sum(_alike(base.texts[u], other.texts[u]) for u in units)
    both = [u for u in units if u in base.scores and u in other.scores]
    found = {
        "axis": other.axis, "value": other.value, "n": len(units),
        "within": float(own.mean()) if len(own) else None,
        "between": float(others.mean()) if len(own) else None,
        "stability": bootstrap(own - others),
        "same": _share(same, len(units)),
        **variety(units, other.texts),
    }  # fmt: skip
    if both:
        mine, theirs = ([said.scores[u] for u in both] for said in (other, base))
        found |= {"score": bootstrap(np.array(mine)), "scored": len(both),
                  "gain": paired(np.array(mine), np.array(theirs))}  # fmt: skip
    return found


def _similarities(
    units: Sequence[Unit], first: Mapping[Unit, str], second: Mapping[Unit, str], embed: Embed
) -> tuple[np.ndarray, np.ndarray]:
    """Return for each unit the similarity of its own texts, and of its texts and others', [n].

    Units of a layer are compared with each other; one that is alone there has no others, and is
    left out.
    """
    own, others = [], []
    for layer in dict.fromkeys(layer for layer, _ in units):
        here = [u for u in units if u[0] == layer]
        if len(here) < 2:
            continue
        table = embed([first[u] for u in here]) @ embed([second[u] for u in here]).T
        mine = np.diag(table)
        own.append(mine)
        others.append((table.sum(0) + table.sum(1) - 2 * mine) / (2 * (len(here) - 1)))
    return tuple(np.concatenate(p) if p else np.zeros(0) for p in (own, others))  # type: ignore[return-value]


def _alike(first: str, second: str) -> bool:
    return normalise_text(first) == normalise_text(second)


def _share(count: int, n: int) -> dict[str, Any]:
    return {"estimate": count / n if n else 0.0, "interval": list(wilson(count, n))}


def variety(units: Sequence[Unit], texts: Mapping[Unit, str]) -> dict[str, float]:
    """Return the share of distinct texts, counted layer by layer, and that of the most frequent."""
    if not units:
        return {"distinct": 0.0, "most": 0.0}
    said = [(layer, normalise_text(texts[layer, unit])) for layer, unit in units]
    return {"distinct": len(set(said)) / len(said),
            "most": max(Counter(text for _, text in said).values()) / len(said)}  # fmt: skip


def by_layer(run: Run) -> list[dict[str, Any]]:
    """Say how well each layer of a run can be described, in the order of the forward pass.

    Returns:
        For each: units that are not dead, ``dead`` ones, the share that is ``unclear`` (None where
        the describer says no confidence), the mean ``score``, the share whose score's interval lies
        ``above`` zero, distinct texts.
    """
    made = []
    judged = "fingerprint" in (run.settings.get("confidence") or {})
    for layer in run.store.layers:
        rows = [row for row in run.rows if row["layer"] == layer]
        alive = [row for row in rows if row["status"] != "dead"]
        scored = [row for row in alive if row["score"] is not None]
        unclear = sum(row["status"] == "unclear" for row in alive)
        above = sum(row["score_interval"][0] > 0 for row in scored)
        units = [(layer, row["unit"]) for row in alive]
        texts = {(layer, row["unit"]): row["description"] or "" for row in alive}
        made.append({
            "layer": layer, "n": len(alive), "dead": len(rows) - len(alive),
            "unclear": _share(unclear, len(alive)) if judged else None,
            "score": bootstrap(np.array([row["score"] for row in scored])) if scored else None,
            "above": _share(above, len(scored)) if scored else None,
            **variety(units, texts),
        })  # fmt: skip
    return made
