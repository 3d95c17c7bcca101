"""What the names of tensors and settings mean in each format of sparse autoencoders.

Each is told by what lies in its folder and by the names of its tensors, and is read into one form
(`milanx.targets.autoencoders.Autoencoder`). What is not known is refused rather than guessed: a
wrong encoder gives latents that look like any others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from milanx.errors import InputError
from milanx.targets.autoencoders import Activation, Autoencoder
from milanx.targets.checkpoints import read_checkpoint
from milanx.targets.saefiles import (
    CONFIGS,
    FORMATS,
    PICKLES,
    Files,
    config_beside,
    floats,
    known_norm,
    read_saev,
    weights_of,
    whole,
)

BATCH_NORM = 1e-5  # epsilon of torch's BatchNorm1d, which Overcomplete leaves as it is
# Schemas of saev's files: in 1 the encoder changed, and the file does not say which one it has.
SAEV_SCHEMAS, SAEV_UNCLEAR = (1, 2, 3, 4, 5), 1


def open_autoencoder(path: Path) -> Autoencoder:
    """Read a sparse autoencoder.

    Args:
        path: its folder, or the file of its weights.

    Raises:
        InputError: no such place, a format that is not known, or values that cannot be.
    """
    try:
        made = _read(path)
    except InputError:
        raise
    except (AttributeError, TypeError, KeyError, ValueError, RuntimeError) as error:
        said = (str(error).splitlines() or [""])[0]
        raise InputError(f"{path} cannot be read", f"{type(error).__name__}: {said}",
                         "its settings or its tensors are not what its maker writes: fetch it "
                         "anew") from error  # fmt: skip
    for name, tensor in made.tensors().items():
        if tensor is not None and not bool(torch.isfinite(tensor).all()):
            raise InputError(f"{path} holds values that are no numbers",
                             f"nan or infinity in the {name} of its encoder",
                             "its training diverged: take another")  # fmt: skip
    return made


def _read(path: Path) -> Autoencoder:
    """Read an autoencoder's folder, or the file of its weights.

    Raises:
        InputError: nothing there, nothing that is known, or something that could run code.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"no autoencoder {path}", "there is no such file or folder",
                         "check --sae")  # fmt: skip
    weights = weights_of(path) if path.is_dir() else path
    header, state = read_saev(weights)
    if header is not None:
        return _saev(Files(weights, floats(weights, state), config_beside(weights)[0]), header)
    if weights.name.endswith(PICKLES):
        raise InputError(f"{weights} is not read", "a pickle could run code on this machine",
                         "where you trust it, load it yourself and save its state_dict() as "
                         ".safetensors, with the config beside it")  # fmt: skip
    state = read_checkpoint(weights)
    config, named = config_beside(weights)
    if isinstance(state.get("cfg"), Mapping) and "state_dict" in state:  # ViT-Prisma's of old
        config = dict(state["cfg"]) | config
    inner = state.get("state_dict", state)
    files = Files(weights, floats(weights, inner), config, named)
    return _reader(files)(files)


def _reader(files: Files) -> Callable[[Files], Autoencoder]:
    """Tell a format by its names."""
    names, config = set(files.tensors), files.config
    if any(n.startswith(("encoder.final_block.", "encoder.mlp_blocks.")) for n in names):
        return _overcomplete
    if "trainer" in config or "encoder.weight" in names:
        return _dictionary_learning
    if "activation_fn_str" in config and files.named == "config.json":
        return _prisma
    if "W_enc" in names and files.named == "cfg.json":
        return _saelens
    if {"W_enc", "threshold"} <= names and not config:
        return _dictionary_learning
    raise InputError(
        f"{files.path} is no autoencoder that is known",
        f"it holds {', '.join(sorted(names)[:8]) or 'no tensors'}, and "
        + (f"{files.named} does not say what made it" if config else "no config lies beside it"),
        f"the formats of {FORMATS} are read; docs/units.md says what lies in each",
    )


def _saev(files: Files, header: dict[str, Any]) -> Autoencoder:
    """Read saev: relu, top-k or batch-top-k of x W_enc + b_enc.

    Until schema 2 the bias of the decoder may have been subtracted first, which only a config
    beside the file can tell: ``{"apply_b_dec_to_input": true}``.
    """
    schema = header.get("schema", 0)
    if schema not in (0, *SAEV_SCHEMAS):
        raise files.refuse("schema", schema, f"{', '.join(map(str, SAEV_SCHEMAS))} of saev")
    config = header.get("cfg", header)
    asked = config.get("activation") if isinstance(config, Mapping) else None
    name = (asked or {}).get("cls", header.get("cls", "Relu"))
    settings = (asked or {}).get("params", config)
    name = "Relu" if name == "SparseAutoencoderConfig" else name
    subtracted = files.says("apply_b_dec_to_input", default=None if schema == SAEV_UNCLEAR
                            else schema == 0)  # fmt: skip
    if subtracted is None:
        raise InputError(
            f"{files.path} does not say whether the decoder's bias is subtracted first",
            "autoencoders of saev did until 2025-07-31 and do not since, in files of one schema",
            f'write {{"apply_b_dec_to_input": true}}, or false, into '
            f"{files.path.parent / CONFIGS[1]}",
        )
    threshold = files.tensors.get("activation.threshold")
    if name == "Relu":
        done = Activation("relu")
    elif name == "BatchTopK" and threshold is not None:
        done = (Activation("threshold", threshold=threshold) if float(threshold) > 0
                else Activation("relu"))  # fmt: skip
    elif name in ("TopK", "BatchTopK") and (name == "TopK" or schema != SAEV_UNCLEAR):
        done = Activation("topk", whole(files, settings.get("top_k"), "top_k"), signed=True)
    else:
        raise files.refuse("activation", name, "Relu, TopK, and BatchTopK from schema 2 on")
    weight = files.matrix("W_enc")
    return Autoencoder(
        weight, files.take("b_enc", weight.shape[1]), done,
        files.take("b_dec", weight.shape[0]) if subtracted else None,
        origin=files.origin("saev", name),
    )  # fmt: skip


def _saelens(files: Files) -> Autoencoder:
    """Read SAELens: ``cfg.json`` and ``sae_weights.safetensors``."""
    if files.says("reshape_activations", default="none") != "none":
        raise files.refuse("reshaping", files.says("reshape_activations"), "none")
    architecture = str(files.says("architecture", default="standard"))
    named = files.says("activation_fn_str", "activation_fn", default="relu")
    if architecture == "standard" and named == "topk":  # of old
        architecture = "topk"
    hooks: dict[str, Any] = {**(files.says("metadata", "meta", default={}) or {})}
    made = _shared(files, architecture, str(named))
    subtracted = files.says("apply_b_dec_to_input", default=True)
    norm = known_norm(files, files.says("normalize_activations", default="none"))
    stretch = None
    if files.says("rescale_acts_by_decoder_norm", default=False):
        stretch = files.take("W_dec", *made.weight.T.shape).norm(dim=1)
    return _rescaled(made, stretch, files, bool(subtracted), norm,
                     str(files.says("hook_name", "hook_point")
                         or hooks.get("hook_name") or ""), "SAELens")  # fmt: skip


def _prisma(files: Files) -> Autoencoder:
    """Read ViT-Prisma: ``config.json`` and one ``.pt``; the decoder's bias is subtracted."""
    architecture = str(files.says("architecture", default="standard"))
    named = str(files.says("activation_fn_str"))
    made = _shared(files, "topk" if named == "topk" and architecture == "standard"
                   else architecture, named)  # fmt: skip
    norm = files.says("normalize_activations")
    if norm is None:
        raise InputError(f"{files.path.parent} does not say how activations are normalised",
                         f"{files.named} has no normalize_activations",
                         'write "layer_norm" or "none" into it')  # fmt: skip
    layer, site = files.says("hook_point_layer"), files.says("layer_subtype")
    hook = files.says("hook_point") or (f"blocks.{layer}.{site}" if site else "")
    return _rescaled(made, None, files, True, known_norm(files, norm), str(hook), "ViT-Prisma")


def _rescaled(
    made: Autoencoder, stretch: torch.Tensor | None, files: Files, subtracted: bool, norm: str,
    hook: str, kind: str,
) -> Autoencoder:  # fmt: skip
    """Complete what two formats share; a factor before the activation goes into the weights."""
    weight, bias = made.weight, made.bias
    if stretch is not None:
        weight, bias = weight * stretch, bias * stretch
    return Autoencoder(
        weight, bias, made.activation,
        files.take("b_dec", weight.shape[0]) if subtracted else None, norm,
        origin=files.origin(kind, made.origin["architecture"]), hook=hook,
        class_only=bool(files.says("cls_token_only", default=False)),
    )  # fmt: skip


def _shared(files: Files, architecture: str, named: str) -> Autoencoder:
    """Read the weights and the activation of SAELens and ViT-Prisma, which have one history."""
    weight = files.matrix("W_enc")
    n, bias_name = weight.shape[1], "b_enc"
    if architecture == "gated":
        bias_name = "b_mag"
        done = Activation("gated", gate=files.take("b_gate", n),
                          stretch=files.take("r_mag", n).exp())  # fmt: skip
    elif architecture == "jumprelu" or (architecture == "batchtopk" and "threshold" in
                                        files.tensors):  # fmt: skip
        done = Activation("threshold", threshold=files.take("threshold", n))
    elif architecture == "batchtopk":
        done = Activation("threshold", threshold=files.take("topk_threshold").float())
    elif architecture == "topk":
        options = files.says("activation_fn_kwargs", default={}) or {}
        done = Activation("topk", whole(files, files.says("k", default=options.get("k")), "k"))
    elif architecture == "standard" and named in ("relu", "tanh-relu"):
        done = Activation(named)
    elif architecture == "standard":
        raise files.refuse("activation", named, "relu, tanh-relu and topk")
    else:
        raise files.refuse("architecture", architecture,
                           "standard, topk, batchtopk, jumprelu and gated")  # fmt: skip
    return Autoencoder(weight, files.take(bias_name, n), done,
                       origin={"architecture": architecture})  # fmt: skip


def _dictionary_learning(files: Files) -> Autoencoder:
    """Read dictionary_learning: ``ae.pt`` and ``config.json``, whose trainer names the class."""
    trainer = files.says("trainer", default={}) or {}
    name = str(trainer.get("dict_class") or _class_of(files))
    if name not in CLASSES:
        raise files.refuse("class", name, ", ".join(CLASSES))
    linear = name not in ("JumpReluAutoEncoder", "MatryoshkaBatchTopKSAE")
    weight = files.matrix("encoder.weight" if linear else "W_enc", transposed=linear)
    d, n = weight.shape
    before, bias = CLASSES[name]
    return Autoencoder(
        weight, files.take(bias, n), _class_activation(files, name, n),
        files.take(before, d) if before else None,
        origin=files.origin("dictionary_learning", name),
        hook=str(trainer.get("submodule_name") or ""),
    )  # fmt: skip


# Classes of dictionary_learning: what is subtracted first, and the encoder's bias.
CLASSES = {
    "AutoEncoder": ("bias", "encoder.bias"),
    "AutoEncoderNew": ("", "encoder.bias"),
    "GatedAutoEncoder": ("decoder_bias", "mag_bias"),
    "JumpReluAutoEncoder": ("", "b_enc"),
    "AutoEncoderTopK": ("b_dec", "encoder.bias"),
    "BatchTopKSAE": ("b_dec", "encoder.bias"),
    "MatryoshkaBatchTopKSAE": ("b_dec", "b_enc"),
}


def _class_of(files: Files) -> str:
    """Tell a class by its tensors where no config names it.

    Raises:
        InputError: several have these.
    """
    names = set(files.tensors)
    if "gate_bias" in names:
        return "GatedAutoEncoder"
    if {"k", "encoder.weight"} <= names or ("b_dec" in names and "encoder.weight" in names):
        raise InputError(f"{files.path} may be a top-k or a batch-top-k autoencoder",
                         "their tensors have the same names, and no config.json beside it has "
                         "the trainer's dict_class", "put the config.json of its training "
                         "beside it")  # fmt: skip
    if "encoder.weight" in names:
        return "AutoEncoder" if "bias" in names else "AutoEncoderNew"
    return "MatryoshkaBatchTopKSAE" if "group_sizes" in names else "JumpReluAutoEncoder"


def _class_activation(files: Files, name: str, n: int) -> Activation:
    if name == "GatedAutoEncoder":
        return Activation("gated", gate=files.take("gate_bias", n),
                          stretch=files.take("r_mag", n).exp())  # fmt: skip
    if name == "JumpReluAutoEncoder":
        return Activation("threshold", threshold=files.take("threshold", n))
    if name == "AutoEncoderTopK":
        return Activation("topk", whole(files, _number(files.take("k")), "k"))
    if name in ("BatchTopKSAE", "MatryoshkaBatchTopKSAE"):
        return Activation("threshold", threshold=files.take("threshold").reshape(()))
    return Activation("relu")


def _number(tensor: torch.Tensor) -> object:
    return tensor.item() if tensor.numel() == 1 else None


def _overcomplete(files: Files) -> Autoencoder:
    """Read a state dict of Overcomplete with one linear block, and a ``config.json`` beside it.

    The state dict holds neither the class nor the numbers of a top k: the config has them, as
    ``{"class": "TopKSAE", "top_k": 10}`` or ``{"class": "BatchTopKSAE", "running_threshold": .3}``.
    """
    if any(n.startswith("encoder.mlp_blocks.") for n in files.tensors):
        raise files.refuse("encoder", "several blocks", "encoders of one linear block")
    weight = files.matrix("encoder.final_block.0.weight", transposed=True)
    n = weight.shape[1]
    bias = files.take("encoder.final_block.0.bias", n)
    norm = "encoder.final_block.1."
    if norm + "running_mean" in files.tensors:  # a BatchNorm, in evaluation mode
        scale = (files.take(norm + "running_var", n) + BATCH_NORM).rsqrt()
        shift = -files.take(norm + "running_mean", n) * scale
        if norm + "weight" in files.tensors:
            scale, shift = (files.take(norm + "weight", n) * x for x in (scale, shift))
            shift = shift + files.take(norm + "bias", n)
        weight, bias = weight * scale, bias * scale + shift
    elif any(k.startswith(norm) for k in files.tensors):
        raise files.refuse("encoder", "a norm that is no BatchNorm", "BatchNorm1d and none")
    name = str(files.says("class", default="JumpSAE" if "thresholds" in files.tensors else ""))
    return Autoencoder(weight, bias, _overcomplete_activation(files, name, n),
                       origin=files.origin("Overcomplete", name))  # fmt: skip


def _overcomplete_activation(files: Files, name: str, n: int) -> Activation:
    if name == "SAE":
        return Activation("relu")
    if name == "JumpSAE":  # the parameter is the logarithm
        return Activation("threshold", threshold=files.take("thresholds", n).exp(), reached=True)
    if name == "TopKSAE":
        return Activation("topk", whole(files, files.says("top_k"), "top_k"))
    if name == "BatchTopKSAE":
        limit = files.says("running_threshold")
        if not isinstance(limit, int | float) or isinstance(limit, bool):
            raise InputError(f"{files.path.parent} does not say running_threshold",
                             "a state dict of a BatchTopKSAE does not hold it",
                             f"write it into {files.named}")  # fmt: skip
        return Activation("threshold", threshold=torch.tensor(float(limit)), reached=True)
    raise InputError(
        f"{files.path} does not say which autoencoder of Overcomplete it is",
        f"its config has the class {name!r}" if name else "no config.json beside it has a class",
        'write {"class": "SAE"}, "TopKSAE" with "top_k", "BatchTopKSAE" with '
        '"running_threshold", or "JumpSAE" into it',
    )
