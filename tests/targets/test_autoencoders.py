"""Files of sparse autoencoders, each as its maker writes it, against its own plain encoder."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from milanx.errors import InputError
from milanx.targets.autoencoders import agrees
from milanx.targets.saereaders import open_autoencoder

D, N = 6, 20
Tensors = dict[str, torch.Tensor]
Plain = Callable[[torch.Tensor], torch.Tensor]


def weights(seed: int = 0) -> Tensors:
    """Return the tensors that most of them have, none of them zero."""
    torch.manual_seed(seed)
    return {"W_enc": torch.randn(D, N), "b_enc": torch.randn(N), "W_dec": torch.randn(N, D),
            "b_dec": torch.randn(D)}  # fmt: skip


def activations() -> torch.Tensor:
    torch.manual_seed(9)
    return 3 * torch.randn(50, D)


def only_top(x: torch.Tensor, k: int) -> torch.Tensor:
    """Keep the k largest of each row, by sorting: the slow and obvious version."""
    made = torch.zeros_like(x)
    for row, line in enumerate(x.tolist()):
        for column in sorted(range(len(line)), key=lambda c, line=line: -line[c])[:k]:
            made[row, column] = line[column]
    return made


def normed(x: torch.Tensor) -> torch.Tensor:
    """The layer norm of SAELens and ViT-Prisma: unbiased deviation plus epsilon, no weights."""
    x = x - x.mean(1, keepdim=True)
    return x / (((x**2).sum(1, keepdim=True) / (D - 1)).sqrt() + 1e-5)


def check(path: Path, plain: Plain, **facts: str) -> None:
    """Compare what is read with a plain encoder, on a map."""
    lens, x = open_autoencoder(path), activations()
    expected = plain(x)
    assert 0 < int((expected != 0).sum()) < expected.numel()  # it keeps some and not all
    maps = x.view(2, 5, 5, D).permute(0, 3, 1, 2)
    found = lens(maps).permute(0, 2, 3, 1).reshape(50, N)
    torch.testing.assert_close(found, expected)
    assert (lens.width, lens.units) == (D, N)
    assert not lens.rectified or bool((found >= 0).all())
    assert {k: lens.facts()[k] for k in facts} == facts


# SAELens: cfg.json, sae_weights.safetensors


def saelens(folder: Path, tensors: Tensors, **cfg: Any) -> Path:
    folder.mkdir(exist_ok=True)
    save_file(tensors, folder / "sae_weights.safetensors")
    known = {"d_in": D, "d_sae": N, "dtype": "float32", "apply_b_dec_to_input": True,
             "normalize_activations": "none", "reshape_activations": "none"}  # fmt: skip
    (folder / "cfg.json").write_text(json.dumps(known | cfg))
    return folder


@pytest.mark.parametrize("subtracted", [True, False])
@pytest.mark.parametrize("norm", ["none", "layer_norm", "constant_norm_rescale"])
def test_saelens_standard(tmp_path: Path, norm: str, subtracted: bool) -> None:
    w = weights()

    def plain(x: torch.Tensor) -> torch.Tensor:
        if norm == "layer_norm":
            x = normed(x)
        if norm == "constant_norm_rescale":
            x = x * D**0.5 / x.norm(dim=1, keepdim=True)
        return F.relu((x - w["b_dec"] * subtracted) @ w["W_enc"] + w["b_enc"])

    path = saelens(tmp_path / "sae", w, architecture="standard", normalize_activations=norm,
                   apply_b_dec_to_input=subtracted)  # fmt: skip
    check(path, plain, format="SAELens", architecture="standard", activation="relu")


@pytest.mark.parametrize("rescaled", [True, False])
def test_saelens_topk(tmp_path: Path, rescaled: bool) -> None:
    w = weights()

    def plain(x: torch.Tensor) -> torch.Tensor:
        before = (x - w["b_dec"]) @ w["W_enc"] + w["b_enc"]
        return F.relu(only_top(before * (w["W_dec"].norm(dim=1) if rescaled else 1), 4))

    path = saelens(tmp_path / "sae", w, architecture="topk", k=4,
                   rescale_acts_by_decoder_norm=rescaled)  # fmt: skip
    check(path, plain, architecture="topk", activation="topk")
    old = saelens(tmp_path / "old", w, activation_fn_str="topk", activation_fn_kwargs={"k": 4})
    if not rescaled:
        check(old, plain, architecture="topk")


def test_saelens_jumprelu_which_is_batchtopk_as_it_is_saved(tmp_path: Path) -> None:
    w = weights() | {"threshold": torch.rand(N) * 4}

    def plain(x: torch.Tensor) -> torch.Tensor:
        before = (x - w["b_dec"]) @ w["W_enc"] + w["b_enc"]
        return F.relu(before) * (before > w["threshold"])

    check(saelens(tmp_path / "a", w, architecture="jumprelu"), plain, activation="threshold")
    check(saelens(tmp_path / "b", w, architecture="batchtopk"), plain, activation="threshold")


def test_saelens_gated(tmp_path: Path) -> None:
    torch.manual_seed(1)
    w = weights() | {"b_gate": torch.randn(N), "b_mag": torch.randn(N), "r_mag": torch.randn(N)}
    del w["b_enc"]

    def plain(x: torch.Tensor) -> torch.Tensor:
        x = x - w["b_dec"]
        gate = (x @ w["W_enc"] + w["b_gate"] > 0).float()
        return gate * F.relu(x @ (w["W_enc"] * w["r_mag"].exp()) + w["b_mag"])

    check(saelens(tmp_path / "sae", w, architecture="gated"), plain, activation="gated")


# ViT-Prisma: config.json, n_images_*.pt


def prisma(folder: Path, tensors: Tensors, **config: Any) -> Path:
    folder.mkdir(exist_ok=True)
    torch.save(tensors, folder / "n_images_2600058.pt")
    known = {"architecture": "standard", "activation_fn_str": "relu", "activation_fn_kwargs": {},
             "normalize_activations": "layer_norm", "hook_point_layer": 9,
             "layer_subtype": "hook_resid_post", "cls_token_only": False,
             "dtype": {"__type__": "torch.dtype", "value": "torch.float32"}}  # fmt: skip
    (folder / "config.json").write_text(json.dumps(known | config))
    return folder


@pytest.mark.parametrize("name", ["relu", "tanh-relu", "topk", "gated"])
def test_prisma(tmp_path: Path, name: str) -> None:
    torch.manual_seed(1)
    w = weights() | {"b_gate": torch.randn(N), "b_mag": torch.randn(N), "r_mag": torch.randn(N)}

    def plain(x: torch.Tensor) -> torch.Tensor:
        x = normed(x) - w["b_dec"]
        before = x @ w["W_enc"] + w["b_enc"]
        if name == "gated":
            return (x @ w["W_enc"] + w["b_gate"] > 0) * F.relu(
                x @ (w["W_enc"] * w["r_mag"].exp()) + w["b_mag"])  # fmt: skip
        return {"relu": F.relu(before), "tanh-relu": F.relu(before).tanh(),
                "topk": F.relu(only_top(before, 3))}[name]  # fmt: skip

    config = ({"architecture": "gated"} if name == "gated" else
              {"activation_fn_str": name, "activation_fn_kwargs": {"k": 3}})  # fmt: skip
    folder = prisma(tmp_path / "sae", w, **config)
    check(folder, plain, format="ViT-Prisma", trained_on="blocks.9.hook_resid_post")


def test_prisma_of_old_is_one_file(tmp_path: Path) -> None:
    w, path = weights(), tmp_path / "sae.pt"
    cfg = {"activation_fn_str": "relu", "normalize_activations": "none", "d_in": D}
    torch.save({"cfg": cfg, "state_dict": w}, path)
    check(path, lambda x: F.relu((x - w["b_dec"]) @ w["W_enc"] + w["b_enc"]), format="ViT-Prisma")


# saev: one line of json, then torch's file


def saev(path: Path, header: dict[str, Any], tensors: Tensors) -> Path:
    with path.open("wb") as file:
        file.write((json.dumps(header) + "\n").encode())
        torch.save(tensors, file)
    return path


def header(schema: int, name: str, **params: Any) -> dict[str, Any]:
    cfg = {"d_vit": D, "exp_factor": 4, "activation": {"cls": name, "params": params}}
    return {"schema": schema, "cfg": cfg, "commit": "abc", "lib": "0.1.0"}


def test_saev_relu_of_each_schema(tmp_path: Path) -> None:
    w = weights()

    def plain(x: torch.Tensor) -> torch.Tensor:
        return F.relu(x @ w["W_enc"] + w["b_enc"])

    for schema in (2, 3, 4, 5):
        check(saev(tmp_path / "sae.pt", header(schema, "Relu"), w), plain, format="saev")
    old = {"d_vit": D, "exp_factor": 4, "sparsity_coeff": 1e-4, "ghost_grads": False, "seed": 1}
    check(saev(tmp_path / "sae.pt", old, w), lambda x: plain(x - w["b_dec"]))


def test_saev_of_schema_1_must_say_whether_a_bias_is_subtracted(tmp_path: Path) -> None:
    w = weights()
    cfg = {"d_vit": D, "exp_factor": 4, "seed": 0, "top_k": 5}
    path = saev(tmp_path / "sae.pt", {"schema": 1, "cfg": cfg, "cls": "TopK"}, w)
    with pytest.raises(InputError, match="whether the decoder's bias is subtracted"):
        open_autoencoder(tmp_path)
    for subtracted in (True, False):
        beside = {"apply_b_dec_to_input": subtracted}
        (tmp_path / "config.json").write_text(json.dumps(beside))
        bias = w["b_dec"] * subtracted
        check(path, lambda x, b=bias: only_top((x - b) @ w["W_enc"] + w["b_enc"], 5))


def test_saev_topk_keeps_values_below_zero_and_batch_topk_has_a_threshold(tmp_path: Path) -> None:
    w = weights()

    def before(x: torch.Tensor) -> torch.Tensor:
        return x @ w["W_enc"] + w["b_enc"]

    many = saev(tmp_path / "sae.pt", header(5, "TopK", top_k=15), w)
    assert not open_autoencoder(many).rectified
    check(many, lambda x: only_top(before(x), 15), activation="topk")
    path = saev(tmp_path / "sae.pt", header(5, "BatchTopK", top_k=4),
                w | {"activation.threshold": torch.tensor(2.5)})  # fmt: skip
    check(path, lambda x: before(x) * (before(x) > 2.5), activation="threshold")
    untrained = saev(tmp_path / "sae.pt", header(5, "BatchTopK", top_k=4),
                     w | {"activation.threshold": torch.tensor(0.0)})  # fmt: skip
    check(untrained, lambda x: F.relu(before(x)))
    early = saev(tmp_path / "sae.pt", header(2, "BatchTopK", top_k=4), w)
    check(early, lambda x: only_top(before(x), 4), activation="topk")


# dictionary_learning: config.json, ae.pt


def dictionary(folder: Path, name: str | None, tensors: Tensors) -> Path:
    folder.mkdir(exist_ok=True)
    torch.save(tensors, folder / "ae.pt")
    trainer = {"trainer_class": "T", "dict_class": name, "layer": 4, "submodule_name": "blocks.4"}
    (folder / "config.json").unlink(missing_ok=True)
    if name is not None:
        (folder / "config.json").write_text(json.dumps({"trainer": trainer, "buffer": {}}))
    return folder


def linears() -> Tensors:
    w = weights()
    return {"encoder.weight": w["W_enc"].T.contiguous(), "encoder.bias": w["b_enc"],
            "decoder.weight": w["W_dec"].T.contiguous()}  # fmt: skip


def test_dictionary_learning_standard(tmp_path: Path) -> None:
    w = weights()
    own = {**linears(), "bias": w["b_dec"]}
    new = {**linears(), "decoder.bias": w["b_dec"]}
    for name in ("AutoEncoder", None):
        check(dictionary(tmp_path / "a", name, own),
              lambda x: F.relu((x - w["b_dec"]) @ w["W_enc"] + w["b_enc"]),
              format="dictionary_learning", architecture="AutoEncoder")  # fmt: skip
    for name in ("AutoEncoderNew", None):
        check(dictionary(tmp_path / "b", name, new),
              lambda x: F.relu(x @ w["W_enc"] + w["b_enc"]),
              architecture="AutoEncoderNew")  # fmt: skip


def test_dictionary_learning_gated_and_jumprelu(tmp_path: Path) -> None:
    torch.manual_seed(1)
    w = weights()
    gated = {k: v for k, v in linears().items() if k != "encoder.bias"} | {
        "decoder_bias": w["b_dec"], "r_mag": torch.randn(N), "gate_bias": torch.randn(N),
        "mag_bias": torch.randn(N)}  # fmt: skip

    def plain(x: torch.Tensor) -> torch.Tensor:
        linear = (x - w["b_dec"]) @ w["W_enc"]
        magnitude = F.relu(gated["r_mag"].exp() * linear + gated["mag_bias"])
        return (linear + gated["gate_bias"] > 0) * magnitude

    for name in ("GatedAutoEncoder", None):
        check(dictionary(tmp_path / "a", name, gated), plain, activation="gated")
    jump = w | {"threshold": torch.rand(N) * 3}

    def jumped(x: torch.Tensor) -> torch.Tensor:
        before = x @ w["W_enc"] + w["b_enc"]
        return F.relu(before * (before > jump["threshold"]))

    for name in ("JumpReluAutoEncoder", None):
        check(dictionary(tmp_path / "b", name, jump), jumped, activation="threshold")


def test_dictionary_learning_top_k_and_batch_top_k(tmp_path: Path) -> None:
    w = weights()
    both = {**linears(), "b_dec": w["b_dec"], "k": torch.tensor(4, dtype=torch.int),
            "threshold": torch.tensor(1.5)}  # fmt: skip

    def relu(x: torch.Tensor) -> torch.Tensor:
        return F.relu((x - w["b_dec"]) @ w["W_enc"] + w["b_enc"])

    check(dictionary(tmp_path / "a", "AutoEncoderTopK", both), lambda x: only_top(relu(x), 4))
    check(dictionary(tmp_path / "a", "BatchTopKSAE", both), lambda x: relu(x) * (relu(x) > 1.5))
    groups = w | {"k": both["k"], "threshold": both["threshold"],
                  "group_sizes": torch.tensor([5, 15])}  # fmt: skip
    for name in ("MatryoshkaBatchTopKSAE", None):
        check(dictionary(tmp_path / "b", name, groups), lambda x: relu(x) * (relu(x) > 1.5))
    with pytest.raises(InputError, match="may be a top-k or a batch-top-k"):
        open_autoencoder(dictionary(tmp_path / "a", None, both))


# Overcomplete: a state dict, and what it does not hold beside it


def overcomplete(folder: Path, config: dict[str, Any] | None, tensors: Tensors) -> Path:
    folder.mkdir(exist_ok=True)
    save_file(tensors, folder / "state.safetensors")
    (folder / "config.json").unlink(missing_ok=True)
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_overcomplete(tmp_path: Path) -> None:
    torch.manual_seed(1)
    w = weights()
    block = torch.nn.Sequential(torch.nn.Linear(D, N), torch.nn.BatchNorm1d(N))
    for _ in range(3):
        block(2 + torch.randn(40, D))
    block[1].weight.data.uniform_(0.5, 2)
    block[1].bias.data.normal_()
    state = {f"encoder.final_block.{k}": v for k, v in block.eval().state_dict().items()}
    state |= {"dictionary._weights": w["W_dec"]}

    def codes(x: torch.Tensor) -> torch.Tensor:
        return F.relu(block(x)).detach()

    folder = tmp_path / "sae"
    check(overcomplete(folder, {"class": "SAE"}, state), codes, format="Overcomplete")
    check(overcomplete(folder, {"class": "TopKSAE", "top_k": 3}, state),
          lambda x: only_top(codes(x), 3))  # fmt: skip
    check(overcomplete(folder, {"class": "BatchTopKSAE", "running_threshold": 0.75}, state),
          lambda x: codes(x) * (codes(x) >= 0.75))  # fmt: skip
    jump = state | {"thresholds": torch.randn(N)}
    for config in (None, {"class": "JumpSAE"}):
        check(overcomplete(folder, config, jump),
              lambda x: codes(x) * (codes(x) >= jump["thresholds"].exp()))  # fmt: skip
    wrong = [
        (None, "which autoencoder of Overcomplete"),
        ({"class": "MpSAE"}, "which autoencoder of Overcomplete"),
        ({"class": "TopKSAE"}, "does not say top_k"),
        ({"class": "BatchTopKSAE"}, "does not say running_threshold"),
    ]
    for config, said in wrong:
        with pytest.raises(InputError, match=said):
            open_autoencoder(overcomplete(folder, config, state))
    deeper = state | {"encoder.mlp_blocks.0.0.weight": torch.randn(D, D)}
    with pytest.raises(InputError, match="several blocks"):
        open_autoencoder(overcomplete(folder, {"class": "SAE"}, deeper))


# What is refused


def refused(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        open_autoencoder(path)
    assert caught.value.what and caught.value.why and caught.value.ways_out
    return f"{caught.value.what}: {caught.value.why}"


def test_what_is_not_known_is_refused(tmp_path: Path) -> None:
    w, folder = weights(), tmp_path / "sae"
    assert "transcoder" in refused(saelens(folder, w, architecture="transcoder"))
    assert "leaky" in refused(saelens(folder, w, activation_fn_str="leaky"))
    assert "whitened" in refused(saelens(folder, w, normalize_activations="whitened"))
    scaled = refused(saelens(folder, w, normalize_activations="expected_average_only_in"))
    assert "average norm" in scaled
    assert "hook_z" in refused(saelens(folder, w, reshape_activations="hook_z"))
    assert "does not say k" in refused(saelens(folder, w, architecture="topk"))
    lame = {k: v for k, v in w.items() if k != "b_enc"}
    assert "lacks b_enc" in refused(saelens(folder, lame))
    assert "b_enc is [5]" in refused(saelens(folder, w | {"b_enc": torch.zeros(5)}))
    assert "'LISTA'" in refused(dictionary(tmp_path / "d", "LISTA", linears()))
    assert "'Swish'" in refused(saev(tmp_path / "sae.pt", header(5, "Swish"), w))
    assert "schema 6" in refused(saev(tmp_path / "sae.pt", header(6, "Relu"), w))
    (tmp_path / "bare").mkdir()
    save_file(w, tmp_path / "bare" / "weights.safetensors")
    assert "no config lies beside it" in refused(tmp_path / "bare")
    assert "no autoencoder" in refused(tmp_path / "nowhere")
    odd = dictionary(tmp_path / "odd", "AutoEncoder", linears())
    (odd / "config.json").write_text('{"trainer": "AutoEncoder"}')
    assert "AttributeError" in refused(odd)
    (odd / "config.json").write_text("{" * 9)
    assert "config.json cannot be read" in refused(odd)
    (tmp_path / "empty").mkdir()
    assert "no file of weights" in refused(tmp_path / "empty")


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(tmp_path: Path, bad: float) -> None:
    for name in ("W_enc", "b_enc", "b_dec"):
        w = weights()
        w[name].view(-1)[3] = bad
        assert "no numbers" in refused(saelens(tmp_path / "sae", w))


class Whole(torch.nn.Module):
    """What some people save instead of its weights."""


def test_pickles_are_refused_in_words(tmp_path: Path) -> None:
    torch.save(Whole(), tmp_path / "sae.pt")
    assert "could run code" in refused(tmp_path / "sae.pt")
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "final_sae.pkl.gz").write_bytes(b"\x1f\x8b")
    assert "could run code" in refused(tmp_path / "old")
    torch.save({"cfg": Whole(), "state_dict": weights()}, tmp_path / "sae.pt")
    assert "could run code" in refused(tmp_path / "sae.pt")


def test_several_files_are_asked_back(tmp_path: Path) -> None:
    folder = prisma(tmp_path / "sae", weights())
    torch.save(weights(), folder / "n_images_10.pt")
    assert "n_images_10.pt, n_images_2600058.pt" in refused(folder)
    open_autoencoder(folder / "n_images_10.pt")


def test_the_key_is_of_what_is_computed(tmp_path: Path) -> None:
    def key(name: str, tensors: Tensors, **cfg: Any) -> str:
        return open_autoencoder(saelens(tmp_path / name, tensors, **cfg)).key

    plain = key("a", weights())
    assert plain == key("b", weights())
    others = [
        key("c", weights(1)),
        key("d", weights(), normalize_activations="layer_norm"),
        key("e", weights(), apply_b_dec_to_input=False),
        key("f", weights(), architecture="topk", k=2),
        key("g", weights(), architecture="topk", k=3),
    ]
    assert len({plain, *others}) == 6


def test_hook_points_are_compared_with_names_of_modules() -> None:
    post, before = "blocks.6.hook_resid_post", "blocks.6.hook_resid_pre"
    assert agrees(post, "blocks.6") and agrees(post, "vision_model.encoder.layers.6")
    assert agrees(post, "visual.transformer.resblocks.6")
    assert not agrees(post, "blocks.7") and not agrees(post, "blocks.6.mlp")
    assert agrees(before, "blocks.5") and not agrees(before, "blocks.6")
    assert agrees("blocks.6.hook_mlp_out", "blocks.6.mlp")
    assert not agrees("blocks.6.hook_mlp_out", "blocks.6")
    assert agrees("blocks.6.hook_attn_out", "layers.6.attention")
    assert agrees("resid_post_layer_6", "blocks.5")  # which does not tell
    assert agrees("features.3", "features.3") and not agrees(post, "norm")
