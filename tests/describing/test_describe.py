"""The bundled describer on planted units, the run, its table and its page in a real browser."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import milanx
from milanx.bench.describe import bench_describe
from milanx.describing.ranker import DIM, Candidate, doubt_of
from milanx.errors import FormatError, InputError
from milanx.exemplars.planted import COLOURS, PixelUnits
from milanx.report.page import write_page
from milanx.runs import UNITS, UNITS_VERSION, open_run, units_schema, write_units

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def describer() -> milanx.Describer:
    return milanx.Describer.load("builtin")


@pytest.fixture(scope="module")
def run(describer: milanx.Describer, tmp_path_factory: pytest.TempPathFactory) -> milanx.Run:
    """Planted pixel units, through capture as any model, described by the bundled describer."""
    made = milanx.describe(
        PixelUnits(), layers=["units"], images="builtin:probe", limit=240,
        out=tmp_path_factory.mktemp("runs") / "planted", describer=describer,
    )  # fmt: skip
    write_page(made)
    return made


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


def _ranks(describer: milanx.Describer, candidates: Sequence[Candidate]) -> list[float]:
    how = describer.settings
    surest = max(c.log_p_given_exemplars or 0.0 for c in candidates)
    found = []
    for c in candidates:
        words, r = c.text.split(), c.response or 0.0
        joined = how.joined * bool({"and", "or", "without"} & set(words))
        told = how.agreement * (c.agreement or 0.0)
        told += how.response * doubt_of(surest) * r**3 / (r**2 + DIM**2)
        found.append(c.pmi + told - joined - how.without * ("without" in words))
    return found


def test_table_is_read_without_milanx(run: milanx.Run, describer: milanx.Describer) -> None:
    table = pq.read_table(run.root / "units.parquet")
    assert table.schema.names == units_schema().names
    assert table.num_rows == len(run)
    assert table.column("score").null_count == len(run)
    for row in table.to_pylist():
        ranks = _ranks(describer, [Candidate(**c) for c in row["candidates"]])
        assert ranks[0] == pytest.approx(max(ranks))
        assert row["pmi"] == row["candidates"][0]["pmi"]
        assert row["description"] == row["candidates"][0]["text"]
        assert len(row["images"]) == len(row["activations"]) == 15


def test_a_unit_alone_has_the_text_that_it_has_in_the_layer(
    run: milanx.Run, describer: milanx.Describer
) -> None:
    together = {(d.unit, d.sign): d for d in describer.describe(run.store)}
    for unit in (0, 5, 11):
        alone = describer.describe(run.store, units={"units": [(unit, "+")]})[0]
        other = together[unit, "+"]
        ranks = _ranks(describer, other.candidates)
        if len(ranks) < 2 or ranks[0] - ranks[1] > 1e-4:
            assert alone.text == other.text
            assert alone.pmi == pytest.approx(other.pmi, abs=1e-3)


def test_describing_again_uses_what_is_there(run: milanx.Run, describer: milanx.Describer) -> None:
    stamp = (run.root / "units.parquet").stat().st_mtime_ns
    arguments = {"layers": ["units"], "images": "builtin:probe", "limit": 240, "out": run.root}
    milanx.describe(PixelUnits(), describer=describer, **arguments)
    assert (run.root / "units.parquet").stat().st_mtime_ns == stamp


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
    found = bench_describe(run.root, units=3, describer=describer)
    assert found["units"] == 3
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
    assert "circles" in run.concepts


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


def test_a_described_unit_must_be_in_the_store(run: milanx.Run, tmp_path: Path) -> None:
    stranger = milanx.Description("units", 999, "+", "described", "x")
    with pytest.raises(ValueError, match="not extracted"):
        write_units(tmp_path, [stranger], run.store)


def test_search_settings_change_the_ranking_alone(
    run: milanx.Run, describer: milanx.Describer
) -> None:
    how = describer.search_defaults(method="argmax")
    units = {"units": [(u, "+") for u in range(4)]}
    for d in describer.describe(run.store, settings=how, units=units):
        likeliest = max(d.candidates, key=lambda c: c.log_p_given_exemplars)
        assert d.text == likeliest.text


def dump(page: Path, hash_: str, tmp_path: Path) -> str:
    """Open the page in Chromium and return its document after scripts have run.

    Units are drawn as they come into view, which a busy machine does late: up to four looks.
    """
    for look in range(4):
        document = _dump(page, hash_, tmp_path, 5000 * 2**look)
        if "<canvas" in document:
            break
    return document


def _dump(page: Path, hash_: str, tmp_path: Path, milliseconds: int) -> str:
    command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
               "--no-first-run", "--disable-background-networking", "--disable-component-update",
               "--disable-sync", f"--user-data-dir={tmp_path / 'profile'}",
               f"--virtual-time-budget={milliseconds}", "--dump-dom",
               f"file://{page}{hash_}"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    return done.stdout.split("<main", 1)[1]


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_page_in_a_real_browser(run: milanx.Run, tmp_path: Path) -> None:
    page = (run.root / "page" / "index.html").resolve()
    everything = dump(page, "", tmp_path)
    assert everything.count("<article") == len(run)
    assert "<canvas" in everything
    one = dump(page, "#units/7", tmp_path)
    assert 'class="open"' in one.split("</article>")[0]
    assert "units:7" in one.split("</article>")[0]


TYPED = """<script>
addEventListener("load", () => {
  for (const [id, value] of Object.entries(%s)) {
    const box = document.getElementById(id);
    box.value = value;
    box.dispatchEvent(new Event("input", {bubbles: true}));
  }
});
</script></body>"""


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_search_filter_and_sort_boxes_of_the_page(run: milanx.Run, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run.root, copy)
    made = open_run(copy)
    for i, row in enumerate(made.rows):
        row["description"] = f"thing {chr(122 - i)}"
        row["candidates"] = []
    made.rows[1]["description"] = "a violet heron"
    made.rows[2]["description"] = "herons on a lake"
    made.rows[3]["status"] = "dead"
    page = write_page(made).resolve()
    plain = page.read_text()

    def shown(**boxes: str) -> list[str]:
        page.write_text(plain.replace("</body>", TYPED % json.dumps(boxes)))
        document = dump(page, "", tmp_path)
        return re.findall(r"<article.*?<span[^>]*>(.*?)</span>", document, re.DOTALL)

    assert len(shown(q="thing")) == len(made) - 2
    assert shown(q="HERON") == ["a violet heron", "herons on a lake"]
    assert shown(q="heron lake") == ["herons on a lake"]
    assert shown(q="heron", status="dead") == []
    assert shown(status="dead") == [made.rows[3]["description"]]
    by_text = shown(sort="text")
    assert by_text == sorted(by_text)
    assert by_text != shown()


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_page_escapes_every_text(run: milanx.Run, tmp_path: Path) -> None:
    evil = "</script><img src=x onerror=document.title='broken'><b>"
    copy = tmp_path / "run"
    shutil.copytree(run.root, copy)
    made = open_run(copy)
    made.rows[0]["description"] = evil
    made.settings["target"]["name"] = evil
    html = write_page(made).read_text()
    assert evil not in html
    document = dump((copy / "page" / "index.html").resolve(), "", tmp_path)
    assert "<img" not in document
    assert "&lt;/script&gt;" in document


def test_page_is_self_contained(run: milanx.Run) -> None:
    html = (run.root / "page" / "index.html").read_text()
    for word in ("http://", "https://", "<link", "@import"):
        assert word not in html
    assert len(np.unique(run.store.view_indices())) < 240


def test_unknown_describers(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="neither 'builtin' nor a folder"):
        milanx.Describer.load("no-such-describer")
    with pytest.raises(FormatError, match="does not exist"):
        milanx.Describer.load(tmp_path)


def test_what_is_wrong_with_words_or_describer_is_said_before_the_work(tmp_path: Path) -> None:
    """Nothing is extracted for a list or a describer that is not there."""
    lists = {"method": "concepts", "concepts": tmp_path / "missing.txt"}
    for arguments in (lists, {"describer": str(tmp_path / "nowhere")}):
        out = tmp_path / "run"
        with pytest.raises(InputError):
            milanx.describe(PixelUnits(), layers=["units"], images="builtin:probe", limit=24,
                            out=out, **arguments)  # fmt: skip
        assert not out.exists()
