"""How far a text and an exemplar set speak of one thing, learned: an estimate of their PMI.

A bilinear critic trained by a softmax over all texts, from whose logits the texts' log frequency
is taken out (Menon et al. 2021, "Long-tail learning via logit adjustment"), tends to
log p(d|E) / p(d) (van den Oord et al. 2018; Poole et al. 2019, "On variational bounds of mutual
information").
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional as F

from milanx.language.connectives import CONNECTIVES

ZERO_SHOT = 10.0  # nats that the joint space's own similarity counts before training, then learned


class Critic(nn.Module):
    """Scores texts for exemplar sets, in nats.

    The sum of what the joint image-text space says by itself, times a learned weight, and of a
    learned bilinear form of the set's features and the text's vector.

    Args:
        read: r, features of one view that are read (`milanx.describing.set_encoder.SetEncoder`).
        joint: j, width of the joint space.
        width: of the hidden layer.
        dropout: in training.
    """

    def __init__(self, read: int, joint: int, width: int = 768, dropout: float = 0.3) -> None:
        super().__init__()
        self.joint = joint
        first = nn.Linear(4 * read + 3 * joint + 1, width)
        last = nn.Linear(width, joint)
        nn.init.zeros_(last.bias)
        self.body = nn.Sequential(first, nn.GELU(), nn.Dropout(dropout), last)
        self.text = nn.Linear(2 * joint + len(CONNECTIVES), joint)
        self.zero_shot = nn.Parameter(torch.tensor(ZERO_SHOT))

    def forward(
        self, summary: torch.Tensor, shown: torch.Tensor, texts: torch.Tensor
    ) -> torch.Tensor:
        """Score texts [t, j] or [t, 2 j + 3], as of `scores`: [u, t], in nats.

        Args:
            summary: [u, 4 r + 3 j + 1], of `summarise`.
            shown: [u, j], what the masks show in the joint space, centred.
            texts: of `scores`.
        """
        return self.scores(self.vectors(summary, shown), texts)

    def vectors(self, summary: torch.Tensor, shown: torch.Tensor) -> torch.Tensor:
        """Return what texts are compared with: [u, 2 j]."""
        return torch.cat([self.body(summary), self.zero_shot * shown], 1)

    def scores(self, vectors: torch.Tensor, texts: torch.Tensor) -> torch.Tensor:
        """Score texts by `vectors`: [u, t], in nats.

        Args:
            vectors: [u, 2 j].
            texts: centred unit rows [t, j], or [t, 2 j + 3] with how they join what they name
                (`milanx.language.connectives.join_features`), centred; without, they name one
                thing.
        """
        told = F.pad(texts, (0, self.text.in_features - texts.shape[1]))
        return vectors @ torch.cat([self.text(told), told[:, : self.joint]], 1).T


def beside_others(scores: torch.Tensor, others: torch.Tensor, pseudo: int) -> torch.Tensor:
    """Return how much more texts agree with sets than with others of their kind, in nats.

    The logarithm of a text's mean exponentiated score over the others stands for
    log p(d|layer) / p(d), so the difference is log p(d|E) / p(d|layer).

    Args:
        scores: [u, t].
        others: [o, t], of the same texts.
        pseudo: sets without opinion that are counted among the others, so that few of them say
            little.
    """
    total = torch.cat([others, others.new_full((1, others.shape[1]), math.log(pseudo))])
    return scores - total.logsumexp(0) + math.log(len(others) + pseudo)


def summarise(
    read: torch.Tensor,
    joint: torch.Tensor,
    valid: torch.Tensor,
    contrast: torch.Tensor,
    contrast_joint: torch.Tensor,
    contrast_valid: torch.Tensor,
    joint_weight: float,
) -> torch.Tensor:
    """Bring an exemplar set to one vector: what its views share and how far they differ.

    Args:
        read: [u, k, 2, r], read features under the mask and of the whole view.
        joint: [u, k, 2, j], in the joint space, centred.
        valid: bool [u, k].
        contrast: [u, c, r], read features of the contrast views.
        contrast_joint: [u, c, j], centred.
        contrast_valid: bool [u, c].
        joint_weight: what unit rows are multiplied by beside features of variance one.

    Returns:
        [u, 4 r + 3 j + 1].
    """
    share = valid.to(read)[..., None, None]
    count = share.sum(1).clamp_min(1)
    mean = (read * share).sum(1) / count
    spread = (((read - mean[:, None]) ** 2 * share).sum(1) / count)[:, 0].clamp_min(0).sqrt()
    seen = (joint * share).sum(1) / count
    beside = contrast_valid.to(read)[..., None]
    rivals = beside.sum(1).clamp_min(1)
    other = (contrast * beside).sum(1) / rivals
    other_joint = (contrast_joint * beside).sum(1) / rivals
    known = contrast_valid.any(1, keepdim=True).to(read)
    shown = [joint_weight * seen.flatten(1), joint_weight * other_joint]
    return torch.cat([mean.flatten(1), spread, other, *shown, known], 1)
