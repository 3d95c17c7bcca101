"""Responses to all views: the closed form equals plain correlations."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import milanx
from milanx.describing import response
from milanx.describing.classes import KIND, classes_named, with_kinds
from milanx.describing.response import Others, Responses, Views, most_alike
from milanx.describing.settings import RankSettings, ResponseSettings
from milanx.describing.texts import TextSpace
from milanx.describing.units import LayerEvidence, UnitsEvidence

NAMES = list("abcdef")
HOW = ResponseSettings(no_opinion=150, exact=0.3, near=2, near_share=0.25)
NO_OPINION, EXACT = HOW.no_opinion, HOW.exact


def responses(
    seen: torch.Tensor,
    sources: list[str],
    activations: torch.Tensor,
    shown: dict[str, torch.Tensor] | None = None,
    *,
    others: Others | None = None,
    photographs: int | None = None,
    how: ResponseSettings = HOW,
) -> Responses:
    views = Views(seen, sources, photographs or len(seen), shown or {})
    return Responses(views, activations, how, others)


def test_correlations_equal_the_plain_version() -> None:
    rng = np.random.default_rng(0)
    seen = torch.from_numpy(rng.normal(size=(90, 5)).astype(np.float32))
    sources = ["b" if i % 3 else "a" for i in range(90)]
    activations = torch.from_numpy(rng.normal(size=(90, 4)).astype(np.float32)) * 7 + 3
    texts = torch.from_numpy(rng.normal(size=(6, 5)).astype(np.float32))
    found = responses(seen, sources, activations).correlations([3, 1], NAMES, texts)
    similar = (seen @ texts.T).numpy()
    expected = np.zeros((2, 6))
    for source in ("a", "b"):
        inside = [i for i, s in enumerate(sources) if s == source]
        for row, unit in enumerate((3, 1)):
            for column in range(6):
                r = np.corrcoef(activations[inside, unit], similar[inside, column])[0, 1]
                expected[row, column] += len(inside) * r
    assert np.abs(found.numpy() - expected / (90 + NO_OPINION)).max() < 1e-5


def test_what_pixels_show_is_not_asked_of_the_joint_space() -> None:
    shares = torch.rand(40)
    told = responses(torch.rand(40, 2), ["a"] * 40, shares[:, None] * 2 + 1, {"red areas": shares})
    found = told.correlations([0], ["dogs", "red areas"], torch.rand(2, 2))
    assert float(found[0, 1]) == pytest.approx(EXACT * 40 / (40 + NO_OPINION), abs=1e-5)
    assert float(found[0, 0]) < 0.1


def test_the_name_of_a_class_is_read_off_the_classifier_where_that_tells_more() -> None:
    torch.manual_seed(0)
    names = classes_named()
    place = names["dragonfly"][0]
    classes = with_kinds(torch.rand(40, 1000).square())
    activations = torch.stack([classes[:, place] * 2 + 1, torch.rand(40)], 1)
    joint, texts = torch.rand(40, 2), ["dragonflies", "Dragonfly", "bark"]
    views, vectors = Views(joint, ["a"] * 40, 40, classes=classes), torch.rand(3, 2)
    plain = Responses(views, activations, HOW).correlations([0, 1], texts, vectors)
    how = replace(HOW, evident=0.7)
    told = Responses(views, activations, how).correlations([0, 1], texts, vectors)
    assert told[0, :2].tolist() == pytest.approx([0.7 * 40 / (40 + NO_OPINION)] * 2, abs=1e-5)
    assert torch.equal(told[:, 2], plain[:, 2])
    assert bool((told >= plain).all())
    assert "skies" not in names and "crane" in names and len(names["cranes"]) == 2
    assert not {"panes", "tubes", "games"} & names.keys() and {"foxes", "dogs"} <= names.keys()


def test_the_name_of_a_kind_is_read_off_all_of_its_classes_together() -> None:
    torch.manual_seed(0)
    names, shares = classes_named(), torch.rand(40, 1000)
    frogs = [names[name][0] for name in ("bullfrog", "tree frog", "tailed frog")]
    kind = with_kinds(shares)[:, names["frogs"][0]]
    assert torch.allclose(kind, shares[:, frogs].sum(1))
    views = Views(torch.rand(40, 2), ["a"] * 40, 40, classes=with_kinds(shares))
    told = Responses(views, kind[:, None], replace(HOW, evident=1.0))
    found = told.correlations([0], ["frogs", "bullfrogs", "tree frogs"], torch.zeros(3, 2))[0]
    assert float(found[0]) == pytest.approx(KIND * 40 / (40 + NO_OPINION), abs=1e-5)
    assert float(found[0]) > 1.1 * float(found[1:].max())


def test_sources_apart_and_constant_units_tell_nothing() -> None:
    seen = torch.eye(4).repeat_interleave(10, 0)[:, :2].contiguous()
    sources = ["a"] * 20 + ["b"] * 20
    by_source = torch.tensor([0.0] * 20 + [1.0] * 20)[:, None]  # constant within each source
    found = responses(seen, sources, by_source).correlations([0], NAMES[:2], torch.eye(2))
    assert found.tolist() == [[0.0, 0.0]]


def test_a_text_that_holds_for_all_neighbours_falls_behind() -> None:
    """Of three dog units among others, what tells one leads before what all three answer to."""
    rng = np.random.default_rng(0)
    shows = torch.from_numpy(rng.random((300, 6)).astype(np.float32))
    dog, own, texts = shows[:, 0], shows[:, 1:4], torch.eye(6)[:2]
    dogs = dog[:, None] + 0.8 * own
    others = torch.cat([dogs, shows[:, [4, 4, 4, 5, 5, 5]]], 1)
    sources = ["a"] * 150 + ["b"] * 150
    looks = torch.from_numpy(rng.normal(size=(9, 12)).astype(np.float32))
    looks[:3] = looks[0] + 0.1 * looks[:3]
    near = most_alike(looks, [0, 1, 2], 2)
    assert [sorted(row) for row in near.tolist()] == [[1, 2], [0, 2], [0, 1]]
    beside = Others(others, near)
    plain, told = (
        responses(shows, sources, dogs, others=beside, how=replace(HOW, near_share=share))
        .correlations([0], NAMES[:2], texts)[0]
        for share in (0.0, 0.25)
    )  # fmt: skip
    assert plain[0] > plain[1] and told[0] < told[1]
    alone = most_alike(looks[:1], [0], 2)
    assert alone.shape == (1, 0)
    same = responses(shows, sources, dogs[:, :1], others=Others(others[:, 3:], alone))
    assert same.correlations([0], NAMES[:1], texts[:1]).isfinite().all()


def test_joined_texts_are_fuzzy_sets_of_their_parts() -> None:
    """What answers to either of two things is foretold by "or", to both by "and", and so on."""
    rng = np.random.default_rng(0)
    shows = torch.from_numpy((rng.random((400, 2)) < 0.4).astype(np.float32))
    a, b = shows.bool().T
    meanings = torch.stack([a | b, a & b, a & ~b], 1).float()
    told = responses(shows, ["a"] * 200 + ["b"] * 200, meanings)
    texts = torch.eye(2)
    pairs = [(0, "or", 1), (0, "and", 1), (0, "without", 1), (1, "or", 0)]
    for unit in range(3):
        shown = told.shown(["dogs", "trees"], texts)
        found = told.joined([unit], shown, pairs)[0]
        alone = told.correlations([unit], ["dogs", "trees"], texts)[0]
        assert int(found[:3].argmax()) == unit
        assert float(found.max()) > 0.9 * 400 / (400 + NO_OPINION)
        assert float(found.max()) > float(alone.max()) + 0.05
        assert float(found[3]) == pytest.approx(float(found[0]))


def test_of_joined_texts_what_pixels_tell_counts_less() -> None:
    shares, seen = torch.rand(40), torch.rand(40, 2)
    told = responses(seen, ["a"] * 40, shares[:, None], {"red areas": shares, "red things": shares})
    shown = told.shown(["red areas", "red things"], torch.rand(2, 2))
    pair = told.joined([0], shown, [(0, "or", 1)])
    assert float(pair[0, 0]) == pytest.approx(EXACT * 40 / (40 + NO_OPINION), abs=1e-5)


def test_few_views_say_little() -> None:
    activations = torch.arange(8.0)[:, None]
    few = responses(activations.repeat(1, 2), ["a"] * 8, activations)
    assert float(few.correlations([0], NAMES[:2], torch.eye(2))[0, 0]) == pytest.approx(
        8 / (8 + NO_OPINION)
    )


def test_cuts_of_one_photograph_count_as_one() -> None:
    torch.manual_seed(0)
    activations = torch.rand(400, 1)
    apart = responses(activations.repeat(1, 2), ["a"] * 400, activations)
    alike = responses(activations.repeat(1, 2), ["a"] * 400, activations, photographs=10)
    r = [told.correlations([0], NAMES[:2], torch.eye(2))[0, 0] for told in (apart, alike)]
    assert float(r[0]) == pytest.approx(400 / (400 + NO_OPINION), abs=1e-3)
    assert float(r[1]) == pytest.approx(10 / (10 + NO_OPINION), abs=1e-3)


def test_joined_texts_equal_the_plain_version_for_many_units_and_pairs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Parts of pairs, in sources of their own; a source in which a pair never varies tells 0."""
    monkeypatch.setattr(response, "NUMBERS_AT_ONCE", 3 * 30)
    rng = np.random.default_rng(0)
    seen = torch.from_numpy(rng.normal(size=(62, 5)).astype(np.float32))
    sources = ["a"] * 30 + ["b"] * 30 + ["c"] * 2  # of two views, "A without A" never varies
    activations = torch.from_numpy(rng.normal(size=(62, 4)).astype(np.float32))
    texts = torch.from_numpy(rng.normal(size=(6, 5)).astype(np.float32))
    pairs = [(i, how, j) for i in range(6) for j in range(6) for how in ("or", "and", "without")]
    told = responses(seen, sources, activations)
    shown = told.shown(NAMES, texts)
    found = told.joined([2, 0], shown, pairs)
    expected = np.zeros((2, len(pairs)))
    for source in ("a", "b", "c"):
        inside = [i for i, s in enumerate(sources) if s == source]
        similar = (seen[inside] @ texts.T).double().numpy()
        similar = (similar - similar.mean(0)) / similar.std(0)
        for column, (i, how, j) in enumerate(pairs):
            a, b = similar[:, i], similar[:, j]
            both = np.maximum(a, b) if how == "or" else np.minimum(a, -b if "w" in how else b)
            for row, unit in enumerate((2, 0)):
                if both.std() > 1e-5:
                    r = np.corrcoef(activations[inside, unit], both)[0, 1]
                    expected[row, column] += len(inside) * r
    assert np.abs(found.numpy() - expected / (62 + NO_OPINION)).max() < 1e-5
    some = told.joined([2, 0], shown.rows([4, 1]), [(0, "without", 1)])
    torch.testing.assert_close(some[:, 0], found[:, pairs.index((4, "without", 1))])


def test_a_part_foretells_no_less_than_the_thing_it_is_of(describer: milanx.Describer) -> None:
    """Views show a cat wherever they show its head, and what masks show is others' to tell."""
    torch.manual_seed(0)
    space = TextSpace(describer.encoder, describer.set_encoder, describer.vocabulary)
    cats, others = space.centred(["cats"]), torch.randn(60, describer.encoder.spec.joint)
    strength = torch.rand(60, 1)
    layer = LayerEvidence(None, responses(strength * cats + 0.01 * others, ["a"] * 60, strength))
    how = RankSettings(response=1.0)
    unit = UnitsEvidence(space, layer, torch.zeros(1, 1), [0], how)
    texts = ["heads of cats", "cats", "heads", "heads of cats or dogs"]
    said = unit.said_of([texts])[0].response(texts)
    assert said[0] == pytest.approx(said[1]) and said[1] > max(said[2:]) > 0
