"""Overlap with regions: planted colours, plain counts, every formula against the beam."""

from __future__ import annotations

import io
import itertools
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torch import nn

import milanx
from milanx.describing.dissect.compose import Composer
from milanx.describing.dissect.overlap import GRID
from milanx.errors import InputError
from milanx.images.preprocess import Preprocess
from milanx.images.probe import open_images
from milanx.images.regions import Regions, read_regions, region_name
from milanx.runs import Run

SIDE = 56
PLAIN = Preprocess(size=(SIDE, SIDE), resize=None, interpolation="nearest", mean=(0, 0, 0),
                   std=(1, 1, 1))  # fmt: skip
COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}
UNITS = ("red", "blue", "red or blue", "nothing that is named", "dead")


class Cells(nn.Conv2d):
    """Its fourth channel is active in the top rows, whatever lies there."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found = super().forward(x)
        rows = torch.linspace(1, -1, x.shape[2])[:, None].expand(x.shape[2], x.shape[3])
        return torch.cat([found[:, :3], rows.expand(len(x), 1, *rows.shape), found[:, 4:]], 1)


class Colours(nn.Module):
    """Channels that are one where a colour lies."""

    preprocess = PLAIN

    def __init__(self) -> None:
        super().__init__()
        self.conv = Cells(3, len(UNITS), 1)
        self.relu = nn.ReLU()
        weight = torch.tensor([[1, -1, -1], [-1, -1, 1], [1, -1, 1], [0, 0, 0], [0, 0, 0.0]])
        with torch.no_grad():
            self.conv.weight.copy_(weight[:, :, None, None])
            self.conv.bias.zero_()
        self.head = nn.Linear(len(UNITS), 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.relu(self.conv(x)).mean((2, 3)))


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png")
    return buffer.getvalue()


def write_photos(path: Path, count: int = 30, seed: int = 0) -> Path:
    """Write grey photos with a square of each colour somewhere, and where it lies."""
    rng, rows = np.random.default_rng(seed), []
    for i in range(count):
        pixels = np.full((SIDE, SIDE, 3), 100, np.uint8)
        regions = []
        for place, name in enumerate(COLOURS):
            if rng.random() < 0.6:
                top, left = (2 * rng.integers(0, 8)), 18 * place + 2 * int(rng.integers(0, 2))
                mask = np.zeros((SIDE, SIDE), np.uint8)
                mask[top + 28 : top + 40, left : left + 14] = 255
                pixels[mask > 0] = COLOURS[name]
                regions.append({"name": f"{name}-merged", "mask": png(mask)})
        rows.append({"image": {"bytes": png(pixels), "path": f"{i}.png"}, "regions": regions})
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photos(tmp_path_factory.mktemp("regions") / "p.parquet")


def described(photos: Path, out: Path, method: str) -> Run:
    return milanx.describe(Colours(), layers=["conv"], images=photos, out=out, method=method,
                           preprocess=PLAIN, score=False)  # fmt: skip


def test_planted_colours_are_named(photos: Path, tmp_path: Path) -> None:
    run = described(photos, tmp_path / "run", "netdissect")
    texts = [run["conv", u].description for u in range(2)]
    assert texts == ["red", "blue"] and run["conv", 2].description in ("red", "blue")
    assert [row["status"] for row in run.rows] == ["described"] * 3 + ["unclear", "dead"]
    first = run.rows[0]["candidates"][0]
    assert first["rank"] == first["pmi"] > 0.95
    assert first["terms"] == [{"name": "iou", "value": first["pmi"], "added": first["pmi"]}]
    assert run.settings["describer"] == {"method": "netdissect", "name": "netdissect"}


def test_formulas_are_found(photos: Path, tmp_path: Path) -> None:
    run = described(photos, tmp_path / "run", "compexp")
    texts = [run["conv", u].description for u in range(3)]
    assert texts[:2] == ["red", "blue"] and sorted(texts[2].split(" or ")) == ["blue", "red"]
    assert run.rows[2]["candidates"][0]["pmi"] > 0.95
    assert run.rows[4]["status"] == "dead"


def test_overlap_is_what_plain_loops_count(photos: Path, tmp_path: Path) -> None:
    run = described(photos, tmp_path / "run", "netdissect")
    model, images, stats = Colours(), open_images([photos]), run.store.stats("conv")
    both, unit, name = np.zeros((3, 3)), np.zeros(3), np.zeros(3)
    for row in run.store.image_table():
        if row["split"] != "exemplars":
            continue
        x = torch.from_numpy(np.array(images.read(row["index"]))).permute(2, 0, 1)[None] / 255
        with torch.no_grad():
            maps = model.relu(model.conv(x))[0, :3]
        small = nn.functional.adaptive_avg_pool2d(maps, (GRID, GRID)).numpy()
        active = small > np.maximum(stats["quantile"][:3], 0)[:, None, None]
        top = stats["maximum"][:3, None, None]
        saturated = stats["quantile"][:3, None, None] >= top * (1 - 1e-3)
        active |= (
            saturated & (small > 0) & (small >= stats["quantile"][:3, None, None] * (1 - 1e-3))
        )
        unit += active.sum((1, 2))
        for place, colour in enumerate(sorted(COLOURS)):
            for region in images.regions(row["index"]):
                if region["name"].startswith(colour):
                    mask = np.array(Image.open(io.BytesIO(region["mask"]))) > 0
                    lies = mask.reshape(GRID, 2, GRID, 2).mean((1, 3)) >= 0.5
                    name[place] += lies.sum()
                    both[:, place] += (active & lies).sum((1, 2))
    iou = both / (unit[:, None] + name - both)
    for u in range(3):
        for candidate in run.rows[u]["candidates"]:
            place = sorted(COLOURS).index(candidate["text"])
            assert candidate["pmi"] == pytest.approx(iou[u, place])


def random_regions(rng: np.random.Generator, names: int, images: int, grid: int) -> Regions:
    found = tuple(
        (np.arange(names), rng.random((names, grid**2)) < rng.uniform(0.1, 0.6, (names, 1)))
        for _ in range(images)
    )
    return Regions(tuple("abcdefgh"[:names]), found, grid)


def evaluate(parts: tuple[int | str, ...], lies: np.ndarray) -> np.ndarray:
    """Where a formula holds, by plain logic over bool [names, cells]."""
    holds = lies[parts[0]]
    for operator, name in zip(parts[1::2], parts[2::2], strict=True):
        holds = {"or": holds | lies[name], "and": holds & lies[name],
                 "without": holds & ~lies[name]}[operator]  # fmt: skip
    return holds


@pytest.mark.parametrize("seed", range(8))
def test_a_wide_beam_finds_the_best_of_all_formulas(seed: int) -> None:
    rng = np.random.default_rng(seed)
    regions = random_regions(rng, 4, 3, 8)
    lies = np.stack([np.concatenate([m[i] for _, m in regions.found]) for i in range(4)])
    target = evaluate((0, "or", 1, "without", 2), lies) ^ (rng.random(lies.shape[1]) < 0.1)
    packed = np.packbits(target.reshape(3, 64), axis=1)
    found = Composer(regions).search(packed, length=3, beam=200)
    scores = {}
    for length in (1, 2, 3):
        for names in itertools.permutations(range(4), length):
            for operators in itertools.product(("or", "and", "without"), repeat=length - 1):
                parts: list[int | str] = [names[0]]
                for operator, name in zip(operators, names[1:], strict=True):
                    parts += [operator, name]
                holds = evaluate(tuple(parts), lies)
                scores[tuple(parts)] = (holds & target).sum() / max((holds | target).sum(), 1)
    for formula in found:
        assert formula.iou == pytest.approx(scores[formula.parts])
        assert (np.unpackbits(formula.bits).astype(bool) == evaluate(formula.parts, lies)).all()
    # A longer formula that says no more than what it is made of is passed over.
    assert found[0].iou == pytest.approx(max(scores.values()), abs=0.02)
    assert [f.iou for f in found] == sorted((f.iou for f in found), reverse=True)


def test_formulas_as_text() -> None:
    composer = Composer(random_regions(np.random.default_rng(0), 3, 1, 8))
    formula = composer.search(composer.bits[0] & ~composer.bits[1])[0]
    assert formula.text(composer.names) == "a without b" and formula.iou == 1
    either = (composer.bits[0] | composer.bits[1]) & ~composer.bits[2]
    assert composer.search(either)[0].text(composer.names) in (
        "(a or b) without c", "(b or a) without c")  # fmt: skip


def test_names_as_people_write_them() -> None:
    assert region_name("food-other-merged") == "food" and region_name("Dog_ear ") == "dog ear"


def test_classes_lie_everywhere(tmp_path: Path) -> None:
    for name in ("tabby_cat", "dog"):
        (tmp_path / name).mkdir()
        for i in range(3):
            noise = np.random.default_rng([i, len(name)]).integers(
                0, 255, (SIDE, SIDE, 3), np.uint8
            )
            Image.fromarray(noise).save(tmp_path / name / f"{i}.png")
    images = open_images([tmp_path])
    found = read_regions(images, range(6), PLAIN, 4)
    assert set(found.names) == {"tabby cat", "dog"}
    assert all(len(names) == 1 and masks.all() for names, masks in found.found)
    assert found.packed(0).sum() == 3 * 2 * 255


def test_what_cannot_be_overlapped_is_said(tmp_path: Path) -> None:
    rows = [{"image": {"bytes": png(np.full((8, 8, 3), i * 40, np.uint8)), "path": str(i)},
             "regions": []} for i in range(4)]  # fmt: skip
    kind = pa.list_(pa.struct([("name", pa.string()), ("mask", pa.binary())]))
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    schema = pa.schema([("image", image), ("regions", kind)])
    pq.write_table(pa.Table.from_pylist(rows, schema), tmp_path / "none.parquet")
    with pytest.raises(InputError, match="nothing says what is where"):
        read_regions(open_images([tmp_path / "none.parquet"]), range(4), PLAIN, 4)
    rows[1]["regions"] = [{"name": "x", "mask": b"no picture"}]
    pq.write_table(pa.Table.from_pylist(rows, schema), tmp_path / "odd.parquet")
    with pytest.raises(InputError, match="mask of a region 'x' cannot be read"):
        read_regions(open_images([tmp_path / "odd.parquet"]), range(4), PLAIN, 4)
    rows[1]["regions"] = [{"name": None, "mask": None}, {"name": "y", "mask": None}]
    pq.write_table(pa.Table.from_pylist(rows, schema), tmp_path / "empty.parquet")
    with pytest.raises(InputError, match="nothing says"):
        read_regions(open_images([tmp_path / "empty.parquet"]), range(4), PLAIN, 4)
