"""How texts join what they name."""

from collections.abc import Sequence

import torch

from milanx.joining import join_features, split


def _embed(texts: Sequence[str]) -> torch.Tensor:
    return torch.tensor([[len(t), t.count("s")] for t in texts], dtype=torch.float32)


def test_texts_are_divided_at_their_connective() -> None:
    whole = {"snails and slugs"}
    assert split("dogs", whole) is None
    assert split("snails and slugs", whole) is None
    assert split("snails and cars", whole) == ("snails", "and", "cars")
    assert split("snails and slugs or cars", whole) == ("snails and slugs", "or", "cars")
    assert split("sky and sea without boats") == ("sky and sea", "without", "boats")
    assert split("or cars") is None
    assert split("corals and oars") == ("corals", "and", "oars")


def test_connectives_and_what_is_missing_are_told() -> None:
    texts = ["dogs", "dogs or cats", "dogs and cats", "dogs without grass", "sky without seas"]
    found = join_features(texts, _embed, set())
    assert found[:, :3].tolist() == [[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 1]]
    assert found[:, 3:].tolist() == [[0, 0], [0, 0], [0, 0], [5, 2], [4, 2]]
    assert join_features(["dogs"], _embed, set()).abs().sum() == 0
    assert join_features(["snails and slugs"], _embed, {"snails and slugs"}).abs().sum() == 0
