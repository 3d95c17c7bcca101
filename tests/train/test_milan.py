"""Training MILAN's networks: planted units are described, a stopped training goes on."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

import milanx
from milanx.describing.milan.describer import Milan
from milanx.describing.milan.network import AttentionDecoder, LanguageModel, MilanSpec
from milanx.describing.milan.search import MilanSearch, beam_search, ranked
from milanx.describing.milan.words import Vocabulary
from milanx.describing.trained import group_of
from milanx.errors import InputError
from milanx.images.near import picture_hash
from milanx.progress import SilentStage
from milanx.train.data.photos import Photo
from milanx.train.loop import train
from milanx.train.recipe import MilanSettings, Recipe, load_recipe, recipe_path
from milanx.train.stages.desk import Desk
from milanx.train.stages.milan import train_milan, train_milan_prior, vocabulary_of
from milanx.train.units.corpus import Batch, Corpus
from milanx.train.units.meanings import Meaning, near_photos
from tests.train.test_training import _fake, _photo, _table, data  # noqa: F401 - a fixture
from tests.train.tiny import desk_for

MEANINGS = ("dog", "red house", "sky", "tall tree")
SMALL = MilanSettings(hidden=48, embedding=16, attention=24, dropout=0.1, longest=6, steps=160,
                      batch_size=32, prior_steps=120, prior_batch_size=32, learning_rate=1e-2,
                      check_every=40)  # fmt: skip


@dataclass(frozen=True)
class Planted:
    """Units of four meanings, each of which shows in a channel of its own."""

    corpus: Corpus
    check: Corpus
    vocabulary: Vocabulary
    spec: MilanSpec

    @classmethod
    def build(cls, root: Path, settings: MilanSettings = SMALL) -> Planted:
        features = _fake([_photo(group=str(i)) for i in range(120)], 16)
        grids = np.full((30, 64), 255, np.uint8)
        meanings = []
        for i, text in enumerate(MEANINGS):
            features.dense[30 * i : 30 * (i + 1), :, 4 + i] += 4
            meanings.append(Meaning((text,), "region", np.arange(30 * i, 30 * (i + 1)), grids,
                                    countable=False))  # fmt: skip
        table = _table(root, features, meanings, held=range(0, 120, 5))
        corpus = Corpus(table, min_purity=0.9)
        vocabulary = vocabulary_of(corpus)
        width = table.whole.shape[1]
        spec = MilanSpec(width, width, len(vocabulary), settings.embedding, settings.hidden,
                         settings.attention, settings.layers, settings.dropout,
                         settings.longest)  # fmt: skip
        return cls(corpus, Corpus(table, min_purity=0.9, check=True), vocabulary, spec)

    def decoder(self) -> AttentionDecoder:
        torch.manual_seed(0)
        decoder = AttentionDecoder(self.spec)
        decoder.axes.copy_(torch.eye(self.spec.features))
        return decoder


def told(planted: Planted, batch: Batch, decoder: Any, prior: Any) -> list[str]:
    found = beam_search(decoder, decoder.look(batch.evidence), 20)
    return [c[0].text for c in ranked(found, prior, planted.vocabulary, MilanSearch(20))]


def test_planted_units_are_described_after_a_short_training(tmp_path: Path) -> None:
    (tmp_path / "table").mkdir()
    planted = Planted.build(tmp_path / "table")
    assert planted.vocabulary.words == ("dog", "house", "or", "red", "sky", "tall", "tree")
    recipe = Recipe(milan=SMALL)
    decoder, prior = planted.decoder(), LanguageModel(planted.spec)
    facts = train_milan(desk_for(tmp_path / "d", recipe, None), decoder, planted.vocabulary,
                        planted.corpus, planted.check)  # fmt: skip
    train_milan_prior(desk_for(tmp_path / "p", recipe, None), prior, planted.vocabulary,
                      planted.corpus, planted.check)  # fmt: skip
    losses = dict(facts["held_out"])
    assert losses[facts["best_step"]] == min(losses.values()) < 0.5
    fresh = planted.check.batch(60, np.random.default_rng(9))
    single = [i for i, text in enumerate(fresh.texts) if " or " not in text]
    said = told(planted, fresh, decoder, prior)
    right = [said[i] == fresh.texts[i] for i in single]
    assert len(right) > 40 and np.mean(right) > 0.9
    untrained = told(planted, fresh, planted.decoder().eval(), LanguageModel(planted.spec).eval())
    assert np.mean([untrained[i] == fresh.texts[i] for i in single]) < 0.5


class Stopping(SilentStage):
    """Presses Ctrl-C after some steps."""

    def __init__(self, last: int) -> None:
        self.last = last

    def at(self, done: int, total: int | None = None) -> None:
        if done == self.last:
            raise KeyboardInterrupt


def test_a_stopped_training_goes_on(tmp_path: Path) -> None:
    (tmp_path / "table").mkdir()
    settings = replace(SMALL, steps=30, check_every=10)
    planted = Planted.build(tmp_path / "table", settings)

    def trained(desk: Desk) -> dict[str, torch.Tensor]:
        decoder = planted.decoder()
        train_milan(desk, decoder, planted.vocabulary, planted.corpus, planted.check)
        return decoder.state_dict()

    recipe = Recipe(milan=settings)
    calm = trained(desk_for(tmp_path / "calm", recipe, None))
    desk = desk_for(tmp_path / "stopped", recipe, None)
    with pytest.raises(KeyboardInterrupt):
        trained(replace(desk, bar=Stopping(17)))
    resumed = trained(desk)
    assert calm.keys() == resumed.keys()
    assert all(torch.equal(calm[name], resumed[name]) for name in calm)


@pytest.mark.usefixtures("data")
def test_the_recipe_makes_a_folder_that_describes(
    data: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MILANX_CACHE", str(tmp_path / "cache"))
    small = ["hidden=32", "embedding=8", "attention=16", "steps=20", "prior_steps=20",
             "batch_size=8", "check_every=10", "components=16"]  # fmt: skip
    changes = [f"data.root={data}", "data.photos=[{file: photos.parquet}]", "data.without=[]",
               *(f"milan.{change}" for change in small)]  # fmt: skip
    out = train("milan", changes, out=tmp_path / "made")
    milan = Milan.load(out)
    assert milan.name == "milan" and {"apple", "leaf", "lake"} <= set(milan.vocabulary.words)
    assert str(tmp_path) not in (out / "describer.json").read_text()
    assert "MILAN's own describer" in (out / "README.md").read_text()
    again = train("milan", changes, out=tmp_path / "again")
    assert (again / "describer.json").read_bytes() == (out / "describer.json").read_bytes()
    with pytest.raises(InputError, match="is there already"):
        train("milan", changes, out=out)
    train("milan", changes, out=out, overwrite=True)
    run = milanx.describe(
        "tests.helpers:tiny", layers=["conv3"], units="0-3", images=data / "photos.parquet",
        out=tmp_path / "run", describer=out, method="milan", score=False, settings=None,
    )  # fmt: skip
    facts = run.settings["describer"]
    assert facts["method"] == "milan" and facts["fingerprint"] == milan.fingerprint
    assert facts["search"] == {"beam": 50, "lam": 0.2, "candidates": 10}
    assert all(set(row["description"].split()) <= set(milan.vocabulary.words)
               for row in run.rows if row["status"] == "described")  # fmt: skip


def jpeg(image: Image.Image, quality: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def test_photos_shown_elsewhere_and_their_near_duplicates_are_left_out(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images = [Image.fromarray(rng.integers(0, 255, (8, 9, 3), np.uint8)).resize((160, 120))
              for _ in range(6)]  # fmt: skip
    shown = [{"image": {"bytes": jpeg(images[i], 95), "path": f"a{i}.jpg"}} for i in (0, 3)]
    shown.append({"image": {"bytes": jpeg(images[5].resize((40, 30)), 60),
                            "path": "coco_val2017_000000223959.jpg"}})  # fmt: skip
    pq.write_table(pa.Table.from_pylist(shown), tmp_path / "probe.parquet")

    def photo(image: Image.Image, path: str) -> Photo:
        return replace(_photo(), told=group_of(path, image.tobytes()), picture=picture_hash(image))

    photos = [photo(image.resize((200, 150)), f"b{i}.jpg") for i, image in enumerate(images)]
    photos.append(photo(images[1].rotate(90), "000000223959.jpg"))  # one photograph, by its number
    assert near_photos(photos, []).tolist() == [False] * 7
    found = near_photos(photos, [tmp_path / "probe.parquet"])
    assert found.tolist() == [True, False, False, True, False, True, True]
    with pytest.raises(InputError):
        near_photos(photos, [tmp_path / "none.parquet"])


def problems(changes: Sequence[str]) -> str:
    with pytest.raises(InputError) as caught:
        load_recipe(recipe_path("milan"), changes)
    return caught.value.why


def test_settings_that_do_not_go_together() -> None:
    assert "encoder.describer is for kind milan" in problems(["kind=describer"])
    assert "milan.patience needs" in problems(["milan.check_every=0"])
    assert "milan.longest" in problems(["milan.longest=1"])
    assert "data.photos is empty" in problems(["data.photos=[]"])
