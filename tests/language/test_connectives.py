"""How texts join what they name."""

from collections.abc import Sequence

import torch

from milanx.language.connectives import (
    best_pairs,
    join_features,
    joins,
    named,
    possible_pairs,
    says_missing,
    split,
    whole_of,
)


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


PARTS = ["dogs", "red dogs", "trees"]


def test_joined_texts_are_told_from_words_that_look_like_connectives() -> None:
    assert joins("dogs or trees") and joins("dogs without trees") and joins("dogs and trees")
    assert not joins("corals") and not joins("orchids") and not joins("andes")


def test_what_is_missing_is_told_wherever_it_stands() -> None:
    assert says_missing("dogs without trees") and says_missing("cats or dogs without trees")
    assert not says_missing("without") and not says_missing("dogs and trees")
    assert named("the dogs without a tree") == named("dog trees")


def test_phrases_of_one_word_are_not_joined() -> None:
    pairs = possible_pairs(PARTS)
    assert not any({i, j} == {0, 1} for i, _, j in pairs)
    assert (0, "or", 2) in pairs and (2, "or", 0) not in pairs
    assert (0, "without", 2) in pairs and (2, "without", 0) in pairs


def test_only_what_says_more_than_its_parts_is_joined() -> None:
    pairs = possible_pairs(PARTS)
    together = [0.3 if connective == "or" else 0.15 for _, connective, _ in pairs]
    found = best_pairs(PARTS, pairs, [0.1, 0.2, 0.25], together, 4)
    # the stronger comes first; without needs to say more than what it starts from alone
    assert found == ["trees or dogs", "trees or red dogs", "dogs without trees"]
    assert best_pairs(PARTS, pairs, [0.1, 0.2, 0.25], together, 1)[0] == "trees or dogs"
    assert best_pairs(PARTS, pairs, [1.0] * 3, together, 4) == []


def test_the_thing_that_a_part_is_of() -> None:
    assert whole_of("heads of cats") == "cats" and whole_of("wheel of a car") == "car"
    assert whole_of("the top of the box") == "box" and whole_of("ear of an elephant") == "elephant"
    assert (
        whole_of("cats") is None and whole_of("of people") is None and whole_of("roof of") is None
    )
    assert whole_of("cats or heads of dogs") is None and whole_of("offices") is None
