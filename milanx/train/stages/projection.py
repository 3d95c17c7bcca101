"""The small CLIP's projection: frozen image features into the frozen text tower's space.

InfoNCE (van den Oord et al. 2018; Radford et al. 2021, section 2.3) over captions, class names
and named regions, with every equal text of a batch counted as a positive.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F

from milanx.features.classes import class_vectors
from milanx.features.encoder import Encoder
from milanx.features.smallclip import Projection
from milanx.language.words import plural
from milanx.train.data.photos import PhotoFeatures
from milanx.train.engine.fit import share
from milanx.train.engine.schedule import small_network
from milanx.train.stages.desk import Desk, step_rng
from milanx.train.units.meanings import Views, halves
from milanx.train.units.phrases import clean_name
from milanx.train.units.planted import PlantedUnits
from milanx.train.units.table import Joint, joint_features

BATCH_SHARES = {"caption": 0.5, "name": 0.3, "region": 0.2}
WARM_UP = 100  # steps
FEATURE_DROPOUT = 0.1  # share of the input features that a step does not see
SAMPLED = 4000  # pairs that the features' usual values are learned from, about
WEIGHTS, HALVES = "encoder.safetensors", ("half-0", "half-1")  # files


@dataclass
class Pairs:
    """Pooled features and the texts that go with them.

    Attributes:
        features: float16 [n, c].
        texts: of each row, indices into ``embeddings``.
        embeddings: [t, joint] unit rows.
        kinds: of each row, caption, name or region.
        views: int64 [n], the view of each row.
    """

    features: torch.Tensor
    texts: list[list[int]]
    embeddings: torch.Tensor
    kinds: np.ndarray
    views: np.ndarray

    def of(self, kept: np.ndarray) -> Pairs:
        """Return the pairs of the views ``kept`` (bool, of all views)."""
        rows = np.flatnonzero(kept[self.views])
        texts = [self.texts[i] for i in rows]
        features = self.features[torch.from_numpy(rows)]
        return Pairs(features, texts, self.embeddings, self.kinds[rows], self.views[rows])


def make_pairs(encoder: Encoder, photos: PhotoFeatures, keep: np.ndarray) -> Pairs:
    """Collect the pairs of the photos ``keep`` (bool [n])."""
    channels = encoder.last_channels
    features, texts, kinds, views = [], [], [], []
    for index in np.flatnonzero(keep):
        photo = photos.photos[index]
        dense = photos.dense[index][:, :channels].astype(np.float32)
        whole = dense.mean(0)
        if photo.captions:
            features.append(whole)
            texts.append(list(photo.captions))
            kinds.append("caption")
            views.append(index)
        if photo.name and photo.name.lower() != "background":
            name = clean_name(photo.name)
            features.append(whole)
            texts.append([name, plural(name), f"a photo of a {name}", f"a {name}"])
            kinds.append("name")
            views.append(index)
        for region in photo.regions:
            inside = np.asarray(region.cells, np.float32)
            features.append(inside @ dense / inside.sum())
            texts.append([clean_name(region.name), plural(clean_name(region.name))])
            kinds.append("region")
            views.append(index)
    known = sorted({t for row in texts for t in row})
    place = {t: i for i, t in enumerate(known)}
    stacked = torch.from_numpy(np.stack(features).astype(np.float16))
    rows = [[place[t] for t in row] for row in texts]
    return Pairs(
        stacked, rows, encoder.texts(known).clone(), np.array(kinds), np.array(views, np.int64)
    )


def make_projection(desk: Desk) -> dict[str, Any]:
    """Train the projection, and one on each half of the photos (`out_of_fold`).

    The encoder has the one of all photos afterwards.
    """
    encoder, views = desk.course.encoder, planted_views(desk)
    trained, half = views.trained, halves(views.photos)
    pairs = make_pairs(encoder, views.photos, trained)
    steps = desk.recipe.encoder.steps
    fewer = max(1, steps // 2)
    for part, kept in zip(HALVES, (trained & ~half, trained & half), strict=True):
        fit_projection(desk, pairs.of(kept), fewer, part)
        save_file(encoder.projection.state_dict(), desk.folder / f"{part}.safetensors")
    facts = fit_projection(desk, pairs, steps)
    save_file(encoder.projection.state_dict(), desk.folder / WEIGHTS)
    found = recall(encoder, views.photos, ~views.keep)
    return {**facts, "pairs": len(pairs.texts), "held_out_captions": found}


def planted_views(desk: Desk) -> Views:
    """Return the photos of a course whose encoder is trained: they have captions and names."""
    units = desk.course.units
    assert isinstance(units, PlantedUnits)  # other units are refused where recipes are checked
    return units.views


def fit_projection(desk: Desk, pairs: Pairs, steps: int, part: str = "") -> dict[str, Any]:
    """Fit the encoder's projection in place, from new weights."""
    encoder, settings = desk.course.encoder, desk.recipe.encoder
    device = desk.accelerator.device
    projection = encoder.projection
    if not isinstance(projection, Projection):
        raise TypeError("this encoder's towers meet already: there is no projection to train")
    features, embeddings = pairs.features.to(device), pairs.embeddings.to(device)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(desk.recipe.seed)
        begin(projection.cpu(), pairs.features)
        if projection.classes:
            projection.names.copy_(class_vectors(encoder))
    projection.to(device)
    by_kind = {kind: np.flatnonzero(pairs.kinds == kind) for kind in BATCH_SHARES}

    def loss_of(model: nn.Module, step: int) -> tuple[torch.Tensor, float]:
        rows, texts = draw(pairs, by_kind, settings.batch_size, desk.recipe.seed, step)
        seen = features[torch.from_numpy(rows).to(device)].float()
        seen = seen * (torch.rand_like(seen) > FEATURE_DROPOUT)
        # Each process projects all views, which is cheap, since every text is told from all of
        # them; the loss of its part of the rows and columns is its own.
        image = F.normalize(model(seen), dim=-1)
        texts = texts.to(device)
        own = share(len(rows), desk.accelerator)
        return contrastive(image, embeddings[texts], texts, settings.temperature, own)

    chosen = small_network(steps, settings.learning_rate, warmup=WARM_UP)
    facts = desk.fit(projection.requires_grad_(True), loss_of, chosen, part=part)
    projection.requires_grad_(False)
    return facts


def begin(projection: Projection, features: torch.Tensor) -> None:
    """Give a projection new weights, and the usual values of ``features`` [n, c]."""
    projection.reset()
    sample = features[:: max(1, len(features) // SAMPLED)].float()
    projection.mean.copy_(sample.mean(0))
    projection.scale.copy_(1 / sample.std(0).clamp_min(1e-3))


def draw(
    pairs: Pairs, by_kind: dict[str, np.ndarray], size: int, seed: int, step: int
) -> tuple[np.ndarray, torch.Tensor]:
    """Draw the rows of a step's batch, each kind its share, and a text of each: int64 [b] both."""
    rng = step_rng(seed, 12, step)
    rows = np.concatenate([
        rng.choice(by_kind[kind], int(size * portion))
        for kind, portion in BATCH_SHARES.items() if len(by_kind[kind])
    ])  # fmt: skip
    return rows, torch.tensor([int(rng.choice(pairs.texts[row])) for row in rows])


def contrastive(
    images: torch.Tensor, texts: torch.Tensor, same: torch.Tensor, temperature: float, part: slice
) -> tuple[torch.Tensor, float]:
    """InfoNCE of images and texts, both ways: its sum over a part of them, and how many these are.

    Args:
        images: [b, j], unit rows.
        texts: [b, j], unit rows: that of each image.
        same: [b], texts with one number are one text.
        temperature: that similarities are divided by.
        part: of the rows and columns.
    """
    logits = images @ texts.T / temperature
    target = (same[:, None] == same[None]).to(logits)
    told = (target / target.sum(1, keepdim=True) * logits.log_softmax(1)).sum(1)
    found = (target / target.sum(0, keepdim=True) * logits.log_softmax(0)).sum(0)
    return -(told[part].sum() + found[part].sum()) / 2, float(len(told[part]))


def out_of_fold(encoder: Encoder, folder: Path, half: np.ndarray, trained: np.ndarray) -> Joint:
    """Return how training views come to the joint space as unseen ones will.

    A projection knows the captions of the views that it was trained on by heart, and what is
    trained on its output believes it too much. So each half of the views goes through the
    projection that was trained on the other half; views of neither go through the encoder's own.

    Args:
        encoder: with its own projection.
        folder: that the projections of both halves were written to.
        half: bool [n], views of the second half.
        trained: bool [n], views that a projection was trained on.
    """
    own = {k: v.clone() for k, v in encoder.projection.state_dict().items()}
    first, second = (load_file(folder / f"{part}.safetensors") for part in HALVES)

    def joint(features: np.ndarray, views: np.ndarray) -> np.ndarray:
        found = np.empty((len(features), encoder.spec.joint), np.float16)
        for state, which in ((own, ~trained), (second, trained & ~half),
                             (first, trained & half)):  # fmt: skip
            rows = np.flatnonzero(which[views])
            encoder.projection.load_state_dict(state)
            if len(rows):
                found[rows] = joint_features(encoder, features, rows)
        encoder.projection.load_state_dict(own)
        return found

    return joint


@torch.inference_mode()
def recall(encoder: Encoder, photos: PhotoFeatures, held: np.ndarray) -> dict[str, float]:
    """Return R@1 and R@5 of one caption among those of the held-out captioned photos."""
    views = [i for i in np.flatnonzero(held) if photos.photos[i].captions]
    indices = list({photos.photos[i].group: i for i in reversed(views)}.values())  # a view each
    if not indices:
        return {}
    whole = np.stack([photos.dense[i].astype(np.float32).mean(0) for i in indices])
    image = encoder.joint(torch.from_numpy(whole).to(encoder.device))
    text = encoder.texts([photos.photos[i].captions[0] for i in indices])
    scores = image @ text.T
    rank = (scores > scores.diag()[:, None]).sum(1)
    return {
        "photos": len(indices),
        "r_at_1": float((rank < 1).float().mean()),
        "r_at_5": float((rank < 5).float().mean()),
    }
