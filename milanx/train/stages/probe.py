"""The linear probe: how far the pooled features alone name the classes of the training units.

Multinomial logistic regression on the mean over a set of its pooled features, trained on the
exemplar sets and labels that the describer is trained on; an upper row of P1.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

from milanx.train.units.corpus import Corpus, Unit

SETS = 24  # drawn of each class
STEPS, LEARNING_RATE, WEIGHT_DECAY = 300, 5e-3, 1e-3


def train_probe(
    corpus: Corpus, wnids: dict[str, str], folder: Path, seed: int = 0
) -> dict[str, Any]:
    """Fit the probe on drawn sets of the corpus' classes and write it.

    Writes ``probe.safetensors``: weight [c, 2 d], bias [c], mean [2 d], scale [2 d]; the input is
    the mean over a set of masked and whole features side by side. Its metadata holds ``wnids``,
    the WordNet ids of the classes as a json list.

    Args:
        corpus: draws the sets.
        wnids: class name -> WordNet id; classes without one take no part.
        folder: where it is written.
        seed: of the sets and the fit.
    """
    rng = np.random.default_rng([seed, 5])
    classes = [e for e in corpus.by_kind.get("class", []) if e.texts[0] in wnids]
    if len(classes) < 2:
        return {"classes": len(classes)}
    rows, labels = [], []
    for label, entry in enumerate(classes):
        units = []
        for _ in range(SETS):
            k = corpus.exemplars
            views = corpus.views[entry.start]
            shown = rng.permutation(views)[np.arange(k) % len(views)]
            drawn = entry.start + shown * entry.variants + rng.integers(0, entry.variants, k)
            impure = rng.random(k) > rng.uniform(corpus.min_purity, 1)
            drawn[impure] = rng.choice(corpus.rows, int(impure.sum()))
            whole = bool(rng.random() < 0.5)
            drawn = corpus.table.photo[drawn].astype(np.int64) if whole else drawn
            units.append(Unit(drawn, whole, np.zeros(0, np.int64), "", "class"))
        evidence = corpus.evidence(units)
        rows.append(evidence.features.mean(1).flatten(1))
        labels += [label] * SETS
    inputs, target = torch.cat(rows), torch.tensor(labels)
    mean, scale = inputs.mean(0), 1 / inputs.std(0).clamp_min(1e-4)
    inputs = (inputs - mean) * scale
    torch.manual_seed(seed)
    probe = nn.Linear(inputs.shape[1], len(classes))
    optimiser = torch.optim.AdamW(probe.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    for _ in range(STEPS):
        chosen = torch.randint(len(inputs), (512,))
        loss = nn.functional.cross_entropy(probe(inputs[chosen]), target[chosen])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    state = {"weight": probe.weight.detach(), "bias": probe.bias.detach(), "mean": mean,
             "scale": scale}  # fmt: skip
    ids = json.dumps([wnids[entry.texts[0]] for entry in classes])
    halves = {k: v.half().contiguous() for k, v in state.items()}
    save_file(halves, folder / "probe.safetensors", metadata={"wnids": ids})
    return {"classes": len(classes), "loss": round(float(loss.detach()), 4)}
