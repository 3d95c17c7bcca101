"""Models of torchvision and of open_clip by name."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
import torchvision
from huggingface_hub import constants
from safetensors.torch import save_file

import milanx
from milanx.bench.checks import check_model
from milanx.errors import InputError, MissingWeights
from milanx.targets.capture import Capture, find_layers, list_layers
from milanx.targets.probing import pictures
from milanx.targets.torchvisions import preprocess_of
from milanx.targets.zoo import load_target
from tests.helpers import noise, write_parquet

SIDE = 32
TEXT = {"context_length": 8, "vocab_size": 60, "width": 16, "heads": 2, "layers": 2}
TOWERS: dict[str, dict[str, Any]] = {
    "tiny-vit": {"image_size": SIDE, "layers": 2, "width": 24, "head_width": 12, "patch_size": 8},
    "tiny-timm": {"timm_model_name": "test_vit", "timm_model_pretrained": False,
                  "timm_pool": "", "timm_proj": "linear", "image_size": 160},
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def towers(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Small models that open_clip knows by name."""
    place = tmp_path_factory.mktemp("configs")
    for name, vision in TOWERS.items():
        config = {"embed_dim": 20, "quick_gelu": name == "tiny-vit", "vision_cfg": vision,
                  "text_cfg": TEXT}  # fmt: skip
        (place / f"{name}.json").write_text(json.dumps(config))
    open_clip.add_model_config(place)


@pytest.mark.parametrize("name", ["resnet50", "vit_b_16", "efficientnet_b0", "swin_t"])
def test_views_are_those_of_torchvisions_transforms(name: str) -> None:
    published = torchvision.models.get_model_weights(name).DEFAULT
    preprocess = preprocess_of(published)
    for image in [*noise(2, side=300), noise(1)[0].resize((500, 301))]:
        view = torch.from_numpy(preprocess.view(image).copy()).permute(2, 0, 1)
        found = preprocess.normalise(view[None])[0]
        torch.testing.assert_close(found, published.transforms()(image), atol=1e-6, rtol=1e-5)


def test_a_small_model_of_torchvision(tmp_path: Path) -> None:
    target = load_target("torchvision:squeezenet1_1", random_weights=True)
    assert target.random
    assert target.classes == ()
    layer = "features.3.squeeze"
    assert find_layers(target, [layer])[0].nonlinearity == "relu"
    kept: dict[str, torch.Tensor] = {}
    target.model.get_submodule(layer).register_forward_hook(
        lambda module, args, output: kept.update(plain=output.clone())
    )
    inputs = target.inputs(pictures(target.preprocess.size)[:2])
    with torch.no_grad():
        target.model(inputs)
    with Capture(target, find_layers(target, [layer])) as capture:
        torch.testing.assert_close(capture.run(inputs)[layer], kept["plain"].relu())
    store = milanx.extract("torchvision:squeezenet1_1", random_weights=True, layers=[layer],
                           images=write_parquet(tmp_path / "p.parquet", noise(12)), units="0-3",
                           out=tmp_path / "run")  # fmt: skip
    assert np.asarray(store.maxima(layer)).shape == (12, 4)


def test_detectors_and_segmenters_get_what_they_take() -> None:
    models = torchvision.models.detection
    detector = preprocess_of(models.FasterRCNN_MobileNet_V3_Large_FPN_Weights.DEFAULT)
    assert (detector.mean, detector.std) == ((0.0,) * 3, (1.0,) * 3)
    segments = torchvision.models.segmentation.LRASPP_MobileNet_V3_Large_Weights.DEFAULT
    assert preprocess_of(segments).size == (520, 520)
    assert preprocess_of(None).size == (224, 224)


def test_torchvisions_downloads_are_said_or_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fetched: list[str] = []

    def fetch(url: str, *args: object, **kwargs: object) -> dict[str, torch.Tensor]:
        fetched.append(url)
        return torchvision.models.squeezenet1_1().state_dict()

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", fetch)
    with pytest.raises(MissingWeights, match="HF_HUB_OFFLINE is set"):
        load_target("torchvision:squeezenet1_1")
    assert not fetched
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("milanx.targets.torchvisions.silence", lambda url: "")
    target = load_target("torchvision:squeezenet1_1")
    assert len(fetched) == 1
    said = capsys.readouterr().err
    assert "downloading torchvision:squeezenet1_1" in said and said.strip().endswith("4.7 MB")
    assert target.classes[0] == "tench" and len(target.classes) == 1000
    assert "IMAGENET1K_V1" in target.weights


@pytest.mark.parametrize("name", TOWERS)
def test_towers_of_open_clip_are_read_as_plain_hooks_see_them(name: str) -> None:
    target = load_target(f"clip:{name}", random_weights=True)
    assert target.random
    assert target.tokens == (1, 0)
    found = check_model(target)
    assert found.described > 20
    assert not (found.units or found.rows or found.bent or found.placed or found.shifted)


def test_nothing_is_said_of_weights_that_were_not_asked_for(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    load_target("clip:tiny-vit", random_weights=True)
    assert capsys.readouterr().err == ""
    assert not caplog.records
    logging.getLogger("other").warning("said")
    assert [r.message for r in caplog.records] == ["said"]


def test_units_of_a_tower_are_read_after_its_nonlinearity() -> None:
    target, name = (load_target("clip:tiny-vit", random_weights=True),
                    "transformer.resblocks.1.mlp.c_fc")  # fmt: skip
    info = find_layers(target, [name])[0]
    assert (info.nonlinearity, info.map_size, info.prefix_tokens) == ("quick_gelu", (4, 4), 1)
    kept: dict[str, torch.Tensor] = {}
    target.model.get_submodule(name).register_forward_hook(
        lambda module, args, output: kept.update(plain=output.clone())
    )
    inputs = target.inputs(pictures(target.preprocess.size)[:2])
    with torch.no_grad():
        target.model(inputs)
    plain = kept["plain"] * torch.sigmoid(1.702 * kept["plain"])
    with Capture(target, [info]) as capture:
        found = capture.run(inputs)[name]
    torch.testing.assert_close(found, plain[:, 1:].transpose(1, 2).unflatten(2, (4, 4)))


@pytest.mark.parametrize("name", TOWERS)
def test_pictures_are_those_of_open_clips_transform(name: str) -> None:
    preprocess = load_target(f"clip:{name}", random_weights=True).preprocess
    transform = open_clip.create_model_and_transforms(name)[2]
    for image in [*noise(2, side=200), noise(1)[0].resize((270, 191))]:
        view = torch.from_numpy(preprocess.view(image).copy()).permute(2, 0, 1)
        found = preprocess.normalise(view[None])[0]
        torch.testing.assert_close(found, transform(image), atol=1e-6, rtol=1e-5)


def test_a_towers_weights_come_from_a_checkpoint_of_the_whole(tmp_path: Path) -> None:
    torch.manual_seed(5)
    whole = open_clip.create_model("tiny-vit")
    tensors = {k: v.contiguous() for k, v in whole.state_dict().items()}
    save_file(tensors, tmp_path / "whole.safetensors")
    torch.save({"epoch": 3, "state_dict": {f"module.{k}": v for k, v in tensors.items()}},
               tmp_path / "training.pt")  # fmt: skip
    for file in ("whole.safetensors", "training.pt"):
        target = load_target("clip:tiny-vit", weights=tmp_path / file)
        for key, value in whole.visual.state_dict().items():
            assert torch.equal(target.model.state_dict()[key], value), key
    photos = write_parquet(tmp_path / "p.parquet", noise(12))
    layer = "transformer.resblocks.0"
    store = milanx.extract("clip:tiny-vit", weights=tmp_path / "training.pt", layers=[layer],
                           images=photos, units="0-3", out=tmp_path / "run")  # fmt: skip
    assert np.asarray(store.maxima(layer)).shape == (12, 4)


def test_names_and_tags_that_open_clip_does_not_know() -> None:
    with pytest.raises(InputError, match="open_clip does not know it") as caught:
        load_target("clip:ViT-B-23")
    assert "ViT-B-32" in str(caught.value)
    with pytest.raises(InputError, match="no weights 'opena'") as caught:
        load_target("clip:ViT-B-32/opena")
    assert "did you mean openai" in str(caught.value)
    with pytest.raises(MissingWeights, match="which weights of ViT-B-32"):
        load_target("clip:ViT-B-32")
    assert list_layers(load_target("clip:tiny-vit", random_weights=True))


def test_pretrained_towers_are_announced_or_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, object]] = []
    said: list[tuple[str, str]] = []

    def create(name: str, **options: object) -> torch.nn.Module:
        asked.append(options)
        raise ConnectionError("no network")

    monkeypatch.setattr("open_clip.create_model", create)
    monkeypatch.setattr(
        "milanx.hub.reach.announce_clip", lambda name, tag: said.append((name, tag))
    )
    with pytest.raises(MissingWeights, match="no network"):
        load_target("clip:ViT-B-32/openai")
    assert said == [("ViT-B-32", "openai")]
    assert asked[0]["pretrained"] == "openai"
    assert asked[0]["force_quick_gelu"] is True
