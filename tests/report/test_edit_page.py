"""The page of a pruning: what stands in it, that it is one file, and that it can be replaced."""

from __future__ import annotations

import dataclasses
import html
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import milanx
from milanx.act.curve import Curve
from milanx.act.figures import Figure, Worst
from milanx.act.pruned import CONTROLS, PruneReport
from milanx.act.robustness.results import Robustness
from milanx.act.select import Choice, Chosen, Selection
from milanx.errors import InputError
from milanx.files.kinds import EDIT, EDIT_PAGE
from milanx.files.replacing import check_content, format_of
from milanx.images.builtin import views
from milanx.report.edit_page import PICTURES, write_edit_page
from milanx.report.page import THUMBNAIL

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
ORDER = (("units", 3), ("units", 7), ("units", 1))
TEXTS = ("white texts", "<b>words</b> & text", "text")


@pytest.fixture(scope="module")
def run(planted: milanx.Run) -> milanx.Run:
    return planted


def figure(estimate: float) -> Figure:
    return Figure(estimate, estimate - 0.01, estimate + 0.02)


def report(run: milanx.Run, count: int = 2) -> PruneReport:
    """A pruning as it could have been, of three units of which two go."""
    chosen = tuple(Chosen(layer, unit, "+", text, 0.5 if unit == 7 else None, "'text'", 1.0,
                          run.root / "exemplars") for (layer, unit), text
                   in zip(ORDER, TEXTS, strict=True))  # fmt: skip
    sizes = (0, 1, 2, 3)
    curves = {
        name: Curve(sizes, np.linspace(0.3, top, 4)[None] * np.ones((draws, 1)), (ORDER,) * draws)
        for name, top, draws in (("chosen", 0.4, 1), ("all", 0.5, 1), ("random", 0.3, 4),
                                 ("reversed", 0.35, 1))
    }  # fmt: skip
    names = [f"{kind}_{part}" for kind in ("target", "clean") for part in ("before", "after",
                                                                          "change")]  # fmt: skip
    names += [f"over_{control}" for control in CONTROLS]
    figures = {name: figure(0.1 + 0.01 * i) for i, name in enumerate(names)}
    return PruneReport(
        run.root, "planted", Choice(chosen, Selection(match=("text",))), "zero", "accuracy",
        ORDER, count, curves, figures, Worst(figure(0.2), figure(0.21), "fog", "snow"),
        {"validation": 40, "test": 50, "clean": 60}, ("a note & more",), None, ("weights: none",),
    )  # fmt: skip


def robustness() -> Robustness:
    told = {"estimate": 12.34, "interval": [11.0, 13.0]}
    errors = {"fog": {"by_severity": [10.0, 15.0], "mean": told}}
    model = {"clean": told, "errors": errors, "mean": told, "normalised": {"fog": 98.7},
             "normalised_mean": told, "relative": {}, "relative_mean": None}  # fmt: skip
    figures = {
        "corruptions": ["fog"], "severities": [1, 5], "normalised_by": "unedited", "mce": False,
        "models": {"unedited": model, "edited": model},
        "differences": {"edited": {"clean": told, "errors": {"fog": told}, "mean": told}},
    }  # fmt: skip
    return Robustness("imagenet-c", "photos", "error", ("unedited", "edited"), 6, 3, {}, figures,
                      ("made here",))  # fmt: skip


def test_the_page_holds_figure_tables_and_units(run: milanx.Run, tmp_path: Path) -> None:
    whole = dataclasses.replace(report(run), robustness=robustness())
    page = write_edit_page(whole, run, tmp_path, "milanx prune --match text")
    text = page.read_text()
    assert format_of(page) == EDIT_PAGE
    for told in ("2 of 3 units removed (zero)", "milanx prune --match text", "10.0 [9.0, 12.0]",
                 "+12.0 [+11.0, +14.0]", "worst group: fog, then snow", *CONTROLS.values(),
                 "12.3 [11.0, 13.0]", "98.7", "made here", "a note &amp; more",
                 "2 units removed, in this order", "1 unit chosen by words, but kept",
                 *map(html.escape, TEXTS)):  # fmt: skip
        assert told in text, told
    assert "<b>words" not in text and "Score 0.50." in text
    order = [text.index(f"<code>units:{unit}</code>") for _, unit in ORDER]
    assert order == sorted(order)
    images = {row["unit"]: row["images"][:PICTURES] for row in run.rows}
    shown = [int(n) for n in re.findall(r'data-view="(\d+)"', text)]
    assert shown == [image for _, unit in ORDER for image in images[unit]]
    with Image.open(tmp_path / "curve.png") as curve:
        assert curve.format == "PNG" and curve.width > 800
    # Nothing is loaded: addresses stand only where licences and pages of photos are linked.
    assert set(re.findall(r'(\w+)="https?:', text)) <= {"href"}
    paths = {row["index"]: row["path"] for row in run.store.image_table()}
    seen = {paths[i] for i in shown}
    credited = {v.photo.page for v in views() if v.photo and v.path in seen}
    assert all(html.escape(address) in text for address in credited)


def test_where_nothing_goes_no_control_is_compared(run: milanx.Run, tmp_path: Path) -> None:
    text = write_edit_page(report(run, count=0), run, tmp_path).read_text()
    assert "0 of 3 units removed" in text and "3 units chosen by words, but kept" in text
    assert CONTROLS["all_best"] in text and CONTROLS["random"] not in text


def test_the_page_is_a_part_of_an_edit_and_nothing_else_is_replaced(
    run: milanx.Run, tmp_path: Path
) -> None:
    (tmp_path / "prune.json").write_text('{"format": "milanx-prune"}')
    write_edit_page(report(run), run, tmp_path)
    write_edit_page(report(run), run, tmp_path)
    check_content(tmp_path, EDIT)
    (tmp_path / "index.html").write_text("<p>mine</p>")
    with pytest.raises(InputError, match=r"index\.html"):
        write_edit_page(report(run), run, tmp_path)
    with pytest.raises(InputError, match=r"index\.html"):
        check_content(tmp_path, EDIT)
    assert (tmp_path / "index.html").read_text() == "<p>mine</p>"


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_its_pictures_are_drawn_in_a_real_browser(run: milanx.Run, tmp_path: Path) -> None:
    page = write_edit_page(report(run), run, tmp_path / "edit")
    text = page.read_text()
    widths = "[...document.images].map(i => i.naturalWidth).join(' ')"
    script = f"<script>addEventListener('load', () => {{ document.title = {widths}; }});</script>"
    page.write_text(text.replace("</body>", f"{script}</body>"))
    command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
               "--disable-background-networking", f"--user-data-dir={tmp_path / 'profile'}",
               "--virtual-time-budget=20000", "--dump-dom", f"file://{page.resolve()}"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    found = re.search(r"<title>([\d ]+)</title>", done.stdout)
    assert found is not None, done.stdout[:500]
    sides = [int(n) for n in found[1].split()]
    assert sides[0] > 800 and set(sides[1:]) == {THUMBNAIL}
    assert len(sides) == 1 + text.count("data-view=")
