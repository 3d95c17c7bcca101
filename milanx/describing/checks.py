"""What the files of a describer must be before anything is built of them.

Libraries believe what a folder says: how large a network is, which code makes it, where the rest of
it lies. Here it is compared with the tensors that are there.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_type_hints

from milanx.errors import FormatError, InputError
from milanx.files import reading
from milanx.files.digests import AGAIN, MOST_TEXT, Listing, regular
from milanx.files.kinds import DESCRIBER

if TYPE_CHECKING:
    import torch
    from torch import nn

INDEX = "describer.json"
CARD = "README.md"  # for people: whoever changes it changes no text
ROOMS = ("base", "tokenizer", "decoder", "prior")  # folders that libraries look around in
MOST = 10**6  # that any size of a network may be; the largest GPT-2 has 50257 words
MOST_LAYERS = 1000  # the largest GPT-2 has 48
# What an adapter's config may say; everything else must be peft's default.
ADAPTER = {"r", "lora_alpha", "lora_dropout", "target_modules", "fan_in_fan_out", "inference_mode",
           "task_type", "base_model_name_or_path", "peft_type", "peft_version", "revision",
           "init_lora_weights"}  # fmt: skip
# What of a GPT-2's config fetches or runs code of others.
FOREIGN = ("auto_map", "custom_generate", "custom_pipelines", "quantization_config",
           "attn_implementation", "_attn_implementation", "_attn_implementation_internal",
           "adapter_config")  # fmt: skip
S = TypeVar("S")


def part_names(root: Path) -> list[str]:
    """Return the files of a describer's folder that are read, the index aside, by path in it.

    Raises:
        FormatError: one of them is no regular file, or something lies where libraries look around.
    """
    names = []
    for place in (root, *(root / room for room in ROOMS)):
        if place != root and not place.exists():
            continue
        if place != root and (place.is_symlink() or not place.is_dir()):
            raise FormatError(f"{place} is no folder", "a describer's folder has one there", AGAIN)
        for path in sorted(place.iterdir()):
            name = path.relative_to(root).as_posix()
            known = DESCRIBER.part(name) is not None
            if known and name not in (INDEX, CARD):
                regular(path)
                names.append(name)
            elif place != root and not known and not path.name.startswith("."):
                raise FormatError(
                    f"{path} is no part of a describer",
                    "a library might read or run what it holds", f"take it out of {place}",
                )  # fmt: skip
    return names


def check_listed(root: Path, listing: Listing) -> None:
    """Refuse files that the index does not tell where libraries look around.

    Raises:
        FormatError: the first.
    """
    for name in part_names(root):
        if listing.files is not None and name not in listing.files:
            raise FormatError(
                f"{root / name} is not told by {INDEX}", "it came to the folder later",
                [f"take it out of {root}", f"milanx check {root} --seal tells what lies there now"],
            )  # fmt: skip


def settings_of(path: Path, kind: type[S], values: object) -> S:
    """Make settings, a dataclass of plain values, of what a file says of them.

    Raises:
        FormatError: settings that are not known, missing, of another type, or without meaning.
    """
    if not isinstance(values, Mapping):
        raise FormatError(f"{path} is damaged", f"it holds no {kind.__name__}", AGAIN)
    known = {f.name for f in fields(kind)}  # type: ignore[arg-type]
    unknown = sorted(map(str, values.keys() - known))
    if unknown:
        raise FormatError(
            f"{path} holds settings that this milanx does not know",
            f"there is no {', '.join(unknown)} among its own",
            "use the milanx that wrote it",
        )
    hints = get_type_hints(kind)
    for name, value in values.items():
        if not _is_a(value, hints[name]):
            raise FormatError(f"{path} is damaged", f"{name} is {value!r}", AGAIN)
    try:
        return kind(**{n: tuple(v) if isinstance(v, list) else v for n, v in values.items()})
    except (TypeError, InputError) as error:
        said = f"{error.what}: {error.why}" if isinstance(error, InputError) else str(error)
        raise FormatError(f"{path} is damaged", said, AGAIN) from error


def _is_a(value: object, hint: object) -> bool:
    """Whether a plain value is of a type, and a size that anything has."""
    if hint in (bool, str):
        return type(value) is hint
    if hint is int:
        return type(value) is int and abs(value) <= 2**63
    if hint is float:
        return type(value) in (int, float) and math.isfinite(value)  # type: ignore[arg-type]
    return isinstance(value, list) and all(type(item) is int for item in value)


def check_sizes(path: Path, sizes: Mapping[str, int], layers: int) -> None:
    """Refuse sizes that no network here has.

    Raises:
        FormatError: the first.
    """
    for name, size in (*sizes.items(), ("layers", layers)):
        if not 0 <= size <= (MOST_LAYERS if name == "layers" else MOST):
            raise FormatError(f"{path} is damaged", f"{name} is {size}", AGAIN)


def shapes_of(path: Path) -> dict[str, tuple[int, ...]]:
    """Return names and shapes of the tensors in a safetensors file, from its header.

    Raises:
        FormatError: it is no such file.
    """
    from safetensors import safe_open

    regular(path)
    with reading(path), safe_open(path, "pt") as file:
        return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118


def load_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Read a safetensors file as float32, all of whose numbers are finite.

    Raises:
        FormatError: it is no such file, or holds what is no number.
    """
    from safetensors.torch import load_file

    regular(path)
    with reading(path):
        found = {name: value.float() for name, value in load_file(path).items()}
        for name, value in found.items():
            if not value.isfinite().all():
                raise ValueError(f"{name} holds values that are no numbers (NaN or infinite)")
    return found


def load_state(module: nn.Module, path: Path) -> None:
    """Give a network the weights of a file, which must be exactly its own.

    Raises:
        FormatError: others.
    """
    told = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    compare(path, told, shapes_of(path))
    with reading(path):
        module.load_state_dict(load_tensors(path))


def compare(
    path: Path, wanted: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]]
) -> None:
    """Refuse tensors that are not those that a network has.

    Raises:
        FormatError: the first that is missing, too many, or of another shape.
    """
    for name in sorted(wanted.keys() | found.keys()):
        a, b = wanted.get(name), found.get(name)
        if a != b:
            why = (f"{name} is missing" if b is None else f"{name} belongs to no network"
                   if a is None else f"{name} is {list(b)}, not {list(a)}")  # fmt: skip
            raise FormatError(f"{path} does not fit the describer", why, AGAIN)


def read_object(path: Path) -> dict[str, Any]:
    """Read a json file of a library's, an object.

    Raises:
        FormatError: it is none.
    """
    regular(path, MOST_TEXT)
    with reading(path):
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise ValueError("it is no json object")
    return found


def check_base(folder: Path) -> None:
    """Compare the config of a GPT-2 in a describer's folder with the tensors that are there.

    Raises:
        FormatError: another family, code of others, or other sizes than its tensors have.
    """
    path = folder / "config.json"
    config = read_object(path)
    if config.get("model_type") != "gpt2":
        raise FormatError(f"{path} is damaged", f"it is a {config.get('model_type')!r}, no gpt2",
                          AGAIN)  # fmt: skip
    foreign = [name for name in FOREIGN if config.get(name)]
    if foreign:
        raise FormatError(
            f"{path} names code or settings of others", f"it has {', '.join(foreign)}, and nothing "
            "of a describer is run or fetched", "take a describer whose base is a plain GPT-2",
        )  # fmt: skip
    shapes: dict[str, tuple[int, ...]] = {}
    for file in sorted(folder.glob("model*.safetensors")):
        shapes |= shapes_of(file)
    with reading(path):
        sizes = {n: config[n] for n in ("vocab_size", "n_positions", "n_embd", "n_layer", "n_head")}
        if not all(type(size) is int and 0 < size <= MOST for size in sizes.values()):
            raise ValueError(f"its sizes are {sizes}")
        names = {name.removeprefix("transformer."): shape for name, shape in shapes.items()}
        layers = {name.split(".")[1] for name in names if name.startswith("h.")}
        if layers != {str(i) for i in range(len(layers))} or len(layers) != sizes["n_layer"]:
            raise ValueError(
                f"n_layer is {sizes['n_layer']}, and tensors of {len(layers)} are there"
            )
        for name, shape in (("wte.weight", (sizes["vocab_size"], sizes["n_embd"])),
                            ("wpe.weight", (sizes["n_positions"], sizes["n_embd"]))):  # fmt: skip
            if names.get(name) != shape:
                raise ValueError(f"{name} is {names.get(name)}, not {shape}")
        if sizes["n_embd"] % sizes["n_head"]:
            raise ValueError(f"n_embd {sizes['n_embd']} is no multiple of n_head {sizes['n_head']}")


def check_adapter(folder: Path) -> None:
    """Refuse an adapter that is more than plain LoRA, or of another rank than its tensors.

    Raises:
        FormatError: it is.
    """
    from peft import LoraConfig

    path = folder / "adapter_config.json"
    config = read_object(path)
    usual = LoraConfig().to_dict()
    if config.get("peft_type") != "LORA":
        raise FormatError(f"{path} is damaged", f"it is a {config.get('peft_type')!r}, no LORA",
                          AGAIN)  # fmt: skip
    strange = [name for name, value in config.items()
               if name not in ADAPTER and value and value != usual.get(name)]  # fmt: skip
    if strange:
        raise FormatError(f"{path} is no plain LoRA", f"it sets {', '.join(sorted(strange))}",
                          AGAIN)  # fmt: skip
    ranks = {shape[0] for name, shape in shapes_of(folder / "adapter_model.safetensors").items()
             if ".lora_A." in name}  # fmt: skip
    with reading(path):
        if ranks != {config["r"]}:
            raise ValueError(f"r is {config['r']}, and its tensors have {sorted(ranks)}")
        alpha, targets = config["lora_alpha"], config["target_modules"]
        if type(alpha) not in (int, float) or not math.isfinite(alpha) or alpha <= 0:
            raise ValueError(f"lora_alpha is {alpha!r}")
        if not isinstance(targets, list) or not all(isinstance(t, str) for t in targets):
            raise ValueError(f"target_modules is {targets!r}")
        if config.get("init_lora_weights", True) is not True:
            raise ValueError(f"init_lora_weights is {config['init_lora_weights']!r}")
