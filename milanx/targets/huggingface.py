"""Models of transformers, from a folder or the Hugging Face Hub: ``hf:``."""

from __future__ import annotations

import contextlib
import functools
import inspect
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from milanx.environment import announce, no_code_of_others, note
from milanx.errors import InputError, MilanxError
from milanx.hub.reach import check_answers
from milanx.targets.built import Built, missing
from milanx.targets.processors import FILES, MAIN, Given, read_processor

PREFIX = "hf:"
CONFIG = "config.json"
WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack")
TIMEOUT = 20.0  # seconds that the Hub has to say what is in a repository
SHOWN = 3  # names in a message
# The towers for images of models that take texts as well, by the type of the whole.
TOWERS = {"clip": "CLIPVisionModelWithProjection", "siglip": "SiglipVisionModel"}
ONE_CLASS_TOKEN = ("vit", "dinov2", "clip_vision_model", "beit", "data2vec-vision", "vit_mae",
                   "vit_msn", "yolos", "deit", "dinov2_with_registers", "dinov3_vit")  # fmt: skip
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
    with _quiet():
        kind, config = _class_of(written, folder, name)
    _check_inputs(kind, name)
    model, absent = _model(kind, config, folder, name, bare)
    if absent:
        note(f"warning: {len(absent)} tensors of {name} are not in its file and stay random: "
             f"{', '.join(absent[:SHOWN])}{', ...' * (len(absent) > SHOWN)}")  # fmt: skip
    given = read_processor(folder, model.config, name)
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


def _class_of(written: Mapping[str, Any], folder: Path, name: str) -> tuple[type[Any], Any]:
    """Return the class of a model, and its configuration.

    Raises:
        InputError: a model that transformers does not know.
    """
    import transformers

    known, kind = transformers.CONFIG_MAPPING, str(written["model_type"])
    if kind not in known:
        why = ("it brings code of its own, which is not run here" if "auto_map" in written
               else f"transformers {transformers.__version__} does not know it")  # fmt: skip
        raise InputError(f"{name} is a model of the type {kind!r}", why,
                         "build it in a function of your own: package.module:function")  # fmt: skip
    architecture = next(iter(written.get("architectures") or ()), None)
    found = getattr(transformers, TOWERS.get(kind) or str(architecture), None)
    if found is None:
        try:
            found = transformers.MODEL_MAPPING[known[kind]]
        except KeyError as error:
            raise InputError(f"{name} is a model of the type {kind!r}",
                             f"transformers knows no {architecture}") from error  # fmt: skip
    try:
        if trunk := _timm_trunk(written):
            return found, found.config_class.from_dict(trunk)
        return found, found.config_class.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # settings that do not fit, or that name another repository
        said = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(f"{folder / CONFIG} cannot be used", said,
                         "load the model where there is a network, and save_pretrained it anew",
                         ) from error  # fmt: skip


def _timm_trunk(written: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings that merely name their trunk with the trunk's own; empty for others.

    Of a name transformers would ask whether the Hub has such a repository; the published DETRs
    name timm's.

    Raises:
        ValueError: a trunk that is no model of timm's.
    """
    trunk = written.get("backbone")
    if not isinstance(trunk, str) or written.get("backbone_config"):
        return {}
    if not written.get("use_timm_backbone"):
        raise ValueError(f"it merely names its trunk, {trunk}, whose settings lie elsewhere")
    named = ("backbone", "backbone_kwargs", "use_timm_backbone", "use_pretrained_backbone")
    held = written.get("backbone_kwargs") or {"out_indices": [1, 2, 3, 4]}
    settings = {"model_type": "timm_backbone", "backbone": trunk, "features_only": True, **held}
    return {k: v for k, v in written.items() if k not in named} | {"backbone_config": settings}


def _check_inputs(kind: type[Any], name: str) -> None:
    """Refuse what takes more than images.

    Raises:
        InputError: it takes texts or sounds.
    """
    taken = inspect.signature(kind.forward).parameters
    if kind.main_input_name == MAIN and "input_ids" not in taken:
        return
    other = "input_ids" if "input_ids" in taken else kind.main_input_name
    raise InputError(
        f"{name} is no model of images alone",
        f"{kind.__name__} takes {'texts' if other == 'input_ids' else 'something else'} ({other})",
        "save the part of it that takes images: model.vision_model.save_pretrained(FOLDER)"
        if MAIN in taken else "choose a model that takes pixel_values",
    )  # fmt: skip


def _model(
    kind: type[Any], config: Any, folder: Path, name: str, bare: bool
) -> tuple[nn.Module, list[str]]:
    """Build a model, and name the tensors of it that its file has not.

    Raises:
        InputError: weights in a pickle, or a file that does not fit.
    """
    with no_code_of_others(), _quiet():
        if bare:
            return kind(config), []
        _check_weights(folder, name)
        try:
            model, told = kind.from_pretrained(
                folder, config=config, use_safetensors=True, local_files_only=True,
                dtype=torch.float32, output_loading_info=True,
            )  # fmt: skip
        except Exception as error:  # a damaged file raises whatever the reader stumbles over
            said = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise InputError(f"the weights of {name} cannot be read", said,
                             "fetch them anew") from error  # fmt: skip
    return model, sorted(told["missing_keys"])


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Let transformers say nothing of what milanx says itself, or knows beforehand.

    Of a model of images and texts the half for texts is in the file and not needed.
    """
    from transformers.utils import logging

    before, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        if bars:
            logging.enable_progress_bar()


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
    side = getattr(model.config, "image_size", None)
    own = tuple(side) if isinstance(side, list | tuple) else (side, side)
    other = isinstance(own[0], int) and own != given.preprocess.size
    if other and "interpolate_pos_encoding" in taken:
        beside["interpolate_pos_encoding"] = True
        size = " x ".join(map(str, given.preprocess.size))
        note(f"note: {name} is made for {own[0]} x {own[1]}, and its processor gives {size}: its "
             "positions are interpolated")  # fmt: skip
    if beside or given.reversed:
        hook = functools.partial(_filled, beside=beside, backwards=given.reversed)
        model.register_forward_pre_hook(hook, with_kwargs=True)


def _filled(
    module: nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    *,
    beside: Mapping[str, Any],
    backwards: bool,
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Add to a call what is not in it, for as many pictures as it has."""
    if not args:
        return args, kwargs
    pictures, rest = args[0], args[1:]
    added = {
        key: value.to(pictures.device).expand(len(pictures), *value.shape[1:])
        if isinstance(value, torch.Tensor) else value
        for key, value in beside.items() if key not in kwargs
    }  # fmt: skip
    return (pictures.flip(1) if backwards else pictures, *rest), {**added, **kwargs}


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
