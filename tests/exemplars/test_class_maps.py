"""Class-activation maps: where logits come from; what is ranked by stays the logit itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torch import nn

import milanx
from milanx.exemplars.masks import LayerRecord, make_masks, mask_shares
from milanx.exemplars.request import ExtractSettings
from milanx.images.preprocess import Preprocess
from milanx.images.probe import open_images
from milanx.images.sources import open_sources
from milanx.targets.capture import Capture, find_layers, list_layers
from milanx.targets.zoo import load_target
from tests.helpers import PREPROCESS, Tiny, TinyViT, write_parquet


class Pooled(nn.Module):
    """Red, green and blue where they exceed the others, averaged, then a layer of two logits."""

    preprocess = PREPROCESS

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 4, 4)
        weight = torch.full((3, 3), -0.5).fill_diagonal_(1.0)
        self.conv.weight.data = (weight / 16)[:, :, None, None].expand(3, 3, 4, 4).clone()
        self.conv.bias.data = torch.full((3,), 0.0)
        self.act = nn.ReLU(inplace=True)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(3, 2)
        self.head.weight.data = torch.tensor([[1.0, -1, 0], [0, 1, -1]])
        self.head.bias.data = torch.tensor([0.25, -3.0])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.pool(self.act(self.conv(x))).flatten(1))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Grey pictures with a red or green or blue square somewhere."""
    rng, pictures = np.random.default_rng(0), []
    for turn in range(60):
        picture = np.repeat(rng.integers(100, 150, (32, 32, 1)), 3, 2).astype(np.uint8)
        top, left = 4 * rng.integers(0, 6, 2)
        colour = np.zeros(3, np.uint8)
        colour[turn % 3] = 200 + turn % 50
        picture[top : top + 8, left : left + 8] = colour
        pictures.append(Image.fromarray(picture))
    return write_parquet(tmp_path_factory.mktemp("p") / "p.parquet", pictures)


def views_of(photos: Path) -> torch.Tensor:
    images = open_images(open_sources([photos]))
    views = np.stack([PREPROCESS.view(images.read(i)) for i in range(len(images))])
    return PREPROCESS.normalise(torch.from_numpy(views).permute(0, 3, 1, 2))


@torch.inference_mode()
def test_exemplars_of_logits_keep_class_maps_and_rank_by_the_logit(
    photos: Path, tmp_path: Path
) -> None:
    model = Pooled()
    store = milanx.extract(model, layers=["head", "act"], images=photos, signs=("+", "-"),
                           out=tmp_path / "run",
                           settings=ExtractSettings(k=6, batch_size=7))  # fmt: skip
    record = store.record("head")
    assert record.pooled and tuple(record.map_size) == (8, 8)
    x = views_of(photos)
    logits = model(x).numpy()
    np.testing.assert_allclose(store.maxima("head"), logits, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(store.means("head"), logits, rtol=1e-5, atol=1e-6)
    pooled = model.act(model.conv(x))
    classes = torch.einsum("bchw,lc->blhw", pooled, model.head.weight)
    np.testing.assert_allclose((classes.mean((2, 3)) + model.head.bias).numpy(), logits, rtol=1e-4,
                               atol=1e-5)  # fmt: skip
    allowed = np.array([r["split"] == "exemplars" for r in store.image_table()])
    for row, (unit, sign) in enumerate(store.units("head")):
        side = logits[:, unit] if sign == "+" else -logits[:, unit]
        best = np.argsort(-np.where(allowed, side, -np.inf), kind="stable")[:6]
        assert store.images("head")[row].tolist() == best.tolist()
        kept = store.maps("head")[row].astype(np.float32)
        np.testing.assert_allclose(kept, classes[best, unit].numpy(), rtol=2e-3, atol=2e-3)
    red = store.get("head", 0)  # red minus green
    for view, mask in zip(red.views, red.masks, strict=True):
        square = np.abs(view.astype(int) - np.array([225, 0, 0])[:, None, None]).max(0) < 60
        assert square.any() and mask[square].mean() > 0.8 and mask[~square].mean() < 0.15
    green = store.get("head", 0, "-")
    for view, mask in zip(green.views, green.masks, strict=True):
        square = np.abs(view.astype(int) - np.array([0, 225, 0])[:, None, None]).max(0) < 60
        assert square.any() and mask[square].mean() > 0.8 and mask[~square].mean() < 0.15


def test_masks_of_class_maps_lie_above_a_fifth_of_the_peak() -> None:
    record = LayerRecord("head", "logits", (4, 4), False, None, pooled=True)
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(2, 3, 4, 4, generator=generator)
    maps[0, 0] = -maps[0, 0].abs() - 1  # nowhere for the class: its peak
    stats = {n: np.full(2, 99.0, np.float32) for n in ("quantile", "low_quantile", "median",
                                                       "maximum", "minimum")}  # fmt: skip
    masks = make_masks(maps, stats, ["+", "-"], record, (16, 16))
    up = torch.nn.functional.interpolate(maps, (16, 16), mode="bilinear", align_corners=False)
    for k in range(3):
        for row, side in ((0, up[0, k]), (1, -up[1, k])):
            peak = float(side.max())
            expected = side > 0.2 * peak if peak > 0 else side >= peak
            assert torch.equal(masks[row, k], expected)
    assert int(masks[0, 0].sum()) == int((up[0, 0] == up[0, 0].max()).sum())
    shares = mask_shares(maps, stats, ["+", "-"], record, (16, 16), (4, 4))
    average = torch.nn.functional.adaptive_avg_pool2d(masks.float(), (4, 4))
    torch.testing.assert_close(shares, average)


@torch.inference_mode()
@pytest.mark.parametrize("name", ["resnet18", "tf_efficientnet_lite0", "densenet121",
                                  "swin_tiny_patch4_window7_224", "regnetx_002"])  # fmt: skip
def test_found_where_logits_are_averages_of_maps(name: str) -> None:
    torch.manual_seed(0)
    more = {"img_size": 56, "depths": (1, 1), "embed_dim": 24, "num_heads": (3, 6)}
    size = {"swin_tiny_patch4_window7_224": 56, "tf_efficientnet_lite0": 160}.get(name, 64)
    model = timm.create_model(name, num_classes=7, **(more if size == 56 else {})).eval()
    preprocess = Preprocess((size, size), size, "bilinear", (0.5,) * 3, (0.5,) * 3)
    target = load_target(model, preprocess=preprocess)
    infos = [i for i in list_layers(target) if i.kind == "logits"]
    assert infos and all(i.shown and i.cam is not None for i in infos)
    x = torch.randn(3, 3, size, size)
    with Capture(target, infos) as capture:
        found = capture.run(x)
        shown = dict(capture.shown)
    for info in infos:
        bias = info.cam.linear.bias  # type: ignore[union-attr]
        average = shown[info.name].mean((2, 3)) + bias
        assert tuple(shown[info.name].shape) == (3, 7, *info.shown)
        torch.testing.assert_close(average, found[info.name][..., 0, 0], rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(found[info.name][..., 0, 0], model(x))


class Bent(Pooled):
    """Something stands between the average and the layer."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.pool(self.act(self.conv(x))).flatten(1).sqrt())


class Largest(Pooled):
    """Maps are not averaged: their largest value counts."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.act(self.conv(x)).amax((2, 3)))


@pytest.mark.parametrize("model", [Bent, Largest, Tiny, TinyViT])
def test_not_found_where_they_are_not(model: type[nn.Module], photos: Path, tmp_path: Path) -> None:
    info = find_layers(load_target(model()), ["head"])[0]
    assert info.shown == () and info.cam is None and "shown" not in info.to_dict()
    if model is Largest:
        store = milanx.extract(Largest(), layers="head", images=photos, out=tmp_path / "run")
        assert bool(store.masks("head", [0]).all())  # the whole view, as ever
        assert "pooled" not in (store.root / "exemplars" / "index.json").read_text()
