"""`milanx train`: from a recipe to a describer's folder.

Each stage's result is kept in the cache under the fingerprint of all that it depends on, so a
run that was ended goes on at the stage where it stood, and a change of a late setting repeats
the late stages alone.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, PartialState
from safetensors.torch import load_file, save_file

from milanx.describing.folder import FORMAT, VERSION
from milanx.describing.settings import SearchSettings
from milanx.files import atomic_path, write_json, write_text
from milanx.files.replacing import DESCRIBER, Kind, check_place
from milanx.language.gpt2 import normalise_text
from milanx.progress import Reporter, Silent
from milanx.train.card import card
from milanx.train.data.photos import PhotoFeatures, PhotoSource, photo_features
from milanx.train.data.sources import fingerprint_source
from milanx.train.data.splits import HELD_OUT_CALTECH, HELD_OUT_TINY
from milanx.train.engine.track import check_tracker
from milanx.train.recipe import Recipe, load_recipe, recipe_path
from milanx.train.stage_cache import Stages
from milanx.train.stages import projection
from milanx.train.stages.encoders import base_fingerprint, build_encoder, resolved
from milanx.train.stages.language import (
    load_set_encoder,
    train_agreement,
    train_base,
    train_decoder,
    train_prior,
)
from milanx.train.stages.probe import train_probe
from milanx.train.stages.simulator import train_simulator
from milanx.train.stages.source_leak import told_apart
from milanx.train.units.annotated import (
    AnnotatedCorpus,
    build_annotated_table,
    load_units,
)
from milanx.train.units.corpus import NAMING, Corpus
from milanx.train.units.grounded import channel_meanings, embed, locate, phrase_meanings
from milanx.train.units.joined import attributes, joined_meanings
from milanx.train.units.meanings import (
    checked_photos,
    halves,
    named_meanings,
    region_meanings,
    training_photos,
)
from milanx.train.units.phrases import clean_name, held_out_names, mentions, whole_words
from milanx.train.units.pixels import pixel_meanings, place_meanings
from milanx.train.units.table import Table, build_table

CORPUS = 7  # raised when the meanings or the table change, so that cached stages are made again
AGREEMENT = 3  # the same for the critic
LANGUAGE = 4  # the same for what the language side is built of
# How a describer searches unless told otherwise. The weights of agreement and response were chosen
# on hidden layers (P3, readers), planted units (P2) and a model's logits that are not reported.
SEARCH = SearchSettings(agreement=1.5, response=300.0, retrieved=12, composed=4, joined=2.0,
                        without=3.0)  # fmt: skip
MIN_WORD_COUNT = 3  # rarer words of captions are misspelled more often than not


def train(
    recipe: str,
    overrides: Sequence[str] = (),
    *,
    out: Path,
    tracker: str | None = None,
    overwrite: bool = False,
    progress: Reporter | None = None,
) -> Path:
    """Train a describer and write its folder.

    An ended training goes on where it stood when it is called again. Under ``accelerate launch``
    each step's batch is divided over the processes.

    Args:
        recipe: path of a recipe, or the name of a bundled one.
        overrides: ``KEY=VALUE`` settings over the recipe's.
        out: the describer's folder.
        tracker: ``jsonl``, ``tensorboard``, ``trackio`` or ``wandb``; its files go beside ``out``.
        overwrite: replace a describer that is there.
        progress: told about stages and steps.

    Returns:
        ``out``.

    Raises:
        InputError: a recipe with errors, data that is not there, or ``out`` holds what must not
            be replaced.
    """
    settings = load_recipe(recipe_path(recipe), overrides)
    progress = progress or Silent()
    if settings.kind == "simulator":
        return train_simulator(settings, out, progress, overwrite=overwrite)
    check_place(out, DESCRIBER, overwrite=overwrite)
    logs = out.with_name(f"{out.name}-logs")
    if tracker:
        check_tracker(tracker, logs)
    accelerator = _accelerator(settings.precision)
    torch.manual_seed(settings.seed)
    settings = resolved(settings)
    encoder = build_encoder(settings.encoder).to(accelerator.device)
    annotated, photos = None, PhotoFeatures.none()
    if settings.data.milannotations:
        annotated = load_units(settings.data, settings.seed, progress.say)
    else:
        with (
            accelerator.main_process_first(),
            progress.stage("encode photos", None) as bar,
        ):
            photos = photo_features(
                encoder, _sources(settings), seed=settings.seed, advance=bar.advance
            )
    keep = training_photos(photos, settings.data.held_out_captions, settings.data.held_out_photos)
    checked = checked_photos(photos, settings.data.checked)
    stages = Stages(
        settings, encoder, annotated, photos, keep, checked, accelerator, progress, {}, tracker,
        logs,
    )  # fmt: skip

    facts: dict[str, Any] = {}
    parts: dict[str, Path] = {}
    if settings.encoder.kind == "timm":
        parts["clip"] = stages.folder("clip-2", settings.encoder)
        facts["clip"] = stages.run(
            "projection",
            parts["clip"],
            2 * settings.encoder.steps,
            lambda folder, desk: _train_clip(stages, folder, desk.advance),
        )
        encoder.projection.load_state_dict(load_file(parts["clip"] / "encoder.safetensors"))
    units = (fingerprint_source(annotated.root), str(annotated.photo_root)) if annotated else ()
    table_folder = stages.folder("table", settings.encoder, CORPUS, *units)
    facts["table"] = stages.run(
        "table",
        table_folder,
        len(annotated.units) if annotated else 0,
        lambda folder, desk: _make_table(stages, folder, parts.get("clip"), desk.advance),
    )
    decoder = settings.decoder
    drawing = (Table(table_folder), decoder.exemplars, decoder.contrast, decoder.min_purity)
    kind = AnnotatedCorpus if annotated else Corpus
    corpus, check = kind(*drawing), kind(*drawing, check=True)
    vocabulary = corpus.vocabulary()
    shape = (settings.base.width, decoder.layers, decoder.prefix, decoder.exemplars,
             decoder.contrast, decoder.min_purity)  # fmt: skip
    agreeing = (settings.encoder, CORPUS, AGREEMENT, settings.critic, shape, *units)
    critic_folder = stages.folder("critic", *agreeing)
    facts["critic"] = stages.run(
        "critic",
        critic_folder,
        settings.critic.steps,
        lambda folder, desk: train_agreement(desk, encoder, corpus, check, vocabulary, folder),
    )
    spec = facts["critic"]["set_encoder"]
    weights = base_fingerprint(settings.base)
    before = (*agreeing, LANGUAGE, settings.base, *filter(None, [weights]))
    base_folder = stages.folder("base", *before)
    facts["base"] = stages.run(
        "base",
        base_folder,
        settings.base.steps,
        lambda folder, desk: train_base(desk, corpus, stages.texts(), critic_folder, spec, folder),
    )
    decoder_folder = stages.folder("decoder", *before, decoder)
    facts["decoder"] = stages.run(
        "decoder",
        decoder_folder,
        decoder.steps,
        lambda folder, desk: train_decoder(desk, corpus, check, base_folder, spec, folder),
    )
    prior_folder = stages.folder("prior", *before, settings.prior)
    facts["prior"] = stages.run(
        "prior",
        prior_folder,
        settings.prior.steps,
        lambda folder, desk: train_prior(desk, corpus, stages.people(), base_folder, folder),
    )
    wnids = {clean_name(p.name): p.wnid for p in photos.photos if p.name and p.wnid}
    probe_folder = stages.folder("probe-3", settings.encoder, CORPUS, *units)
    facts["probe"] = stages.run(
        "probe", probe_folder, 0, lambda f, desk: train_probe(corpus, wnids, f)
    )
    if not annotated:
        telling_folder = stages.folder("sources", *before, decoder)
        facts["sources"] = stages.run(
            "sources", telling_folder, 0,
            lambda folder, desk: told_apart(
                load_set_encoder(decoder_folder, spec), corpus, check, vocabulary
            ),
        )  # fmt: skip
    parts |= {"base": base_folder, "decoder": decoder_folder, "prior": prior_folder,
              "probe": probe_folder}  # fmt: skip
    replaces = DESCRIBER if overwrite else None
    _write(stages, corpus, vocabulary, out, parts, facts, replaces)
    return out


def _accelerator(precision: str) -> Accelerator:
    """Make the accelerator; a lone process forgets what an earlier training or pass settled."""
    if not PartialState._shared_state or PartialState().num_processes == 1:
        AcceleratorState._reset_state(reset_partial_state=True)
    return Accelerator(mixed_precision=precision, cpu=not torch.cuda.is_available())


def _sources(recipe: Recipe) -> list[PhotoSource]:
    root = Path(recipe.data.root)
    return [PhotoSource(root / p.file, p.per_class, p.views, p.text) for p in recipe.data.photos]


def _make_table(
    stages: Stages, folder: Path, clip: Path | None, advance: Callable[[int, float], None]
) -> dict[str, Any]:
    """Pool the exemplars that people described, or what the meanings of the photos show.

    Meanings are collected of the photos that may be trained on. ``clip`` is the projections'
    folder, where they were trained.
    """
    if stages.annotated:
        return build_annotated_table(
            stages.encoder, stages.annotated, stages.recipe.data.checked, folder, advance
        )
    photos, keep, encoder, seed = stages.photos, stages.keep, stages.encoder, stages.recipe.seed
    space = embed(encoder, photos)
    named = locate(encoder, space, named_meanings(photos, keep), seed)
    named += region_meanings(photos, keep)
    held = whole_words(held_out_names())
    named = [m for m in named if not any(mentions(text, held) for text in m.texts)]
    kinds = [m for m in named if m.kind == "kind"]
    names = [text for m in named for text in m.texts if m.kind in NAMING]
    people = stages.people()
    phrases = phrase_meanings(
        encoder, space, photos, keep, people, names, lambda text: not mentions(text, held), seed
    )
    joined = [m for m in joined_meanings(attributes(photos, keep, kinds), seed)
              if not any(mentions(text, held) for text in m.texts)]  # fmt: skip
    vocabulary = sorted({*names, *(text for m in phrases for text in m.texts)})
    meanings = [
        *named,
        *pixel_meanings(photos, keep, seed),
        *place_meanings(photos, keep, seed),
        *joined,
        *phrases,
        *channel_meanings(encoder, space, photos, keep, vocabulary),
    ]
    joint = None if clip is None else projection.out_of_fold(
        encoder, clip, halves(photos), keep & ~stages.checked
    )  # fmt: skip
    build_table(encoder, photos, keep, stages.checked, meanings, folder, seed, joint)
    return {"meanings": dict(Counter(m.kind for m in meanings))}


def _train_clip(stages: Stages, folder: Path, advance: Callable[[int, float], None]) -> dict:
    """Train the projection, and one on each half of the photos (`projection.out_of_fold`)."""
    encoder, photos, settings = stages.encoder, stages.photos, stages.recipe.encoder
    trained, half = stages.keep & ~stages.checked, halves(photos)
    pairs = projection.make_pairs(encoder, photos, trained)
    fewer = replace(settings, steps=settings.steps // 2)
    for name, kept, chosen in (
        ("half-0", trained & ~half, fewer),
        ("half-1", trained & half, fewer),
        ("encoder", trained, settings),
    ):
        part = pairs.of(kept)
        projection.train_projection(encoder, part, chosen, stages.recipe.seed, advance)
        save_file(encoder.projection.state_dict(), folder / f"{name}.safetensors")
    found = projection.recall(encoder, photos, ~stages.keep)
    return {"pairs": len(pairs.texts), "held_out_captions": found}


def _write(
    stages: Stages,
    corpus: Corpus,
    vocabulary: list[str],
    out: Path,
    parts: dict[str, Path],
    facts: dict[str, Any],
    replaces: Kind | None,
) -> None:
    """Put the finished stages together as one describer's folder."""
    if not stages.accelerator.is_main_process:
        return
    training: dict[str, Any] = {
        "recipe": asdict(stages.recipe),
        "facts": facts,
        **_held_out(stages),
    }
    data = training["recipe"]["data"]  # no path of this machine's data in a describer
    data |= {name: name for name in ("milannotations", "imagenet") if data[name]}
    data["root"] = "data"
    with atomic_path(out, replaces) as temporary:
        temporary.mkdir(parents=True)
        if not stages.recipe.base.model:
            shutil.copytree(parts["base"] / "base", temporary / "base")
        shutil.copytree(parts["base"] / "tokenizer", temporary / "tokenizer")
        _copy_adapter(parts["decoder"] / "decoder", temporary / "decoder")
        _copy_adapter(parts["prior"] / "prior", temporary / "prior")
        shutil.copy(parts["decoder"] / "set_encoder.safetensors", temporary)
        if (parts["probe"] / "probe.safetensors").is_file():
            shutil.copy(parts["probe"] / "probe.safetensors", temporary)
        if "clip" in parts:
            trained = load_file(parts["clip"] / "encoder.safetensors")
            halves = {k: v.half() for k, v in trained.items()}
            save_file(halves, temporary / "encoder.safetensors")
        content = {
            "name": stages.recipe.name,
            "encoder": asdict(stages.encoder.spec),
            **_elsewhere(stages),
            "set_encoder": facts["critic"]["set_encoder"],
            "contrast": stages.recipe.decoder.contrast,
            "search": asdict(SEARCH),
            "training": training,
        }
        write_json(temporary / "describer.json", FORMAT, VERSION, content)
        _write_words(stages, corpus, vocabulary, temporary / "words.json")
        write_text(temporary / "README.md", card(content))


def _held_out(stages: Stages) -> dict[str, Any]:
    """What the describer's folder says of what was trained on and what was held out."""
    if stages.annotated:
        units = len(stages.annotated.units)
        return {"split": stages.recipe.data.split, "units": units}
    return {
        "held_out_wnids": list(HELD_OUT_TINY),
        "held_out_classes": list(HELD_OUT_CALTECH),
        "held_out_names": held_out_names(),
        "photos": len(stages.photos),
        "photos_trained_on": int((stages.keep & ~stages.checked).sum()),
        "human_descriptions_held_out": len(stages.people(held=True)),
    }


def _elsewhere(stages: Stages) -> dict[str, Any]:
    """What the describer needs that its folder does not hold."""
    found: dict[str, Any] = {}
    if stages.recipe.encoder.kind == "open_clip":
        found["encoder_fingerprint"] = stages.encoder.fingerprint()
    if stages.recipe.base.model:
        found["base"] = stages.recipe.base.model
    return found


def _write_words(stages: Stages, corpus: Corpus, vocabulary: list[str], path: Path) -> None:
    """Write the words that descriptions may hold, met in training, and the vocabulary."""
    counts = Counter(word for text in stages.texts() for word in normalise_text(text).split())
    words = {word for word, n in counts.items() if n >= MIN_WORD_COUNT}
    for text in [*corpus.all_texts(), *vocabulary]:
        words |= set(normalise_text(text).split())
    write_json(path, "milanx words", 1, {"words": sorted(words), "vocabulary": vocabulary})


def _copy_adapter(source: Path, target: Path) -> None:
    """Copy an adapter in peft's format, float16, without a path of this machine."""
    import json

    target.mkdir()
    weights = load_file(source / "adapter_model.safetensors")
    save_file(
        {k: v.half() for k, v in weights.items()},
        target / "adapter_model.safetensors",
        metadata={"format": "pt"},
    )
    config = json.loads((source / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = "../base"  # or what describer.json names
    config["fan_in_fan_out"] = True  # as GPT-2 keeps its weights; a base in 4 bits turned them
    (target / "adapter_config.json").write_text(json.dumps(config, indent=2, sort_keys=True))
