"""Texts that join two phrases."""

from milanx.compose import best_pairs, joins, possible_pairs

PARTS = ["dogs", "red dogs", "trees"]


def test_joined_texts_are_told_from_words_that_look_like_connectives() -> None:
    assert joins("dogs or trees") and joins("dogs without trees") and joins("dogs and trees")
    assert not joins("corals") and not joins("orchids") and not joins("andes")


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
