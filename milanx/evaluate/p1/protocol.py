"""P1, named outputs: do the descriptions of a classifier's logits name their classes?

The text counts when the first class that it names is the unit's own (``names.py``); the mask is
the whole view. On ImageNet classes this proves the road from exemplars to words, not that the
vocabulary is open: the rows ``majority label`` and ``encoder's head`` say how easy it is.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from milanx.errors import InputError
from milanx.evaluate.common.names import ClassNamer, accepted_kin, accepted_names, wnid_of
from milanx.evaluate.common.rows import constant, shuffled
from milanx.evaluate.common.text import Sentences
from milanx.evaluate.p1.kin import differences, kin_figures
from milanx.language.gpt2 import normalise_text
from milanx.measures.intervals import bootstrap, paired
from milanx.runs import Run

PROBE = "probe.safetensors"


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
    rows, wnids, labels = _units(run)
    namer = ClassNamer(sorted(set(labels) - {""}))
    texts = [row["description"] for row in rows]

    def score(unit: int, text: str) -> float:
        return float(namer.right(text, wnids[unit]))

    top1 = np.array([score(i, text) for i, text in enumerate(texts)])
    top5 = np.array([_any_of_five(row, wnid, namer) for row, wnid in zip(rows, wnids, strict=True)])
    sentences = Sentences()
    first = sentences([accepted_names()[w][0] for w in wnids])
    similarity = (sentences([t or "nothing" for t in texts]) * first).sum(1)
    others = {
        "constant": constant(score, texts, seed),
        "shuffled": shuffled(score, texts, seed),
        "argmax p(d|E)": np.array([score(i, _likeliest(row)) for i, row in enumerate(rows)]),
    }
    report_rows: dict[str, dict[str, Any]] = {
        "description": {
            "top-1": bootstrap(top1),
            "top-5": bootstrap(top5),
            "similarity": bootstrap(similarity),
        }
    }
    for other in against:
        name = _against_name(other)
        mine = _same_units(other, rows)
        others[name] = np.array([score(i, row["description"]) for i, row in enumerate(mine)])
        five = [_any_of_five(row, w, namer) for row, w in zip(mine, wnids, strict=True)]
        report_rows[name] = {"top-1": bootstrap(others[name]), "top-5": bootstrap(np.array(five))}
    for name, values in others.items():
        report_rows.setdefault(name, {"top-1": bootstrap(values)})
    report_rows["majority label"] = {"top-1": bootstrap(_majority(rows, wnids, labels))}
    head = _encoder_head(run, rows, wnids)
    report_rows["encoder's head (shared: the encoder's weights)"] = {"top-1": bootstrap(head)}
    notes = [_difference("description", top1, name, values) for name, values in others.items()]
    probe, why = linear_probe(run, describer, rows, wnids)
    if probe is None:
        notes.append(f"linear probe: no row, {why}")
    else:
        report_rows["linear probe (upper row)"] = {"top-1": bootstrap(probe)}
        low, high = _ratio(top1, probe)
        notes.append(f"description / linear probe: {top1.mean() / max(probe.mean(), 1e-9):.3f} "
                     f"[{low:.3f}, {high:.3f}]")  # fmt: skip
    held = set((run.settings.get("describer") or {}).get("held_out_wnids", []))
    parts, lines = _by_training(rows, wnids, held, namer, top1, top5, probe, seed)
    return {
        "protocol": "P1 named outputs",
        "n": len(rows),
        "rows": report_rows | parts,
        "seed": seed,
        "paired": {f"description - {n}": paired(top1, v) for n, v in others.items()},
        "dead": sum(r["status"] == "dead" for r in rows),
        "images": run.settings["images"]["fingerprint"],
        "versions": run.settings["versions"],
        "describer": run.settings.get("describer"),
        "seconds": round(time.monotonic() - started, 1),
        "notes": notes + lines,
    }


def _difference(name: str, mine: np.ndarray, other: str, theirs: np.ndarray) -> str:
    found = paired(mine, theirs)
    low, high = found["interval"]
    return f"{name} - {other}: {found['estimate']:+.3f} [{low:+.3f}, {high:+.3f}]"


def _ratio(mine: np.ndarray, theirs: np.ndarray, draws: int = 10_000) -> list[float]:
    """95 % interval of the ratio of two means, units resampled together."""
    rng = np.random.default_rng(0)
    chosen = rng.integers(0, len(mine), (draws, len(mine)))
    below = theirs[chosen].mean(1)
    ratios = mine[chosen].mean(1)[below > 0] / below[below > 0]
    return [float(v) for v in np.percentile(ratios, [2.5, 97.5])] if len(ratios) else [0.0, 0.0]


def _by_training(
    rows: list[dict[str, Any]], wnids: list[str], held: set[str], namer: ClassNamer,
    top1: np.ndarray, top5: np.ndarray, probe: np.ndarray | None, seed: int,
) -> tuple[dict[str, dict[str, Any]], list[str]]:  # fmt: skip
    """Rows of the classes that training named and of those that it never did, with their kin."""
    made: dict[str, dict[str, Any]] = {}
    lines: list[str] = []
    for name, chosen in (("seen classes", False), ("never named classes", True)):
        inside = np.array([(w in held) == chosen for w in wnids])
        if not held or not inside.any():
            continue
        title = f"  {name} (n = {int(inside.sum())})"
        made[title] = {"top-1": bootstrap(top1[inside]), "top-5": bootstrap(top5[inside])}
        if probe is not None and not chosen:
            made["  linear probe, seen classes"] = {"top-1": bootstrap(probe[inside])}
        places = [i for i in np.flatnonzero(inside) if wnids[i] in accepted_kin()]
        if not chosen or not places:
            continue
        score = _kin_score(namer, [wnids[i] for i in places])
        texts = [row["description"] for row in rows]
        figures = kin_figures(score, [texts[i] for i in places], texts, seed)
        made[title]["close kin"] = bootstrap(figures["description"])
        for other in ("shuffled", "constant"):
            made[f"    {other}, never named"] = {"close kin": bootstrap(figures[other])}
        lines += differences(figures, "never named")
    return made, lines


def _kin_score(namer: ClassNamer, wnids: list[str]) -> Callable[[int, str], float]:
    def score(unit: int, text: str) -> float:
        return float(namer.kin(text, wnids[unit]))

    return score


def _against_name(other: Run) -> str:
    facts = other.settings.get("describer") or {}
    return f"{facts.get('name', 'other method')} ({other.root.name})"


def _same_units(other: Run, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the other run's rows of the same units.

    Raises:
        InputError: it does not have them.
    """
    known = {(r["layer"], r["unit"], r["sign"]): r for r in other.rows}
    try:
        return [known[r["layer"], r["unit"], r["sign"]] for r in rows]
    except KeyError as error:
        raise InputError(
            f"{other.root} lacks unit {error.args[0][1]} of {error.args[0][0]}",
            "runs that are compared must describe the same units",
            "describe the same layers and images with both methods",
        ) from error


def linear_probe(
    run: Run, spec: str | Path, rows: list[dict[str, Any]], wnids: list[str]
) -> tuple[np.ndarray | None, str]:
    """Whether a linear probe on the describer's own pooled features names each unit's class.

    ``probe.safetensors`` of the describer's folder holds ``weight`` [c, 2 d], ``bias`` [c],
    ``mean`` and ``scale`` [2 d] and, as json in its metadata, ``wnids``: a multinomial logistic
    regression on the exemplar sets and labels of its training. Its features are the mean over
    the exemplars of the masked and the whole view's, one after the other, less ``mean`` and
    times ``scale``.

    Returns:
        float [units] and "", or None and why there is none.
    """
    from milanx.describing.describer import Describer
    from milanx.features.encoder import encode_views, exemplar_features, tells_shown, view_maps

    known = (run.settings.get("describer") or {}).get("fingerprint")
    if known is None:
        return None, "the run's settings name no describer"
    describer = Describer.load(spec)
    path = describer.root / PROBE
    if describer.fingerprint != known:
        return None, "the run was described by another describer than the one given"
    if not path.is_file():
        return None, "the describer's folder holds none"
    tensors, classes = read_probe(path)
    places = [run.store.units(row["layer"]).index((row["unit"], row["sign"])) for row in rows]
    shown = np.stack([run.store.images(r["layer"])[p] for r, p in zip(rows, places, strict=True)])
    features = encode_views(describer.encoder, run.store, shown[shown >= 0].tolist())
    grid, right = describer.encoder.spec.grid, []
    maps = view_maps(features) if tells_shown(describer.encoder) else None
    for row, place, wnid in zip(rows, places, wnids, strict=True):
        weights = run.store.mask_weights(row["layer"], [place], (grid, grid))
        images = run.store.images(row["layer"])[[place]]
        pooled, valid = exemplar_features(features, images, weights, maps)
        right.append(float(probe_class(pooled[0][valid[0]], tensors, classes) == wnid))
    return np.array(right), ""


def probe_class(pooled: Any, tensors: dict[str, Any], classes: list[str]) -> str:
    """Return the class that a linear probe sees in one unit's exemplars [k, 2, d]."""
    centred = (pooled.mean(0).flatten() - tensors["mean"]) * tensors["scale"]
    return classes[int((tensors["weight"] @ centred + tensors["bias"]).argmax())]


def read_probe(path: Path) -> tuple[dict[str, Any], list[str]]:
    """Read a linear probe: its tensors as float32, and its classes."""
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        classes = json.loads((file.metadata() or {})["wnids"])
        return {key: file.get_tensor(key).float() for key in file.keys()}, classes  # noqa: SIM118


def _units(run: Run) -> tuple[list[dict[str, Any]], list[str], list[str]]:
    """Return the rows of the classes that the probe set has, their ids, each image's id."""
    table = run.store.image_table()
    labels = [str(r["wnid"] or "") or wnid_of(str(r["name"] or "")) for r in table]
    if not any(labels):
        raise InputError(
            "P1 needs labelled probe images",
            "this run's images carry no wnid, nor a name that means one ImageNet class",
            "probe with a parquet file that has a column wnid or name",
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
    best = max(candidates, key=lambda c: -np.inf if c["log_p_given_exemplars"] is None
               else c["log_p_given_exemplars"])  # fmt: skip
    return str(best["text"])


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

    from milanx.targets.zoo import load_target

    target = load_target("tf_efficientnet_lite1")
    target.model.to(memory_format=torch.channels_last)
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
            inputs = target.preprocess.normalise(views.round().to(torch.uint8))
            out = target.model(inputs.contiguous(memory_format=torch.channels_last))
        logits.update(zip(batch, out[:, classes].numpy(), strict=True))
    right = []
    for position, row in enumerate(rows):
        mean = np.mean([logits[i] for i in row["images"]], axis=0)
        right.append(float(int(mean.argmax()) == position))
    return np.array(right)
