"""P1's upper rows: what the exemplars, the encoder and its features tell of a class at best."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from milanx.evaluate.common.names import accepted_names
from milanx.evaluate.p1.logits import Logits
from milanx.runs import Run

if TYPE_CHECKING:
    import torch

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
    import torch

    from milanx.targets.zoo import load_target

    target = load_target("tf_efficientnet_lite1")
    target.model.to(memory_format=torch.channels_last)
    order = list(accepted_names())
    classes = [order.index(w) for w in units.wnids]
    shown = sorted({i for row in units.rows for i in row["images"]})
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
    for position, row in enumerate(units.rows):
        mean = np.mean([logits[i] for i in row["images"]], axis=0)
        right.append(float(int(mean.argmax()) == position))
    return np.array(right)


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
    from milanx.features.encoder import encode_views, exemplar_features, tells_shown, view_maps

    if describer.root is None or not (describer.root / PROBE).is_file():
        return None, "the describer's folder holds none"
    tensors, classes = read_probe(describer.root / PROBE)
    store = run.store
    places = [store.units(r["layer"]).index((r["unit"], r["sign"])) for r in logits.rows]
    shown = np.stack([store.images(r["layer"])[p]
                      for r, p in zip(logits.rows, places, strict=True)])  # fmt: skip
    features = encode_views(describer.encoder, store, shown[shown >= 0].tolist())
    grid, right = describer.encoder.spec.grid, []
    maps = view_maps(features) if tells_shown(describer.encoder) else None
    for row, place, wnid in zip(logits.rows, places, logits.wnids, strict=True):
        weights = store.mask_weights(row["layer"], [place], (grid, grid))
        images = store.images(row["layer"])[[place]]
        pooled, valid = exemplar_features(features, images, weights, maps)
        right.append(float(probe_class(pooled[0][valid[0]], tensors, classes) == wnid))
    return np.array(right), ""


def probe_class(pooled: torch.Tensor, tensors: dict[str, torch.Tensor], classes: list[str]) -> str:
    """Return the class that a linear probe sees in one unit's exemplars [k, 2, d]."""
    centred = (pooled.mean(0).flatten() - tensors["mean"]) * tensors["scale"]
    return classes[int((tensors["weight"] @ centred + tensors["bias"]).argmax())]


def read_probe(path: Path) -> tuple[dict[str, torch.Tensor], list[str]]:
    """Read a linear probe: its tensors as float32, and its classes."""
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        classes = json.loads((file.metadata() or {})["wnids"])
        return {key: file.get_tensor(key).float() for key in file.keys()}, classes  # noqa: SIM118
