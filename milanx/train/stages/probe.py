"""The linear probe: how far the pooled features alone name the classes of the training units.

Multinomial logistic regression on the mean over a set of its pooled features, trained on the
exemplar sets and labels that the describer is trained on; an upper row of P1.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

from milanx.train.engine.fit import share
from milanx.train.engine.schedule import small_network
from milanx.train.stages.desk import Desk, step_rng
from milanx.train.units.corpus import Corpus, Unit
from milanx.train.units.planted import PlantedUnits
from milanx.train.units.table import Entry

SETS = 24  # drawn of each class
STEPS, LEARNING_RATE, WEIGHT_DECAY = 300, 5e-3, 1e-3
BATCH = 512  # sets a step
LEAST = 1e-4  # standard deviation under which a feature is a constant, which tells nothing


def make_probe(desk: Desk) -> dict[str, Any]:
    """Fit the probe on drawn sets of the classes with a WordNet id and write it.

    Writes ``probe.safetensors``: weight [c, 2 d], bias [c], mean [2 d], scale [2 d]; the input is
    the mean over a set of masked and whole features side by side. Its metadata holds ``wnids``,
    the WordNet ids of the classes as a json list. Of fewer than two classes nothing is written.
    """
    corpus, units, seed = desk.course.corpus(), desk.course.units, desk.recipe.seed
    wnids: dict[str, str] = units.wnids if isinstance(units, PlantedUnits) else {}
    classes = [e for e in corpus.by_kind.get("class", []) if e.texts[0] in wnids]
    if len(classes) < 2:
        return {"classes": len(classes)}
    rng = np.random.default_rng([seed, 5])
    inputs = torch.cat([_sets(corpus, entry, rng) for entry in classes])
    target = torch.arange(len(classes)).repeat_interleave(SETS)
    mean, deviation = inputs.mean(0), inputs.std(0)
    scale = torch.where(deviation > LEAST, 1 / deviation.clamp_min(LEAST), 0.0)
    inputs = (inputs - mean) * scale
    torch.manual_seed(seed)
    probe = nn.Linear(inputs.shape[1], len(classes))

    def loss_of(model: nn.Module, step: int) -> tuple[torch.Tensor, float]:
        chosen = step_rng(seed, 5, step + 1).integers(0, len(inputs), BATCH)
        own = chosen[share(BATCH, desk.accelerator)]
        rows, right = (t[own].to(desk.accelerator.device) for t in (inputs, target))
        return nn.functional.cross_entropy(model(rows), right, reduction="sum"), float(len(own))

    settings = small_network(
        STEPS, LEARNING_RATE, warmup=0, weight_decay=WEIGHT_DECAY, floor=1
    )  # a rate that stays
    facts = desk.fit(probe, loss_of, settings)
    state = {"weight": probe.weight, "bias": probe.bias, "mean": mean, "scale": scale}
    halves = {k: v.detach().half().contiguous() for k, v in state.items()}
    ids = json.dumps([wnids[entry.texts[0]] for entry in classes])
    save_file(halves, desk.folder / "probe.safetensors", metadata={"wnids": ids})
    return {**facts, "classes": len(classes)}


def _sets(corpus: Corpus, entry: Entry, rng: np.random.Generator) -> torch.Tensor:
    """Draw sets of a class, impure as real ones: mean features [`SETS`, 2 d]."""
    units, k, views = [], corpus.exemplars, corpus.views[entry.start]
    for _ in range(SETS):
        shown = rng.permutation(views)[np.arange(k) % len(views)]
        drawn = entry.start + shown * entry.variants + rng.integers(0, entry.variants, k)
        impure = rng.random(k) > rng.uniform(corpus.min_purity, 1)
        drawn[impure] = rng.choice(corpus.rows, int(impure.sum()))
        whole = bool(rng.random() < 0.5)
        drawn = corpus.table.photo[drawn].astype(np.int64) if whole else drawn
        units.append(Unit(drawn, whole, np.zeros(0, np.int64), "", "class"))
    return corpus.evidence(units).features.mean(1).flatten(1)
