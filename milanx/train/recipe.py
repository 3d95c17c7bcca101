"""Recipes: yaml files that say everything about how a describer is made."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from milanx.errors import InputError, did_you_mean


@dataclass(frozen=True)
class PhotoData:
    """One file or folder of photos: its name under ``data.root``, rows a class, views a photo.

    Its layout is any that `milanx.train.sources` reads.
    ``text`` of its photos are seen once more with words written over them.
    """

    file: str
    per_class: int | None = None
    views: int = 1
    text: int = 0


@dataclass(frozen=True)
class Data:
    """Where the training data lies and what of it is held out.

    ``checked`` is the share of the other photos' groups that the trainings are checked on and that
    nothing is fitted to.
    """

    root: str = "data"
    photos: tuple[PhotoData, ...] = ()
    sentences: str = "captions.txt.gz"
    descriptions: str = "descriptions.csv.gz"
    held_out_captions: float = 0.1
    held_out_photos: float = 0.2
    checked: float = 0.08


@dataclass(frozen=True)
class EncoderSettings:
    """The frozen encoder, and the training of the projection between its towers."""

    tower: str = "tf_efficientnet_lite1"
    edges: bool = True
    steps: int = 2500
    batch_size: int = 768
    learning_rate: float = 1e-3
    temperature: float = 0.05


@dataclass(frozen=True)
class CriticSettings:
    """The critic, which says how far sets and texts agree: ``batch_size`` units a step."""

    width: int = 512
    dropout: float = 0.3
    steps: int = 800
    batch_size: int = 256
    learning_rate: float = 1e-3


@dataclass(frozen=True)
class BaseSettings:
    """The small GPT-2 and its pretraining: ``batch_size`` texts and ``units`` sets a step."""

    vocabulary: int = 5000
    layers: int = 4
    width: int = 256
    heads: int = 4
    positions: int = 64
    steps: int = 700
    batch_size: int = 128
    units: int = 48
    learning_rate: float = 1.5e-3
    accumulate: int = 1
    optimiser: str = "adamw"
    check_every: int = 0
    patience: int = 0


@dataclass(frozen=True)
class DecoderSettings:
    """p(d|E): prefix, LoRA and training on exemplar sets."""

    prefix: int = 6
    layers: int = 2
    rank: int = 32
    alpha: int = 64
    dropout: float = 0.05
    targets: tuple[str, ...] = ("c_attn", "c_proj", "c_fc")
    steps: int = 3000
    batch_size: int = 64
    learning_rate: float = 1e-3
    accumulate: int = 1
    optimiser: str = "adamw"
    check_every: int = 200
    patience: int = 0
    exemplars: int = 15
    contrast: int = 4
    min_purity: float = 0.6


@dataclass(frozen=True)
class PriorSettings:
    """p(d): the same descriptions, without condition."""

    rank: int = 32
    alpha: int = 64
    steps: int = 1000
    batch_size: int = 128
    learning_rate: float = 1e-3
    accumulate: int = 1
    optimiser: str = "adamw"
    check_every: int = 0
    patience: int = 0


@dataclass(frozen=True)
class Recipe:
    """Everything that makes a describer, or (``kind: simulator``) the simulator of P3."""

    name: str = "mini"
    kind: str = "describer"
    seed: int = 0
    data: Data = field(default_factory=Data)
    encoder: EncoderSettings = field(default_factory=EncoderSettings)
    critic: CriticSettings = field(default_factory=CriticSettings)
    base: BaseSettings = field(default_factory=BaseSettings)
    decoder: DecoderSettings = field(default_factory=DecoderSettings)
    prior: PriorSettings = field(default_factory=PriorSettings)
    precision: str = "no"


PRECISIONS = ("no", "bf16", "fp16")
KINDS = ("describer", "simulator")


def _fill(kind: type, values: object, where: str, errors: list[str]) -> Any:
    """Make a ``kind`` of ``values``, noting each error with its place."""
    if not isinstance(values, dict):
        errors.append(f"{where or 'the recipe'} must be a mapping, not {values!r}")
        return kind()
    hints = typing.get_type_hints(kind)
    known = {f.name for f in dataclasses.fields(kind)}
    made: dict[str, Any] = {}
    for key, value in values.items():
        place = f"{where}.{key}" if where else str(key)
        if key not in known:
            hint = did_you_mean(str(key), known)
            errors.append(f"{place} is not a setting{'; ' + hint if hint else ''}")
        else:
            made[str(key)] = _value(hints[key], value, place, errors)
    required = [f.name for f in dataclasses.fields(kind)
                if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
                and f.name not in made]  # fmt: skip
    for name in required:
        errors.append(f"{where}.{name} is missing")
        made[name] = ""
    return kind(**made)


def _value(hint: Any, value: object, place: str, errors: list[str]) -> Any:
    if dataclasses.is_dataclass(hint):
        return _fill(typing.cast(type, hint), value, place, errors)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            errors.append(f"{place} must be a list, not {value!r}")
            return ()
        return tuple(_value(arguments[0], v, f"{place}[{i}]", errors) for i, v in enumerate(value))
    if origin is types.UnionType:
        if value is None:
            return None
        return _value(next(a for a in arguments if a is not type(None)), value, place, errors)
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if hint is float and isinstance(value, str):  # yaml reads 1e-3 as text
        try:
            return float(value)
        except ValueError:
            pass
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        errors.append(f"{place} must be {hint.__name__}, not {value!r}")
    return value


def _check(recipe: Recipe, errors: list[str]) -> None:
    """Note values out of their range."""
    positive = {
        "encoder.steps": recipe.encoder.steps, "encoder.batch_size": recipe.encoder.batch_size,
        "encoder.temperature": recipe.encoder.temperature, "critic.width": recipe.critic.width,
        "critic.steps": recipe.critic.steps, "critic.batch_size": recipe.critic.batch_size,
        "base.layers": recipe.base.layers,
        "base.batch_size": recipe.base.batch_size, "base.steps": recipe.base.steps,
        "base.units": recipe.base.units, "decoder.layers": recipe.decoder.layers,
        "decoder.prefix": recipe.decoder.prefix, "decoder.steps": recipe.decoder.steps,
        "decoder.batch_size": recipe.decoder.batch_size, "decoder.rank": recipe.decoder.rank,
        "decoder.exemplars": recipe.decoder.exemplars, "prior.steps": recipe.prior.steps,
    }  # fmt: skip
    errors.extend(f"{k} must be above zero, not {v}" for k, v in positive.items() if not v > 0)
    if recipe.base.width % recipe.base.heads:
        errors.append("base.width must be a multiple of base.heads")
    if not 300 <= recipe.base.vocabulary <= 8000:
        errors.append("base.vocabulary must be from 300 to 8000")
    for name in ("held_out_captions", "held_out_photos", "checked"):
        if not 0 <= getattr(recipe.data, name) < 1:
            errors.append(f"data.{name} must be from 0 to below 1")
    if recipe.precision not in PRECISIONS:
        errors.append(f"precision must be one of {', '.join(PRECISIONS)}")
    if recipe.kind not in KINDS:
        errors.append(f"kind must be one of {', '.join(KINDS)}")
    if not recipe.data.photos:
        errors.append("data.photos is empty")


def apply_overrides(values: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Return ``values`` with each ``a.b=value`` of ``overrides`` applied (values are yaml).

    Raises:
        InputError: an override without ``=``.
    """
    values = dict(values)
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator:
            raise InputError(
                f"cannot read the override {override!r}",
                "an override is KEY=VALUE",
                "for example decoder.steps=500",
            )
        *path, last = key.split(".")
        place = values
        for name in path:
            inner = place.get(name)
            place[name] = dict(inner) if isinstance(inner, dict) else {}
            place = place[name]
        place[last] = yaml.safe_load(text)
    return values


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe; all its errors are said at once.

    Raises:
        InputError: no such file, not yaml, or settings that are wrong.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(
            f"cannot read the recipe {path}", str(error), "milanx recipes ls shows what there is"
        ) from error
    except yaml.YAMLError as error:
        raise InputError(f"{path} is not yaml", str(error).replace("\n", " ")) from error
    errors: list[str] = []
    recipe = _fill(Recipe, apply_overrides(values or {}, overrides), "", errors)
    if not errors:
        _check(recipe, errors)
    if errors:
        raise InputError(
            f"the recipe {path} has {len(errors)} error{'s' * (len(errors) > 1)}",
            "; ".join(errors),
            "milanx recipes show mini prints one that works",
        )
    return typing.cast(Recipe, recipe)


def recipe_path(name: str) -> Path:
    """Return the file of a recipe given by path or by the name of a bundled one.

    Raises:
        InputError: neither.
    """
    if Path(name).is_file():
        return Path(name)
    import milanx.recipes

    folder = Path(milanx.recipes.__path__[0])
    bundled = {p.stem: p for p in folder.glob("*.yaml")}
    if name in bundled:
        return bundled[name]
    hint = did_you_mean(name, bundled)
    raise InputError(
        f"no recipe {name!r}",
        f"it is neither a file nor one of {', '.join(sorted(bundled))}",
        hint or "milanx recipes ls shows what there is",
    )
