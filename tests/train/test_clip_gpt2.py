"""Describers around an open_clip model and a GPT-2 of others: tiny ones, in local folders."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image, ImageDraw

import milanx
from milanx.describing.describer import Describer
from milanx.describing.trained import FILE, group_of
from milanx.errors import FormatError, InputError, MissingWeights
from milanx.files import fingerprint
from milanx.files.kinds import DESCRIBER
from milanx.files.replacing import check_content
from milanx.images.splits import held_out
from milanx.language.gpt2 import load_gpt2
from milanx.report.check import check, seal
from milanx.train.data.milannotations import Milannotations
from milanx.train.loop import train
from milanx.train.tell import tell_photos
from milanx.train.units.annotated import AnnotatedCorpus, build_annotated_table, near_views
from milanx.train.units.table import Table
from tests.helpers import PREPROCESS, noise, png, tiny
from tests.train.test_milannotations import annotate, write_network
from tests.train.tiny import tiny_clip, tiny_gpt2

NETWORKS = ("alexnet/places365", "resnet152/places365", "biggan/places365")
COLOURS = {"apple": (200, 30, 30), "leaf": (40, 140, 30), "lake": (30, 60, 190)}
SHORT = ["precision=no", "encoder.stages=[1]", "encoder.grid=0", "encoder.pretrained=''",
         "critic.width=16", "critic.steps=10", "critic.batch_size=16",
         "base.steps=6", "base.units=8", "decoder.prefix=3",
         "decoder.steps=6", "decoder.batch_size=8", "decoder.rank=4", "decoder.check_every=3",
         "prior.steps=6", "prior.batch_size=8", "prior.rank=4"]  # fmt: skip


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Overrides that name a tiny open_clip model and a tiny GPT-2."""
    root = tmp_path_factory.mktemp("models")
    clip, gpt2 = tiny_clip(root / "clip"), tiny_gpt2(root / "gpt2")
    return [f"encoder.model={clip}", f"base.model={gpt2}"]


def write_photos(root: Path, count: int = 48) -> Path:
    """Write a folder of class folders, and a parquet file with captions and regions."""
    rng = np.random.default_rng(0)
    rows = []
    for i in range(count):
        name = list(COLOURS)[i % 3]
        image = Image.fromarray(rng.integers(90, 160, (48, 60, 3), np.uint8))
        ImageDraw.Draw(image).ellipse((10, 5, 40, 35), COLOURS[name])
        mask = Image.new("L", image.size)
        ImageDraw.Draw(mask).ellipse((10, 5, 40, 35), 255)
        (root / "classes" / name).mkdir(parents=True, exist_ok=True)
        image.save(root / "classes" / name / f"{i}.png")
        rows.append({
            "image": {"bytes": png(image.rotate(180)), "path": f"{i}.png"},
            "captions": [f"a {name} on a grey wall"],
            "regions": [{"name": name, "mask": png(mask.rotate(180)), "crowd": False}],
        })  # fmt: skip
    pq.write_table(pa.Table.from_pylist(rows), root / "captions.parquet")
    return root


def describes(describer: Describer, tmp_path: Path) -> None:
    """Extract a tiny target's exemplars and describe them."""
    photos = tmp_path / "probe"
    photos.mkdir()
    for i, image in enumerate(noise(24)):
        image.save(photos / f"{i}.png")
    store = milanx.extract(
        tiny(), layers=["conv2"], images=[photos], out=tmp_path / "run", preprocess=PREPROCESS
    )
    settings = describer.search_defaults(beam=4, max_tokens=6, retrieved=3)
    found = describer.describe(store, ["conv2"], settings=settings)
    alive = [d for d in found if d.status == "described"]
    assert len(found) == 12 and alive
    for description in alive:
        assert description.text and description.agreement is not None
        assert description.pmi == pytest.approx(
            description.log_p_given_exemplars - settings.lam * description.log_p_prior
        )


def test_planted_units(models: list[str], tmp_path: Path) -> None:
    root = write_photos(tmp_path / "data")
    chosen = [*models, *SHORT, f"data.root={root}",
              "data.photos=[{file: classes}, {file: captions.parquet, text: 4}]"]  # fmt: skip
    out = train("clip-gpt2-planted", chosen, out=tmp_path / "made")
    content = json.loads((out / "describer.json").read_text())
    assert content["encoder"]["kind"] == "open_clip"
    for setting, named in (("encoder.model", content["encoder"]["model"]),
                           ("base.model", content["base"])):  # fmt: skip
        assert not Path(named).is_absolute()
        assert f"{setting}={(out / named).resolve()}" in chosen
    for text in ((out / name).read_text() for name in ("describer.json", "README.md")):
        assert str(tmp_path) not in text and str(Path(models[0].split("=")[1]).parent) not in text
    check_content(out, DESCRIBER)
    names = {p.name for p in out.iterdir()}
    assert not names & {"base", "encoder.safetensors"} and "tokenizer" in names
    assert str(root) not in (out / "describer.json").read_text()
    assert "MILANNOTATIONS" not in (out / "README.md").read_text()
    assert "projection" not in content["training"]["facts"]
    describer = Describer.load(out)
    assert {"apple", "leaf", "lake"} <= set(describer.vocabulary)
    describes(describer, tmp_path)
    tells_its_photos(out, root, tmp_path)


def tells_its_photos(out: Path, data: Path, tmp_path: Path) -> None:
    """The folder tells the photos that were not held out; an older one is told the same."""
    rows = pq.read_table(data / "captions.parquet").to_pylist()
    files = [(None, p.read_bytes(), p.parent.name) for p in (data / "classes").rglob("*.png")]
    files += [(row["image"]["path"], row["image"]["bytes"], "") for row in rows]
    photos = [(group_of(path, content), fingerprint(content.hex()), name)
              for path, content, name in files]  # fmt: skip
    trained = Describer.load(out).trained
    expected = {(g, held_out(f"checked:{f}", 0.08)) for g, f, name in photos
                if name or not held_out(f, 0.1)}  # fmt: skip
    assert {(p.group, p.checked) for p in trained.photos} == expected
    assert 48 < len(expected) < 96 and any(checked for _, checked in expected)
    assert trained.classes == set(COLOURS)
    written = (out / FILE).read_bytes(), (out / "describer.json").read_bytes()
    (out / FILE).unlink()
    with pytest.raises(FormatError, match=f"{FILE} does not exist"):
        check(out).require()
    seal(out)
    with pytest.raises(InputError, match="does not tell which photos"):
        _ = Describer.load(out).trained
    with pytest.raises(InputError, match="are not those that"):
        tell_photos(out, write_photos(tmp_path / "fewer", 30))
    assert tell_photos(out, data) == len(expected)
    assert ((out / FILE).read_bytes(), (out / "describer.json").read_bytes()) == written
    check(out).require()


def test_units_that_people_described(models: list[str], tmp_path: Path) -> None:
    root = tmp_path / "annotations"
    chosen = [*models, *SHORT, f"data.milannotations={root}", "data.checked=0.2",
              "data.split=places365"]  # fmt: skip
    for seed, network in enumerate(NETWORKS):
        with pytest.raises(InputError, match=f"{network}/annotations.csv is missing"):
            train("clip-gpt2", chosen, out=tmp_path / "made")
        write_network(root, network, units=40, seed=seed)
        rows = [(u, f"a {network[:3]} {u} {i}") for u in range(40) for i in range(3)]
        annotate(root / network, rows)
    out = train("clip-gpt2", chosen, out=tmp_path / "made")
    content = json.loads((out / "describer.json").read_text())
    training = content["training"]
    assert str(root) not in (out / "describer.json").read_text()
    table = training["facts"]["table"]
    assert sum(table["units"].values()) == training["units"] < 120
    assert 0 < table["checked_units"] < 60
    assert training["facts"]["decoder"]["held_out"]
    critic = training["facts"]["critic"]
    assert np.isfinite(dict(critic["held_out"])[critic["best_step"]])
    assert "split `places365`" in (out / "README.md").read_text()
    data = Milannotations(root, "places365", "test")
    held = {text for unit in data.units for text in unit.descriptions}
    describer = Describer.load(out)
    assert held and describer.vocabulary and not held & set(describer.vocabulary)
    assert len(describer.vocabulary) == 3 * (training["units"] - table["checked_units"])
    with pytest.raises(InputError, match="does not tell which photos"):
        _ = describer.trained
    with pytest.raises(InputError, match="was not trained on photos"):
        tell_photos(out, root)
    describes(describer, tmp_path)


def test_a_small_gpt2_can_learn_from_annotations_alone(models: list[str], tmp_path: Path) -> None:
    root = tmp_path / "annotations"
    write_network(root, "alexnet/places365", units=40)
    chosen = [*models, *SHORT, f"data.milannotations={root}", "data.split=alexnet/places365",
              "base.model=''", "base.vocabulary=300", "base.layers=1", "base.width=16",
              "base.batch_size=8"]  # fmt: skip
    out = train("clip-gpt2", chosen, out=tmp_path / "made")
    assert (out / "base" / "config.json").is_file()
    assert len(Describer.load(out).prior(["thing 1"])) == 1


def test_the_folder_says_what_it_needs(models: list[str], tmp_path: Path) -> None:
    root = tmp_path / "annotations"
    write_network(root, "alexnet/places365", units=20)
    folders = {o.split("=")[0]: Path(o.split("=")[1]) for o in models}
    chosen = [*models, *SHORT, f"data.milannotations={root}", "data.split=alexnet/places365"]
    out = train("clip-gpt2", chosen, out=tmp_path / "made")
    for setting, what in (("encoder.model", "needs the open_clip model"),
                          ("base.model", "cannot be had here")):  # fmt: skip
        folder = folders[setting]
        moved = folder.rename(tmp_path / "elsewhere")
        try:
            with pytest.raises(MissingWeights, match=what) as caught:
                Describer.load(out)
        finally:
            moved.rename(folder)
        assert str(folder) in caught.value.what
    other = tmp_path / "other"
    tiny_clip(other)
    content = json.loads((out / "describer.json").read_text())
    content["encoder"]["model"] = str(other)
    del content["seal"]
    (out / "describer.json").write_text(json.dumps(content))
    Describer.load(out)  # the same weights in another place
    content["encoder"] |= {"pretrained": "random", "seed": 5}
    (out / "describer.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="is not the one that"):
        Describer.load(out)


def test_a_base_in_4_bits(models: list[str], tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes", reason="bitsandbytes (extra quant) is not installed")
    root = tmp_path / "annotations"
    write_network(root, "alexnet/places365", units=20)
    chosen = [*models, *SHORT, f"data.milannotations={root}", "data.split=alexnet/places365",
              "base.load_in_4bit=true", "decoder.optimiser=adamw8bit"]  # fmt: skip
    out = train("clip-gpt2", chosen, out=tmp_path / "made")
    assert "in 4 bits while" in (out / "README.md").read_text()
    describer = Describer.load(out)
    plain = load_gpt2(dict(o.split("=") for o in models)["base.model"])
    for adapted in (describer.decoder, describer.prior.model):  # whole, with what was trained
        assert adapted.lm_head.weight.dtype == torch.float32
        moved = [
            float((a - b).detach().abs().max())
            for (name, a), b in zip(
                adapted.named_parameters(), plain.parameters(), strict=True
            )
            if name.endswith("c_attn.weight")
        ]  # fmt: skip
        assert len(moved) == 2 and min(moved) > 0 and max(moved) < 1
    describes(describer, tmp_path)


def test_bases_that_cannot_be_used(models: list[str], tmp_path: Path) -> None:
    root = tmp_path / "annotations"
    write_network(root, "alexnet/places365", units=20)
    short = tiny_gpt2(tmp_path / "short", positions=30)
    chosen = [*models, *SHORT, f"data.milannotations={root}", "data.split=alexnet/places365"]
    with pytest.raises(InputError, match="has 30 positions"):
        train("clip-gpt2", [*chosen, f"base.model={short}"], out=tmp_path / "made")
    config = json.loads((short / "config.json").read_text())
    (short / "config.json").write_text(json.dumps({**config, "bos_token_id": 7}))
    with pytest.raises(InputError, match="does not fit its tokenizer"):
        train("clip-gpt2", [*chosen, f"base.model={short}", "decoder.prefix=1"],
              out=tmp_path / "made")  # fmt: skip
    (short / "config.json").write_text(json.dumps({"model_type": "opt"}))
    with pytest.raises(InputError, match="is no GPT-2"):
        train("clip-gpt2", [*chosen, f"base.model={short}"], out=tmp_path / "made")
    with pytest.raises(MissingWeights, match="cannot be had here"):
        train("clip-gpt2", [*chosen, "base.model=nobody/nothing"], out=tmp_path / "made")


def _encoder() -> Any:
    """Features of a cell that are its colours; their joint space is the same, normalised."""
    return SimpleNamespace(
        spec=SimpleNamespace(grid=7, joint=3, pixel_channels=0), width=3,
        dense=lambda views: torch.nn.functional.adaptive_avg_pool2d(views.float() / 255, 7)
        .permute(0, 2, 3, 1),
        joint=lambda x: torch.nn.functional.normalize(x[..., :3], dim=-1),
    )  # fmt: skip


def test_annotated_units_are_what_lies_on_disk(tmp_path: Path) -> None:
    """Features against the mean of the pixels under the masks, written out."""
    root = tmp_path / "annotations"
    write_network(root, "alexnet/places365", units=12)
    data = Milannotations(root, "alexnet/places365", "train")
    made = tmp_path / "table"
    made.mkdir()
    build_annotated_table(_encoder(), data, 0.3, made)
    corpus = AnnotatedCorpus(Table(made), exemplars=6, contrast=2)
    check = AnnotatedCorpus(Table(made), exemplars=6, check=True)
    by_text = {text: unit for unit in data.units for text in unit.descriptions}
    rng = np.random.default_rng(0)
    seen: dict[bool, set[int]] = {False: set(), True: set()}
    for drawn in (corpus, check):
        for _ in range(30):
            unit = drawn.unit(rng)
            real = by_text[unit.text]
            seen[drawn.check].add(real.unit)
            assert unit.senses == (real.descriptions,)
            evidence = drawn.evidence([unit])
            views, masks = data.views(real) / 255, data.masks(real)
            weights = masks.reshape(4, 7, 4, 7, 4).mean((2, 4))
            cells = views.reshape(4, 3, 7, 4, 7, 4).mean((3, 5))
            expected = (cells * weights[:, None]).sum((2, 3)) / weights.sum((1, 2))[:, None]
            order = unit.rows - unit.rows.min() if len(unit.rows) == 4 else None
            assert len(unit.rows) <= 4
            if order is not None:
                found = evidence.features[0, :4, 0, :3].numpy()
                np.testing.assert_allclose(found, expected[order], atol=2e-3)
                whole = evidence.features[0, :4, 1, :3].numpy()
                np.testing.assert_allclose(whole, views.mean((2, 3))[order], atol=2e-3)
                place = evidence.features[0, :4, :, 3:].numpy()
                np.testing.assert_allclose(place[:, 1, [0, 1, 3]], [[0.5, 0.5, 0]] * 4, atol=1e-3)
                covered = masks.mean((1, 2, 3))[order]
                np.testing.assert_allclose(place[:, 0, 3], covered, atol=1e-3)
    assert seen[False] and seen[True] and not seen[False] & seen[True]


def test_near_views_are_of_the_network_and_no_exemplars() -> None:
    joint = np.tile(np.eye(4, dtype=np.float16), (6, 1))  # six units of four views
    starts = np.arange(0, 25, 4)
    same = [f"{'ab'[row >= 12]}{row // 2}" for row in range(24)]
    same[4] = same[0]  # two units show one picture
    found = near_views(["a"] * 3 + ["b"] * 3, starts, joint, same)
    for unit, near in enumerate(found):
        own = {same[row] for row in range(4 * unit, 4 * unit + 4)}
        assert not own & {same[row] for row in near}
        assert {same[row][0] for row in near} <= {"ab"[unit >= 3]}
