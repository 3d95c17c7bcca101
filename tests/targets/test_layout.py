"""Units, batch axis and places of many kinds of layers, against plain hooks."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

from milanx.bench.checks import check_model
from milanx.errors import InputError
from milanx.images.preprocess import Preprocess
from milanx.targets import flow
from milanx.targets.capture import Capture, find_layers, list_layers, refused_layers
from milanx.targets.layers import discover
from milanx.targets.units import LayerInfo
from milanx.targets.zoo import Target, load_target

SMALL = Preprocess((64, 64), 64)


def plain(model: nn.Module, name: str, x: torch.Tensor) -> torch.Tensor:
    kept = {}
    handle = model.get_submodule(name).register_forward_hook(
        lambda m, a, o: kept.update(out=o.clone())
    )
    with torch.no_grad():
        model(x)
    handle.remove()
    return kept["out"]


def read(target: Target, name: str, x: torch.Tensor, how: str = "raw") -> torch.Tensor:
    with Capture(target, find_layers(target, [name], read=how)) as capture:
        return capture.run(x)[name].clone()


def by_name(target: Target) -> dict[str, LayerInfo]:
    return {info.name: info for info in list_layers(target)}


def test_tall_images_are_no_channels_last() -> None:
    tall = Preprocess((256, 128), (256, 128))
    target = load_target(timm.create_model("resnet18"), preprocess=tall)
    infos = by_name(target)
    assert (infos["layer1"].units, infos["layer1"].map_size) == (64, (64, 32))
    assert (infos["layer4"].units, infos["layer4"].map_size) == (512, (8, 4))
    x = torch.randn(2, 3, 256, 128)
    torch.testing.assert_close(read(target, "layer1", x), plain(target.model, "layer1", x))


def test_norms_over_channels_that_come_first() -> None:
    target = load_target("convnext_atto", random_weights=True)
    infos = by_name(target)
    assert (infos["stem.1"].units, infos["stem.1"].map_size) == (40, (56, 56))
    assert not infos["stem.1"].channels_last
    last = infos["stages.0.blocks.0.mlp.fc1"]
    assert last.map_size == (56, 56)


@pytest.mark.parametrize("size", [(64, 64), (64, 128)])
def test_windows_stand_where_they_were_cut_out(size: tuple[int, int]) -> None:
    model = timm.models.swin_transformer.SwinTransformer(
        img_size=size, window_size=4, embed_dim=24, depths=(2, 2), num_heads=(2, 4), num_classes=5
    )
    target = load_target(model, preprocess=Preprocess(size, size))
    x = torch.randn(2, 3, *size)
    for block in ("layers.0.blocks.0", "layers.0.blocks.1"):  # the second one's are shifted
        block_module = model.get_submodule(block)
        expected = block_module.attn.qkv(plain(model, f"{block}.norm1", x)).permute(0, 3, 1, 2)
        with torch.no_grad():
            torch.testing.assert_close(read(target, f"{block}.attn.qkv", x), expected)


def test_blocks_of_tokens_stand_in_their_places() -> None:
    model = timm.models.nest.Nest(
        img_size=64, num_levels=2, embed_dims=(16, 32), num_heads=(2, 2), depths=(1, 1),
        num_classes=5,
    )  # fmt: skip
    target = load_target(model, preprocess=SMALL)
    found = check_model(target)
    assert found.wrong == 0
    info = by_name(target)["levels.0.transformer_encoder.0.mlp.fc1"]
    assert (info.units, info.map_size) == (64, (16, 16))
    # The first cell of the second block of four stands in the first row, in the middle.
    x = torch.randn(2, 3, 64, 64)
    raw = plain(model, info.name, x)  # [b, blocks, places, u]
    torch.testing.assert_close(read(target, info.name, x)[:, :, 0, 8], raw[:, 1, 0])


def test_tokens_of_all_kinds_are_left_out() -> None:
    class Queries(nn.Module):
        """A class token, the patches, and as many queries behind them as detectors have."""

        def __init__(self) -> None:
            super().__init__()
            self.patch, self.norm = nn.Conv2d(3, 12, 8, 8), nn.LayerNorm(12)
            self.extra = nn.Parameter(torch.randn(1, 21, 12))
            self.fc1, self.fc2 = nn.Linear(12, 24), nn.Linear(24, 12)
            self.head = nn.Linear(12, 5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            patches, extra = self.patch(x).flatten(2).mT, self.extra.expand(len(x), -1, -1)
            tokens = self.norm(torch.cat([extra[:, :1], patches, extra[:, 1:]], 1))
            return self.head(self.fc2(self.fc1(tokens).relu())[:, -20:])

    model = Queries()
    target = load_target(model, preprocess=SMALL)
    infos = by_name(target)
    assert (infos["fc1"].prefix_tokens, infos["fc1"].suffix_tokens) == (1, 20)
    assert infos["fc1"].map_size == (8, 8)
    assert infos["fc1"].inert
    assert "head" in {info.name for info in refused_layers(target)}  # 20 queries are no places
    x = torch.randn(2, 3, 64, 64)
    expected = plain(model, "fc1", x)[:, 1:65].mT.unflatten(2, (8, 8))
    torch.testing.assert_close(read(target, "fc1", x), expected)


def test_distilled_patches_are_inert() -> None:
    target = load_target("deit_tiny_distilled_patch16_224", random_weights=True)
    infos = by_name(target)
    assert infos["blocks.11.mlp.fc1"].prefix_tokens == 2
    assert infos["blocks.11.mlp.fc1"].inert
    assert not infos["blocks.10.mlp.fc1"].inert


class Odd(nn.Module):
    """Layers that are no maps, each for a reason of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 8, 8)
        self.batch_last = nn.Linear(8, 8)
        self.twice = nn.Linear(8, 8)
        self.mixed = nn.Linear(64, 16)
        self.head = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        maps = self.conv(x)
        self.mixed(maps.flatten(2))  # over the places: its units are no channels
        rows = self.batch_last(maps.flatten(2).permute(2, 0, 1))  # [places, b, u]
        return self.head(self.twice(self.twice(rows.mean(0))))


def test_what_cannot_be_read_says_why() -> None:
    target = load_target(Odd(), preprocess=SMALL)
    why = {info.name: str(info.refused) for info in refused_layers(target)}
    assert "batch on axis 1" in why["batch_last"]
    assert "runs 2 times" in why["twice"]
    assert "mixed" in why
    with pytest.raises(InputError, match="runs 2 times"):
        find_layers(target, ["twice"])
    assert [i.name for i in find_layers(target, ["*"])] == ["conv", "head"]


def test_mirrored_maps_are_not_described() -> None:
    class Mirrored(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.other = nn.Conv2d(3, 8, 8, 8), nn.Conv2d(8, 8, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            turned = self.conv(x).permute(0, 1, 3, 2)  # columns where rows were
            return self.other(turned).mean((2, 3))

    target = load_target(Mirrored(), preprocess=SMALL)
    info = by_name(target).get("other")
    x = torch.randn(2, 3, 64, 64)
    if info is not None:  # read in its places, not as it lies
        torch.testing.assert_close(
            read(target, "other", x), plain(target.model, "other", x).permute(0, 1, 3, 2)
        )


@pytest.mark.parametrize(
    "name", ["resnet18", "edgenext_xx_small", "efficientvit_b0", "test_vit4", "test_mambaout"]
)
def test_families_are_read_as_plain_hooks_see_them(name: str) -> None:
    found = check_model(load_target(name, random_weights=True))
    assert found.described > 10
    assert found.wrong == 0, (found.units, found.rows, found.placed, found.shifted, found.bent)


def test_a_batch_of_one_that_loses_its_axis() -> None:
    class Squeezed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.fc1 = nn.Conv2d(3, 16, 3, 2, 1), nn.Linear(16, 32)
            self.fc = nn.Linear(32, 10)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            pooled = self.conv(x).relu().mean((2, 3), keepdim=True).squeeze()
            return self.fc(self.fc1(pooled).relu())

    target = load_target(Squeezed(), preprocess=SMALL)
    x = torch.randn(3, 3, 64, 64)
    whole = read(target, "fc1", x, "auto")
    torch.testing.assert_close(read(target, "fc1", x[:1], "auto"), whole[:1])


class Sequences(nn.Module):
    """Units that come first in sequences, and rows that are flattened for a norm and put back."""

    def __init__(self) -> None:
        super().__init__()
        self.patch, self.mix = nn.Conv2d(3, 12, 8, 8), nn.Conv1d(12, 20, 1)
        self.act, self.near = nn.ReLU(), nn.Conv1d(20, 12, 3, padding=1)
        self.linear, self.norm = nn.Linear(12, 16), nn.BatchNorm1d(16)
        self.q, self.k, self.proj = nn.Linear(16, 16), nn.Linear(16, 16), nn.Linear(16, 12)
        self.head = nn.Linear(12, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = self.near(self.act(self.mix(self.patch(x).flatten(2))))  # [b, u, n]
        tokens = self.linear(rows.transpose(1, 2))
        tokens = self.norm(tokens.flatten(0, 1)).reshape_as(tokens)
        scores = (self.q(tokens) @ self.k(tokens).mT).softmax(-1)
        return self.head(self.proj(scores @ tokens).mean(1))


def test_sequences_whose_units_come_first() -> None:
    torch.manual_seed(0)
    model = Sequences()
    target, x = load_target(model, preprocess=SMALL), torch.randn(2, 3, 64, 64)
    infos = by_name(target)
    assert (infos["mix"].units, infos["mix"].map_size) == (20, (8, 8))
    assert infos["mix"].nonlinearity == "relu"
    expected = plain(model, "mix", x)
    torch.testing.assert_close(read(target, "mix", x), expected.unflatten(2, (8, 8)))
    assert (infos["near"].units, infos["near"].map_size) == (12, (8, 8))
    rows = plain(model, "norm", x)  # [b n, u]
    assert infos["norm"].groups == 64
    torch.testing.assert_close(
        read(target, "norm", x), rows.unflatten(0, (2, 64)).mT.unflatten(2, (8, 8))
    )
    found = check_model(target)
    assert found.wrong == 0 and found.refused.total() == 0


def test_the_answer_of_attention_is_at_the_place_of_its_query() -> None:
    """Even where all places are looked at alike, so that nothing is to be measured."""
    torch.manual_seed(0)
    model = Sequences()
    nn.init.zeros_(model.q.weight)
    nn.init.zeros_(model.q.bias)
    target, x = load_target(model, preprocess=SMALL), torch.randn(2, 3, 64, 64)
    info = by_name(target)["proj"]
    assert (info.units, info.map_size) == (12, (8, 8))
    expected = plain(model, "proj", x).mT.unflatten(2, (8, 8))
    torch.testing.assert_close(read(target, "proj", x), expected)


def test_a_class_token_alone_says_nothing_of_the_patches_beside_it() -> None:
    """As of two branches that exchange class tokens, of which one has patches of another size."""

    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.large, self.small = nn.Conv2d(3, 12, 16, 16), nn.Conv2d(3, 12, 8, 8)
            self.token = nn.Parameter(torch.randn(1, 1, 12))
            self.one, self.two, self.after = (nn.Linear(12, 12) for _ in range(3))
            self.head = nn.Linear(12, 5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            token = self.token.expand(len(x), -1, -1)
            one = self.one(torch.cat([token, self.small(x).flatten(2).mT], 1))
            two = self.two(torch.cat([token, self.large(x).flatten(2).mT], 1))
            both = self.after(torch.cat([one[:, :1], two[:, 1:]], 1))
            return self.head(both.mean(1) + one.mean(1))

    torch.manual_seed(0)
    target, x = load_target(Branches(), preprocess=SMALL), torch.randn(2, 3, 64, 64)
    infos = by_name(target)
    assert (infos["one"].map_size, infos["one"].prefix_tokens) == ((8, 8), 1)
    for name in ("two", "after"):
        assert (infos[name].map_size, infos[name].prefix_tokens) == ((4, 4), 1)
        expected = plain(target.model, name, x)[:, 1:].mT.unflatten(2, (4, 4))
        torch.testing.assert_close(read(target, name, x), expected)


@pytest.mark.parametrize("batch_first", [True, False])
def test_torchs_own_attention(batch_first: bool) -> None:
    class Attending(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patch, self.norm = nn.Conv2d(3, 16, 8, 8), nn.LayerNorm(16)
            self.attention = nn.MultiheadAttention(16, 2, batch_first=batch_first)
            self.head = nn.Linear(16, 5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            tokens = self.patch(x).flatten(2).mT
            given = tokens if batch_first else tokens.transpose(0, 1)
            found = self.attention(given, given, given)[0]
            found = found if batch_first else found.transpose(0, 1)
            return self.head(self.norm(found).mean(1))

    torch.manual_seed(0)
    target, x = load_target(Attending(), preprocess=SMALL), torch.randn(2, 3, 64, 64)
    infos = by_name(target)
    assert infos["norm"].map_size == (8, 8)
    assert (
        "attention" in infos
    ) == batch_first  # else the images of a batch lie on its second axis
    expected = plain(target.model, "norm", x).mT.unflatten(2, (8, 8))
    torch.testing.assert_close(read(target, "norm", x), expected)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_units_that_give_no_numbers_take_no_others_away(value: float) -> None:
    class Odd(nn.Module):
        """One unit never gives numbers, one not for every image."""

        def __init__(self) -> None:
            super().__init__()
            self.conv, self.act, self.fc = nn.Conv2d(3, 9, 3, 8, 1), nn.ReLU(), nn.Linear(9, 5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.act(self.odd(self.conv(x)))
            return self.fc(torch.nan_to_num(y, posinf=0, neginf=0).mean((2, 3)))

    class Spoiling(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = x.clone()
            x[:, 1] = value
            x[x[:, 7].mean((1, 2)) < x[:, 7].mean(), 2] = value  # of one image of two
            return x

    model = Odd()
    model.odd = Spoiling()
    target, x = load_target(model, preprocess=SMALL), torch.randn(2, 3, 64, 64)
    infos = by_name(target)
    assert (infos["odd"].units, infos["odd"].map_size) == (9, (8, 8))
    assert infos["odd"].nonlinearity == "relu"
    found = read(target, "odd", x)
    torch.testing.assert_close(found, plain(model, "odd", x), equal_nan=True)
    assert {"conv", "act"} <= infos.keys()

    class Nothing(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.full_like(x, value)

    model.odd = Nothing()
    refused = {i.name: i.refused for i in refused_layers(load_target(model, preprocess=SMALL))}
    assert "no numbers" in str(refused["odd"])


def test_tokens_of_a_finer_grid_are_never_read_in_part(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hiera's tokens stand by their place inside windows: the first of them are a coarser grid.

    Where a pooling is not followed, as one of another kind would not be, they are refused.
    """
    monkeypatch.setattr(flow, "_pooled", lambda *args: None)
    torch.manual_seed(0)
    found = discover(load_target("hiera_tiny_224", random_weights=True))
    told = [info for info in found if info.refused is None and info.map_size != (1, 1)]
    assert {info.map_size for info in told} >= {(56, 56), (7, 7)}
    for info in told:
        assert info.prefix_tokens + info.suffix_tokens == 0, info
    assert any("784 positions" in str(info.refused) for info in found)
