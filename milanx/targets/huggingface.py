"""Models of transformers, from a folder or the Hugging Face Hub: ``hf:``."""

from __future__ import annotations

import functools
import inspect
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from milanx.environment import announce, hushed, no_code_of_others, note
from milanx.errors import InputError, MilanxError
from milanx.hub.reach import check_answers
from milanx.targets.built import Built, missing
from milanx.targets.kinds import CONFIG, check_inputs, class_of, renamed
from milanx.targets.processors import FILES, Given, in_patches, read_processor

PREFIX = "hf:"
WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack")
TIMEOUT = 20.0  # seconds that the Hub has to say what is in a repository
SHOWN = 3  # names in a message
ONE_CLASS_TOKEN = ("vit", "dinov2", "clip_vision_model", "beit", "data2vec-vision", "vit_mae",
                   "vit_msn", "yolos", "deit", "dinov2_with_registers", "dinov3_vit")  # fmt: skip
SHUFFLED = "vit_mae"  # takes a random quarter of the patches, in a random order
NO_TOKENS = ("siglip_vision_model", "ijepa")


def is_folder(spec: str) -> bool:
    """Whether a name is a folder as transformers saves models."""
    return (Path(spec) / CONFIG).is_file()


def load(place: str, name: str, *, bare: bool) -> Built:
    """Load a model of transformers.

    Args:
        place: a folder, ``owner/name`` on the Hub, or ``owner/name@revision``.
        name: what the user called it.
        bare: build it without its weights, which are random then.

    Raises:
        InputError: no such model, one that takes more than images, or weights in a pickle.
        MissingWeights: what is on the Hub cannot be had here.
    """
    folder = Path(place) if Path(place).is_dir() else _fetched(place, name, bare)
    written = _read_config(folder, name)
    with hushed():
        kind, config = class_of(written, folder, name)
    check_inputs(kind, name)
    model, absent = _model(kind, config, None if bare else folder, name, renamed(kind, written))
    if absent:
        note(f"warning: {len(absent)} tensors of {name} are not in its file and stay random: "
             f"{', '.join(absent[:SHOWN])}{', ...' * (len(absent) > SHOWN)}")  # fmt: skip
    given = read_processor(folder, model.config, str(written["model_type"]), name)
    _fill(model, given, name)
    origin = f"transformers, {kind.__name__} of {place}"
    found = f"{PREFIX}{Path(place).absolute()}" if Path(place).is_dir() else ""
    return Built(model, given.preprocess, origin, _classes(model), _tokens(model.config), found)


def _read_config(folder: Path, name: str) -> dict[str, Any]:
    """Read what a folder says of its model.

    Raises:
        InputError: nothing, or nothing that can be read.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise InputError(f"{name} is no model of transformers", f"there is no {path}",
                         "name the folder that save_pretrained wrote")  # fmt: skip
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} cannot be read", str(error), "fetch it anew") from error
    if not isinstance(found, dict) or "model_type" not in found:
        timm = isinstance(found, dict) and "architecture" in found
        raise InputError(
            f"{name} is no model of transformers", f"{path} names no model_type",
            "it is one of timm's: local-dir:FOLDER or hf-hub:owner/name" if timm
            else "name the folder that save_pretrained wrote",
        )  # fmt: skip
    return found


def _model(
    kind: type[Any], config: Any, folder: Path | None, name: str, names: dict[str, str]
) -> tuple[nn.Module, list[str]]:
    """Build a model, and name the tensors of it that its file has not.

    Args:
        kind: its class.
        config: its configuration.
        folder: of its weights; None for random ones.
        name: what the user called it.
        names: how tensors are called otherwise in the file, as patterns.

    Raises:
        InputError: weights in a pickle, a file that does not fit, or a package that is missing.
    """
    if folder is not None:
        _check_weights(folder, name)
    with no_code_of_others(), hushed():
        try:
            if folder is None:
                return kind(config), []
            model, told = kind.from_pretrained(
                folder, config=config, use_safetensors=True, local_files_only=True,
                dtype=torch.float32, output_loading_info=True, key_mapping=names or None,
            )  # fmt: skip
        except ImportError as error:  # a kind that computes with another package
            raise InputError(
                f"{name} cannot be built", _said(error).split(". ")[0], "install what it needs"
            ) from error
        except Exception as error:  # a damaged file raises whatever the reader stumbles over
            raise InputError(f"the weights of {name} cannot be read", _said(error),
                             "fetch them anew") from error  # fmt: skip
    return model, sorted(told["missing_keys"])


def _said(error: Exception) -> str:
    """Return the first line of what an error says."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _check_weights(folder: Path, name: str) -> None:
    """Refuse a folder without safetensors.

    Raises:
        InputError: it has a pickle, or nothing.
    """
    if (folder / WHOLE).is_file() or (folder / INDEX).is_file():
        return
    raise _no_safetensors([p.name for p in folder.iterdir()], name)


def _no_safetensors(files: list[str], name: str) -> InputError:
    pickles = sorted(f for f in files if f.endswith(PICKLES))
    return InputError(
        f"the weights of {name} are not read",
        f"{pickles[0]} could run code on this machine, and there is no {WHOLE}" if pickles
        else f"there is no {WHOLE}",
        ["where you trust it, load it yourself and save it with save_pretrained",
         "--weights FILE gives others", "--random-weights uses random ones"],
    )  # fmt: skip


def _fetched(place: str, name: str, bare: bool) -> Path:
    """Return the folder of a model of the Hub, of which only what is needed is downloaded.

    Where the Hub does not answer, what was downloaded before serves.

    Raises:
        InputError: it is no name, or its weights are a pickle.
        MissingWeights: it cannot be had.
    """
    from huggingface_hub import constants, snapshot_download

    repository, _, revision = place.partition("@")
    if repository.count("/") != 1 or repository.startswith((".", "/", "~")):
        raise InputError(f"no model {name!r}", f"{place} is no folder, and no owner/name",
                         "hf:FOLDER or hf:owner/name")  # fmt: skip
    wanted = [CONFIG, *FILES, *(() if bare else (WHOLE, INDEX, "model-*.safetensors"))]
    state, silent = revision or None, None
    if not constants.HF_HUB_OFFLINE:
        try:
            check_answers()
            wanted, state = _looked_up(repository, state, name, bare)
        except MilanxError:
            raise
        except Exception as error:  # the hub raises many kinds for "cannot be had"
            silent = error
    here = bool(constants.HF_HUB_OFFLINE) or silent is not None
    try:
        return Path(snapshot_download(repository, revision=state, allow_patterns=wanted,
                                      local_files_only=here))  # fmt: skip
    except Exception as error:
        raise missing(name, silent or error) from error


def _looked_up(
    repository: str, revision: str | None, name: str, bare: bool
) -> tuple[list[str], str | None]:
    """Ask the Hub what a repository holds, and say what will be downloaded of it.

    Returns:
        The files that are needed, and the commit.

    Raises:
        InputError: its weights are a pickle.
    """
    from huggingface_hub import HfApi, try_to_load_from_cache

    info = HfApi().model_info(repository, revision=revision, timeout=TIMEOUT, files_metadata=True)
    sizes = {s.rfilename: s.size or 0 for s in info.siblings or ()}
    tensors = _tensors(sizes)
    if not bare and not tensors:
        raise _no_safetensors(list(sizes), name)
    wanted = [f for f in (CONFIG, *FILES, *(() if bare else tensors)) if f in sizes]
    cached = {f: try_to_load_from_cache(repository, f, revision=info.sha) for f in wanted}
    new = [f for f, path in cached.items() if not isinstance(path, str)]
    if new:
        announce(f"{name} ({len(new)} files)", f"{repository} on the Hugging Face Hub",
                 sum(sizes[f] for f in new))  # fmt: skip
    return wanted, info.sha or revision


def _tensors(sizes: Mapping[str, int]) -> list[str]:
    """Return the files of a repository that hold the weights as transformers reads them."""
    if WHOLE in sizes:
        return [WHOLE]
    parts = [f for f in sizes if f.startswith("model-") and f.endswith(".safetensors")]
    return [INDEX, *parts] if INDEX in sizes and parts else []


def _fill(model: nn.Module, given: Given, name: str) -> None:
    """Let a model that is given pictures alone have what its processor makes beside them."""
    taken = inspect.signature(model.forward).parameters
    beside: dict[str, Any] = {k: v for k, v in given.beside.items() if k in taken}
    config: Any = model.config
    if ordered := config.patch_size if config.model_type == SHUFFLED else 0:
        config.mask_ratio = 0.0
        note(f"note: {name} hides parts of what it is shown, as it was trained: it is shown all")
    side = getattr(config, "image_size", None)
    own = tuple(side) if isinstance(side, list | tuple) else (side, side)
    other = isinstance(own[0], int) and own != given.preprocess.size
    if other and "interpolate_pos_encoding" in taken:
        beside["interpolate_pos_encoding"] = True
        size = " x ".join(map(str, given.preprocess.size))
        note(f"note: {name} is made for {own[0]} x {own[1]}, and its processor gives {size}: its "
             "positions are interpolated")  # fmt: skip
    if beside or given.reversed or given.patch or ordered:
        hook = functools.partial(_filled, beside=beside, given=given, ordered=ordered)
        model.register_forward_pre_hook(hook, with_kwargs=True)


def _filled(
    module: nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    *,
    beside: Mapping[str, Any],
    given: Given,
    ordered: int,
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Add to a call what is not in it, for as many pictures as it has.

    Args:
        module: the model.
        args: that it is called with, pictures [b, 3, H, W] first.
        kwargs: likewise.
        beside: what its processor makes beside a picture.
        given: how pictures are put in.
        ordered: side of the patches that it is to take in their order; 0 where it does so itself.
    """
    if not args:
        return args, kwargs
    pictures, rest = args[0], args[1:]
    if ordered:  # it sorts its patches by these numbers
        count = math.prod(n // ordered for n in pictures.shape[2:])
        beside = {**beside, "noise": torch.arange(count, dtype=torch.float32)[None]}
    added = {
        key: value.to(pictures.device).expand(len(pictures), *value.shape[1:])
        if isinstance(value, torch.Tensor) else value
        for key, value in beside.items() if key not in kwargs
    }  # fmt: skip
    shown = pictures.flip(1) if given.reversed else pictures
    return (in_patches(shown, given.patch) if given.patch else shown, *rest), {**added, **kwargs}


def _classes(model: nn.Module) -> tuple[str, ...]:
    """Return the names of a classifier's logits; none where they are merely numbered."""
    named = getattr(model.config, "id2label", None) or {}
    if "ImageClassification" not in type(model).__name__:
        return ()
    names = tuple(str(named.get(i, named.get(str(i), ""))) for i in range(len(named)))
    numbered = all(n in ("", f"LABEL_{i}") for i, n in enumerate(names))
    return () if numbered or "" in names else names


def _tokens(config: Any) -> tuple[int, int] | None:
    """Return how many tokens stand before and behind the patches; None where that is not known."""
    kind = config.model_type
    if kind in NO_TOKENS:
        return 0, 0
    if kind not in ONE_CLASS_TOKEN:
        return None
    registers = getattr(config, "num_register_tokens", 0) or 0
    before = 1 + registers + (kind == "deit")  # and its token of distillation
    return before, getattr(config, "num_detection_tokens", 0) if kind == "yolos" else 0
