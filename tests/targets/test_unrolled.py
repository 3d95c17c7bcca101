"""Places through pooling along an axis, and through every second row and column."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

from milanx.images.preprocess import Preprocess
from milanx.targets.capture import list_layers
from milanx.targets.flow import Layout, _numbered, _pooled, _thinned, interpret
from milanx.targets.units import LayerInfo
from milanx.targets.zoo import load_target


def layers(model: nn.Module, side: int) -> dict[str, LayerInfo]:
    torch.manual_seed(0)
    target = load_target(model, preprocess=Preprocess((side, side), side))
    return {info.name: info for info in list_layers(target)}


def test_tokens_of_hiera_stand_where_its_own_reroll_puts_them() -> None:
    torch.manual_seed(0)
    model = timm.models.hiera.Hiera(img_size=(128, 128), embed_dim=12, num_heads=1,
                                    stages=(1, 2, 2, 1), num_classes=3)  # fmt: skip
    found = layers(model, 128)
    sides = [32, 16, 16, 8, 8, 4]  # of each block's output
    for number, side in enumerate(sides):
        places = torch.arange(side**2, dtype=torch.float32)[None, :, None]
        expected = tuple(int(n) for n in model.reroll(places, number).flatten().tolist())
        info = found[f"blocks.{number}"]
        assert info.refused is None and info.map_size == (side, side)
        assert (info.order or tuple(range(side**2))) == expected
    assert not [i.name for i in found.values() if i.refused and "@" not in i.name]


class Thinned(nn.Module):
    """Takes every second row and column of tokens, then lets all of them look at all."""

    def __init__(self, start: int) -> None:
        super().__init__()
        self.start = start
        self.cut = nn.Conv2d(3, 16, 4, 4)
        self.mix = nn.MultiheadAttention(16, 2, batch_first=True)
        self.value = nn.Linear(16, 12)
        self.last = nn.Linear(12, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.cut(x).flatten(2).transpose(1, 2)
        x = 0.01 * x + self.mix(x, x, x)[0]  # what a part shows, all tokens show
        x = x.view(len(x), 7, 7, 16)[:, self.start :: 2, self.start :: 2].flatten(1, 2)
        return self.last(self.value(x).mean(1))


@pytest.mark.parametrize(("start", "side"), [(0, 4), (1, 3)])
def test_every_second_row_and_column_is_a_map_of_its_own(start: int, side: int) -> None:
    info = layers(Thinned(start), 28)["value"]
    assert info.map_size == (side, side)
    assert info.prefix_tokens == 0 and not info.order


def numbers(grid: tuple[int, int]) -> torch.Tensor:
    """Number a map [2, h, w, u] of two images."""
    return _numbered((2, *grid, 3), Layout(2, grid)).clone()


def test_blocks_that_are_pooled_are_cells() -> None:
    cut = numbers((4, 6)).view(2, 2, 2, 3, 2, 3).permute(0, 2, 4, 1, 3, 5).reshape(2, 4, 6, 3)
    made = _pooled(cut, 1, (2, 6, 3), (4, 6))
    assert made is not None and made[1] == (2, 3)
    assert interpret(*made) == Layout(1, (2, 3))
    columns = _pooled(numbers((4, 6)), 1, (2, 6, 3), (4, 6))
    assert columns is not None and columns[1] == (1, 6)
    assert _pooled(numbers((4, 6)), 3, (2, 4, 6), (4, 6)) is None  # units are no places
    mixed = cut.clone()
    mixed[:, 0, 0], mixed[:, 0, 1] = cut[:, 0, 1], cut[:, 0, 0]
    assert _pooled(mixed, 1, (2, 6, 3), (4, 6)) is None  # of two blocks
    twice = cut.clone()
    twice[:, 0] = cut[:, 1]
    assert _pooled(twice, 1, (2, 6, 3), (4, 6)) is None  # a part of a block


def test_windows_and_single_rows_are_no_map_of_their_own() -> None:
    all_of = numbers((6, 6))
    thin = _thinned(all_of[:, 1::3, ::2], (6, 6))
    assert thin is not None and thin[1] == (2, 3)
    assert interpret(*thin) == Layout(2, (2, 3))
    for part in (all_of, all_of[:, :3, :3], all_of[:, ::3, :1], all_of[:1, ::2, ::2],
                 all_of[:, 0:4:2, ::2]):  # fmt: skip
        assert _thinned(part, (6, 6)) is None
