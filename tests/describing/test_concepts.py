"""Training-free describing: softWPMI against the plainest version, planted colours, the list."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from milanx.describing.concepts import ConceptSettings, describe_concepts, load_concepts, soft_wpmi
from milanx.errors import InputError
from milanx.exemplars.masks import LayerRecord
from milanx.exemplars.store import ExemplarStore, write_index, write_layer, write_views
from milanx.rows import units_schema
from milanx.runs import write_units

SIDE, K = 32, 4
COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (40, 50, 230)}
WORDS = (*COLOURS, "plaid", "fog")


class Spec:
    grid = 4


class ColourEncoder(nn.Module):
    """A small encoder: a cell's features are its mean colour, and words have directions."""

    spec = Spec()
    device = torch.device("cpu")

    def fingerprint(self) -> str:
        return "mean colours"

    def dense(self, views: torch.Tensor) -> torch.Tensor:
        return F.adaptive_avg_pool2d(views.float() / 255, self.spec.grid).permute(0, 2, 3, 1)

    def joint(self, features: torch.Tensor) -> torch.Tensor:
        centred = features - features.mean(-1, keepdim=True)
        return F.normalize(F.pad(centred, (0, 2), value=0.05), dim=-1)

    def texts(self, texts: list[str]) -> torch.Tensor:
        return torch.eye(5)[[WORDS.index(text) for text in texts]]


def plain_views(rng: np.random.Generator, each: int) -> tuple[list[np.ndarray], list[str]]:
    """Views of one colour on their left half and grey on their right."""
    views, names = [], []
    for i in range(each * 3):
        name = list(COLOURS)[i % 3]
        view = np.full((SIDE, SIDE, 3), rng.integers(100, 160), np.uint8)
        view[:, : SIDE // 2] = np.clip(np.array(COLOURS[name]) + rng.integers(-20, 20), 0, 255)
        views.append(view)
        names.append(name)
    return views, names


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ExemplarStore:
    """Five units of one layer: red, green, blue, dead, and all but blue; `-` of the third."""
    root = tmp_path_factory.mktemp("store")
    rng = np.random.default_rng(0)
    views, names = plain_views(rng, 14)
    count = len(views)
    wanted = [("red",), ("green",), ("blue",), (), ("red", "green")]
    shows = np.array([[name in some for some in wanted] for name in names], np.float32)
    largest = (shows * (2 + rng.random((count, 5)))).astype(np.float32)
    largest += 0.1 * rng.random((count, 5)).astype(np.float32)
    largest[:, 3] = 0
    units = [(u, "+") for u in range(5)] + [(2, "-")]
    order = [np.argsort(-largest[:, u])[:K] for u in range(5)] + [np.argsort(largest[:, 2])[:K]]
    images = np.stack(order).astype(np.int64)
    values = np.stack([largest[order[i], u] for i, (u, _) in enumerate(units)]).astype(np.float32)
    maps = np.zeros((6, K, 4, 4), np.float16)
    maps[:5, :, :, :2] = 2.0  # the left half
    maps[3] = 0
    columns = largest[:, [u for u, _ in units]]
    stats = {
        "quantile": np.full(6, 1.0), "low_quantile": np.full(6, -1.0), "median": np.full(6, 0.0),
        "mean": columns.mean(0), "deviation": columns.std(0), "maximum": columns.max(0),
        "minimum": np.where(columns.max(0) > 0, -2.0, 0.0),
    }  # fmt: skip
    record = LayerRecord("layer", "conv", (4, 4), False, None)
    folder = root / "exemplars" / "layer"
    write_layer(folder, units, images, values, maps, np.zeros(images.shape, np.int16), stats)
    np.save(folder / "max.npy", largest)
    np.save(folder / "mean.npy", largest / 2)
    write_views(root, enumerate(views))
    write_index(root, [record], (SIDE, SIDE), "0" * 16)
    return ExemplarStore.open(root)


def plain_soft_wpmi(
    probability: list[list[float]], activations: list[list[float]], how: ConceptSettings
) -> list[list[float]]:
    """One unit, one concept, one image at a time, in double precision."""
    images, units, concepts = len(activations), len(activations[0]), len(probability[0])
    k = min(how.top_k, max(1, images // 4))
    given = []
    for unit in range(units):
        best = sorted(range(images), key=lambda i: -activations[i][unit])[:k]
        row = []
        for concept in range(concepts):
            total = 0.0
            for place, image in enumerate(best):
                belongs = how.p_start - place / k * (how.p_start - how.p_end)
                total += math.log(1 - belongs + belongs * probability[image][concept] + 1e-7)
            row.append(total)
        given.append(row)
    scores = [[0.0] * concepts for _ in range(units)]
    for concept in range(concepts):
        mean = sum(math.exp(given[unit][concept]) for unit in range(units)) / units
        for unit in range(units):
            scores[unit][concept] = given[unit][concept] - how.lam * math.log(mean)
    return scores


@pytest.mark.parametrize("how", [ConceptSettings(), ConceptSettings(top_k=3, lam=0.6, p_end=0.5)])
def test_soft_wpmi_equals_the_plain_version(how: ConceptSettings) -> None:
    generator = torch.Generator().manual_seed(0)
    probability = (4 * torch.randn(40, 12, generator=generator)).softmax(1)
    activations = torch.randn(40, 6, generator=generator)
    found = soft_wpmi(probability, activations, how)
    expected = plain_soft_wpmi(probability.double().tolist(), activations.tolist(), how)
    torch.testing.assert_close(found.double(), torch.tensor(expected).double(), atol=1e-4, rtol=0)


class FirstWordEncoder(ColourEncoder):
    """Takes a text for its first word."""

    def texts(self, texts: list[str]) -> torch.Tensor:
        return super().texts([text.split()[0] for text in texts])


@pytest.mark.parametrize("way", ["softwpmi", "nearest"])
def test_nobody_is_called_by_a_colour(store: ExemplarStore, way: str) -> None:
    how = ConceptSettings(way=way, top_k=8, a=6.0)
    decent = ("green", "blue", "plaid", "fog")
    wide = ("red people", "red-skinned man", *decent)  # the best of what shows red
    found = describe_concepts(store, FirstWordEncoder(), wide, settings=how)
    assert found == describe_concepts(store, FirstWordEncoder(), decent, settings=how)
    assert [d.text.split(", ")[0] for d in found[1:3]] == ["green", "blue"]
    with pytest.raises(InputError, match="fewer than two concepts"):
        describe_concepts(store, FirstWordEncoder(), wide[:2], settings=how)


@pytest.mark.parametrize("way", ["softwpmi", "nearest"])
def test_planted_colours_are_named(store: ExemplarStore, way: str, tmp_path: Path) -> None:
    how = ConceptSettings(way=way, top_k=8, a=6.0, words=1)
    found = describe_concepts(store, ColourEncoder(), WORDS, settings=how)
    assert [(d.unit, d.sign) for d in found] == store.units("layer")
    assert [d.text for d in found[:3]] == list(COLOURS)
    assert found[3].status == "dead" and not found[3].candidates
    assert found[4].candidates[-1].text == "blue"  # the least of what shows red and green
    assert found[5].text != "blue"
    for d in found[:3]:
        scores = [c.pmi for c in d.candidates]
        assert scores == sorted(scores, reverse=True) and d.pmi == scores[0]
        assert d.candidates[0].text == d.text
        assert d.log_p_prior is None and d.candidates[0].log_p_given_exemplars is None
    write_units(tmp_path, found, store)
    import pyarrow.parquet as pq

    table = pq.read_table(tmp_path / "units.parquet")
    assert table.schema.names == units_schema(senses=False).names
    assert table.column("log_p_prior").null_count == len(found)
    assert table.column("description").to_pylist()[:3] == list(COLOURS)


def test_nearest_words_by_hand(store: ExemplarStore) -> None:
    how = ConceptSettings(way="nearest", words=2, candidates=3)
    encoder = ColourEncoder()
    found = {(d.unit, d.sign): d for d in describe_concepts(store, encoder, WORDS, settings=how)}
    near = {}
    for unit, sign in found:
        if unit == 3:
            continue
        exemplars = store.get("layer", unit, sign)
        total = torch.zeros(5)
        for view, mask in zip(exemplars.views, exemplars.masks, strict=True):
            cells = F.adaptive_avg_pool2d(torch.from_numpy(mask)[None, None].float(), 4)[0, 0]
            dense = encoder.dense(torch.from_numpy(view)[None])[0]
            total += encoder.joint((cells[..., None] * dense).sum((0, 1)) / cells.sum())
        near[unit, sign] = F.normalize(total, dim=0)  # the words are the axes
    mean = torch.stack(list(near.values())).mean(0)
    for pair, nearness in near.items():
        score, best = (nearness - 0.8 * mean).topk(3)
        words = [WORDS[i] for i in best.tolist()]
        assert found[pair].text == f"{words[0]}, {words[1]}"
        assert [c.text for c in found[pair].candidates] == [found[pair].text, *words[:2]]
        expected = [float(score[0]), *score[:2].tolist()]
        assert [c.pmi for c in found[pair].candidates] == pytest.approx(expected, abs=2e-3)


@pytest.mark.parametrize("way", ["softwpmi", "nearest"])
def test_a_unit_alone_has_the_text_that_it_has_in_the_layer(store: ExemplarStore, way: str) -> None:
    how = ConceptSettings(way=way)
    together = describe_concepts(store, ColourEncoder(), WORDS, settings=how)
    for d in together:
        asked = {"layer": [(d.unit, d.sign)]}
        assert describe_concepts(store, ColourEncoder(), WORDS, units=asked, settings=how) == [d]
    with pytest.raises(InputError, match="no unit 9"):
        describe_concepts(store, ColourEncoder(), WORDS, units={"layer": [(9, "+")]}, settings=how)


def test_the_bundled_list() -> None:
    concepts = load_concepts()
    assert len(concepts) >= 2500
    assert len(set(concepts)) == len(concepts)
    for concept in concepts:
        assert re.fullmatch(r"[a-z0-9][a-z0-9' -]*", concept), concept
        assert len(concept.split()) <= 7, concept


def test_a_list_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_text("# mine\nred\n\n  blue   sky \nred\n", encoding="utf-8")
    assert load_concepts(path) == ("red", "blue sky")
    path.write_text("red\n")
    with pytest.raises(InputError, match="1 concepts"):
        load_concepts(path)
    path.write_bytes(b"\xff\xfe\x00r")
    with pytest.raises(InputError, match="UTF-8"):
        load_concepts(path)
    with pytest.raises(InputError, match="cannot be read"):
        load_concepts(tmp_path / "none.txt")


def test_settings_without_meaning() -> None:
    with pytest.raises(InputError, match="did you mean softwpmi"):
        ConceptSettings(way="softpmi")
    with pytest.raises(InputError, match="top_k 0"):
        ConceptSettings(top_k=0)
