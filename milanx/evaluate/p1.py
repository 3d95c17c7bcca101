"""P1, named outputs: do the descriptions of a classifier's logits name their classes?

The text counts when the first class that it names is the unit's own (``names.py``); the mask is
the whole view. On ImageNet classes this proves the road from exemplars to words, not that the
vocabulary is open: the rows ``majority label`` and ``encoder's head`` say how easy it is.
"""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

import numpy as np

from milanx.errors import InputError
from milanx.evaluate.names import ClassNamer, accepted_names
from milanx.evaluate.rows import constant, shuffled
from milanx.evaluate.statistics import bootstrap, paired
from milanx.evaluate.text import Sentences
from milanx.language import normalise_text
from milanx.runs import Run


def evaluate(run: Run, *, seed: int = 0) -> dict[str, Any]:
    """Score a run of a classifier's logits.

    Args:
        run: its probe images carry WordNet ids.
        seed: of the shuffled and constant rows.

    Returns:
        A report: n, rows with estimates and 95 % intervals, comparisons, what was not measured.

    Raises:
        InputError: no logits among the run's layers, or no labels among its images.
    """
    started = time.monotonic()
    rows, wnids, labels = _units(run)
    namer = ClassNamer(sorted(set(labels) - {""}))
    texts = [row["description"] for row in rows]

    def score(unit: int, text: str) -> float:
        return float(namer.right(text, wnids[unit]))

    top1 = np.array([score(i, text) for i, text in enumerate(texts)])
    top5 = np.array([_any_of_five(row, wnid, namer) for row, wnid in zip(rows, wnids, strict=True)])
    argmax = np.array([score(i, _likeliest(row)) for i, row in enumerate(rows)])
    sentences = Sentences()
    first = sentences([accepted_names()[w][0] for w in wnids])
    similarity = (sentences([t or "nothing" for t in texts]) * first).sum(1)
    at_random = shuffled(score, texts, seed)
    single = constant(score, texts, seed)
    majority, head = _majority(rows, wnids, labels), _encoder_head(run, rows, wnids)
    report_rows = {
        "description": {
            "top-1": bootstrap(top1),
            "top-5": bootstrap(top5),
            "similarity": bootstrap(similarity),
        },
        "argmax p(d|E)": {"top-1": bootstrap(argmax)},
        "constant": {"top-1": bootstrap(single)},
        "shuffled": {"top-1": bootstrap(at_random)},
        "majority label": {"top-1": bootstrap(majority)},
        "encoder's head (shared: the encoder's weights)": {"top-1": bootstrap(head)},
    }
    held = set((run.settings.get("describer") or {}).get("held_out_wnids", []))
    for name, chosen in (("seen classes", False), ("never named classes", True)):
        inside = np.array([(w in held) == chosen for w in wnids])
        if held and inside.any():
            report_rows[f"  {name} (n = {int(inside.sum())})"] = {
                "top-1": bootstrap(top1[inside]),
                "top-5": bootstrap(top5[inside]),
            }
    return {
        "protocol": "P1 named outputs",
        "n": len(rows),
        "rows": report_rows,
        "seed": seed,
        "paired": {
            "description - constant": paired(top1, single),
            "description - shuffled": paired(top1, at_random),
            "description - argmax": paired(top1, argmax),
        },
        "dead": sum(r["status"] == "dead" for r in rows),
        "images": run.settings["images"]["fingerprint"],
        "versions": run.settings["versions"],
        "describer": run.settings.get("describer"),
        "seconds": round(time.monotonic() - started, 1),
        "notes": _notes(top1, single, at_random, argmax),
    }


def _notes(
    top1: np.ndarray, single: np.ndarray, at_random: np.ndarray, argmax: np.ndarray
) -> list[str]:
    lines = []
    for name, other in (("constant", single), ("shuffled", at_random), ("argmax", argmax)):
        difference = paired(top1, other)
        low, high = difference["interval"]
        lines.append(
            f"description - {name}: {difference['estimate']:+.3f} [{low:+.3f}, {high:+.3f}]"
        )
    return lines


def _units(run: Run) -> tuple[list[dict[str, Any]], list[str], list[str]]:
    """Return the rows of the classes that the probe set has, their ids, each image's id."""
    labels = [str(r["wnid"] or "") for r in run.store.image_table()]
    if not any(labels):
        raise InputError(
            "P1 needs labelled probe images",
            "this run's images carry no wnid",
            "probe with a parquet file that has a column wnid",
        )
    order = list(accepted_names())
    logits = [
        r for r in run.rows if run.store.record(r["layer"]).kind == "logits" and r["sign"] == "+"
    ]
    if not logits:
        raise InputError(
            "P1 needs a classifier's logits",
            "none of this run's layers is logits",
            "describe the classifier layer, such as --layer classifier or fc",
        )
    present = set(labels)
    rows = [r for r in logits if r["unit"] < len(order) and order[r["unit"]] in present]
    if not rows:
        raise InputError(
            "no logit of this run has a class of its images",
            "units are taken as ImageNet-1k's classes in the usual order",
        )
    return rows, [order[r["unit"]] for r in rows], labels


def _any_of_five(row: dict[str, Any], wnid: str, namer: ClassNamer) -> float:
    different: dict[str, str] = {}
    for candidate in row["candidates"]:
        different.setdefault(normalise_text(candidate["text"]), candidate["text"])
    return float(any(namer.right(text, wnid) for text in list(different.values())[:5]))


def _likeliest(row: dict[str, Any]) -> str:
    candidates = row["candidates"]
    if not candidates:
        return ""
    return str(max(candidates, key=lambda c: c["log_p_given_exemplars"])["text"])


def _majority(rows: list[dict[str, Any]], wnids: list[str], labels: list[str]) -> np.ndarray:
    """Whether the most frequent label of the exemplars is the unit's class."""
    right = []
    for row, wnid in zip(rows, wnids, strict=True):
        counts = Counter(labels[i] for i in row["images"])
        right.append(float(bool(counts) and counts.most_common(1)[0][0] == wnid))
    return np.array(right)


def _encoder_head(run: Run, rows: list[dict[str, Any]], wnids: list[str]) -> np.ndarray:
    """Whether the describer's encoder, as the classifier that it once was, names the class.

    Its logits are averaged over the exemplars, among the classes that are scored.
    """
    import torch

    from milanx.zoo import load_target

    target = load_target("tf_efficientnet_lite1")
    order = list(accepted_names())
    classes = [order.index(w) for w in wnids]
    shown = sorted({i for row in rows for i in row["images"]})
    logits: dict[int, np.ndarray] = {}
    size = target.preprocess.size
    for start in range(0, len(shown), 32):
        batch = shown[start : start + 32]
        views = torch.from_numpy(np.stack([run.store.view(i) for i in batch])).float()
        views = torch.nn.functional.interpolate(views, size, mode="bilinear", antialias=True)
        with torch.inference_mode():
            out = target.model(target.preprocess.normalise(views.round().to(torch.uint8)))
        logits.update(zip(batch, out[:, classes].numpy(), strict=True))
    right = []
    for position, row in enumerate(rows):
        mean = np.mean([logits[i] for i in row["images"]], axis=0)
        right.append(float(int(mean.argmax()) == position))
    return np.array(right)
