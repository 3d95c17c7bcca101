"""The page of a run in a real browser, and what page and terminal say of a text that won."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from milanx.cli import app
from typer.testing import CliRunner

import milanx
from milanx.images.builtin import views
from milanx.images.photos import LICENCES
from milanx.report.page import script_json, write_page
from milanx.report.sure import ordered
from milanx.report.terminal import print_unit
from milanx.report.why import in_words, others, reasons, rival
from milanx.runs import open_run

WIDE = {"COLUMNS": "140"}
DATA = '<script id="data" type="application/json">'
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def run(planted: milanx.Run) -> milanx.Run:
    """Planted pixel units, described by the bundled describer."""
    return planted


def test_a_unit_says_why_its_text_ranks_first(run: milanx.Run) -> None:
    said = CliRunner().invoke(app, ["show", str(run.root), "--unit", "units:3"], env=WIDE)
    first, second = run.rows[3]["candidates"][0], rival(run.rows[3])
    assert second is not None
    table = said.output.split("why it ranks first")[1]
    for text in (first["text"], second["text"], "weighted PMI", "agreement", "response"):
        assert text in table
    assert f"“{first['text']}” ranks before “{second['text']}”" in said.output
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


def test_the_rival_says_something_else_and_words_tell_what_decides() -> None:
    def candidate(text: str, pmi: float, response: float, correlation: float) -> dict[str, Any]:
        terms = [{"name": "pmi", "value": pmi, "added": pmi},
                 {"name": "response", "value": correlation, "added": response}]  # fmt: skip
        return {"text": text, "rank": pmi + response, "terms": terms}

    row = {
        "candidates": [
            candidate("dogs", -2.0, 9.0, 0.3),
            candidate("dog", -2.5, 9.0, 0.3),
            candidate("grass", -1.0, 6.0, 0.2),
            candidate("field", -3.0, 3.0, 0.1),
        ]
    }
    assert [c["text"] for c in others(row)] == ["grass", "field"]
    assert in_words(row) == [
        "“dogs” ranks before “grass” by 2.00 nats.",
        "It foretells better what the unit does on all stored views (0.30 against 0.20: +3.00).",
        "But “grass” is more what the describer says of these exemplars and not of any others "
        "(-1.00).",
    ]
    alike = {"candidates": row["candidates"][:2]}
    second = rival(alike)
    assert second is not None
    assert second["text"] == "dog"


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


def _dump(
    page: Path, hash_: str, tmp_path: Path, milliseconds: int,
    *, whole: bool = False, size: str = "1280,900",
) -> str:  # fmt: skip
    command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
               "--no-first-run", "--disable-background-networking", "--disable-component-update",
               "--disable-sync", f"--user-data-dir={tmp_path / 'profile'}",
               f"--virtual-time-budget={milliseconds}", f"--window-size={size}", "--dump-dom",
               f"file://{page}{hash_}"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    return done.stdout if whole else done.stdout.split("<main", 1)[1]


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_page_in_a_real_browser(run: milanx.Run, tmp_path: Path) -> None:
    page = (run.root / "page" / "index.html").resolve()
    everything = dump(page, "", tmp_path)
    assert everything.count("<article") == len(run)
    tall = _dump(page, "", tmp_path, 8000, size="1280,4000")
    assert tall.count('aria-label="exemplar 1 of') == len(run)
    assert "<canvas" in everything
    one = dump(page, "#units/7", tmp_path)
    assert 'class="open"' in one.split("<section")[0]
    opened = one.split('<div id="list"')[0]
    assert "units:7" in opened
    assert len(re.findall("<figure>", opened)) == len(run.rows[7]["images"])
    why = opened.split('<table class="why">')[1]
    lines = [
        re.findall(r"<t[dh]>(.*?)</t[dh]>", line)
        for line in why.split("</table>")[0].split("<tr>")[1:]
    ]
    second = rival(run.rows[7])
    assert second is not None
    names = [html.escape(c["text"], quote=False) for c in (run.rows[7]["candidates"][0], second)]
    assert lines[0] == ["term", *names, "difference"]
    expected = [[r.term, r.winner, r.other, r.difference] for r in reasons(run.rows[7])]
    assert lines[1:] == [[html.escape(cell, quote=False) for cell in line] for line in expected]


TYPED = """<script>
addEventListener("load", () => {
  for (const [id, value] of Object.entries(%s)) {
    const box = document.getElementById(id);
    if (box.type === "checkbox") box.checked = value; else box.value = value;
    box.dispatchEvent(new Event("input", {bubbles: true}));
  }
});
</script></body>"""
TITLES = r"<article.*?<h2[^>]*><a[^>]*>(.*?)</a></h2>"


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
    page = write_page(made, "number").resolve()
    plain = page.read_text()

    def shown(hash_: str = "", **boxes: str | bool) -> list[str]:
        page.write_text(plain.replace("</body>", TYPED % json.dumps({"meaning": False, **boxes})))
        return re.findall(TITLES, dump(page, hash_, tmp_path), re.DOTALL)

    assert len(shown(q="thing")) == len(made) - 2
    assert shown(q="HERON") == ["a violet heron", "herons on a lake"]
    assert shown(q="heron lake") == ["herons on a lake"]
    assert shown(q="heron", status="dead") == []
    assert shown(status="dead") == [made.rows[3]["description"]]
    by_text = shown(sort="text")
    assert by_text == sorted(by_text)
    by_number = shown()
    assert by_number == [row["description"] for row in made.rows]
    surest = [made.rows[place]["description"] for place in ordered(made.rows, "sure")]
    assert shown(sort="sure") == surest != by_number
    page.write_text(plain)
    kept = dump(page, "#?q=heron&sort=text&meaning=off", tmp_path)
    assert re.findall(TITLES, kept, re.DOTALL) == ["a violet heron", "herons on a lake"]


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_the_page_is_searched_by_meaning(run: milanx.Run, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run.root, copy)
    made = open_run(copy)
    for row in made.rows:
        row["description"], row["candidates"] = "thin stripes", []
    texts = ["broccoli", "boats", "seats", "water", "cell phones or ocean"]
    for row, text in zip(made.rows, texts, strict=False):
        row["description"] = text
    page = write_page(made).resolve()

    def asked(words: str) -> tuple[list[str], str]:
        document = _dump(page, f"#?q={words}", tmp_path, 5000, whole=True)
        told = re.findall(r'id="(?:found|told)"[^>]*>(.*?)</span>', document)
        return re.findall(TITLES, document, re.DOTALL), html.unescape(" ".join(told))

    found, told = asked("sea")
    assert set(found[:3]) == {"boats", "water", "cell phones or ocean"}
    assert found[3:] == ["seats"]
    assert "3 by meaning, 1 by letters" in told
    found, told = asked("oecan")
    assert "“oecan” as “ocean”" in told
    assert {"water", "cell phones or ocean"} <= set(found)
    found, told = asked("qwzxjv")
    assert found == []
    assert "“qwzxjv” is not known" in told
    found, told = asked("furniture")
    assert "nearest" in told
    assert len(found) == 12


MEASURED = """<script>
addEventListener("load", () => setTimeout(() => {
  const inner = [...document.querySelectorAll("main, main *")].filter(e =>
    /auto|scroll/.test(getComputedStyle(e).overflow) ||
    (e.clientHeight && e.scrollHeight > e.clientHeight + 2 && e.tagName !== "CANVAS"));
  const root = document.documentElement;
  document.body.dataset.inner = inner.map(e => e.tagName + "." + e.className).join(" ");
  document.body.dataset.wide = root.scrollWidth - root.clientWidth;
}, 1500));
</script></body>"""


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
@pytest.mark.parametrize("hash_", ["", "#units/7"])
@pytest.mark.parametrize("width", [1280, 420])
def test_nothing_scrolls_inside_the_page(
    run: milanx.Run, tmp_path: Path, hash_: str, width: int
) -> None:
    page = tmp_path / "page.html"
    page.write_text((run.root / "page" / "index.html").read_text().replace("</body>", MEASURED))
    document = _dump(page, hash_, tmp_path, 8000, whole=True, size=f"{width},900")
    assert 'data-inner=""' in document
    assert 'data-wide="0"' in document


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_a_page_of_five_thousand_units_draws_those_in_sight(
    run: milanx.Run, tmp_path: Path
) -> None:
    page, many = tmp_path / "page.html", 5000
    before, rest = (run.root / "page" / "index.html").read_text().split(DATA, 1)
    data, after = rest.split("</script>", 1)
    content = json.loads(data)
    units = content["units"]
    content["units"] = [{**units[i % len(units)], "u": i, "near": []} for i in range(many)]
    page.write_text(before + DATA + script_json(content) + "</script>" + after)
    document = dump(page, "", tmp_path)
    assert f"{many} of {many} units" in _dump(page, "", tmp_path, 5000, whole=True)
    assert 20 < document.count("<article") < 300
    assert document.count("<canvas") <= 5 * document.count("<article")
    last = dump(page, f"#units/{many - 1}", tmp_path)
    assert f"units:{many - 1}" in last.split("<section")[0]


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_page_escapes_every_text(run: milanx.Run, tmp_path: Path) -> None:
    evil = "</script><img src=x onerror=document.title='broken'><b>"
    copy = tmp_path / "run"
    shutil.copytree(run.root, copy)
    made = open_run(copy)
    row = made.rows[0]
    row["description"] = evil
    row["candidates"] = [{**c, "text": f"{c['text']} {evil}"} for c in row["candidates"]]
    row["score_reason"] = evil
    made.rows[1]["description"], made.rows[1]["status"] = "", evil
    for other in made.rows[2:]:
        other["description"] = evil
    made.settings["target"]["name"] = evil
    made.settings["score"] = {"reason": evil}
    assert evil not in write_page(made).read_text()
    page = (copy / "page" / "index.html").resolve()
    for hash_ in ("", "#units/0", "#?q=img", "#?q=%3Cimg%20src=x%3E"):
        document = _dump(page, hash_, tmp_path, 5000, whole=True)
        assert "<img" not in document.split("<body>")[1].split("<script")[0]
        assert "<title>broken" not in document
    opened = dump(page, "#units/0", tmp_path)
    assert opened.count("&lt;/script&gt;") > 10


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
