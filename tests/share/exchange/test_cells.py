"""Cells that a spreadsheet would run, and that come back as they were."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import milanx
from milanx.share.exchange.cells import bare, guarded, number

RISKY = ("=1+1", "+1", "-1", "@x", "\tx", "\rx")


@pytest.mark.parametrize("text", RISKY)
def test_formulas_stand_behind_an_apostrophe(text: str) -> None:
    assert guarded(text) == f"'{text}" and bare(guarded(text)) == text


@given(st.text())
def test_every_text_comes_back(text: str) -> None:
    assert bare(guarded(text)) == text
    assert not guarded(text).startswith(("=", "+", "-", "@", "\t", "\r"))


@given(st.text(alphabet="'=+-@\t\ra"))
def test_apostrophes_come_back(text: str) -> None:
    assert bare(guarded(text)) == text


@given(st.floats(width=32, allow_nan=False))
def test_numbers_stay_the_same_float32(value: float) -> None:
    assert np.float32(float(number(value))) == np.float32(value)


@pytest.mark.parametrize("form", ["csv", "clip-dissect", "milan"])
def test_no_cell_of_a_table_begins_a_formula(odd: milanx.Run, form: str, tmp_path: Path) -> None:
    root = milanx.export_run(odd, form, tmp_path / "out").root
    path = root / "annotations.csv" if form == "milan" else root
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    assert any(cell.startswith("'=SUM") for row in rows for cell in row)
    for row in rows[1:]:
        for cell in row:
            if cell.startswith(("=", "+", "-", "@", "\t", "\r")):
                float(cell)  # a number, and no formula
