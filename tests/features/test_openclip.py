"""Encoders of open_clip, on tiny models with random weights saved to a folder and loaded back."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch.nn import functional as F

from milanx.errors import InputError, MissingWeights
from milanx.features.encoder import MASKED, pool
from milanx.features.openclip import OpenClipEncoder, OpenClipSpec, mask_box

TEXT = {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
VIT = {"image_size": 32, "patch_size": 8, "width": 64, "layers": 3, "head_width": 16}
SIGLIP = {"timm_model_name": "vit_tiny_patch16_224", "timm_model_pretrained": False,
          "timm_pool": "map", "timm_proj": "", "image_size": 224}  # fmt: skip
TOWERS: dict[str, dict[str, Any]] = {
    "vit": VIT,
    "layer scale": {**VIT, "ls_init_value": 0.3, "no_ln_pre": True},
    "custom": {**VIT, "block_type": "custom", "qk_norm": True, "scale_attn": True},
    "average": {**VIT, "pool_type": "avg"},
    "average then norm": {**VIT, "pool_type": "avg", "final_ln_after_pool": True},
    "coca": {**VIT, "attentional_pool": True, "attn_pooler_heads": 4},
    "rest": {**VIT, "image_size": 37},
    "siglip": SIGLIP,
    "resnet": {"layers": [1, 1, 1, 1], "width": 8, "image_size": 64, "head_width": 16},
    "convnext": {"timm_model_name": "convnext_atto", "timm_model_pretrained": False,
                 "timm_pool": "", "timm_proj": "linear", "image_size": 64},
    "efficientnet": {"timm_model_name": "tf_efficientnet_lite0", "timm_model_pretrained": False,
                     "timm_pool": "avg", "timm_proj": "linear", "image_size": 64},
}  # fmt: skip
EXACT = ("vit", "layer scale", "custom", "average", "average then norm", "convnext", "efficientnet")
BY_CLASS = ("vit", "layer scale", "custom", "rest")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Write each tower's model to a folder, once it is asked for."""
    root = tmp_path_factory.mktemp("clips")

    class Folders(dict[str, Path]):
        def __missing__(self, name: str) -> Path:
            self[name] = write_clip(root / name.replace(" ", "-"), TOWERS[name])
            return self[name]

    return Folders()


def write_clip(folder: Path, vision: dict[str, Any]) -> Path:
    """Write a model whose every weight, biases and norms too, is random."""
    folder.mkdir()
    model = {"embed_dim": 24, "vision_cfg": vision, "text_cfg": TEXT}
    statistics = {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.25], "interpolation": "bilinear"}
    config = {"model_cfg": model, "preprocess_cfg": statistics}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    torch.manual_seed(0)
    clip = open_clip.create_model(f"local-dir:{folder}", load_weights=False)
    state = {}
    for name, value in clip.state_dict().items():
        if value.is_floating_point() and "running" not in name and value.ndim == 1:
            value = value + 0.2 * torch.randn_like(value)
        state[name] = value.contiguous().clone()
    save_file(state, folder / "open_clip_model.safetensors")
    return folder


def make(folder: Path, **settings: Any) -> OpenClipEncoder:
    return OpenClipEncoder(OpenClipSpec(str(folder), **settings))


def views(count: int = 3, side: int = 48, seed: int = 0) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (count, 8, 8, 3), np.uint8)
    size, way = (side, side), Image.Resampling.BICUBIC
    big = np.stack([np.asarray(Image.fromarray(s).resize(size, way)) for s in small])
    return torch.from_numpy(big).permute(0, 3, 1, 2)


def inputs(encoder: OpenClipEncoder, of: torch.Tensor) -> torch.Tensor:
    """What open_clip's own transform makes of square views that already have the right size."""
    mean, std = torch.tensor([0.4, 0.5, 0.6]), torch.tensor([0.2, 0.3, 0.25])
    return (of.float() / 255 - mean[:, None, None]) / std[:, None, None]


@pytest.mark.parametrize("tower", TOWERS)
def test_shapes_and_the_interface_of_the_small_encoder(
    folders: dict[str, Path], tower: str
) -> None:
    encoder = make(folders[tower])
    dense = encoder.dense(views())
    grid = encoder.spec.grid
    assert dense.shape == (3, grid, grid, encoder.width) and dense.dtype == torch.float32
    assert encoder.width == encoder.last_channels + encoder.spec.pixel_channels
    assert torch.isfinite(dense).all() and dense[..., : encoder.last_channels].std() > 0
    torch.testing.assert_close(encoder.dense(views()[1:2]), dense[1:2], rtol=1e-3, atol=1e-4)
    rows = encoder.joint(pool(dense, torch.ones(3, grid, grid)))
    assert rows.shape == (3, 2, 24) == (3, 2, encoder.spec.joint)
    torch.testing.assert_close(rows.norm(dim=-1), torch.ones(3, 2))
    assert not any(p.requires_grad for p in encoder.parameters()) and not encoder.clip.training


@pytest.mark.parametrize("tower", EXACT)
def test_the_whole_view_is_open_clips_image_feature(folders: dict[str, Path], tower: str) -> None:
    encoder = make(folders[tower])
    of = views(side=encoder.spec.image_size)
    expected = encoder.clip.encode_image(inputs(encoder, of), normalize=True)
    torch.testing.assert_close(encoder.joint(encoder.whole(of)), expected, rtol=1e-4, atol=1e-5)
    if tower in BY_CLASS:
        ones = torch.ones(3, encoder.spec.grid, encoder.spec.grid)
        seen = encoder.joint(encoder.attended(of, ones, depth=2))
        torch.testing.assert_close(seen, expected, rtol=1e-4, atol=1e-5)
        boxes = encoder.joint(encoder.cropped(of, torch.ones(3, 5, 5)))
        torch.testing.assert_close(boxes, expected, rtol=1e-4, atol=1e-5)
    else:  # patches are averaged: pooled dense features say the same
        pooled = pool(encoder.dense(of), torch.zeros(3, encoder.spec.grid, encoder.spec.grid))
        torch.testing.assert_close(encoder.joint(pooled[:, MASKED]), expected, rtol=1e-4, atol=1e-5)


def plain_layer_norm(x: torch.Tensor, norm: Any) -> torch.Tensor:
    centred = x - x.mean(-1, keepdim=True)
    deviation = (centred.square().mean(-1, keepdim=True) + norm.eps).sqrt()
    return centred / deviation * norm.weight + norm.bias


def test_value_path_equals_a_plain_one(folders: dict[str, Path]) -> None:
    """The formula of MaskCLIP written out from the weights, block by block."""
    encoder = make(folders["vit"])
    assert encoder.spec.dense == "auto"
    of = views(side=32)
    visual = encoder.clip.visual
    x = visual.conv1(inputs(encoder, of)).flatten(2).transpose(1, 2)
    x = torch.cat([visual.class_embedding.expand(3, 1, 64), x], 1) + visual.positional_embedding
    x = visual.ln_pre(x)
    *first, last = visual.transformer.resblocks
    for block in first:
        x = block(x)
    weight, bias = last.attn.in_proj_weight[128:], last.attn.in_proj_bias[128:]
    values = plain_layer_norm(x, last.ln_1) @ weight.T + bias
    sent = values @ last.attn.out_proj.weight.T + last.attn.out_proj.bias
    expected = plain_layer_norm(sent, visual.ln_post)[:, 1:].unflatten(1, (4, 4))
    dense = encoder.dense(of)
    torch.testing.assert_close(dense[..., :64], expected, rtol=1e-4, atol=1e-4)
    joint = F.normalize(expected @ visual.proj, dim=-1)
    torch.testing.assert_close(encoder.joint(dense), joint, rtol=1e-4, atol=1e-4)
    alone = x + sent
    alone = alone + last.mlp(plain_layer_norm(alone, last.ln_2))
    expected = plain_layer_norm(alone, visual.ln_post)[:, 1:].unflatten(1, (4, 4))
    kept = make(folders["vit"], dense="self").dense(of)
    torch.testing.assert_close(kept[..., :64], expected, rtol=1e-4, atol=1e-4)


def test_plain_tokens_and_stages_are_open_clips(folders: dict[str, Path]) -> None:
    encoder = make(folders["vit"], dense="plain", stages=(0, 2))
    of = views(side=32)
    visual = encoder.clip.visual
    found = visual.forward_intermediates(inputs(encoder, of))["image_intermediates"]
    dense = encoder.dense(of)
    assert encoder.width == 3 * 64 + encoder.spec.pixel_channels
    last = visual.ln_post(found[2].permute(0, 2, 3, 1))
    torch.testing.assert_close(dense[..., :64], last, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(dense[..., 64:128], found[0].permute(0, 2, 3, 1))
    torch.testing.assert_close(dense[..., 128:192], found[2].permute(0, 2, 3, 1))


@pytest.mark.parametrize("tower", ["coca", "resnet", "siglip"])
def test_attention_pooling_is_read_by_its_values(folders: dict[str, Path], tower: str) -> None:
    """A place that attention sees alone is pooled to its own value: what joint says of it."""
    encoder = make(folders[tower])
    features = torch.randn(2, encoder.last_channels)
    visual = encoder.clip.visual
    if tower == "coca":
        pooler = visual.attn_pool
        width = pooler.attn.embed_dim
        attn = pooler.attn
        weight = attn.v_proj_weight if attn.in_proj_weight is None else attn.in_proj_weight[-width:]
        value = plain_layer_norm(features, pooler.ln_k) @ weight.T + attn.in_proj_bias[-width:]
        sent = value @ attn.out_proj.weight.T + attn.out_proj.bias
        expected = plain_layer_norm(sent, visual.ln_post) @ visual.proj
    elif tower == "siglip":
        pooler = visual.trunk.attn_pool
        value = features @ pooler.kv.weight[192:].T + pooler.kv.bias[192:]
        sent = value @ pooler.proj.weight.T + pooler.proj.bias
        expected = visual.trunk.head(sent + pooler.mlp(plain_layer_norm(sent, pooler.norm)))
    else:
        pooling = visual.attnpool
        value = features @ pooling.v_proj.weight.T + pooling.v_proj.bias
        expected = value @ pooling.c_proj.weight.T + pooling.c_proj.bias
    torch.testing.assert_close(
        encoder.joint(features), F.normalize(expected, dim=-1), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("tower", ["vit", "rest", "efficientnet", "coca"])
def test_a_cell_of_the_grid_is_the_same_part_of_the_view(
    folders: dict[str, Path], tower: str
) -> None:
    """What changes in one cell of the view changes that cell of the features the most."""
    stages = (1,) if tower == "efficientnet" else ()  # its last map sees everything everywhere
    encoder = make(folders[tower], dense="self" if tower in BY_CLASS else "auto", stages=stages)
    grid, side = encoder.spec.grid, 16 * encoder.spec.grid
    base = torch.full((1, 3, side, side), 128, dtype=torch.uint8)
    row, column = grid - 1, 0
    changed = base.clone()
    changed[..., row * 16 : (row + 1) * 16, column * 16 : (column + 1) * 16] = 255
    dense = encoder.dense(torch.cat([base, changed]))
    pixels = (dense[1] - dense[0])[..., -10:-7]
    expected = torch.zeros(grid, grid)
    expected[row, column] = 1
    torch.testing.assert_close(pixels.mean(-1) / pixels.mean(-1).max(), expected, atol=0.05, rtol=0)
    part = slice(encoder.last_channels, -10) if stages else slice(0, encoder.last_channels)
    moved = (dense[1] - dense[0])[..., part].norm(dim=-1)
    assert int(moved.argmax()) == row * grid + column


def test_value_path_keeps_place_where_plain_tokens_spread(folders: dict[str, Path]) -> None:
    """In the last block nothing of a patch reaches another one."""
    encoder = make(folders["vit"])
    tower: Any = encoder._tower
    tokens = torch.randn(1, 17, 64)
    other = tokens.clone()
    other[0, 5] = torch.randn(64)
    for way in ("value", "self"):
        tower.way = way
        changed = (tower._alone(tokens) - tower._alone(other)).abs().sum(-1)[0] > 1e-5
        assert changed.nonzero().flatten().tolist() == [5]


def test_a_masked_class_token_does_not_see_the_rest(folders: dict[str, Path]) -> None:
    """Against the last block's attention of the class token written out over the mask alone."""
    encoder = make(folders["vit"])
    of = views(side=32)
    mask = torch.zeros(3, 4, 4)
    mask[:, 1:3, 2:] = 1
    mask[2] = torch.rand(4, 4)
    visual = encoder.clip.visual
    last = visual.transformer.resblocks[-1]
    out = visual.forward_intermediates(
        inputs(encoder, of), indices=[1], intermediates_only=True, output_fmt="NLC",
        output_extra_tokens=True,
    )  # fmt: skip
    x = torch.cat([out["image_intermediates_prefix"][0], out["image_intermediates"][0]], 1)
    q, k, v = (last.ln_1(x) @ last.attn.in_proj_weight.T + last.attn.in_proj_bias).chunk(3, -1)
    rows = []
    for i in range(3):
        heads = []
        for h in range(4):
            part = slice(16 * h, 16 * h + 16)
            e = (k[i, :, part] @ q[i, 0, part] / math.sqrt(16)).exp()
            e = e * torch.cat([torch.ones(1), mask[i].flatten()])
            heads.append((e / e.sum()) @ v[i, :, part])
        y = x[i, 0] + last.attn.out_proj(torch.cat(heads))
        rows.append(visual.ln_post(y + last.mlp(last.ln_2(y))))
    expected = torch.stack(rows)
    torch.testing.assert_close(encoder.attended(of, mask), expected, rtol=1e-3, atol=1e-4)
    whole = encoder.attended(of[:1], torch.zeros(1, 4, 4))
    torch.testing.assert_close(whole, encoder.whole(of[:1]), rtol=1e-4, atol=1e-4)
    with pytest.raises(InputError, match="last 3 blocks"):
        encoder.attended(of, mask, depth=3)
    with pytest.raises(InputError, match="no class token"):
        make(folders["average"]).attended(of, mask)


def test_crops_are_the_boxes_of_the_masks(folders: dict[str, Path]) -> None:
    mask = torch.zeros(10, 10)
    mask[2:4, 5:9] = 1
    assert mask_box(mask, (100, 200)) == (12, 48, 92, 188)
    assert mask_box(torch.zeros(10, 10), (100, 200)) == (0, 100, 0, 200)
    mask[0, 0] = mask[9, 9] = 1
    assert mask_box(mask, (50, 50)) == (0, 50, 0, 50)
    encoder = make(folders["vit"])
    of = views(1, side=64)
    corner = torch.zeros(1, 64, 64)
    corner[:, :20, 30:] = 1
    other = of.clone()
    other[..., 30:, :] = 0
    torch.testing.assert_close(encoder.cropped(of, corner), encoder.cropped(other, corner))
    assert not torch.allclose(encoder.cropped(of, corner), encoder.whole(of), atol=1e-3)


def test_texts_are_open_clips(folders: dict[str, Path]) -> None:
    encoder = make(folders["vit"])
    texts = ["a dog", "a cat on a mat", "snow"]
    tokens = open_clip.get_tokenizer(f"local-dir:{folders['vit']}")(texts)
    expected = encoder.clip.encode_text(tokens, normalize=True)
    torch.testing.assert_close(encoder.texts(texts, batch_size=2), expected)
    assert encoder.texts([]).shape == (0, 24)


def test_grids_may_be_coarser(folders: dict[str, Path]) -> None:
    fine, coarse = make(folders["vit"]), make(folders["vit"], grid=2)
    of = views(side=32)
    expected = fine.dense(of).unflatten(2, (2, 2)).unflatten(1, (2, 2)).mean((2, 4))
    channels = fine.last_channels
    torch.testing.assert_close(coarse.dense(of)[..., :channels], expected[..., :channels])


def test_fingerprints_tell_what_changes_dense_features(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    encoder = make(folders["vit"])
    assert encoder.fingerprint() == make(folders["vit"], dense="value").fingerprint()
    changed = {
        make(folders["vit"], dense="plain").fingerprint(),
        make(folders["vit"], stages=(1,)).fingerprint(),
        make(folders["vit"], grid=2).fingerprint(),
        make(folders["vit"], edges=False).fingerprint(),
        make(folders["layer scale"]).fingerprint(),
        make(folders["vit"], pretrained="random", seed=1).fingerprint(),
        make(folders["vit"], pretrained="random", seed=2).fingerprint(),
        encoder.fingerprint(),
    }
    assert len(changed) == 8
    moved = tmp_path / "elsewhere"
    folders["vit"].rename(moved)
    try:
        assert make(moved).fingerprint() == encoder.fingerprint()
    finally:
        moved.rename(folders["vit"])
    assert OpenClipSpec.from_dict(json.loads(json.dumps(asdict(encoder.spec)))) == encoder.spec
    torch.manual_seed(5)
    drawn = torch.rand(1)
    torch.manual_seed(5)
    make(folders["vit"], pretrained="random")
    assert torch.rand(1) == drawn  # the caller's randomness is left alone


def test_errors_name_the_ways_out(folders: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="did you mean ViT-B-16"):
        make(Path("ViT-B16"))
    with pytest.raises(InputError, match="its tags are openai"):
        make(Path("ViT-B-16"))
    with pytest.raises(InputError, match="no way 'values'"):
        make(folders["vit"], dense="values")
    with pytest.raises(InputError, match="not for CLIP's ResNets"):
        make(folders["resnet"], dense="value")
    with pytest.raises(InputError, match="has no stages"):
        make(folders["vit"], stages=(9,))
    with pytest.raises(InputError, match="count from 0"):
        make(folders["vit"], stages=(-1,))
    for name in ("open_clip_config.json",):
        (tmp_path / name).write_text((folders["vit"] / name).read_text())
    with pytest.raises(MissingWeights) as found:
        make(tmp_path)
    assert len(found.value.ways_out) == 3
    with pytest.raises(MissingWeights, match="cannot be had here"):
        OpenClipEncoder(OpenClipSpec("hf-hub:nobody/nothing-at-all"))
