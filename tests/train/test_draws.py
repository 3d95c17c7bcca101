"""What a corpus draws of a recipe's photos never changes with what other recipes can ask for."""

import hashlib
import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image, ImageDraw

from milanx.train.recipe import Data, PhotoData
from milanx.train.units.corpus import Corpus
from milanx.train.units.planted import PlantedUnits, encode_photos
from milanx.train.units.table import Table

# Of 400 units of the photos below, as they were drawn before a recipe could ask for parts,
# materials and shares of its own: their texts, kinds and rows.
DRAWN = "5513d3eef99576b8"
GRID = 8
SHAPES = {"apple": (200, 30, 30), "leaf": (40, 140, 30), "lake": (30, 60, 190), "crow": (9, 9, 9)}


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def write_photos(root: Path) -> None:
    """Write photos with names, captions and regions, of two files."""
    rng = np.random.default_rng(0)
    rows: list[dict[str, Any]] = []
    for i in range(120):
        name = list(SHAPES)[i % 4]
        image = Image.fromarray(rng.integers(90, 160, (72, 72, 3), dtype=np.uint8))
        x, y = (int(v) for v in rng.integers(0, 24, 2))
        ImageDraw.Draw(image).ellipse((x, y, x + 40, y + 40), SHAPES[name])
        mask = Image.new("L", image.size)
        ImageDraw.Draw(mask).ellipse((x, y, x + 40, y + 40), 255)
        regions = [{"name": name, "mask": png(mask)}]
        if i % 3:
            above = Image.new("L", image.size)
            ImageDraw.Draw(above).rectangle((0, 0, 72, 20), 255)
            regions.append({"name": "sky-other-merged", "mask": png(above)})
        rows.append({"image": {"bytes": png(image), "path": f"{i}.png"}, "regions": regions,
                     "captions": [f"a {name} under the sky", f"one {name}"]})  # fmt: skip
    pq.write_table(pa.Table.from_pylist(rows[:80]), root / "regions.parquet")
    named = [{"image": row["image"], "name": list(SHAPES)[i % 4]} for i, row in enumerate(rows)]
    pq.write_table(pa.Table.from_pylist(named[80:]), root / "named.parquet")


def encoder() -> Any:
    """Features that are the mean colours of the cells, and their edges."""

    def dense(views: torch.Tensor) -> torch.Tensor:
        small = torch.nn.functional.adaptive_avg_pool2d(views.float() / 255, GRID)
        maps = torch.cat([small, small.flip(1), small.square(), small, 0 * small, 0 * small[:, :1],
                          small[:, :3] / 9], 1)  # fmt: skip
        return maps.permute(0, 2, 3, 1)

    def texts(several: list[str]) -> torch.Tensor:
        rows = [[1.0 + len(t) % 5, t.count("a"), t.count("e"), t.count("l")] for t in several]
        return torch.nn.functional.normalize(torch.tensor(rows), dim=-1)

    spec = SimpleNamespace(grid=GRID, image_size=32, joint=4, pixel_channels=10)
    return SimpleNamespace(
        spec=spec, width=19, last_channels=9, device=torch.device("cpu"), dense=dense, texts=texts,
        fingerprint=lambda: "colours of cells",
        joint=lambda x: torch.nn.functional.normalize(x[..., :4], dim=-1),
    )  # fmt: skip


def units_of(root: Path, data: Data) -> tuple[PlantedUnits, Table]:
    views = encode_photos(encoder(), data, 0, lambda n: None, lambda text: None)
    units = PlantedUnits(data, views, 0)
    folder = root / "table"
    folder.mkdir()
    units.build_table(encoder(), folder, None, lambda n: None)
    return units, Table(folder)


def test_a_recipe_that_asks_for_nothing_new_draws_what_it_always_drew(tmp_path: Path) -> None:
    write_photos(tmp_path)
    data = Data(root=str(tmp_path), sentences="", descriptions="", photos=(
        PhotoData("regions.parquet", views=2, text=10), PhotoData("named.parquet")))  # fmt: skip
    _, table = units_of(tmp_path, data)
    rng, corpus = np.random.default_rng(0), Corpus(table)
    units = [corpus.unit(rng) for _ in range(400)]
    assert {"class", "region", "pixel", "both", "channel"} <= {u.kind for u in units}
    told = json.dumps([[u.text, u.kind, u.whole, u.rows.tolist()] for u in units])
    assert hashlib.sha256(told.encode()).hexdigest()[:16] == DRAWN
