"""Whether exemplars show both of the things that a text joins, against a plain version."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from milanx.describing.halves import ENOUGH, SEEN, Sets
from milanx.describing.signs import Crowd
from milanx.language.connectives import split

NAMES = ("dogs", "cats", "snow", "red things")


def space(width: int = 4) -> Any:
    vectors = dict(zip(NAMES, torch.eye(width), strict=True))
    return SimpleNamespace(split=split, centred=lambda texts: torch.stack(
        [vectors[text] for text in texts]))  # fmt: skip


def crowd(rng: np.random.Generator, units: int = 200) -> Crowd:
    rows = torch.from_numpy(rng.normal(0, 0.5, (units * 5, 4)).astype(np.float32))
    return Crowd(rows, units)


def test_each_half_must_be_shown_by_its_own_exemplars() -> None:
    rng = np.random.default_rng(0)
    both = torch.eye(4)[[0] * 5 + [1] * 5] * 3  # five show dogs, five cats
    one = torch.eye(4)[[0] * 10] * 3
    mixed = (torch.eye(4)[[0] * 10] + torch.eye(4)[[2] * 10]) * 3  # dogs in the snow
    sets = Sets(torch.stack([both, one, mixed]), torch.ones(3, 10, dtype=torch.bool), crowd(rng))
    texts = ["dogs", "dogs or cats", "dogs and snow", "dogs without cats", "cats without dogs"]
    share = sets.crowd.share
    found = sets.absent(texts, space()) / share
    expected = torch.tensor([[0.0, 0, 1, 0, 0], [0, 1, 1, 0, 1], [0, 1, 0, 0, 1]])
    torch.testing.assert_close(found, expected)
    few = Sets(one[None, :1], torch.zeros(1, 1, dtype=torch.bool), sets.crowd)
    assert few.absent(texts, space()).isfinite().all()


def test_shares_equal_the_plain_version() -> None:
    rng = np.random.default_rng(1)
    around = crowd(rng, 30)
    shown = torch.from_numpy(rng.normal(0, 1, (6, 12, 4)).astype(np.float32))
    valid = torch.from_numpy(rng.random((6, 12)) < 0.8)
    texts = [f"{a} {how} {b}" for a in NAMES for b in NAMES if a != b
             for how in ("or", "and", "without")]  # fmt: skip
    found = Sets(shown, valid, around).absent(texts, space())
    mean, spread = around.shown.mean(0), around.shown.std(0, correction=0)
    for u in range(6):
        z = ((shown[u] - mean) / spread)[valid[u]]
        for t, text in enumerate(texts):
            first, how, second = split(text) or ("", "", "")
            a, b = z[:, NAMES.index(first)], z[:, NAMES.index(second)]
            own, other = (a >= SEEN).float(), (b >= SEEN).float()
            if how == "or":
                own, other = own * (a >= b), other * (b > a)
            least = float(own.mean() if how == "without" else min(own.mean(), other.mean()))
            plain = max(0.0, 1 - least / ENOUGH) * around.share
            assert abs(float(found[u, t]) - plain) < 1e-5


def test_the_order_of_exemplars_and_other_units_say_nothing() -> None:
    rng = np.random.default_rng(2)
    around = crowd(rng)
    shown = F.normalize(torch.from_numpy(rng.normal(0, 1, (4, 9, 4)).astype(np.float32)), dim=-1)
    valid = torch.ones(4, 9, dtype=torch.bool)
    texts = ["dogs or cats", "snow and red things"]
    found = Sets(shown, valid, around).absent(texts, space())
    order = rng.permutation(9)
    torch.testing.assert_close(Sets(shown[:, order], valid, around).absent(texts, space()), found)
    alone = Sets(shown[2:3], valid[:1], around).absent(texts, space())
    torch.testing.assert_close(alone, found[2:3])
