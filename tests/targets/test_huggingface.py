"""Models of transformers: each family's layers, units and pictures against transformers' own."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import timm
import torch
import transformers
from huggingface_hub import constants
from safetensors.torch import save_file
from torch.nn import functional as F

import milanx
from milanx.act.data import model_classes
from milanx.act.reopen import find_target
from milanx.bench.checks import check_model
from milanx.errors import InputError, MissingWeights
from milanx.images.probe import open_images
from milanx.targets.capture import Capture, find_layers, list_layers
from milanx.targets.functions import quick_gelu
from milanx.targets.probing import pictures
from milanx.targets.zoo import Target, load_target
from tests.helpers import noise, write_parquet
from tests.targets.converted import convert
from tests.targets.zoo_of_transformers import FAMILIES, LABELS, SIDE, save

LEVELS = 2.01  # of 255: resizing of tensors and of pictures rounds differently
# A layer of each family behind which a nonlinearity comes: its map, and that nonlinearity.
BENT: dict[str, tuple[str, tuple[int, int], Any]] = {
    "vit": ("vit.layers.1.mlp.fc1", (4, 4), F.gelu),
    "dinov2": ("encoder.layer.1.mlp.fc1", (4, 4), F.gelu),
    "dinov2_registers": ("encoder.layer.1.mlp.fc1", (4, 4), F.gelu),
    "clip": ("vision_model.encoder.layers.1.mlp.fc1", (4, 4), quick_gelu),
    "siglip": ("encoder.layers.1.mlp.fc1", (4, 4), partial(F.gelu, approximate="tanh")),
    "convnext": ("convnext.encoder.stages.1.layers.0.pwconv1", (8, 8), F.gelu),
    "swin": ("swin.encoder.layers.0.blocks.1.mlp.fc1", (8, 8), F.gelu),
    "beit": ("beit.layers.1.mlp.fc1", (5, 5), F.gelu),
    "deit": ("deit.layers.1.mlp.fc1", (4, 4), F.gelu),
    "resnet": ("resnet.encoder.stages.0.layers.0.layer.0.normalization", (16, 16), F.relu),
    "segformer": ("segformer.stages.1.blocks.0.mlp.dwconv", (8, 8), F.gelu),
    "detr": ("model.encoder.layers.0.mlp.fc1", (8, 8), F.relu),
}
BEFORE = {"vit": 1, "dinov2": 1, "dinov2_registers": 5, "clip": 1, "siglip": 0, "beit": 1,
          "deit": 2}  # fmt: skip


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tiny member of each family, saved."""
    place = tmp_path_factory.mktemp("families")
    return {family: save(family, place / family) for family in FAMILIES}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_layer_is_read_as_a_plain_hook_sees_it(family: str, folders: dict[str, Path]) -> None:
    target = load_target(f"hf:{folders[family]}")
    found = check_model(target)
    assert found.described > 20
    assert not (found.units or found.rows or found.bent or found.placed or found.shifted)


def plain(target: Target, family: str, views: torch.Tensor) -> torch.Tensor:
    """A family's layer after its nonlinearity, by a hook: views [b, 3, H, W] give [b, u, h, w]."""
    name, grid, function = BENT[family]
    kept: dict[str, torch.Tensor] = {}
    hook = target.model.get_submodule(name).register_forward_hook(
        lambda module, args, output: kept.update(plain=output.clone())
    )
    with torch.no_grad():
        target.model(target.inputs(views))
    hook.remove()
    values: torch.Tensor = function(kept["plain"])
    if values.ndim == 3:
        return values[:, BEFORE.get(family, 0) :].transpose(1, 2).unflatten(2, grid)
    return values if values.shape[2:] == grid else values.permute(0, 3, 1, 2)


@pytest.mark.parametrize("family", FAMILIES)
def test_units_are_read_after_their_nonlinearity(family: str, folders: dict[str, Path]) -> None:
    target, (name, grid, _) = load_target(f"hf:{folders[family]}"), BENT[family]
    info = find_layers(target, [name])[0]
    assert info.map_size == grid
    assert info.prefix_tokens == BEFORE.get(family, 0)
    assert target.tokens == ((BEFORE[family], 0) if family in BEFORE else None)
    views = pictures(target.preprocess.size)[:2]
    with Capture(target, [info]) as capture:
        found = capture.run(target.inputs(views))[name]
    torch.testing.assert_close(found, plain(target, family, views), atol=1e-6, rtol=1e-5)
    assert found.std() > 1e-4


@pytest.mark.parametrize("family", FAMILIES)
def test_exemplars_are_the_images_of_the_highest_values(
    family: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    layer, images = BENT[family][0], noise(40, side=100)
    photos = write_parquet(tmp_path / "p.parquet", images)
    spec = f"hf:{folders[family]}"
    store = milanx.extract(spec, layers=[layer], images=photos, units="0-3", out=tmp_path / "run")
    target = load_target(spec)
    views = torch.stack([torch.from_numpy(target.preprocess.view(i)).permute(2, 0, 1)
                         for i in images])  # fmt: skip
    expected = plain(target, family, views).amax((2, 3))[:, :4].numpy()
    found = np.asarray(store.maxima(layer))
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())
    for unit in range(4):
        best = store.get(layer, unit)
        assert best.images[0] == store.searched[expected[store.searched, unit].argmax()]


@pytest.mark.parametrize("family", FAMILIES)
def test_pictures_are_the_processors_own(family: str, folders: dict[str, Path]) -> None:
    preprocess = load_target(f"hf:{folders[family]}").preprocess
    scale = 255 * torch.tensor(preprocess.std)[:, None, None]
    for backend, bound in (("pil", 0.01), ("torchvision", LEVELS)):
        processor = transformers.AutoImageProcessor.from_pretrained(
            folders[family], backend=backend
        )
        for image in [*noise(3, side=100), noise(1)[0].resize((120, 71))]:
            own = processor(images=image, return_tensors="pt")["pixel_values"][0]
            view = torch.from_numpy(preprocess.view(image)).permute(2, 0, 1)
            found = preprocess.normalise(view[None])[0]
            if family == "detr":  # keeps the shape of pictures: ours is the middle of it
                top, left = ((own.shape[a + 1] - preprocess.size[a]) // 2 for a in (0, 1))
                own = own[:, top:, left:][:, : found.shape[1], : found.shape[2]]
            assert own.shape == found.shape
            assert float(((own - found) * scale).abs().max()) <= bound


def test_beside_the_picture_a_model_gets_what_its_processor_makes(
    folders: dict[str, Path],
) -> None:
    target = load_target(f"hf:{folders['detr']}")
    masks: list[torch.Tensor] = []
    target.model.register_forward_pre_hook(
        lambda module, args, kwargs: masks.append(kwargs["pixel_mask"]), with_kwargs=True
    )
    with torch.no_grad():
        target.model(torch.randn(3, 3, 64, 64))
        target.model(torch.randn(1, 3, 64, 64), pixel_mask=torch.zeros(1, 64, 64))
    assert masks[0].shape == (3, 64, 64) and bool((masks[0] == 1).all())
    assert bool((masks[1] == 0).all())  # what is given is not changed


@pytest.mark.parametrize("settings", [{}, {"in_chans": 3, "out_indices": [1, 2, 3, 4]}])
def test_a_trunk_of_timms_that_is_merely_named_asks_no_network(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    config = transformers.DetrConfig(
        use_timm_backbone=True, backbone="resnet18", d_model=16, encoder_layers=1,
        decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=32,
        decoder_ffn_dim=32, num_queries=4, num_labels=3,
    )  # fmt: skip
    model = transformers.DetrForObjectDetection(config)
    model.save_pretrained(tmp_path)
    transformers.DetrImageProcessor(
        size={"shortest_edge": 64, "longest_edge": 128}
    ).save_pretrained(tmp_path)
    written = json.loads((tmp_path / "config.json").read_text())
    written |= {"backbone": "resnet18", "use_timm_backbone": True, "backbone_config": None,
                "backbone_kwargs": settings, "use_pretrained_backbone": True}  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(written))
    target = load_target(f"hf:{tmp_path}")
    assert list(target.model.state_dict()) == list(model.state_dict())
    for key, value in model.state_dict().items():
        assert torch.equal(target.model.state_dict()[key], value), key
    written |= {"backbone": "owner/trunk", "use_timm_backbone": False}
    (tmp_path / "config.json").write_text(json.dumps(written))
    with pytest.raises(InputError, match="merely names its trunk, owner/trunk"):
        load_target(f"hf:{tmp_path}")


def test_a_folder_is_a_name_and_its_classes_are_those_of_the_logits(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    target = load_target(str(folders["vit"]))
    assert target.fingerprint == load_target(f"hf:{folders['vit']}").fingerprint
    assert target.classes == tuple(LABELS.values())
    assert model_classes(3, own=target.classes).names == (("tabby cat",), ("trolleybus",),
                                                          ("acorn",))  # fmt: skip
    assert model_classes(3, ["a", "b", "c"], target.classes).names[0] == ("a",)
    imagenet = model_classes(1000)
    assert model_classes(1000, own=[", ".join(n) for n in imagenet.names]) == imagenet
    assert model_classes(1000, own=[f"thing {i}" for i in range(1000)]).names[7] == ("thing 7",)
    assert load_target(f"hf:{folders['dinov2']}").classes == ()
    numbered = transformers.ResNetForImageClassification(transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8], depths=[1], num_labels=4))  # fmt: skip
    numbered.save_pretrained(tmp_path)
    assert load_target(f"hf:{tmp_path}").classes == ()


def test_weights_may_be_random_or_a_file(folders: dict[str, Path], tmp_path: Path) -> None:
    spec = f"hf:{folders['vit']}"
    target = load_target(spec, random_weights=True)
    assert target.random
    assert target.fingerprint == load_target(spec, random_weights=True).fingerprint
    assert target.fingerprint != load_target(spec).fingerprint
    again = load_target(spec, weights=folders["vit"] / "model.safetensors")
    assert again.fingerprint == load_target(spec).fingerprint
    assert not again.random
    save_file({f"module.{k}": v for k, v in again.model.state_dict().items()},
              tmp_path / "a.safetensors")  # fmt: skip
    assert load_target(spec, weights=tmp_path / "a.safetensors").fingerprint == again.fingerprint


def test_a_run_finds_its_target_again(folders: dict[str, Path], tmp_path: Path) -> None:
    spec, photos = f"hf:{folders['dinov2']}", write_parquet(tmp_path / "p.parquet", noise(20))
    milanx.extract(spec, layers=["encoder.layer.0"], images=photos, units="0-1", out=tmp_path / "r")
    known = json.loads((tmp_path / "r" / "run.json").read_text())["target"]
    found = find_target(known)
    assert found.preprocess == load_target(spec).preprocess
    assert found.preprocess.rounds_down
    known["preprocess"].pop("rounds_down")
    with pytest.raises(InputError, match="are not those of the run"):
        find_target(known)


def test_folders_are_found_from_elsewhere(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that was made of relative names knows where they lay."""
    pytest.importorskip("datasets", reason="an optional extra: pip install 'milanx[hf]'")
    there, elsewhere = tmp_path / "there", tmp_path / "elsewhere"
    shutil.copytree(folders["vit"], there / "models" / "vit")
    (there / "photos").mkdir(), elsewhere.mkdir()
    write_parquet(there / "photos" / "train.parquet", noise(20))
    monkeypatch.chdir(there)
    for spec in ("hf:models/vit", "models/vit"):
        milanx.extract(spec, layers=["vit.layers.0"], images="hf:photos:train", units="0-1",
                       out=there / "run", overwrite=True)  # fmt: skip
        told = json.loads((there / "run" / "run.json").read_text())
        monkeypatch.chdir(elsewhere)
        found = find_target(told["target"])
        assert found.name == spec == told["target"]["name"]
        assert len(open_images([told["images"]["sources"][0]["spec"]])) == 20
        monkeypatch.chdir(there)
    (there / "models").rename(tmp_path / "moved")
    monkeypatch.chdir(elsewhere)
    (elsewhere / "models").symlink_to(tmp_path / "moved")  # where its name leads now
    assert find_target(told["target"]).fingerprint == told["target"]["fingerprint"]


def change(folder: Path, name: str, **values: Any) -> None:
    path = folder / name
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_numbers_of_a_processor_are_followed(tmp_path: Path) -> None:
    folder = save("vit", tmp_path)
    change(folder, "preprocessor_config.json", rescale_factor=1 / 127.5, resample=1,
           image_mean=[1.0] * 3, image_std=[1.0] * 3)  # fmt: skip
    found = load_target(f"hf:{folder}").preprocess
    assert found.mean == pytest.approx((0.5,) * 3)
    assert found.std == pytest.approx((0.5,) * 3)
    assert found.interpolation == "lanczos"
    change(folder, "preprocessor_config.json", do_normalize=False, do_rescale=False)
    found = load_target(f"hf:{folder}").preprocess
    views = torch.full((1, 3, 2, 2), 77, dtype=torch.uint8)
    torch.testing.assert_close(found.normalise(views), views.float())
    change(folder, "preprocessor_config.json", resample=5)
    with pytest.raises(InputError, match="filter 5"):
        load_target(f"hf:{folder}")


def test_no_processor_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = save("vit", tmp_path)
    (folder / "preprocessor_config.json").unlink()
    found = load_target(f"hf:{folder}").preprocess
    assert found.size == (SIDE, SIDE)
    assert found.mean == (0.5, 0.5, 0.5)
    assert "has no preprocessor_config.json" in capsys.readouterr().err


def test_what_is_not_in_the_file_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = save("vit", tmp_path)
    model = transformers.AutoModel.from_pretrained(folder, add_pooling_layer=False)
    model.save_pretrained(folder)
    change(folder, "config.json", architectures=["ViTModel"])
    load_target(f"hf:{folder}")
    said = capsys.readouterr().err
    assert "2 tensors" in said and "pooler.dense.weight" in said


def test_tokens_that_are_not_as_declared_are_said(
    folders: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    target = load_target(f"hf:{folders['dinov2_registers']}")
    list_layers(target)
    assert capsys.readouterr().err == ""
    target.tokens = (1, 0)
    found = {info.name: info for info in list_layers(target)}
    assert found["encoder.layer.1.mlp.fc1"].prefix_tokens == 5
    said = capsys.readouterr().err
    assert "5 tokens before the patches" in said and "declares 1 and 0" in said


def test_what_takes_more_than_images_is_refused(tmp_path: Path) -> None:
    config = transformers.GPT2Config(n_embd=16, n_layer=1, n_head=2, vocab_size=40)
    transformers.GPT2LMHeadModel(config).save_pretrained(tmp_path / "gpt2")
    with pytest.raises(InputError, match="takes texts") as caught:
        load_target(f"hf:{tmp_path / 'gpt2'}")
    assert "choose a model that takes pixel_values" in str(caught.value)
    (tmp_path / "vilt").mkdir()
    (tmp_path / "vilt" / "config.json").write_text(json.dumps(
        {"model_type": "vilt", "architectures": ["ViltModel"]}))  # fmt: skip
    with pytest.raises(InputError, match="takes texts"):
        load_target(f"hf:{tmp_path / 'vilt'}")


def test_pickles_and_code_are_refused(tmp_path: Path) -> None:
    folder = save("resnet", tmp_path / "a")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"pytorch_model\.bin could run code"):
        load_target(f"hf:{folder}")
    (folder / "pytorch_model.bin").unlink()
    with pytest.raises(InputError, match=r"there is no model\.safetensors"):
        load_target(f"hf:{folder}")
    (folder / "ran.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    change(folder, "config.json", model_type="mine", auto_map={"AutoModel": "ran.Mine"})
    with pytest.raises(InputError, match="code of its own, which is not run"):
        load_target(f"hf:{folder}")
    assert not (tmp_path / "ran").exists()


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"there is no .*config.json"):
        load_target(f"hf:{tmp_path}")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(InputError, match="cannot be read"):
        load_target(f"hf:{tmp_path}")
    (tmp_path / "config.json").write_text('{"architecture": "vit_tiny_patch16_224"}')
    with pytest.raises(InputError, match="local-dir"):
        load_target(f"hf:{tmp_path}")
    with pytest.raises(InputError, match="no folder, and no owner/name"):
        load_target("hf:nothing")
    folder = save("vit", tmp_path / "vit")
    (folder / "model.safetensors").write_bytes(b"\x10" * 100)
    with pytest.raises(InputError, match=r"weights of .* cannot be read"):
        load_target(f"hf:{folder}")


def test_offline_nothing_is_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", refuse)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(MissingWeights, match="cannot be had") as caught:
        load_target("hf:owner/name")
    assert len(caught.value.ways_out) > 2


def test_what_was_downloaded_serves_where_the_hub_is_silent(
    monkeypatch: pytest.MonkeyPatch, folders: dict[str, Path]
) -> None:
    def silent(*args: object, **kwargs: object) -> None:
        raise ConnectionError("no network")

    asked: list[object] = []

    def cached(repository: str, **options: object) -> str:
        asked.append(options["local_files_only"])
        return str(folders["vit"])

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", silent)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", cached)
    own = load_target(f"hf:{folders['vit']}").fingerprint
    assert load_target("hf:owner/name@v1").fingerprint == own
    assert asked == [True]


def test_a_download_is_said_with_its_size_and_takes_no_pickle(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    folders: dict[str, Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    files = {"config.json": 700, "model.safetensors": 22_000_000, "pytorch_model.bin": 22_000_000,
             "preprocessor_config.json": 300, "tf_model.h5": 22_000_000}  # fmt: skip
    wanted: list[list[str]] = []

    def info(self: object, repository: str, **options: object) -> SimpleNamespace:
        return SimpleNamespace(sha="0" * 40, siblings=[
            SimpleNamespace(rfilename=n, size=s) for n, s in files.items()])  # fmt: skip

    def download(repository: str, *, allow_patterns: list[str], **options: object) -> str:
        wanted.append(sorted(allow_patterns))
        return str(folders["vit"])

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("milanx.targets.huggingface.check_answers", lambda: None)
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", info)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert load_target("hf:owner/name").classes == tuple(LABELS.values())
    said = "downloading hf:owner/name (3 files) from owner/name on the Hugging Face Hub: 22 MB"
    assert capsys.readouterr().err.strip() == said
    assert wanted == [["config.json", "model.safetensors", "preprocessor_config.json"]]
    del files["model.safetensors"]
    with pytest.raises(InputError, match=r"pytorch_model\.bin could run code"):
        load_target("hf:owner/name")


def test_the_same_weights_in_timm_and_transformers_give_the_same_exemplars(
    tmp_path: Path,
) -> None:
    torch.manual_seed(0)
    source = timm.create_model("vit_tiny_patch16_224", depth=2, num_classes=5)
    given = load_target(source, preprocess=load_target("vit_tiny_patch16_224",
                                                       random_weights=True).preprocess)  # fmt: skip
    folder = convert(source, tmp_path / "folder")
    photos = write_parquet(tmp_path / "p.parquet", [i.resize((160, 160)) for i in noise(30)])
    layers = {"blocks.1.mlp.fc1": "vit.layers.1.mlp.fc1", "blocks.1": "vit.layers.1"}
    one = milanx.extract(source, layers=list(layers), images=photos, units="0-15",
                         preprocess=given.preprocess, out=tmp_path / "timm")  # fmt: skip
    other = milanx.extract(f"hf:{folder}", layers=list(layers.values()), images=photos,
                           units="0-15", out=tmp_path / "hf")  # fmt: skip
    for ours, theirs in layers.items():
        assert np.array_equal(one.images(ours), other.images(theirs))
        np.testing.assert_allclose(one.activations(ours), other.activations(theirs), atol=1e-4)
