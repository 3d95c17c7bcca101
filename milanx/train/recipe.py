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

from milanx.errors import InputError, MilanxError, did_you_mean


def _later(default: Any) -> Any:
    """A setting that came after the first caches were written: see `told`."""
    return field(default=default, metadata={"later": True})


@dataclass(frozen=True)
class PhotoData:
    """One file or folder of photos: its name under ``data.root``, rows a class, views a photo.

    Its layout is any that `milanx.train.data.sources` reads.
    ``text`` of its photos are seen once more with words written over them.
    """

    file: str
    per_class: int | None = None
    views: int = 1
    text: int = 0


@dataclass(frozen=True)
class Data:
    """Where the training data lies and what of it is held out.

    Units are planted in ``photos``, or are those of ``milannotations``: a folder with people's
    descriptions of real units (`milanx.train.data.milannotations`). Of these the part for training
    of ``split`` is trained on, whose texts are then the only ones; ``imagenet`` names the folder
    of ImageNet's validation photos where it is not ``milannotations/imagenet/val``.

    ``sentences`` and ``descriptions`` are further text for the small GPT-2, files under ``root``;
    none where the name is empty.

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
    milannotations: str = _later("")
    split: str = _later("base")
    imagenet: str = _later("")


@dataclass(frozen=True)
class EncoderSettings:
    """The frozen encoder, and the training of the projection between its towers.

    Of ``kind`` ``timm`` it is the small CLIP of `milanx.features.encoder` around the image tower
    ``tower``. Of ``open_clip`` it is ``model`` with the weights ``pretrained``;
    `milanx.features.openclip` says what these and ``dense``, ``stages``, ``grid`` may be. It has a
    joint space: nothing is trained.
    """

    tower: str = "tf_efficientnet_lite1"
    edges: bool = True
    steps: int = 2500
    batch_size: int = 768
    learning_rate: float = 1e-3
    temperature: float = 0.05
    kind: str = _later("timm")
    model: str = _later("")
    pretrained: str = _later("")
    dense: str = _later("auto")
    stages: tuple[int, ...] = _later(())
    grid: int = _later(0)


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
    """The small GPT-2 and its pretraining: ``batch_size`` texts and ``units`` sets a step.

    With ``model``, a GPT-2 of transformers by its name on the Hub or its folder, that model and its
    tokenizer take the place of the small one and stay as they are: this stage then teaches the set
    encoder alone to make prefixes that the frozen model reads, from ``units`` sets a step. With
    ``load_in_4bit`` it is in 4 bits while it is trained with; describing reads it whole.
    """

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
    model: str = _later("")
    load_in_4bit: bool = _later(False)


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
ENCODERS = ("timm", "open_clip")
MIN_GRID = 4  # cells of a window that a phrase may fill (`milanx.train.units.grounded`)


def told(settings: Any) -> dict[str, Any]:
    """Return settings by name for fingerprints of what was made with them.

    Settings that came later are left out where they stand at their default, so that what was made
    before them need not be made again.
    """
    values = dataclasses.asdict(settings)
    for f in dataclasses.fields(settings):
        if f.metadata.get("later") and values[f.name] == f.default:
            del values[f.name]
    return values


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
    if hint is str and value is False:  # yaml reads an unquoted no as false
        return "no"
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
    _check_data(recipe, errors)
    _check_models(recipe, errors)


def _check_data(recipe: Recipe, errors: list[str]) -> None:
    """Note what is wrong with the sources of units and texts."""
    data = recipe.data
    if not data.photos and not data.milannotations:
        errors.append("data.photos is empty, and data.milannotations names no folder")
    if data.photos and data.milannotations:
        errors.append("data.photos and data.milannotations are two sources of units: choose one")
    if data.milannotations:
        from milanx.train.data.networks import SPLITS

        if data.split not in SPLITS:
            hint = did_you_mean(data.split, SPLITS) or f"there are {', '.join(SPLITS)}"
            errors.append(f"data.split has no {data.split!r}; {hint}")
    elif data.imagenet or data.split != "base":
        errors.append("data.imagenet and data.split are for data.milannotations")
    elif recipe.kind == "describer" and not recipe.base.model and not data.sentences:
        errors.append("data.sentences is empty: the small GPT-2 needs text, else name a base.model")
    if recipe.kind == "simulator" and (data.milannotations or recipe.encoder.kind != "timm"):
        errors.append("a simulator is made of data.photos and an encoder.kind timm")


def _check_models(recipe: Recipe, errors: list[str]) -> None:
    """Note what is wrong with the choice of encoder and language model."""
    encoder = recipe.encoder
    if recipe.base.load_in_4bit and not recipe.base.model:
        errors.append("base.load_in_4bit is for a base.model")
    if encoder.kind not in ENCODERS:
        errors.append(f"encoder.kind must be one of {', '.join(ENCODERS)}")
    if encoder.kind != "open_clip":
        given = ("model", "pretrained", "stages", "grid")
        errors.extend(f"encoder.{name} is for encoder.kind=open_clip"
                      for name in given if getattr(encoder, name))  # fmt: skip
        return
    if encoder.grid and encoder.grid < MIN_GRID:
        errors.append(f"encoder.grid must be 0, the model's own, or at least {MIN_GRID}")
    if not encoder.model:
        errors.append("encoder.model is missing")
        return
    from milanx.features.openclip import OpenClipSpec, check_spec

    try:
        check_spec(
            OpenClipSpec(encoder.model, encoder.pretrained, encoder.dense, stages=encoder.stages)
        )
    except MilanxError as error:
        errors.append(" - ".join([error.what, error.why, *filter(None, error.ways_out)]))


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
