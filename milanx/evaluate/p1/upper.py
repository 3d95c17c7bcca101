"""P1's upper rows: what the exemplars, the encoder and its features tell of a class at best."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from milanx.evaluate.common.names import accepted_names
from milanx.evaluate.p1.logits import Logits
from milanx.evaluate.p1.seen import Sets, logit_means, pooled_means
from milanx.runs import Run

if TYPE_CHECKING:
    from milanx.describing.describer import Describer

PROBE = "probe.safetensors"


def majority(logits: Logits) -> np.ndarray:
    """Whether the most frequent label of the exemplars is the unit's class."""
    right = []
    for row, wnid in zip(logits.rows, logits.wnids, strict=True):
        counts = Counter(logits.labels[i] for i in row["images"])
        right.append(float(bool(counts) and counts.most_common(1)[0][0] == wnid))
    return np.array(right)


def encoder_head(run: Run, units: Logits) -> np.ndarray:
    """Whether the describer's encoder, as the classifier that it once was, names the class.

    Its logits are averaged over the exemplars, among the classes that are scored.
    """
    from milanx.targets.zoo import load_target

    order = list(accepted_names())
    classes = [order.index(w) for w in units.wnids]
    means = logit_means(Sets.of(run.store, units), load_target("tf_efficientnet_lite1"))
    return (means[:, classes].argmax(1) == np.arange(len(classes))).astype(float)


def made_by(run: Run, spec: str | Path) -> tuple[Describer | None, str]:
    """Return the describer that a run was made with, or None and why it is not known."""
    from milanx.describing.describer import Describer

    known = (run.settings.get("describer") or {}).get("fingerprint")
    if known is None:
        return None, "the run's settings name no describer"
    describer = Describer.load(spec)
    if describer.fingerprint != known:
        return None, "the run was described by another describer than the one given"
    return describer, ""


def linear_probe(run: Run, describer: Describer, logits: Logits) -> tuple[np.ndarray | None, str]:
    """Whether a linear probe on the describer's own pooled features names each unit's class.

    ``probe.safetensors`` of the describer's folder holds ``weight`` [c, 2 d], ``bias`` [c],
    ``mean`` and ``scale`` [2 d] and, as json in its metadata, ``wnids``: a multinomial logistic
    regression on the exemplar sets and labels of its training. Its features are the mean over
    the exemplars of the masked and the whole view's, one after the other, less ``mean`` and
    times ``scale``.

    Returns:
        float [units] and "", or None and why there is none.
    """
    if describer.root is None or not (describer.root / PROBE).is_file():
        return None, "the describer's folder holds none"
    probe, classes = read_probe(describer.root / PROBE)
    means = pooled_means(Sets.of(run.store, logits), describer.encoder)
    seen = probe_classes(means, probe, classes)
    return np.array([float(s == w) for s, w in zip(seen, logits.wnids, strict=True)]), ""


def probe_classes(
    means: np.ndarray, probe: Mapping[str, np.ndarray], classes: Sequence[str]
) -> list[str]:
    """Return the classes that a linear probe sees in sets, given their mean features [u, 2 d]."""
    centred = (means - probe["mean"]) * probe["scale"]
    return [classes[i] for i in (centred @ probe["weight"].T + probe["bias"]).argmax(1)]


def read_probe(path: Path) -> tuple[dict[str, np.ndarray], list[str]]:
    """Read a linear probe: its tensors as float32, and its classes."""
    from safetensors import safe_open

    with safe_open(path, "numpy") as file:
        classes = json.loads((file.metadata() or {})["wnids"])
        return {key: np.asarray(file.get_tensor(key), np.float32) for key in file.keys()}, classes  # noqa: SIM118
