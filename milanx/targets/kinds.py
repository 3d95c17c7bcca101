"""Which class of transformers' a folder's model is, and whether it takes images alone."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from milanx.errors import InputError
from milanx.targets.processors import MAIN

CONFIG = "config.json"
# The parts for images of models that take texts as well, by the type of the whole.
TOWERS = {
    "align": "AlignVisionModel", "altclip": "AltCLIPVisionModel", "blip": "BlipVisionModel",
    "blip-2": "Blip2VisionModel", "chinese_clip": "ChineseCLIPVisionModel",
    "clip": "CLIPVisionModelWithProjection", "clipseg": "CLIPSegVisionModel",
    "metaclip_2": "MetaClip2VisionModelWithProjection", "siglip": "SiglipVisionModel",
    "siglip2": "Siglip2VisionModel", "tipsv2": "Tipsv2VisionModel",
}  # fmt: skip
# What the whole calls its part for images, and what the part itself does; AltCLIP's layers are
# saved under the names of its text model's.
PART = r"^(clip\.)?vision_model\."
NAMES = {PART + r"encoder\.layer\.": "encoder.layers.", PART: ""}
PROJECTED = "WithProjection"  # parts that keep the name
# What models take in place of pictures, by the parameter.
TAKEN = {"input_ids": "texts", "pixel_values_videos": "videos"}


def class_of(written: Mapping[str, Any], folder: Path, name: str) -> tuple[type[Any], Any]:
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
    found = getattr(transformers, str(architecture), None)
    if found is None:
        try:
            found = transformers.MODEL_MAPPING[known[kind]]
        except KeyError as error:
            raise InputError(f"{name} is a model of the type {kind!r}",
                             f"transformers knows no {architecture}") from error  # fmt: skip
    if kind in TOWERS and _takes(found, "input_ids"):
        found = getattr(transformers, TOWERS[kind])
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
    trunk, kind = written.get("backbone"), written["model_type"]
    if kind == "timm_backbone" or not isinstance(trunk, str) or written.get("backbone_config"):
        return {}
    if not written.get("use_timm_backbone"):
        raise ValueError(f"it merely names its trunk, {trunk}, whose settings lie elsewhere")
    named = ("backbone", "backbone_kwargs", "use_timm_backbone", "use_pretrained_backbone")
    held = written.get("backbone_kwargs") or {"out_indices": [1, 2, 3, 4]}
    settings = {"model_type": "timm_backbone", "backbone": trunk, "features_only": True, **held}
    return {k: v for k, v in written.items() if k not in named} | {"backbone_config": settings}


def _takes(kind: type[Any], parameter: str) -> bool:
    return parameter in inspect.signature(kind.forward).parameters


def check_inputs(kind: type[Any], name: str) -> None:
    """Refuse what takes more than images.

    Raises:
        InputError: it takes texts, sounds, or what its own tokenizer makes of an image.
    """
    pictures = _takes(kind, MAIN)
    if pictures and not _takes(kind, "input_ids"):
        return
    other = "input_ids" if _takes(kind, "input_ids") else kind.main_input_name
    what = TAKEN.get(other, "something else")
    raise InputError(
        f"{name} is no model of images alone",
        f"{kind.__name__} takes {what} ({other})" if pictures or other != "input_ids"
        else f"{kind.__name__} takes texts, or numbers for colours ({other}), and no {MAIN}",
        "save the part of it that takes images: model.vision_model.save_pretrained(FOLDER)"
        if pictures else "choose a model that takes pixel_values",
    )  # fmt: skip


def renamed(kind: type[Any], written: Mapping[str, Any]) -> dict[str, str]:
    """Return how the tensors of a whole are called in its part, as patterns; empty for others."""
    whole = written["model_type"]
    part = TOWERS.get(whole) == kind.__name__ and not kind.__name__.endswith(PROJECTED)
    return NAMES if part else {}
