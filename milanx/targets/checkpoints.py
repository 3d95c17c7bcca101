"""Checkpoints of the user's: files as people save them, and what of them fits a model."""

from __future__ import annotations

import argparse
import importlib
import json
import pickle
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from milanx.errors import InputError

# Where training loops put a model's weights, the averaged ones first: what is evaluated.
WRAPPERS = ("state_dict_ema", "model_ema", "ema", "ema_state_dict", "teacher", "state_dict",
            "model_state_dict", "model", "net", "network", "module", "weights", "params",
            "student")  # fmt: skip
HARMLESS: list[Any] = [argparse.Namespace]  # the options of a training, which hold values alone
DEPTH = 3  # of dicts within dicts
INDEX = ".index.json"  # of weights in several files
POINTER = b"version https://git-lfs"
CHUNKED = re.compile(r"blocks\.\d+\.(\d+)\.")  # blocks in groups, as DINOv2's training saves them
SHOWN = 3  # names of tensors in a message
Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Fit:
    """What of some tensors fits a model.

    Attributes:
        tensors: under the model's names.
        missing: that the model has and the file has not.
        unexpected: the other way round.
        shapes: of another shape, with both shapes.
    """

    tensors: Tensors
    missing: list[str]
    unexpected: list[str]
    shapes: dict[str, tuple[tuple[int, ...], tuple[int, ...]]]

    @property
    def matches(self) -> int:
        """How many tensors fit."""
        return len(self.tensors) - len(self.unexpected) - len(self.shapes)


def load_checkpoint(model: nn.Module, path: Path, name: str) -> str:
    """Load a checkpoint into a model; what does not match is explained.

    The names may all stand behind one prefix; what stands beside it (a loss, a head of training)
    is left. A classifier of another size is made of the file's size.

    Returns:
        What the user should know of it; mostly nothing.

    Raises:
        InputError: no such file, one that would run code, one of another architecture, or one
            that holds values that are no numbers.
    """
    best: tuple[int, Fit, str] | None = None
    for where, tensors in _state_dicts(read_checkpoint(path)):
        for variant in (tensors, *_converted(model, tensors)):
            fit = _fit(model, _unprefixed(model, variant))
            if best is None or fit.matches > best[0]:
                best = (fit.matches, fit, where)
    if best is None:
        raise InputError(f"{path} is no state dict", "it holds no tensors by name",
                         "save model.state_dict()")  # fmt: skip
    fit, where = best[1], best[2]
    if fit.shapes and _resize_heads(model, fit):
        fit = _fit(model, fit.tensors)
    wanted = len(model.state_dict())
    needless = [k for k in fit.unexpected if not _belongs(k, fit, model)]
    if fit.missing or fit.shapes or len(needless) < len(fit.unexpected):
        raise InputError(
            f"{path} does not fit {name}",
            f"{fit.matches} of {wanted} tensors match; {_differences(fit)}",
            _advice(fit),
        )
    bad = [k for k, v in fit.tensors.items()
           if v.is_floating_point() and not bool(torch.isfinite(v).all())]  # fmt: skip
    if bad:
        raise InputError(
            f"{path} holds values that are no numbers",
            f"nan or infinity in {len(bad)} of {len(fit.tensors)} tensors, first {bad[0]}",
            "it was saved from a training that diverged: take an earlier one",
        )
    expected = model.state_dict()
    kept = {k: v.to(expected[k].dtype) for k, v in fit.tensors.items() if k in expected}
    model.load_state_dict(kept, strict=False)
    return f", its {where}" if where else ""


def _differences(fit: Fit) -> str:
    """Say which tensors are missing, too many or of another shape."""
    shapes = [f"{k}: {file} for {own}" for k, (file, own) in fit.shapes.items()]
    groups = ((fit.missing, "missing"), (fit.unexpected, "unexpected"),
              (shapes, "of another shape"))  # fmt: skip
    return "; ".join(
        f"{len(names)} {what} ({', '.join(names[:SHOWN])}{', ...' * (len(names) > SHOWN)})"
        for names, what in groups
        if names
    )


def _advice(fit: Fit) -> str:
    if fit.missing and not (fit.unexpected or fit.shapes):
        return "it holds a part of the model: give a module of that part, or the whole file"
    if any("pos_embed" in k or "position" in k for k in fit.shapes):
        return "it was trained at another size: name a model of that size, or give your own module"
    return "name the architecture that the checkpoint was made with"


def _belongs(name: str, fit: Fit, model: nn.Module) -> bool:
    """Whether a tensor that the model has no place for seems to be one of its parts.

    Then the model may be another one; buffers that are computed, and parts whose first word is
    no part of the model, such as a loss, are none.
    """
    parts = {key.split(".")[0] for key in model.state_dict()}
    computed = ("relative_position_index", "attn_mask", "num_batches_tracked", "total_ops",
                "total_params", "position_ids")  # fmt: skip
    return name.split(".")[0] in parts and not name.endswith(computed)


def _fit(model: nn.Module, tensors: Tensors) -> Fit:
    expected = model.state_dict()
    shapes = {
        k: (tuple(tensors[k].shape), tuple(v.shape))
        for k, v in expected.items()
        if k in tensors and tensors[k].shape != v.shape
    }
    counters = "num_batches_tracked"
    missing = [k for k in expected if k not in tensors and not k.endswith(counters)]
    return Fit(tensors, missing, [k for k in tensors if k not in expected], shapes)


def _unprefixed(model: nn.Module, tensors: Tensors) -> Tensors:
    """Return the tensors without the prefix behind which most of the model's names stand."""
    expected = set(model.state_dict())
    votes: Counter[str] = Counter()
    for key in tensors:
        parts = key.split(".")
        votes.update(".".join(parts[:i]) for i in range(len(parts))
                     if ".".join(parts[i:]) in expected)  # fmt: skip
    if not votes:
        return tensors
    prefix = min(votes, key=lambda p: (-votes[p], len(p)))
    if not prefix:
        return tensors
    start = f"{prefix}."
    return {k.removeprefix(start): v for k, v in tensors.items() if k.startswith(start)}


def _converted(model: nn.Module, tensors: Tensors) -> Iterator[Tensors]:
    """Yield the tensors as timm and torchvision rename those of the original publications."""
    convert = getattr(importlib.import_module(type(model).__module__), "checkpoint_filter_fn", None)
    convert = convert or getattr(
        importlib.import_module(type(model).__module__), "_filter_fn", None)  # fmt: skip
    if convert is not None:
        try:
            found = convert(dict(tensors), model)
        except Exception:  # it expects the published file, and this is another one
            found = None
        if isinstance(found, Mapping):
            yield {k: v for k, v in found.items() if isinstance(v, torch.Tensor)}
    yield from _transformers(model, tensors)
    if any(CHUNKED.search(k) for k in tensors):
        yield {CHUNKED.sub(r"blocks.\1.", k): v for k, v in tensors.items()}
    if any(".norm.1." in k or ".conv.1." in k for k in tensors):  # DenseNets of torchvision's files
        yield {_densenet(k): v for k, v in tensors.items()}


def _transformers(model: nn.Module, tensors: Tensors) -> Iterator[Tensors]:
    """Yield tensors as transformers renames those of its files when it loads them."""
    load, config = getattr(type(model), "from_pretrained", None), getattr(model, "config", None)
    if load is None or not hasattr(config, "model_type"):
        return
    try:
        with torch.random.fork_rng(devices=[]):
            made, told = load(None, config=config, state_dict=dict(tensors),
                              output_loading_info=True)  # fmt: skip
    except Exception:  # they are of another architecture
        return
    absent = set(told["missing_keys"])
    yield {k: v for k, v in made.state_dict().items() if k not in absent}


def _densenet(key: str) -> str:
    for part in ("norm", "relu", "conv"):
        for number in ("1", "2"):
            key = key.replace(f".{part}.{number}.", f".{part}{number}.")
    return key


def _resize_heads(model: nn.Module, fit: Fit) -> bool:
    """Give classifiers the number of classes that the file has; whether any was changed."""
    changed = False
    for key, (file, own) in fit.shapes.items():
        owner, _, part = key.rpartition(".")
        module = model.get_submodule(owner)
        if part != "weight" or not isinstance(module, nn.Linear) or file[1:] != own[1:]:
            continue
        parent = model.get_submodule(owner.rpartition(".")[0])
        made = nn.Linear(file[1], file[0], module.bias is not None, device=module.weight.device,
                         dtype=module.weight.dtype)  # fmt: skip
        setattr(parent, owner.rpartition(".")[2], made)
        changed = True
    return changed


def _state_dicts(state: Mapping[str, Any], depth: int = DEPTH, where: str = "") -> Iterator[
    tuple[str, Tensors]
]:  # fmt: skip
    """Yield the dicts of tensors in a checkpoint, those that are likelier meant first."""
    inner = [key for key in WRAPPERS if isinstance(state.get(key), Mapping)]
    if depth:
        for key in inner:
            yield from _state_dicts(state[key], depth - 1, key)
    tensors = {k: v for k, v in state.items() if isinstance(v, torch.Tensor)}
    if tensors:
        yield where, tensors


def check_there(path: Path) -> None:
    """Refuse a checkpoint that is not there.

    Raises:
        InputError: there is no such file.
    """
    if not path.is_file():
        raise InputError(f"no checkpoint {path}", "there is no such file", "check --weights")


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a file of weights: safetensors, the index of several, or torch's own.

    Raises:
        InputError: no such file, or one that cannot be read or could run code.
    """
    if path.is_dir():
        inside = sorted(p.name for p in path.iterdir() if p.suffix.lower() in
                        (".safetensors", ".pth", ".pt", ".bin", ".ckpt"))  # fmt: skip
        raise InputError(f"{path} is a folder", "a checkpoint is one file",
                         f"it holds {', '.join(inside[:SHOWN])}" if inside
                         else "name a file of weights")  # fmt: skip
    check_there(path)
    with path.open("rb") as file:
        if file.read(len(POINTER)) == POINTER:
            raise InputError(f"{path} is a pointer of Git LFS", "the weights were not fetched",
                             "git lfs pull")  # fmt: skip
    try:
        if path.name.lower().endswith(INDEX):
            return _read_index(path)
        if path.suffix.lower() == ".safetensors":
            from safetensors.torch import load

            return dict(load(path.read_bytes()))
        with torch.serialization.safe_globals(HARMLESS):
            state = torch.load(path, map_location="cpu", weights_only=True)
    except InputError:
        raise
    except pickle.UnpicklingError as error:
        raise _unsafe(path, error) from error
    except Exception as error:  # damaged files raise whatever the reader stumbles over
        raise InputError(
            f"{path} cannot be read", str(error).splitlines()[0], "it is damaged or no checkpoint"
        ) from error
    if not isinstance(state, dict):
        raise InputError(
            f"{path} is no state dict",
            f"it holds a {type(state).__name__}",
            "save model.state_dict()",
        )
    return state


def _unsafe(path: Path, error: Exception) -> InputError:
    """Say which class of a pickle is not read, where the reader names it."""
    named = re.search(r"GLOBAL (\S+)", str(error))
    return InputError(
        f"{path} is not read",
        "it holds more than tensors and could run code on this machine"
        + (f": {named[1]}" if named else ""),
        "where you trust it, load it yourself and save its state_dict as .safetensors",
    )


def _read_index(path: Path) -> dict[str, Any]:
    """Read the files that an index of shards names, which lie beside it."""
    from safetensors.torch import load_file

    places = json.loads(path.read_text(encoding="utf-8")).get("weight_map")
    if not isinstance(places, dict):
        raise InputError(f"{path} is no index", "it has no weight_map", "check --weights")
    found: dict[str, Any] = {}
    for name in sorted(set(places.values())):
        part = path.parent / Path(str(name)).name  # beside the index, whatever the name says
        if not part.is_file():
            raise InputError(f"{part} is missing", f"{path.name} names it", "fetch it too")
        found |= load_file(part) if part.suffix.lower() == ".safetensors" else torch.load(
            part, map_location="cpu", weights_only=True)  # fmt: skip
    return found
