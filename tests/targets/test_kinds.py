"""Parts for images of larger models, and processors that do more than resize and normalise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as t

from milanx.errors import InputError
from milanx.targets.kinds import TOWERS
from milanx.targets.processors import in_patches
from milanx.targets.zoo import load_target
from tests.helpers import noise
from tests.targets.zoo_of_transformers import WIDTHS, save

WIDTH = 24
TEXT = {"hidden_size": WIDTH, "num_hidden_layers": 1, "num_attention_heads": 2,
        "intermediate_size": 32, "vocab_size": 60, "bos_token_id": 1, "eos_token_id": 2,
        "pad_token_id": 0, "max_position_embeddings": 32, "project_dim": WIDTH}  # fmt: skip
DINO = {k: v for k, v in WIDTHS.items() if k != "intermediate_size"} | {"mlp_ratio": 2}
BLIP2 = {
    "vision_config": WIDTHS,
    "qformer_config": {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
                       "intermediate_size": 16, "encoder_hidden_size": WIDTH, "vocab_size": 60,
                       "use_qformer_text_input": True},
    "text_config": {"model_type": "opt", "vocab_size": 60, "hidden_size": 16,
                    "num_hidden_layers": 1, "num_attention_heads": 2, "ffn_dim": 16,
                    "word_embed_proj_dim": 16},
}  # fmt: skip
# By kind: the whole that is saved, and the settings of its part for images, or of all of it.
WHOLES: dict[str, tuple[str, dict[str, Any]]] = {
    "align": ("AlignModel", {"vision_config": {
        "width_coefficient": 0.25, "depth_coefficient": 0.25, "hidden_dim": 320}}),
    "altclip": ("AltCLIPModel", {"vision_config": WIDTHS}),
    "blip": ("BlipModel", {"vision_config": WIDTHS}),
    "blip-2": ("Blip2ForImageTextRetrieval", BLIP2),
    "chinese_clip": ("ChineseCLIPModel", {"vision_config": WIDTHS}),
    "clip": ("CLIPModel", {"vision_config": WIDTHS}),
    "clipseg": ("CLIPSegForImageSegmentation", {"vision_config": WIDTHS, "extract_layers": [0, 1]}),
    "metaclip_2": ("MetaClip2Model", {"vision_config": WIDTHS}),
    "siglip": ("SiglipModel", {"vision_config": WIDTHS}),
    "siglip2": ("Siglip2Model", {"vision_config": {
        k: v for k, v in WIDTHS.items() if k != "image_size"} | {"num_patches": 16}}),
    "tipsv2": ("Tipsv2Model", {"vision_config": DINO}),
}  # fmt: skip


def test_every_part_is_saved_in_a_whole_here() -> None:
    assert set(WHOLES) == set(TOWERS)


@pytest.mark.parametrize("kind", WHOLES)
def test_the_part_for_images_has_the_weights_of_the_whole(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, settings = WHOLES[kind]
    torch.manual_seed(0)
    made = getattr(t, name)
    whole = made(made.config_class(**{"text_config": TEXT} | settings)).eval()
    with torch.no_grad():  # no two tensors alike
        for parameter in whole.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    whole.save_pretrained(tmp_path)
    target = load_target(f"hf:{tmp_path}")
    assert type(target.model).__name__ == TOWERS[kind]
    assert "not in its file" not in capsys.readouterr().err
    found = dict(target.model.named_parameters())
    ours = {id(p): name for name, p in whole.named_parameters()}
    assert len(found) > 10
    for own, value in found.items():
        same = [name for name in ours.values() if name.endswith(own)]
        assert any(torch.equal(whole.get_parameter(name), value) for name in same), own


def test_a_classifier_of_such_a_kind_stays_one(tmp_path: Path) -> None:
    config = t.CLIPConfig(text_config=TEXT, vision_config=WIDTHS, num_labels=3)
    t.CLIPForImageClassification(config).save_pretrained(tmp_path)
    assert type(load_target(f"hf:{tmp_path}").model).__name__ == "CLIPForImageClassification"


def test_patches_are_those_of_the_processor(tmp_path: Path) -> None:
    config = t.Siglip2VisionConfig(**{k: v for k, v in WIDTHS.items() if k != "image_size"},
                                   num_patches=16)  # fmt: skip
    t.Siglip2VisionModel(config).save_pretrained(tmp_path)
    t.Siglip2ImageProcessor(patch_size=8, max_num_patches=16).save_pretrained(tmp_path)
    target = load_target(f"hf:{tmp_path}")
    assert target.preprocess.size == (32, 32)
    image = noise(1)[0].resize((32, 32))
    processor = t.AutoImageProcessor.from_pretrained(tmp_path, backend="pil")
    made = processor(images=image, return_tensors="pt")
    view = torch.from_numpy(target.preprocess.view(image)).permute(2, 0, 1)[None]
    torch.testing.assert_close(in_patches(target.inputs(view), 8), made["pixel_values"])
    with torch.no_grad():
        own = target.model(target.inputs(view)).last_hidden_state
        handed = type(target.model).from_pretrained(tmp_path)(**made).last_hidden_state
    torch.testing.assert_close(own, handed)


def test_a_masked_encoder_sees_all_patches_in_their_order(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    t.ViTMAEModel(t.ViTMAEConfig(**WIDTHS)).save_pretrained(tmp_path)
    target = load_target(f"hf:{tmp_path}")
    assert "is shown all" in capsys.readouterr().err
    with torch.no_grad():
        for side in (32, 48):
            pictures = torch.randn(2, 3, side, side)
            found = target.model(pictures, interpolate_pos_encoding=True)
            assert found.last_hidden_state.shape[1] == 1 + (side // 8) ** 2
            assert found.ids_restore[1].tolist() == list(range((side // 8) ** 2))


@pytest.mark.parametrize("settings", [
    {}, {"include_top": False}, {"rescale_offset": True, "rescale_factor": 1 / 127.5},
    {"do_normalize": False}, {"do_normalize": False, "do_rescale": False},
])  # fmt: skip
def test_efficientnets_pictures_are_its_processors(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    folder = save("resnet", tmp_path)
    t.EfficientNetImageProcessorPil(size={"height": 40, "width": 40}, image_std=[0.4, 0.5, 0.6],
                                    **settings).save_pretrained(folder)  # fmt: skip
    preprocess = load_target(f"hf:{folder}").preprocess
    processor = t.AutoImageProcessor.from_pretrained(folder, backend="pil")
    for image in (noise(1)[0].resize((120, 71)), noise(1, side=97)[0]):
        own = processor(images=image, return_tensors="pt")["pixel_values"]
        view = torch.from_numpy(preprocess.view(image)).permute(2, 0, 1)[None]
        torch.testing.assert_close(preprocess.normalise(view), own, atol=1e-5, rtol=1e-5)


def test_a_processor_without_a_size_shows_the_middle_at_a_size_that_it_takes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = t.GLPNConfig(hidden_sizes=[8, 16, 16, 16], depths=[1] * 4, decoder_hidden_size=16,
                          num_attention_heads=[1, 2, 2, 2])  # fmt: skip
    t.GLPNModel(config).save_pretrained(tmp_path)
    t.GLPNImageProcessor(size_divisor=32).save_pretrained(tmp_path)
    target = load_target(f"hf:{tmp_path}")
    assert target.preprocess.size == (224, 224) and target.preprocess.resize == 224
    assert "made for pictures of any shape" in capsys.readouterr().err


def test_a_trunk_that_is_taller_than_wide_is_shown_such_pictures(tmp_path: Path) -> None:
    config = t.VitPoseBackboneConfig(hidden_size=WIDTH, num_hidden_layers=1, num_attention_heads=2,
                                     image_size=[64, 48], patch_size=[16, 16])  # fmt: skip
    t.VitPoseBackbone(config).save_pretrained(tmp_path)
    assert load_target(f"hf:{tmp_path}").preprocess.size == (64, 48)


def test_a_package_that_is_missing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(config: object) -> None:
        raise ImportError("\nThis kind requires the natten library. Install it by ...")

    folder = save("resnet", tmp_path)
    monkeypatch.setattr(t.ResNetForImageClassification, "__init__", lambda self, c: absent(c))
    for random in (True, False):
        with pytest.raises(InputError, match="requires the natten library") as caught:
            load_target(f"hf:{folder}", random_weights=random)
        assert "Install it by" not in str(caught.value)
