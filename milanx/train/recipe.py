"""Recipes: yaml files that say everything about how a describer is made."""

from __future__ import annotations

import itertools
import re
import reprlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, Strict, TypeAdapter, ValidationError

from milanx.errors import InputError, MilanxError, did_you_mean
from milanx.files.yamls import parse_yaml
from milanx.train.recipe_data import (
    KINDS,
    Count,
    Data,
    Flag,
    KindShare,
    Number,
    PhotoData,
    Positive,
    Settings,
    Share,
    Whole,
)

Optimiser = Literal["adamw", "adamw8bit"]
# yaml takes an unquoted no for false.
Precision = Annotated[
    Literal["no", "bf16", "fp16"], BeforeValidator(lambda value: "no" if value is False else value)
]
WORDS = {"Input should be": "must be", "dictionary": "mapping", "tuple": "list"}  # pydantic's, ours
MIN_GRID = 4  # cells of a window that a phrase may fill (`milanx.train.units.grounded`)


@dataclass(frozen=True)
class EncoderSettings(Settings):
    """The frozen encoder, and the training of the projection between its towers.

    Of ``kind`` ``timm`` it is the small CLIP of `milanx.features.encoder` around the image tower
    ``tower``. Of ``open_clip`` it is ``model`` with the weights ``pretrained``;
    `milanx.features.openclip` says what these and ``dense``, ``stages``, ``grid`` may be. It has a
    joint space: nothing is trained.

    With ``describer`` (``builtin`` or a folder) it is the encoder of a describer as that was
    trained, in the place of all of these.
    """

    tower: str = "tf_efficientnet_lite1"
    edges: Flag = True
    classes: Flag = False
    steps: Count = 2500
    batch_size: Count = 768
    learning_rate: Positive = 1e-3
    temperature: Positive = 0.05
    kind: Literal["timm", "open_clip"] = "timm"
    model: str = ""
    pretrained: str = ""
    dense: str = "auto"
    stages: tuple[Annotated[int, Strict()], ...] = ()
    grid: Whole = 0
    describer: str = ""


@dataclass(frozen=True)
class CriticSettings(Settings):
    """The critic, which says how far sets and texts agree: ``batch_size`` units a step."""

    width: Count = 512
    steps: Count = 800
    batch_size: Count = 256
    learning_rate: Positive = 1e-3


@dataclass(frozen=True)
class BaseSettings(Settings):
    """The small GPT-2 and its pretraining: ``batch_size`` texts and ``units`` sets a step.

    With ``model``, a GPT-2 of transformers by its name on the Hub or its folder, that model and its
    tokenizer take the place of the small one and stay as they are: this stage then teaches the set
    encoder alone to make prefixes that the frozen model reads, from ``units`` sets a step. With
    ``load_in_4bit`` it is in 4 bits while it is trained with; describing reads it whole.
    """

    # Of the small one; a base of others brings its own (`milanx.train.stages.encoders.resolved`).
    vocabulary: Count = 5000
    layers: Count = 4
    width: Count = 256
    heads: Count = 4
    positions: Count = 64
    steps: Count = 700
    batch_size: Count = 128
    units: Count = 48
    learning_rate: Positive = 1.5e-3
    accumulate: Count = 1
    optimiser: Optimiser = "adamw"
    model: str = ""
    load_in_4bit: Flag = False


@dataclass(frozen=True)
class DecoderSettings(Settings):
    """p(d|E): prefix, LoRA and training on exemplar sets."""

    prefix: Count = 6
    layers: Count = 2
    rank: Count = 32
    alpha: Count = 64
    dropout: Share = 0.05
    targets: Annotated[tuple[str, ...], Field(min_length=1)] = ("c_attn", "c_proj", "c_fc")
    steps: Count = 3000
    batch_size: Count = 64
    learning_rate: Positive = 1e-3
    accumulate: Count = 1
    optimiser: Optimiser = "adamw"
    check_every: Whole = 200
    patience: Whole = 0
    exemplars: Count = 15
    contrast: Whole = 4
    min_purity: Annotated[Number, Field(gt=0, le=1)] = 0.6


@dataclass(frozen=True)
class PriorSettings(Settings):
    """p(d): the same descriptions, without condition."""

    rank: Count = 32
    alpha: Count = 64
    steps: Count = 1000
    batch_size: Count = 128
    learning_rate: Positive = 1e-3
    accumulate: Count = 1
    optimiser: Optimiser = "adamw"


@dataclass(frozen=True)
class MilanSettings(Settings):
    """MILAN's own networks (`milanx.describing.milan`), their sizes and training.

    ``even`` weighs the doubly stochastic penalty of p(d|E). Of both networks the best weights on
    checked units are kept, after ``patience`` checks without better ones no more are looked for.
    """

    embedding: Count = 128
    hidden: Count = 512
    attention: Count = 512
    dropout: Share = 0.5
    layers: Count = 2
    longest: Annotated[int, Strict(), Field(gt=1)] = 15
    components: Count = 192
    even: Annotated[Number, Field(ge=0)] = 1.0
    steps: Count = 2000
    batch_size: Count = 64
    prior_steps: Count = 1000
    prior_batch_size: Count = 128
    learning_rate: Positive = 1e-3
    check_every: Whole = 200
    patience: Whole = 4


@dataclass(frozen=True)
class Recipe(Settings):
    """Everything that makes a describer, the simulator of P3, or a baseline, by ``kind``."""

    name: Annotated[str, Field(min_length=1, max_length=100)] = "mini"
    kind: Literal["describer", "simulator", "milan"] = "describer"
    seed: Whole = 0
    data: Data = field(default_factory=Data)
    encoder: EncoderSettings = field(default_factory=EncoderSettings)
    critic: CriticSettings = field(default_factory=CriticSettings)
    base: BaseSettings = field(default_factory=BaseSettings)
    decoder: DecoderSettings = field(default_factory=DecoderSettings)
    prior: PriorSettings = field(default_factory=PriorSettings)
    milan: MilanSettings = field(default_factory=MilanSettings)
    precision: Precision = "no"


def _said(error: Any) -> str:
    """Put what pydantic found wrong into words, after its place."""
    *path, last = error["loc"] or ("the recipe",)
    place = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in (*path, last))[1:]
    if error["type"] == "missing":
        return f"{place} is missing"
    if error["type"] == "unexpected_keyword_argument":
        hint = did_you_mean(str(last), _settings(path))
        return f"{place} is not a setting{'; ' + hint if hint else ''}"
    wrong = error["msg"].split(" or an instance of ")[0]
    for theirs, ours in WORDS.items():
        wrong = wrong.replace(theirs, ours)
    return f"{place} {wrong}, not {reprlib.repr(error['input'])}"


def _settings(path: Iterable[str | int]) -> list[str]:
    """Return the names of the settings at a place of a recipe."""
    kind: Any = Recipe
    for part in path:
        if part in ("photos", "shares"):
            kind = PhotoData if part == "photos" else KindShare
        elif isinstance(part, str):
            kind = next(f.default_factory for f in fields(kind) if f.name == part)
    return [f.name for f in fields(kind)] if is_dataclass(kind) else []


def _check(recipe: Recipe) -> list[str]:
    """Return what does not go together, a phrase an error."""
    base = recipe.base
    errors = []
    if base.width % base.heads:
        errors.append("base.width must be a multiple of base.heads")
    if not 300 <= base.vocabulary <= 8000:
        errors.append("base.vocabulary must be from 300 to 8000")
    if base.load_in_4bit and not base.model:
        errors.append("base.load_in_4bit is for a base.model")
    if recipe.decoder.patience and not recipe.decoder.check_every:
        errors.append("decoder.patience needs decoder.check_every")
    if recipe.milan.patience and not recipe.milan.check_every:
        errors.append("milan.patience needs milan.check_every")
    if recipe.encoder.describer and recipe.kind != "milan":
        errors.append("encoder.describer is for kind milan: the others train their encoder")
    return errors + _check_data(recipe) + _check_encoder(recipe.encoder)


def _check_data(recipe: Recipe) -> list[str]:
    """Return what is wrong with the sources of units and texts."""
    data, errors = recipe.data, []
    if not data.photos and not data.milannotations:
        errors.append("data.photos is empty, and data.milannotations names no folder")
    if data.photos and data.milannotations:
        errors.append("data.photos and data.milannotations are two sources of units: choose one")
    if data.milannotations and recipe.encoder.kind == "timm" and not recipe.encoder.describer:
        errors.append("an encoder.kind timm learns from data.photos: use open_clip")
    if data.milannotations:
        from milanx.train.data.networks import SPLITS

        if data.split not in SPLITS:
            hint = did_you_mean(data.split, SPLITS) or f"there are {', '.join(SPLITS)}"
            errors.append(f"data.split has no {data.split!r}; {hint}")
        given = ("without", "near_duplicates", "kinds", "words", "shares")
        errors += [f"data.{n} is for data.photos" for n in given if getattr(data, n)]
    elif data.imagenet or data.split != "base":
        errors.append("data.imagenet and data.split are for data.milannotations")
    elif recipe.kind == "describer" and not recipe.base.model and not data.sentences:
        errors.append("data.sentences is empty: the small GPT-2 needs text, else name a base.model")
    errors += _check_shares(data)
    if recipe.kind == "simulator" and (data.milannotations or recipe.encoder.kind != "timm"):
        errors.append("a simulator is made of data.photos and an encoder.kind timm")
    return errors


def _check_shares(data: Data) -> list[str]:
    """Return what is wrong with the kinds of meaning that are asked for."""
    errors = [f"data.shares has no kind {s.kind!r}; {did_you_mean(s.kind, KINDS) or KINDS}"
              for s in data.shares if s.kind not in KINDS]  # fmt: skip
    if any(s.kind == "hypernym" and s.share for s in data.shares) and not data.kinds:
        errors.append("data.shares of hypernym needs data.kinds")
    return errors


def _check_encoder(encoder: EncoderSettings) -> list[str]:
    """Return what is wrong with the choice of an encoder."""
    if encoder.kind != "open_clip":
        given = ("model", "pretrained", "stages", "grid")
        return [f"encoder.{n} is for encoder.kind=open_clip" for n in given if getattr(encoder, n)]
    errors = []
    if encoder.grid and encoder.grid < MIN_GRID:
        errors.append(f"encoder.grid must be 0, the model's own, or at least {MIN_GRID}")
    if not encoder.model:
        return [*errors, "encoder.model is missing"]
    from milanx.features.openclip import OpenClipSpec, check_spec

    try:
        check_spec(
            OpenClipSpec(encoder.model, encoder.pretrained, encoder.dense, stages=encoder.stages)
        )
    except MilanxError as error:
        errors.append(" - ".join([error.what, error.why, *filter(None, error.ways_out)]))
    return errors


def apply_overrides(values: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Return ``values`` with each ``a.b=value`` of ``overrides`` applied (values are yaml).

    Raises:
        InputError: an override without ``=``, or whose value is not yaml.
    """
    values = dict(values)
    for override in overrides:
        key, separator, text = override.partition("=")
        try:
            value = parse_yaml(text, f"the override {override!r}")
        except InputError:
            separator = ""
        if not separator:
            raise InputError(
                f"cannot read the override {override!r}",
                "an override is KEY=VALUE, and its value is yaml",
                "for example decoder.steps=500",
            )
        *path, last = key.split(".")
        place = values
        for name in path:
            inner = place.get(name)
            place[name] = dict(inner) if isinstance(inner, dict) else {}
            place = place[name]
        place[last] = value
    return values


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe; all its errors are said at once.

    Raises:
        InputError: no such file, not yaml, or settings that are wrong.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"cannot read the recipe {path}", str(error), "milanx recipes ls shows what there is"
        ) from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not yaml", f"it is no UTF-8: {error}",
                         "save it as UTF-8") from error  # fmt: skip
    values = parse_yaml(text, str(path))
    values = {} if values is None else values
    try:
        if isinstance(values, dict):
            values = apply_overrides(values, overrides)
        recipe = TypeAdapter(Recipe).validate_python(values)
        errors = _check(recipe)
    except ValidationError as error:
        errors = [_said(e) for e in error.errors()]
    if errors:
        raise InputError(
            f"the recipe {path} has {len(errors)} error{'s' * (len(errors) > 1)}",
            "; ".join(errors),
            "milanx recipes show mini prints one that works",
        )
    return recipe


def purpose(text: str) -> str:
    """Return the first sentence of a recipe's header, which says what it is for."""
    lines = itertools.takewhile(lambda line: line.strip("# "), text.splitlines())
    header = " ".join(line.strip("# ") for line in lines if line.startswith("#"))
    return re.split(r"(?<=[.?!])\s", header, maxsplit=1)[0]


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
