"""The describer's folder: what the stages made, put together."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from milanx.describing.folder import from_folder, write_content
from milanx.describing.settings import SearchSettings
from milanx.describing.trained import write_trained
from milanx.files import atomic_path, write_json, write_text
from milanx.files.kinds import DESCRIBER
from milanx.language.words import normalise_text
from milanx.train.card import card
from milanx.train.recipe_data import told
from milanx.train.stages.desk import Course
from milanx.train.stages.projection import WEIGHTS

# How a describer searches unless told otherwise. On what these weights were chosen, and what the
# choice on `milanx.evaluate.weights.lists` says beside them, stands in docs/believe.md.
SEARCH = SearchSettings(agreement=3.0, response=300.0, retrieved=12, composed=4, joined=8.0,
                        without=3.0, dim=0.06, least=0.8, classes=4, exact=0.6, evident=0.8,
                        cells=1.0, place=10.0, placed=4)  # fmt: skip
MIN_WORD_COUNT = 3  # rarer words of captions are misspelled more often than not


def write_describer(course: Course, out: Path, *, overwrite: bool = False) -> None:
    """Write the folder that `milanx.Describer.load` reads; replace one when told to."""
    made = {name: stage.folder for name, stage in course.made.items()}
    with atomic_path(out, DESCRIBER if overwrite else None) as temporary:
        temporary.mkdir(parents=True)
        if not course.recipe.base.model:
            shutil.copytree(made["base"] / "base", temporary / "base")
        shutil.copytree(made["base"] / "tokenizer", temporary / "tokenizer")
        for name in ("decoder", "prior"):
            _copy_adapter(made[name] / name, temporary / name)
        shutil.copy(made["decoder"] / "set_encoder.safetensors", temporary)
        if (made["probe"] / "probe.safetensors").is_file():
            shutil.copy(made["probe"] / "probe.safetensors", temporary)
        if "projection" in made:
            copy_half(made["projection"] / WEIGHTS, temporary / WEIGHTS)
        content = _content(course, out)
        _write_words(course, temporary / "words.json")
        shown = course.units.trained()
        if shown is not None:
            write_trained(temporary, shown)
        write_text(temporary / "README.md", card(content))
        write_content(temporary, content)


def training_of(course: Course) -> dict[str, Any]:
    """Return what a folder says of its training, with no path of this machine in it."""
    recipe, facts = course.recipe, {name: stage.facts for name, stage in course.made.items()}
    training: dict[str, Any] = {"recipe": asdict(recipe), "facts": facts, **course.units.facts()}
    data = training["recipe"]["data"]
    data |= {name: name for name in ("milannotations", "imagenet") if data[name]}
    data |= {name: told(data[name]) for name in ("sentences", "descriptions")}
    data["without"] = [told(file) for file in data["without"]]
    for photos in data["photos"]:
        photos["file"] = told(photos["file"])
    data["root"] = "data"
    for part in ("encoder", "base"):
        training["recipe"][part]["model"] = _named(training["recipe"][part]["model"])
    for name in ("pretrained", "describer"):
        training["recipe"]["encoder"][name] = _named(getattr(recipe.encoder, name))
    return training


def encoder_of(course: Course, out: Path) -> dict[str, Any]:
    """Return what ``describer.json`` says of the encoder.

    A model that lies in a folder is named from the describer's own, ``out``.
    """
    spec = asdict(course.encoder.spec)
    paths = {n: from_folder(spec[n], out) for n in ("model", "pretrained") if n in spec}
    told: dict[str, Any] = {"encoder": spec | paths}
    if spec.get("kind") == "open_clip":
        told["encoder_fingerprint"] = course.encoder.fingerprint()
    return told


def _content(course: Course, out: Path) -> dict[str, Any]:
    """Return what describer.json says, with no path of this machine in it."""
    recipe, training = course.recipe, training_of(course)
    base = {"base": from_folder(recipe.base.model, out)} if recipe.base.model else {}
    return {
        "name": recipe.name,
        **encoder_of(course, out),
        **base,
        "set_encoder": training["facts"]["critic"]["set_encoder"],
        "contrast": recipe.decoder.contrast,
        "search": asdict(SEARCH),
        "training": training,
    }


def _named(model: str) -> str:
    """Return a model's name: that of its folder or file where it has a path."""
    local = model.startswith("local-dir:") or Path(model).is_absolute()
    return Path(model.removeprefix("local-dir:")).name if local else model


def _write_words(course: Course, path: Path) -> None:
    """Write the words that descriptions may hold, met in training, and the vocabulary."""
    texts, vocabulary = course.units.texts(), course.vocabulary
    counts = Counter(word for text in texts for word in normalise_text(text).split())
    words = {word for word, n in counts.items() if n >= MIN_WORD_COUNT}
    for text in [*course.corpus().all_texts(), *vocabulary]:
        words |= set(normalise_text(text).split())
    write_json(path, "milanx words", 1, {"words": sorted(words), "vocabulary": vocabulary})


def copy_half(source: Path, target: Path) -> None:
    """Copy weights as float16."""
    halves = {k: v.half() for k, v in load_file(source).items()}
    save_file(halves, target, metadata={"format": "pt"})


def _copy_adapter(source: Path, target: Path) -> None:
    """Copy an adapter in peft's format, without a path of this machine."""
    target.mkdir()
    copy_half(source / "adapter_model.safetensors", target / "adapter_model.safetensors")
    config = json.loads((source / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = "../base"  # or what describer.json names
    config["fan_in_fan_out"] = True  # as GPT-2 keeps its weights; a base in 4 bits turned them
    (target / "adapter_config.json").write_text(json.dumps(config, indent=2, sort_keys=True))
