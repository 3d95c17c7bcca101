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
from milanx.act.search import search
from milanx.images.builtin import views
from milanx.images.photos import LICENCES
from milanx.report.cells import score_cell, sure_cell
from milanx.report.page import script_json, write_page
from milanx.report.sure import ordered
from milanx.report.unit import print_unit
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
    for text in (first["text"], second["text"], "weighted PMI", "response"):
        assert text in table
    assert f"“{first['text']}” ranks before “{second['text']}”" in said.output
    assert "candidates stand in its order" in said.output
    total = next(line for line in table.splitlines() if "│ sum " in line)
    figures = [float(word) for word in re.findall(r"[-+]?\d+\.\d+", total)]
    assert figures == pytest.approx(
        [first["rank"], second["rank"], first["rank"] - second["rank"]], abs=0.006
    )
    added = [line for line in reasons(run.rows[3]) if line.term != "sum"]
    differences = sum(float(line.difference) for line in added)
    assert differences == pytest.approx(figures[2], abs=0.005 * (len(added) + 1))


def test_a_lone_candidate_wins_over_none() -> None:
    terms = [{"name": "pmi", "value": 1.0, "added": 1.0}, {"name": "mine", "value": 2, "added": 3}]
    row = {"candidates": [{"text": "dogs", "rank": 4.0, "terms": terms}]}
    made = [(r.term, r.winner, r.other, r.difference) for r in reasons(row)]
    assert made == [("weighted PMI", "1.00", "", ""), ("mine", "3.00", "", ""),
                    ("sum", "4.00", "", "")]  # fmt: skip


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
        "“dogs” ranks before “grass”, the best that says something else, by 2.00 nats.",
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


ASKED = """<script>
addEventListener("load", async () => {
  const answers = [], pause = ms => new Promise(done => setTimeout(done, ms));
  for (const [hash, boxes] of %s) {
    location.hash = hash;
    await pause(300);
    for (const [id, value] of Object.entries(boxes)) {
      const box = document.getElementById(id);
      if (box.type === "checkbox") box.checked = value; else box.value = value;
      box.dispatchEvent(new Event("input", {bubbles: true}));
    }
    await pause(700);
    const main = document.querySelector("main"), root = document.documentElement;
    const seen = [...main.querySelectorAll("article")].filter(e => e.checkVisibility());
    answers.push({
      texts: seen.map(e => e.querySelector("h2").textContent),
      told: document.querySelector(".told").textContent, title: document.title,
      hash: location.hash, pictures: main.querySelectorAll("canvas").length,
      foreign: document.body.querySelectorAll("img").length,
      inner: [...main.querySelectorAll("*")].filter(e =>
        /auto|scroll/.test(getComputedStyle(e).overflow) || e.checkVisibility() && e.clientHeight &&
        e.scrollHeight > e.clientHeight + 2 && e.tagName !== "CANVAS").map(e => e.className),
      wide: root.scrollWidth - root.clientWidth,
    });
  }
  const told = document.createElement("script");
  told.type = "application/json"; told.id = "answers";
  told.textContent = JSON.stringify(answers).replaceAll("<", "\\\\u003c");
  document.body.append(told);
});
</script></body>"""


def answers(
    page: Path, tmp_path: Path, steps: list[tuple[str, dict[str, Any]]], size: str = "1280,900"
) -> list[dict[str, Any]]:
    """Go to an address of the page, set boxes, and say what is seen; step by step."""
    asking = tmp_path / "asking.html"
    asking.write_text(page.read_text().replace("</body>", ASKED % json.dumps(steps)))
    for look in range(4):
        milliseconds = (5000 + 2000 * len(steps)) * 2**look
        document = _dump(asking, "", tmp_path, milliseconds, whole=True, size=size)
        if 'id="answers">' in document:
            break
    told = document.split('id="answers">')[1].split("</script>")[0]
    made: list[dict[str, Any]] = json.loads(told)
    return made


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
    made.rows[4]["description"] = ""
    page = write_page(made, "number").resolve()
    letters = {"meaning": False}
    thing, heron, lake, dead, none, text, number, sure, kept = answers(page, tmp_path, [
        ("#", {**letters, "q": "thing"}),
        ("#", {**letters, "q": "HERON"}),
        ("#", {**letters, "q": "heron lake"}),
        ("#", {**letters, "status": "dead"}),
        ("#", {**letters, "q": "heron", "status": "dead"}),
        ("#", {"sort": "text"}),
        ("#", {}),
        ("#", {"sort": "sure"}),
        ("#?q=heron&sort=text&meaning=off", {}),
    ])  # fmt: skip
    assert len(thing["texts"]) == len(made) - 3
    assert heron["texts"] == kept["texts"] == ["a violet heron", "herons on a lake"]
    assert heron["hash"] == "#?q=HERON&meaning=off"
    assert lake["texts"] == ["herons on a lake"]
    assert dead["texts"] == [made.rows[3]["description"]]
    assert none["texts"] == []
    told = [row["description"] for row in made.rows if row["description"]]
    assert text["texts"][:-1] == sorted(told)
    assert number["texts"][:-1] == told
    surest = [made.rows[place]["description"] for place in ordered(made.rows, "sure")]
    assert sure["texts"][:-1] == surest[:-1] != told
    for shown in (number, sure):
        assert "described: no text was found" in shown["texts"][-1]


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_page_and_table_round_alike(run: milanx.Run, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run.root, copy)
    made = open_run(copy)
    confident = [0.7649, 0.765, 0.1251, 0.125, 0.375, 0.9994, 0.9996, 0.0049]
    scores = [-0.001, 0.1249, 0.3349999, 0.625, 0.875, -0.3751, 0.125, 0.9949]
    rows = made.rows[: len(scores)]
    made.rows[:] = rows
    for row, sure, score in zip(rows, confident, scores, strict=True):
        row.update(confidence=sure, score=score, score_interval=None, status="described")
    page = dump(write_page(made, "sure").resolve(), "", tmp_path)
    shown = re.findall(r"confidence (\d\.\d\d) · score ([−\d.]+)", page)
    places = ordered(rows, "sure")
    table = [(sure_cell(rows[p]["confidence"], True), score_cell(rows[p]["score"], None))
             for p in places]  # fmt: skip
    assert [(sure, score.replace("−", "-")) for sure, score in shown] == table
    assert ("0.76", "0.00") in table


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
    words = ("sea", "oecan", "qwzxjv", "religion", "sea qwzxjv", "stri")
    sea, ocean, unknown, far, half, begun = answers(
        page, tmp_path, [("#", {"q": w}) for w in words]
    )
    assert set(sea["texts"]) == {"boats", "cell phones or ocean"}
    assert f"2 of {len(made)} units: 2 by meaning. No unit says sea" in sea["told"]
    assert "“oecan” as “ocean”" in ocean["told"]
    assert "cell phones or ocean" in ocean["texts"]
    assert unknown["texts"] == []
    assert "“qwzxjv” is not known to this page: searched by letters alone" in unknown["told"]
    assert "nearest" in far["told"]
    assert len(far["texts"]) == 12
    assert "“qwzxjv” is not known to this page: left out" in half["told"]
    assert set(half["texts"]) == {"boats", "cell phones or ocean"}
    assert set(begun["texts"]) == {"thin stripes"}


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_page_and_find_show_the_same_units(run: milanx.Run, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run.root, copy)
    made = open_run(copy)
    texts = ["men", "boats", "a dog and seats", "ocean water", "dogs", "red cars", "car of red"]
    for i, row in enumerate(made.rows):
        row["description"] = texts[i % len(texts)]
        row["candidates"] = [{**row["candidates"][0], "text": t}
                             for t in (row["description"], f"water towers {i}")]  # fmt: skip
    page = write_page(made, "number").resolve()
    words = ["sea", "man", "dog", "water", "red car", "vehicle", "animals", "towers", "the dogs"]
    for word, seen in zip(words, answers(page, tmp_path, [("#", {"q": w}) for w in words]),
                          strict=True):  # fmt: skip
        found = search(made, word)
        groups = (("by the word", found.said), ("by meaning", found.like),
                  ("in other candidates", found.beside))  # fmt: skip
        told = ", ".join(f"{len(group)} {how}" for how, group in groups if group)
        assert f"{len(found)} of {len(made)} units: {told}" in seen["told"], word
        places = [*found.said, *found.like, *found.beside]
        shown = [made.rows[place]["description"] for place in places]
        assert sorted(seen["texts"]) == sorted(shown), word


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
@pytest.mark.parametrize("width", [1280, 420])
def test_nothing_scrolls_inside_the_page(run: milanx.Run, tmp_path: Path, width: int) -> None:
    page = run.root / "page" / "index.html"
    steps: list[tuple[str, dict[str, Any]]] = [("#", {}), ("#units/7", {})]
    listed, opened = answers(page, tmp_path, steps, f"{width},900")
    assert len(listed["texts"]) == len(run)
    assert opened["texts"][0] == run.rows[7]["description"]
    for shown in (listed, opened):
        assert shown["pictures"] > 10
        assert shown["inner"] == []
        assert shown["wide"] == 0


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
    page.write_text(before + DATA + str(script_json(content)) + "</script>" + after)
    listed, last = answers(page, tmp_path, [("#", {}), (f"#units/{many - 1}", {})])
    assert f"{many} of {many} units" in listed["told"]
    assert 20 < len(listed["texts"]) < 300
    assert 20 < listed["pictures"] < 300
    assert f"units:{many - 1}" in last["title"]


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_page_escapes_every_text(run: milanx.Run, tmp_path: Path) -> None:
    evil = "</script><img src=x onerror=document.title='broken'><b>"
    copy = tmp_path / "run"
    shutil.copytree(run.root, copy)
    made = open_run(copy)
    row = made.rows[0]
    row["candidates"] = [{**c, "text": f"{c['text']} {evil}"} for c in row["candidates"]]
    row["score_reason"] = evil
    made.rows[1]["description"], made.rows[1]["status"] = "", evil
    for other in (row, *made.rows[2:]):
        other["description"] = evil
    made.settings["target"]["name"] = evil
    made.settings["score"] = {"reason": evil}
    assert evil not in write_page(made).read_text()
    page = (copy / "page" / "index.html").resolve()
    hashes = ("#", "#units/0", "#units/1", "#?q=img", "#?q=%3Cimg%20src%3Dx%20onerror%3D1%3E")
    steps: list[tuple[str, dict[str, Any]]] = [(h, {}) for h in hashes]
    for shown in answers(page, tmp_path, steps):
        assert shown["foreign"] == 0
        assert "<img src=x" in shown["title"]
        assert "broken" not in shown["title"].replace(evil, "")
    opened = dump(page, "#units/0", tmp_path)
    assert "<img" not in opened.split("<script")[0]
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
