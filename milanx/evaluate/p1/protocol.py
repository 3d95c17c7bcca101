"""P1, named outputs: do the descriptions of a classifier's logits name their classes?

The text counts when the first class that it names is the unit's own (``names.py``); the mask is
a class-activation map's where logits are averages of such, and the whole view elsewhere. On
ImageNet classes this proves the road from exemplars to words, not that the vocabulary is open: the
rows ``majority label`` and ``encoder's head`` say how easy it is.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from milanx.errors import InputError
from milanx.evaluate.common.names import accepted_kin, accepted_names, wnid_of
from milanx.evaluate.common.rows import ahead, constant, shuffled
from milanx.evaluate.p1.kin import differences, kin_figures
from milanx.evaluate.p1.logits import Logits, read_logits
from milanx.evaluate.p1.upper import encoder_head, linear_probe, made_by, majority
from milanx.images.splits import photo_group
from milanx.language.compare import Sentences
from milanx.measures.intervals import DRAWS, bootstrap, paired
from milanx.rows import likeliest
from milanx.runs import Run

if TYPE_CHECKING:
    from milanx.describing.describer import Describer
    from milanx.describing.trained import Trained

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
        describer: the one that the run was made with, for its linear probe and for what it was
            trained on.
        against: runs of the same units, described by other methods.
        seed: of the shuffled and constant rows.

    Returns:
        A report: n, rows with estimates and 95 % intervals, comparisons, what was not measured.

    Raises:
        InputError: no logits among the run's layers, or no labels among its images.
    """
    started = time.monotonic()
    logits = read_logits(run)
    made, why = made_by(run, describer)
    probe = None
    if made is not None:
        probe, why = linear_probe(run, made, logits)
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
    trained, unknown = _trained(made, why)
    parts, lines = _by_training(logits, scores, trained, seed)
    lines.append(_trained_images(run, logits, trained) if trained is not None
                 else f"seen and never named classes: no rows, {unknown}")  # fmt: skip
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


def _trained(made: Describer | None, why: str) -> tuple[Trained | None, str]:
    """What the run's describer was trained on, or None and why it is not known."""
    if made is None:
        return None, why
    try:
        return made.trained, ""
    except InputError as error:
        return None, error.what


def _trained_images(run: Run, logits: Logits, trained: Trained) -> str:
    """Say how many of the exemplars were trained on, by the bytes and numbers of their photos."""
    table = run.store.image_table()
    shown = sorted({i for row in logits.rows for i in row["images"]})
    groups = [photo_group(str(table[i]["path"]), str(table[i]["fingerprint"])) for i in shown]
    return (f"{int(trained.has(groups).sum())} of the {len(shown)} photos that are exemplars were "
            "trained on")  # fmt: skip


def classes_by_training(wnids: Sequence[str], trained: Trained) -> dict[str, np.ndarray]:
    """Part classes by what a describer's training knew of them: bool [n] each.

    ``seen``: photos of it were trained on, under its WordNet id or a name that means it alone;
    ``never named``: held out from everything; ``other``: neither, though texts may name it.
    """
    known = trained.classes
    shown = {*known, *(wnid_of(name) for name in known)}
    held = trained.held_out or frozenset()
    seen = np.array([w in shown and w not in held for w in wnids], bool)
    never = np.array([w in held for w in wnids], bool)
    return {"seen classes": seen, "never named classes": never, "other classes": ~seen & ~never}


def _by_training(
    logits: Logits, scores: Scores, trained: Trained | None, seed: int
) -> tuple[Rows, list[str]]:
    """Rows of the classes that training saw and of those that it never named, with their kin.

    Args:
        logits: the units.
        scores: theirs.
        trained: what the describer was trained on; no rows where it is not known.
        seed: of the constant row's folds.
    """
    made: Rows = {}
    lines: list[str] = []
    for name, inside in (classes_by_training(logits.wnids, trained) if trained else {}).items():
        if not inside.any():
            continue
        title = f"  {name} (n = {int(inside.sum())})"
        top1, top5 = scores.top1[inside], scores.top5[inside]
        made[title] = {"top-1": bootstrap(top1), "top-5": bootstrap(top5)}
        if scores.probe is not None and name == "seen classes":
            made["  linear probe, seen classes"] = {"top-1": bootstrap(scores.probe[inside])}
        places = [i for i in np.flatnonzero(inside).tolist() if logits.wnids[i] in accepted_kin()]
        if name != "never named classes" or not places:
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
