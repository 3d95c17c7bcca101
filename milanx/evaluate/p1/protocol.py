"""P1, named outputs: do the descriptions of a classifier's logits name their classes?

The text counts when the first class that it names is the unit's own (``names.py``); the mask is
the whole view. On ImageNet classes this proves the road from exemplars to words, not that the
vocabulary is open: the rows ``majority label`` and ``encoder's head`` say how easy it is.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from milanx.evaluate.common.names import accepted_kin, accepted_names
from milanx.evaluate.common.rows import ahead, constant, shuffled
from milanx.evaluate.p1.kin import differences, kin_figures
from milanx.evaluate.p1.logits import Logits, read_logits
from milanx.evaluate.p1.upper import encoder_head, linear_probe, majority
from milanx.language.compare import Sentences
from milanx.measures.intervals import DRAWS, bootstrap, paired
from milanx.runs import Run, likeliest

Rows = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Scores:
    """How the units fare, each float [n].

    Attributes:
        top1: whether the description names the class.
        top5: whether one of the five best candidates does.
        probe: whether the linear probe sees it; None where there is none.
    """

    top1: np.ndarray
    top5: np.ndarray
    probe: np.ndarray | None


def evaluate(
    run: Run,
    *,
    describer: str | Path = "builtin",
    against: Sequence[Run] = (),
    seed: int = 0,
) -> dict[str, Any]:
    """Score a run of a classifier's logits.

    Args:
        run: its probe images carry WordNet ids, or names that mean one ImageNet class.
        describer: the one that the run was made with, for its linear probe.
        against: runs of the same units, described by other methods.
        seed: of the shuffled and constant rows.

    Returns:
        A report: n, rows with estimates and 95 % intervals, comparisons, what was not measured.

    Raises:
        InputError: no logits among the run's layers, or no labels among its images.
    """
    started = time.monotonic()
    logits = read_logits(run)
    probe, why = linear_probe(run, describer, logits)
    scores = Scores(logits.top1(logits.texts), logits.top5(logits.rows), probe)
    rows, others = _rows(logits, scores, against, seed)
    rows["majority label"] = {"top-1": bootstrap(majority(logits))}
    head = encoder_head(run, logits)
    rows["encoder's head (shared: the encoder's weights)"] = {"top-1": bootstrap(head)}
    notes = [ahead("description", scores.top1, name, other) for name, other in others.items()]
    if probe is None:
        notes.append(f"linear probe: no row, {why}")
    else:
        rows["linear probe (upper row)"] = {"top-1": bootstrap(probe)}
        low, high = _ratio(scores.top1, probe)
        notes.append(f"description / linear probe: "
                     f"{scores.top1.mean() / max(probe.mean(), 1e-9):.3f} "
                     f"[{low:.3f}, {high:.3f}]")  # fmt: skip
    held = set((run.settings.get("describer") or {}).get("held_out_wnids", []))
    parts, lines = _by_training(logits, scores, held, seed)
    return {
        "protocol": "P1 named outputs",
        "n": len(logits.rows),
        "rows": rows | parts,
        "seed": seed,
        "paired": {f"description - {n}": paired(scores.top1, v) for n, v in others.items()},
        "dead": sum(r["status"] == "dead" for r in logits.rows),
        "images": run.settings["images"]["fingerprint"],
        "versions": run.settings["versions"],
        "describer": run.settings.get("describer"),
        "seconds": round(time.monotonic() - started, 1),
        "notes": notes + lines,
    }


def _rows(
    logits: Logits, scores: Scores, against: Sequence[Run], seed: int
) -> tuple[Rows, dict[str, np.ndarray]]:
    """Return the rows of the descriptions and of what they are compared with, and its scores."""
    sentences, texts = Sentences(), logits.texts
    names = sentences([accepted_names()[w][0] for w in logits.wnids])
    similarity = (sentences([t or "nothing" for t in texts]) * names).sum(1)
    rows: Rows = {
        "description": {
            "top-1": bootstrap(scores.top1),
            "top-5": bootstrap(scores.top5),
            "similarity": bootstrap(similarity),
        }
    }
    others = {
        "constant": constant(logits.right, texts, seed),
        "shuffled": shuffled(logits.right, texts, seed),
        "argmax p(d|E)": logits.top1([likeliest(row) for row in logits.rows]),
    }
    for run in against:
        name, mine = _against_name(run), logits.same_units(run)
        others[name] = logits.top1([row["description"] for row in mine])
        five = logits.top5(mine)
        rows[name] = {"top-1": bootstrap(others[name]), "top-5": bootstrap(five)}
    for name, values in others.items():
        rows.setdefault(name, {"top-1": bootstrap(values)})
    return rows, others


def _ratio(mine: np.ndarray, theirs: np.ndarray, draws: int = DRAWS) -> list[float]:
    """95 % interval of the ratio of two means, units resampled together."""
    rng = np.random.default_rng(0)
    chosen = rng.integers(0, len(mine), (draws, len(mine)))
    below = theirs[chosen].mean(1)
    ratios = mine[chosen].mean(1)[below > 0] / below[below > 0]
    return [float(v) for v in np.percentile(ratios, [2.5, 97.5])] if len(ratios) else [0.0, 0.0]


def _by_training(
    logits: Logits, scores: Scores, held: set[str], seed: int
) -> tuple[Rows, list[str]]:
    """Rows of the classes that training named and of those that it never did, with their kin.

    Args:
        logits: the units.
        scores: theirs.
        held: the classes that training never named; no rows where there are none.
        seed: of the constant row's folds.
    """
    made: Rows = {}
    lines: list[str] = []
    for name, chosen in (("seen classes", False), ("never named classes", True)):
        inside = np.array([(w in held) == chosen for w in logits.wnids])
        if not held or not inside.any():
            continue
        title = f"  {name} (n = {int(inside.sum())})"
        top1, top5 = scores.top1[inside], scores.top5[inside]
        made[title] = {"top-1": bootstrap(top1), "top-5": bootstrap(top5)}
        if scores.probe is not None and not chosen:
            made["  linear probe, seen classes"] = {"top-1": bootstrap(scores.probe[inside])}
        places = [i for i in np.flatnonzero(inside).tolist() if logits.wnids[i] in accepted_kin()]
        if not chosen or not places:
            continue
        figures = _kin_of(logits, places, seed)
        made[title]["close kin"] = bootstrap(figures["description"])
        for other in ("shuffled", "constant"):
            made[f"    {other}, never named"] = {"close kin": bootstrap(figures[other])}
        lines += differences(figures, "never named")
    return made, lines


def _kin_of(logits: Logits, places: Sequence[int], seed: int) -> dict[str, np.ndarray]:
    """Score some of the units by close kin, as `kin_figures` has it."""

    def score(unit: int, text: str) -> float:
        return float(logits.namer.kin(text, logits.wnids[places[unit]]))

    texts = logits.texts
    return kin_figures(score, [texts[i] for i in places], texts, seed)


def _against_name(other: Run) -> str:
    facts = other.settings.get("describer") or {}
    return f"{facts.get('name', 'other method')} ({other.root.name})"
