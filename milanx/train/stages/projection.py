"""The small CLIP's projection: frozen image features into the frozen text tower's space.

InfoNCE (van den Oord et al. 2018; Radford et al. 2021, section 2.3) over captions, class names
and named regions, with every equal text of a batch counted as a positive.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from milanx.features.encoder import Encoder
from milanx.features.smallclip import Projection
from milanx.language.words import plural
from milanx.train.data.photos import PhotoFeatures
from milanx.train.recipe import EncoderSettings
from milanx.train.units.phrases import clean_name
from milanx.train.units.table import Joint, joint_features

BATCH_SHARES = {"caption": 0.5, "name": 0.3, "region": 0.2}


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
        for region, grid in photo.regions:
            share = np.asarray(grid, np.float32)
            features.append(share @ dense / share.sum())
            texts.append([clean_name(region), plural(clean_name(region))])
            kinds.append("region")
            views.append(index)
    known = sorted({t for row in texts for t in row})
    place = {t: i for i, t in enumerate(known)}
    stacked = torch.from_numpy(np.stack(features).astype(np.float16))
    rows = [[place[t] for t in row] for row in texts]
    return Pairs(
        stacked, rows, encoder.texts(known).clone(), np.array(kinds), np.array(views, np.int64)
    )


def train_projection(
    encoder: Encoder,
    pairs: Pairs,
    settings: EncoderSettings,
    seed: int,
    advance: Callable[[int, float], None] = lambda step, loss: None,
) -> None:
    """Fit ``encoder.projection`` in place, from new weights, where the encoder is."""
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    projection = encoder.projection
    if not isinstance(projection, Projection):
        raise TypeError("this encoder's towers meet already: there is no projection to train")
    projection.reset()
    everything, embeddings = (
        part.to(encoder.device) for part in (pairs.features, pairs.embeddings)
    )
    sample = everything[:: max(1, len(everything) // 4000)].float()
    projection.mean.copy_(sample.mean(0))
    projection.scale.copy_(1 / sample.std(0).clamp_min(1e-3))
    projection.requires_grad_(True).train()
    optimiser = torch.optim.AdamW(
        projection.parameters(), settings.learning_rate, weight_decay=0.05
    )
    by_kind = {kind: np.flatnonzero(pairs.kinds == kind) for kind in BATCH_SHARES}
    for step in range(settings.steps):
        rate = 0.5 * (1 + math.cos(math.pi * step / settings.steps)) * min(1, (step + 1) / 100)
        for group in optimiser.param_groups:
            group["lr"] = settings.learning_rate * rate
        rows = np.concatenate([
            rng.choice(by_kind[kind], int(settings.batch_size * share))
            for kind, share in BATCH_SHARES.items() if len(by_kind[kind])
        ])  # fmt: skip
        chosen = torch.tensor([int(rng.choice(pairs.texts[row])) for row in rows])
        features = everything[torch.from_numpy(rows)].float()
        features = features * (torch.rand_like(features) > 0.1)  # feature dropout
        image = F.normalize(projection(features), dim=-1)
        logits = image @ embeddings[chosen].T / settings.temperature
        target = (chosen[:, None] == chosen[None]).to(logits)
        loss = (
            -(
                (target / target.sum(1, keepdim=True) * logits.log_softmax(1)).sum(1).mean()
                + (target / target.sum(0, keepdim=True) * logits.log_softmax(0)).sum(0).mean()
            )
            / 2
        )
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        advance(step, float(loss.detach()))
    projection.requires_grad_(False).eval()


def out_of_fold(encoder: Encoder, folder: Path, half: np.ndarray, trained: np.ndarray) -> Joint:
    """Return how training views come to the joint space as unseen ones will.

    A projection knows the captions of the views that it was trained on by heart, and what is
    trained on its output believes it too much. So each half of the views goes through the
    projection that was trained on the other half; views of neither go through the encoder's own.

    Args:
        encoder: with its own projection.
        folder: that holds ``half-0.safetensors`` and ``half-1.safetensors``.
        half: bool [n], views of the second half.
        trained: bool [n], views that a projection was trained on.
    """
    own = {k: v.clone() for k, v in encoder.projection.state_dict().items()}
    others = [load_file(folder / f"half-{i}.safetensors") for i in (0, 1)]

    def joint(features: np.ndarray, views: np.ndarray) -> np.ndarray:
        found = np.empty((len(features), encoder.spec.joint), np.float16)
        for state, which in ((own, ~trained), (others[1], trained & ~half),
                             (others[0], trained & half)):  # fmt: skip
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
