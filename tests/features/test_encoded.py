"""Encoded views are kept: the second time nothing is encoded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import milanx
from milanx.features.encoded import encoded_views
from milanx.features.encoder import Encoder
from milanx.files import cache_dir
from milanx.files.room import LIMIT


class Counted:
    """An encoder that tells how many views it encoded."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder, self.views = encoder, 0

    def __getattr__(self, name: str) -> object:
        return getattr(self._encoder, name)

    def dense(self, views: object) -> object:
        self.views += len(views)
        return self._encoder.dense(views)


def kept() -> list[Path]:
    return sorted(cache_dir("views").glob("*"))


def test_the_second_time_nothing_is_encoded(
    planted: milanx.Run, describer: milanx.Describer
) -> None:
    encoder, told = Counted(describer.encoder), []
    first = encoded_views(encoder, planted.store, advance=told.append)
    count = len(planted.store.view_indices())
    assert encoder.views == sum(told) == count == len(first)
    again = encoded_views(encoder, planted.store, advance=told.append)
    assert encoder.views == count and sum(told) == 2 * count
    assert list(again) == list(first)
    assert all(np.array_equal(first[i], again[i]) for i in first)
    whole = {i: dense.copy() for i, dense in first.items()}  # the others lie in the file
    (path,) = kept()
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    mended = encoded_views(encoder, planted.store)
    assert encoder.views == 2 * count
    assert all(np.array_equal(whole[i], mended[i]) for i in whole)


def test_without_room_they_are_encoded_each_time(
    planted: milanx.Run,
    describer: milanx.Describer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    encoder = Counted(describer.encoder)
    monkeypatch.setenv(LIMIT, "0")
    encoded_views(encoder, planted.store)
    assert not kept()
    monkeypatch.delenv(LIMIT)
    cache_dir().mkdir(parents=True, exist_ok=True)
    cache_dir("views").write_text("no folder")
    found = encoded_views(encoder, planted.store)
    assert encoder.views == 2 * len(found)
    assert "encoded views are not kept" in capsys.readouterr().err
