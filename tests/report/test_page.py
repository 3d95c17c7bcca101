"""The page of a run in a real browser, and what page and terminal say of a text that won."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from milanx.cli import app
from typer.testing import CliRunner

import milanx
from milanx.images.builtin import views
from milanx.images.photos import LICENCES
from milanx.report.page import write_page
from milanx.report.terminal import print_unit
from milanx.report.why import reasons
from milanx.runs import open_run

WIDE = {"COLUMNS": "140"}
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def run(planted: milanx.Run) -> milanx.Run:
    """Planted pixel units, described by the bundled describer."""
    return planted


def test_a_unit_says_why_its_text_ranks_first(run: milanx.Run) -> None:
    said = CliRunner().invoke(app, ["show", str(run.root), "--unit", "units:3"], env=WIDE)
    first, second = run.rows[3]["candidates"][:2]
    table = said.output.split("why it ranks first")[1]
    for text in (first["text"], second["text"], "weighted PMI", "agreement", "response"):
        assert text in table
    total = next(line for line in table.splitlines() if "rank" in line)
    figures = [float(word) for word in re.findall(r"[-+]?\d+\.\d+", total)]
    assert figures == pytest.approx(
        [first["rank"], second["rank"], first["rank"] - second["rank"]], abs=0.006
    )
    added = [line for line in reasons(run.rows[3]) if line.term != "rank"]
    differences = sum(float(line.difference) for line in added)
    assert differences == pytest.approx(figures[2], abs=0.005 * (len(added) + 1))


def test_a_lone_candidate_wins_over_none() -> None:
    terms = [{"name": "pmi", "value": 1.0, "added": 1.0}, {"name": "mine", "value": 2, "added": 3}]
    row = {"candidates": [{"text": "dogs", "rank": 4.0, "terms": terms}]}
    made = [(r.term, r.winner, r.other, r.difference) for r in reasons(row)]
    assert made == [("weighted PMI", "1.00", "", ""), ("mine", "3.00", "", ""),
                    ("rank", "4.00", "", "")]  # fmt: skip


def test_a_run_without_terms_is_shown_without_reasons(
    run: milanx.Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a table of an earlier milanx is read."""
    shutil.copytree(run.root, tmp_path / "old")
    old = open_run(tmp_path / "old")
    for row in old.rows:
        row["rank"] = None
        row["candidates"] = [{**c, "rank": None, "terms": None} for c in row["candidates"]]
    assert reasons(old.rows[3]) == []
    assert '"w":[[' not in write_page(old).read_text()
    print_unit(old, old["units", 3])
    assert "described by an earlier milanx" in capsys.readouterr().out


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
    opened = one.split("</article>")[0]
    assert "units:7" in opened
    why = opened.split('<table class="why">')[1]
    lines = [re.findall(r"<t[dh]>(.*?)</t[dh]>", line) for line in why.split("<tr>")[1:]]
    names = [html.escape(c["text"], quote=False) for c in run.rows[7]["candidates"][:2]]
    assert lines[0] == ["term", *names, "difference"]
    expected = [[r.term, r.winner, r.other, r.difference] for r in reasons(run.rows[7])]
    assert lines[1:] == [[html.escape(cell, quote=False) for cell in line] for line in expected]


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
    assert evil not in write_page(made).read_text()
    document = dump((copy / "page" / "index.html").resolve(), "", tmp_path)
    assert "<img" not in document
    assert "&lt;/script&gt;" in document


def test_page_is_self_contained(run: milanx.Run) -> None:
    page = (run.root / "page" / "index.html").read_text()
    unlinked = re.sub(r'<a href="[^"]+">', "", page)
    for word in ("http://", "https://", "<link", "@import", "src="):
        assert word not in unlinked
    assert len(np.unique(run.store.view_indices())) < 240


def test_page_credits_the_photos_that_it_shows(run: milanx.Run) -> None:
    page = (run.root / "page" / "index.html").read_text()
    kept = set(run.store.view_indices().tolist())
    paths = {row["path"] for row in run.store.image_table() if row["index"] in kept}
    shown = {view.photo.name: view.photo for view in views() if view.photo and view.path in paths}
    credits = re.findall(r"<li>(.*?)</li>", page)
    assert len(credits) == len(shown) > 20
    for photo in shown.values():
        link = f'<a href="{LICENCES[photo.licence]}">{photo.licence}</a>'
        author = html.escape(photo.author or "")
        assert any(link in line and html.escape(photo.page) in line and author in line
                   for line in credits)  # fmt: skip
    assert any(path.startswith("composed/") for path in paths)
    assert all(f'"{path}"' in page for path in paths)
