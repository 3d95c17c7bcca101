"""How transformers' image processors make a model's input, as a `Preprocess`."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from milanx.environment import note
from milanx.errors import InputError
from milanx.images.preprocess import Preprocess

FILES = ("preprocessor_config.json", "processor_config.json")
# Pillow's numbers, as processors write them.
FILTERS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}
LEVELS = 255  # of a pixel
# Pixels of the short side from which ConvNeXT's processor squashes the whole picture instead of
# cropping (transformers, image_processing_convnext.py).
SQUASHED_FROM = 384
MAIN = "pixel_values"
MULTIPLE_OF = 32  # pixels: what every stage of a trunk that halves five times divides


@dataclass(frozen=True)
class Given:
    """What a processor gives a model.

    Attributes:
        preprocess: how the picture becomes the main input.
        beside: further inputs that the processor makes, by name, for one picture [1, ...].
        reversed: whether the channels come as blue, green, red.
    """

    preprocess: Preprocess
    beside: dict[str, torch.Tensor] = field(default_factory=dict)
    reversed: bool = False


def read_processor(folder: Path, config: Any, name: str) -> Given:
    """Read the processor that lies beside a model.

    Args:
        folder: of the model.
        config: of the model, transformers' own.
        name: what the user called it.

    Raises:
        InputError: a processor that makes no picture of one size, or is not transformers' own.
    """
    processor = _processor(folder, config, name)
    if processor is None:
        side = _side(config)
        note(f"note: {name} says nothing of its preprocessing: pictures are shown at {side} x "
             f"{side}, with the mean and deviation of ImageNet")  # fmt: skip
        return Given(Preprocess((side, side), side))
    size, resize = _geometry(processor, name)
    if size is None:
        raise InputError(
            f"{name} takes no picture of one size",
            f"its {type(processor).__name__} makes {_words(processor)}",
            "give Preprocess(size=...) of your own, from Python",
        )
    mean, std = _numbers(processor)
    crops = isinstance(resize, int)
    made = Preprocess(size, resize, _filter(processor, name), mean, std, rounds_down=crops)
    beside = _beside(processor, size, name)
    return Given(made, beside, bool(getattr(processor, "do_flip_channel_order", False)))


def _processor(folder: Path, config: Any, name: str) -> Any:
    """Return the processor that a folder names, else the usual one of the model; None for none."""
    import transformers
    from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING

    if any((folder / file).is_file() for file in FILES):
        try:
            return transformers.AutoImageProcessor.from_pretrained(
                folder, backend="pil", local_files_only=True, trust_remote_code=False)  # fmt: skip
        except Exception as error:  # whatever a damaged or foreign file makes of it
            said = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise InputError(
                f"the image processor of {name} cannot be used",
                said,
                "preprocess=Preprocess(...) from Python says it instead",
            ) from error
    try:
        usual = IMAGE_PROCESSOR_MAPPING[type(config)]
    except KeyError:
        return None
    kinds = usual if isinstance(usual, dict) else {"pil": usual}
    kind = kinds.get("pil") or next((k for k in kinds.values() if k is not None), None)
    if kind is None:
        return None
    processor, side = kind(), _side(config)
    for attribute in ("size", "crop_size"):
        held = getattr(processor, attribute, None)
        if held is not None and "image_size" in config.to_dict():
            setattr(processor, attribute, type(held)(**dict.fromkeys(dict(held), side)))
    note(f"note: {name} has no {FILES[0]}: pictures are prepared as {kind.__name__} does it by "
         f"itself ({_words(processor)})")  # fmt: skip
    return processor


def _side(config: Any) -> int:
    """The size of the picture that a model's configuration names, else the usual one."""
    side = getattr(config, "image_size", None)
    if isinstance(side, list | tuple) and side:
        side = side[0]
    return side if isinstance(side, int) else Preprocess().size[0]


def _geometry(
    processor: Any, name: str
) -> tuple[tuple[int, int] | None, int | tuple[int, int] | None]:
    """Return (H, W) of the view, and what the picture is resized to before it is cropped."""
    size = dict(getattr(processor, "size", None) or {})
    crop = dict(getattr(processor, "crop_size", None) or {})
    short = size.get("shortest_edge")
    resize: int | tuple[int, int] | None = None
    if getattr(processor, "do_resize", True):
        resize = (size["height"], size["width"]) if {"height", "width"} <= set(size) else short
    share = getattr(processor, "crop_pct", None)
    if share is not None and short is not None:
        whole = short >= SQUASHED_FROM
        return (short, short), ((short, short) if whole else int(short / share))
    if getattr(processor, "do_center_crop", None) and {"height", "width"} <= set(crop):
        return (crop["height"], crop["width"]), resize
    if isinstance(resize, tuple):
        return resize, resize
    if resize is None:
        return None, None
    side = max(MULTIPLE_OF, resize)
    note(f"note: {name} is made for pictures of any shape: the middle of each is shown, "
         f"{side} x {side}")  # fmt: skip
    return (side, side), resize


def _numbers(processor: Any) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and deviation of values in 0..1, whatever the processor scales them to."""
    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    if getattr(processor, "do_normalize", False):
        mean, std = _three(processor.image_mean), _three(processor.image_std)
    scale = 1.0
    if not getattr(processor, "do_rescale", True):
        scale = float(LEVELS)
    elif getattr(processor, "rescale_factor", None) is not None:
        scale = float(processor.rescale_factor) * LEVELS
    if not math.isclose(scale, 1.0, rel_tol=1e-9):
        mean, std = tuple(m / scale for m in mean), tuple(s / scale for s in std)  # type: ignore[assignment]
    return mean, std


def _three(value: Any) -> tuple[float, float, float]:
    values = [float(v) for v in value] if isinstance(value, list | tuple) else [float(value)]
    red, green, blue = values if len(values) == len("RGB") else values[:1] * 3
    return red, green, blue


def _filter(processor: Any, name: str) -> str:
    number = getattr(processor, "resample", None)
    if number is None:
        return Preprocess().interpolation
    if int(number) not in FILTERS:
        raise InputError(
            f"{name} resizes with filter {int(number)} of Pillow",
            f"known are {', '.join(FILTERS.values())}",
            "preprocess=Preprocess(...) from Python says another",
        )
    return FILTERS[int(number)]


def _words(processor: Any) -> str:
    size = ", ".join(f"{k} {v}" for k, v in dict(getattr(processor, "size", None) or {}).items())
    return size or "no size"


def _beside(processor: Any, size: tuple[int, int], name: str) -> dict[str, torch.Tensor]:
    """Return what the processor gives beside the picture, for a picture of the view's size.

    Raises:
        InputError: it makes something else than a picture.
    """
    blank = np.zeros((*size, 3), np.uint8)
    steps = dict.fromkeys(("do_resize", "do_center_crop"), False)
    known = {key: value for key, value in steps.items() if hasattr(processor, key)}
    try:
        made = processor(images=blank, return_tensors="pt", **known)
        shape = tuple(made[MAIN].shape)
    except Exception as error:  # whatever a processor raises for a picture that it does not take
        raise InputError(f"the image processor of {name} fails", str(error)) from error
    if shape != (1, 3, *size):
        raise InputError(
            f"{name} takes no plain picture",
            f"its {type(processor).__name__} makes {list(shape)} of one of {list(size)}",
            "give a module of your own that makes it of a batch of pictures",
        )
    return {key: value for key, value in made.items()
            if key != MAIN and isinstance(value, torch.Tensor)}  # fmt: skip
