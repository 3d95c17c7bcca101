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
        patch: side of the patches that the main input is cut into, row by row; 0 for a picture.
    """

    preprocess: Preprocess
    beside: dict[str, torch.Tensor] = field(default_factory=dict)
    reversed: bool = False
    patch: int = 0


def read_processor(folder: Path, config: Any, whole: str, name: str) -> Given:
    """Read the processor that lies beside a model.

    Args:
        folder: of the model.
        config: of the model, transformers' own.
        whole: type of the model that it may be a part of.
        name: what the user called it.

    Raises:
        InputError: a processor that makes no picture of one size, or is not transformers' own.
    """
    processor = _processor(folder, config, whole, name)
    if processor is None:
        height, width = _sides(config)
        note(f"note: {name} says nothing of its preprocessing: pictures are shown at {height} x "
             f"{width}, with the mean and deviation of ImageNet")  # fmt: skip
        square = height == width
        return Given(Preprocess((height, width), height if square else (height, width)))
    size, resize = _geometry(processor, config, name)
    if size is None:
        raise InputError(
            f"{name} takes no picture of one size",
            f"its {type(processor).__name__} makes {_words(processor)}",
            "give Preprocess(size=...) of your own, from Python",
        )
    mean, std = _numbers(processor)
    crops = isinstance(resize, int)
    made = Preprocess(size, resize, _filter(processor, name), mean, std, rounds_down=crops)
    backwards = bool(getattr(processor, "do_flip_channel_order", False))
    patch = int(processor.patch_size) if _patched(processor) else 0
    return Given(made, _beside(processor, size, patch, name), backwards, patch)


def _patched(processor: Any) -> bool:
    """Whether a processor cuts pictures into patches, as many as are asked for."""
    return getattr(processor, "max_num_patches", None) is not None


def in_patches(pictures: torch.Tensor, side: int) -> torch.Tensor:
    """Cut pictures [b, c, H, W] into patches [b, patches, side * side * c], row by row."""
    b, c, height, width = pictures.shape
    cut = pictures.reshape(b, c, height // side, side, width // side, side)
    return cut.permute(0, 2, 4, 3, 5, 1).reshape(b, -1, side * side * c)


def _processor(folder: Path, config: Any, whole: str, name: str) -> Any:
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
    known = (type(config), transformers.CONFIG_MAPPING[whole])
    usual = next((IMAGE_PROCESSOR_MAPPING[k] for k in known if k in IMAGE_PROCESSOR_MAPPING), None)
    kinds = usual if isinstance(usual, dict) else {"pil": usual}
    kind = kinds.get("pil") or next((k for k in kinds.values() if k is not None), None)
    try:
        processor = None if kind is None else kind()
    except TypeError:  # it cannot be had without settings
        processor = None
    if kind is None or processor is None:
        return None
    sides = dict(zip(("height", "width"), _sides(config), strict=True))
    for attribute in ("size", "crop_size"):
        held = getattr(processor, attribute, None)
        if held is not None and "image_size" in config.to_dict():
            own = {key: sides.get(key, min(sides.values())) for key in dict(held)}
            setattr(processor, attribute, type(held)(**own))
    if _patched(processor):
        processor.patch_size, processor.max_num_patches = config.patch_size, config.num_patches
    note(f"note: {name} has no {FILES[0]}: pictures are prepared as {kind.__name__} does it by "
         f"itself ({_words(processor)})")  # fmt: skip
    return processor


def _sides(config: Any) -> tuple[int, int]:
    """The height and width that a model's configuration names, else the usual ones."""
    side = getattr(config, "image_size", None)
    both = tuple(side) if isinstance(side, list | tuple) else (side, side)
    if len(both) != len("HW") or not all(isinstance(n, int) for n in both):
        return Preprocess().size
    return both[0], both[1]


def _geometry(
    processor: Any, config: Any, name: str
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
    if _patched(processor):
        side = math.isqrt(processor.max_num_patches) * processor.patch_size
        resize = side
    elif resize is None and "size_divisor" in vars(processor):
        by = processor.size_divisor
        resize = side = max(min(_sides(config)) // by, 1) * by
    elif resize is None:
        return None, None
    else:
        side = max(MULTIPLE_OF, resize)
    note(f"note: {name} is made for pictures of any shape: the middle of each is shown, "
         f"{side} x {side}")  # fmt: skip
    return (side, side), resize


def _numbers(processor: Any) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and deviation of values in 0..1, whatever the processor scales them to."""
    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    if getattr(processor, "do_normalize", False):
        mean, std = _three(processor.image_mean), _three(processor.image_std)
    scale, shift = float(LEVELS), 0.0
    if getattr(processor, "do_rescale", True):
        factor = getattr(processor, "rescale_factor", None)
        scale = 1.0 if factor is None else float(factor) * LEVELS
        scale = 1.0 if math.isclose(scale, 1.0, rel_tol=1e-9) else scale
        shift = float(bool(getattr(processor, "rescale_offset", False)))
    # EfficientNet's subtracts one from what it scaled if asked to, and may divide once more.
    again = _three(processor.image_std) if getattr(processor, "include_top", False) else (1.0,) * 3
    if (scale, shift, again) != (1.0, 0.0, (1.0,) * 3):
        mean = _three([(m + shift) / scale for m in mean])
        std = _three([s * a / scale for s, a in zip(std, again, strict=True)])
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


def _beside(
    processor: Any, size: tuple[int, int], patch: int, name: str
) -> dict[str, torch.Tensor]:
    """Return what the processor gives beside the picture, for a picture of the view's size.

    Raises:
        InputError: it makes something else than a picture.
    """
    blank = np.zeros((*size, 3), np.uint8)
    # What it pads, it pads to sizes that the view has.
    padded = () if getattr(processor, "size", None) else ("do_pad",)
    steps = dict.fromkeys(("do_resize", "do_center_crop", *padded), False)
    known = {key: value for key, value in steps.items() if hasattr(processor, key)}
    try:
        try:
            made = processor(images=blank, return_tensors="pt", **known)
        except ValueError:  # one that is of no use without them leaves the view as it is
            made = processor(images=blank, return_tensors="pt")
        shape = tuple(made[MAIN].shape)
    except Exception as error:  # whatever a processor raises for a picture that it does not take
        raise InputError(f"the image processor of {name} fails", str(error)) from error
    cut = (1, math.prod(size) // patch**2, 3 * patch**2) if patch else None
    if shape != (cut or (1, 3, *size)):
        raise InputError(
            f"{name} takes no plain picture",
            f"its {type(processor).__name__} makes {list(shape)} of one of {list(size)}",
            "give a module of your own that makes it of a batch of pictures",
        )
    return {key: value for key, value in made.items()
            if key != MAIN and isinstance(value, torch.Tensor)}  # fmt: skip
