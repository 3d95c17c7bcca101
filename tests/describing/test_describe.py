"""The bundled describer on planted units, the run and its table."""

from __future__ import annotations

import itertools
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

import milanx
from milanx.bench.describe import bench_describe
from milanx.describing import describer as describer_module
from milanx.describing import search
from milanx.describing import units as units_module
from milanx.describing.ranker import TERMS
from milanx.errors import FormatError, InputError
from milanx.exemplars.planted import COLOURS, PixelUnits
from milanx.rows import FIGURES, UNITS, UNITS_VERSION, units_schema
from milanx.runs import open_run, write_units


@pytest.fixture(scope="module")
def run(planted: milanx.Run) -> milanx.Run:
    """Planted pixel units, described by the bundled describer."""
    return planted


def test_planted_colours_are_told_apart(run: milanx.Run) -> None:
    names = PixelUnits().names
    texts = {
        colour: " ".join(c["text"] for c in run["units", names.index(colour)].row["candidates"])
        for colour in COLOURS
    }
    assert len(run) == len(names)
    own = np.mean([colour in texts[colour] for colour in COLOURS])
    others = np.mean([a in texts[b] for a in COLOURS for b in COLOURS if a != b])
    assert own > others, texts


def test_table_is_read_without_milanx(run: milanx.Run) -> None:
    table = pq.read_table(run.root / "units.parquet")
    assert table.schema.names == units_schema(senses=False).names
    assert table.num_rows == len(run)
    assert table.column("score").null_count == len(run)
    for row in table.to_pylist():
        ranks = [c["rank"] for c in row["candidates"]]
        assert row["rank"] == ranks[0] == max(ranks)
        for c in row["candidates"]:
            assert [t["name"] for t in c["terms"]] == [term.name for term in TERMS]
            assert c["rank"] == pytest.approx(sum(t["added"] for t in c["terms"]), abs=1e-4)
        assert row["pmi"] == row["candidates"][0]["pmi"]
        assert row["description"] == row["candidates"][0]["text"]
        assert len(row["images"]) == len(row["activations"]) == 15


@pytest.mark.usefixtures("views_encoded")
def test_a_unit_alone_has_the_text_that_it_has_in_the_layer(
    run: milanx.Run, describer: milanx.Describer
) -> None:
    together = {(d.unit, d.sign): d for d in describer.describe(run.store)}
    for unit in (0, 5, 11):
        alone = describer.describe(run.store, units={"units": [(unit, "+")]})[0]
        other = together[unit, "+"]
        ranks = [c.rank for c in other.candidates]
        if len(ranks) < 2 or ranks[0] - ranks[1] > 1e-4:
            assert alone.text == other.text
            assert alone.pmi == pytest.approx(other.pmi, abs=1e-3)


def test_describing_again_uses_what_is_there(run: milanx.Run, describer: milanx.Describer) -> None:
    stamp = (run.root / "units.parquet").stat().st_mtime_ns
    arguments = {"layers": ["units"], "images": "builtin:probe", "limit": 240, "out": run.root}
    milanx.describe(PixelUnits(), describer=describer, **arguments)
    assert (run.root / "units.parquet").stat().st_mtime_ns == stamp


def test_another_lambda_repeats_the_search_alone(
    run: milanx.Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Views and texts that were encoded lie in the cache, for another process too."""
    units = {"units": [(u, "+") for u in range(5)]}
    first = milanx.Describer.load()
    first.describe(run.store, units=units)
    again, encoded = milanx.Describer.load(), []
    for name in ("dense", "texts"):
        kept = getattr(type(again.encoder), name)
        monkeypatch.setattr(
            type(again.encoder), name,
            lambda self, *given, name=name, kept=kept, **more: encoded.append(name)
            or kept(self, *given, **more),
        )  # fmt: skip
    how = again.search_defaults(lam=0.6)
    found = again.describe(run.store, settings=how, units=units)
    assert not encoded
    again.forget()
    anew = again.describe(run.store, settings=how, units=units)
    assert encoded == ["texts"]
    assert [d.text for d in found] == [d.text for d in anew]
    for a, b in zip(found, anew, strict=True):
        assert a.rank == pytest.approx(b.rank, abs=1e-4)


@pytest.mark.usefixtures("views_encoded")
def test_units_of_any_parts_and_threads_have_the_texts_that_they_have_alone(
    run: milanx.Run, describer: milanx.Describer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(describer_module, "UNITS_AT_ONCE", 5)
    monkeypatch.setattr(units_module, "TEXTS_AT_ONCE", 7)
    monkeypatch.setitem(search.LOGITS, "cpu", 3 * 4 * 50 * describer.decoder.config.vocab_size)
    pairs = [(u, "+") for u in range(12)]
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        describer.forget()
        parts = describer.describe(run.store, units={"units": pairs})
    finally:
        torch.set_num_threads(threads)
    monkeypatch.undo()
    for part, (unit, sign) in zip(parts, pairs, strict=True):
        describer.forget()
        (alone,) = describer.describe(run.store, units={"units": [(unit, sign)]})
        ranks = [c.rank for c in alone.candidates]
        near = any(a - b < 1e-3 for a, b in itertools.pairwise(ranks))
        if not near:
            assert [c.text for c in part.candidates] == [c.text for c in alone.candidates]
        assert part.rank == pytest.approx(alone.rank, abs=1e-3)


@pytest.mark.usefixtures("views_encoded")
def test_nearest_words_need_no_language_model(
    run: milanx.Run, describer: milanx.Describer, tmp_path: Path
) -> None:
    words = tmp_path / "words.txt"
    words.write_text("red things\ngreen grass\nblue sky\na white wall\nblack night\nyellow\n")
    shutil.copytree(run.root, tmp_path / "nearest")
    found = milanx.describe(
        PixelUnits(), layers=["units"], images="builtin:probe", limit=240, describer=describer,
        method="nearest", concepts=words, out=tmp_path / "nearest",
    )  # fmt: skip
    assert all(len(set(u.description.split(", "))) == 4 for u in found if u.status != "dead")
    assert found.settings["describer"]["method"] == "nearest"


def test_describing_is_measured_beside_its_arithmetic(
    run: milanx.Run, describer: milanx.Describer
) -> None:
    found = bench_describe(run.root, units=3, describer=describer, busy=1)
    assert found["units"] == 3 and found["processor_s"] > 0
    assert found["busy"] == 1
    over = found["busy_describe_s"] / found["describe_s"]
    assert found["busy_over_idle"] == pytest.approx(over, rel=0.2)
    arithmetic = found["operations"] / found["operations_per_s"]
    assert found["ratio"] == pytest.approx(found["describe_s"] / arithmetic, rel=0.2)


def test_units_and_exemplars(run: milanx.Run) -> None:
    view = run["units", 3]
    assert view.exemplars.views.shape == (15, 3, 224, 224)
    assert view.exemplars.masks.any((1, 2)).all()
    assert view.candidates[0].text == view.description
    with pytest.raises(InputError, match="did you mean units"):
        run["unit", 3]
    with pytest.raises(InputError, match="no unit 999"):
        run["units", 999]
    assert run.demonstration
    assert any("patterns" in concept for concept in run.concepts)


def test_unknown_versions_are_refused(run: milanx.Run, tmp_path: Path) -> None:
    from milanx.files import read_table, write_table

    table = read_table(run.root / "units.parquet", UNITS, UNITS_VERSION)
    write_table(tmp_path / "units.parquet", table, UNITS, 99)
    with pytest.raises(FormatError, match="version 99"):
        read_table(tmp_path / "units.parquet", UNITS, UNITS_VERSION)
    settings = json.loads((run.root / "run.json").read_text())
    (tmp_path / "run.json").write_text(json.dumps(settings | {"version": 99}))
    with pytest.raises(FormatError, match="version 99"):
        open_run(tmp_path)


def test_a_table_of_an_earlier_milanx_is_read(run: milanx.Run, tmp_path: Path) -> None:
    """Version 1 had neither ranks nor terms."""
    from milanx.files import read_table, write_table

    shutil.copytree(run.root, tmp_path / "old")
    settings = json.loads((run.root / "run.json").read_text())
    del settings["files"], settings["seal"]  # nor did it tell files
    (tmp_path / "old" / "run.json").write_text(json.dumps(settings))
    rows = read_table(run.root / "units.parquet", UNITS, UNITS_VERSION).to_pylist()
    for row in rows:
        del row["rank"]
        for candidate in row["candidates"]:
            del candidate["rank"], candidate["terms"]
    names = [name for name in units_schema().names if name != "rank"]
    figures = [(f, pa.float32()) for f in FIGURES if f != "rank"]
    candidates = pa.list_(pa.struct([("text", pa.string()), *figures]))
    schema = pa.schema([(n, candidates if n == "candidates" else units_schema().field(n).type)
                        for n in names])  # fmt: skip
    write_table(tmp_path / "old" / "units.parquet", pa.Table.from_pylist(rows, schema), UNITS, 1)
    old = open_run(tmp_path / "old")
    for view, before in zip(old, run, strict=True):
        assert (view.description, view.pmi, view.rank) == (before.description, before.pmi, None)
        for mine, theirs in zip(view.candidates, before.candidates, strict=True):
            assert mine == replace(theirs, rank=None, terms=())
    assert all(row["rank"] is None for row in old.rows)


def test_a_described_unit_must_be_in_the_store(run: milanx.Run, tmp_path: Path) -> None:
    stranger = milanx.Description("units", 999, "+", "described", "x")
    with pytest.raises(ValueError, match="not extracted"):
        write_units(tmp_path, [stranger], run.store)


@pytest.mark.usefixtures("views_encoded")
def test_search_settings_change_the_ranking_alone(
    run: milanx.Run, describer: milanx.Describer
) -> None:
    how = describer.search_defaults(method="argmax")
    units = {"units": [(u, "+") for u in range(4)]}
    for d in describer.describe(run.store, settings=how, units=units):
        assert d.text == d.likeliest
        assert d.candidates[0].rank == d.log_p_given_exemplars


def test_what_is_wrong_with_words_or_describer_is_said_before_the_work(tmp_path: Path) -> None:
    """Nothing is extracted for a list or a describer that is not there."""
    lists = {"method": "concepts", "concepts": tmp_path / "missing.txt"}
    for arguments in (lists, {"describer": str(tmp_path / "nowhere")}):
        out = tmp_path / "run"
        with pytest.raises(InputError):
            milanx.describe(PixelUnits(), layers=["units"], images="builtin:probe", limit=24,
                            out=out, **arguments)  # fmt: skip
        assert not out.exists()
