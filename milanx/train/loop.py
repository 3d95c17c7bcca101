"""`milanx train`: from a recipe to a describer's folder.

Each stage's result is kept in the cache under the fingerprint of all that it depends on, so a
run that was ended goes on at the stage where it stood, and a change of a late setting repeats
the late stages alone.
"""

from __future__ import annotations

import dataclasses
import shutil
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import GPT2LMHeadModel, PreTrainedTokenizerFast

from milanx.decode import SetEncoder, SetEncoderSpec, with_lora
from milanx.encode import Encoder, EncoderSpec
from milanx.files import atomic_path, cache_dir, fingerprint, read_json, write_json, write_text
from milanx.language import build_gpt2, encode_texts, normalise_text, train_tokenizer
from milanx.progress import Reporter, Silent
from milanx.train import contrastive
from milanx.train.card import card
from milanx.train.corpus import Corpus
from milanx.train.fit import fit, prefix_loss, text_loss
from milanx.train.meanings import named_meanings, pixel_meanings, training_photos, word_meanings
from milanx.train.photos import PhotoFeatures, PhotoSource, photo_features
from milanx.train.phrases import held_out_names
from milanx.train.recipe import Recipe, load_recipe, recipe_path
from milanx.train.splits import HELD_OUT_CALTECH, HELD_OUT_TINY
from milanx.train.text import human_descriptions, pretraining_texts

TOKENS = 24  # longest description in training, in tokens; captions are cut there
MIN_WORD_COUNT = 3  # rarer words of captions are misspelled more often than not
VERSION = 1


@dataclass
class Stages:
    """What the stages share: recipe, encoder, photos, and the folder of finished stages."""

    recipe: Recipe
    encoder: Encoder
    photos: PhotoFeatures
    keep: np.ndarray
    accelerator: Accelerator
    progress: Reporter
    seconds: dict[str, float]

    def folder(self, name: str, *depends: object) -> Path:
        """Return the folder of a finished stage, by all that its result depends on."""
        key = fingerprint(
            VERSION,
            self.encoder.fingerprint(),
            asdict(self.recipe.data),
            self.recipe.seed,
            self.recipe.precision,
            *depends,
        )
        return cache_dir("train", f"{name}-{key}")

    def run(
        self, name: str, folder: Path, total: int, work: Callable[[Path, Callable], dict]
    ) -> dict:
        """Run a stage unless its folder is there; return the facts that it noted."""
        if not (folder / "stage.json").exists():
            started = time.monotonic()
            with atomic_path(folder) as temporary:
                temporary.mkdir(parents=True)
                with self.progress.stage(name, total) as bar:
                    facts = work(temporary, lambda step, loss: bar.advance(1))
                facts["seconds"] = round(time.monotonic() - started, 1)
                write_json(temporary / "stage.json", "milanx training stage", 1, {"facts": facts})
        facts = read_json(folder / "stage.json", "milanx training stage", 1)["facts"]
        self.seconds[name] = facts["seconds"]
        return dict(facts)


def train(
    recipe: str,
    overrides: Sequence[str] = (),
    *,
    out: Path,
    progress: Reporter | None = None,
) -> Path:
    """Train a describer and write its folder.

    Args:
        recipe: path of a recipe, or the name of a bundled one.
        overrides: ``KEY=VALUE`` settings over the recipe's.
        out: the describer's folder; replaced when it is there.
        progress: told about stages and steps.

    Returns:
        ``out``.

    Raises:
        InputError: a recipe with errors, or data that is not there.
    """
    settings = load_recipe(recipe_path(recipe), overrides)
    progress = progress or Silent()
    accelerator = Accelerator(mixed_precision=settings.precision, cpu=not torch.cuda.is_available())
    torch.manual_seed(settings.seed)
    encoder = Encoder(EncoderSpec(tower=settings.encoder.tower))
    root = Path(settings.data.root)
    sources = [PhotoSource(root / p.file, p.per_class, p.views) for p in settings.data.photos]
    with progress.stage("encode photos", None) as bar:
        photos = photo_features(encoder, sources, seed=settings.seed, advance=bar.advance)
    keep = training_photos(photos, settings.data.held_out_captions, settings.data.held_out_photos)
    stages = Stages(settings, encoder, photos, keep, accelerator, progress, {})

    clip_folder = stages.folder("clip", settings.encoder)
    facts: dict[str, Any] = {
        "clip": stages.run(
            "projection",
            clip_folder,
            settings.encoder.steps,
            lambda f, a: _train_clip(stages, f, a),
        )
    }
    encoder.projection.load_state_dict(load_file(clip_folder / "encoder.safetensors"))
    corpus = make_corpus(stages)
    base_folder = stages.folder("base", settings.encoder, settings.base)
    facts["base"] = stages.run(
        "base", base_folder, 0, lambda f, a: _train_base(stages, corpus, f, a)
    )
    decoder_folder = stages.folder("decoder", settings.encoder, settings.base, settings.decoder)
    facts["decoder"] = stages.run(
        "decoder",
        decoder_folder,
        settings.decoder.steps,
        lambda f, a: _train_decoder(stages, corpus, base_folder, f, a),
    )
    prior_folder = stages.folder(
        "prior", settings.encoder, settings.base, settings.prior, settings.decoder.min_purity
    )
    facts["prior"] = stages.run(
        "prior",
        prior_folder,
        settings.prior.steps,
        lambda f, a: _train_prior(stages, corpus, base_folder, f, a),
    )
    _write(stages, corpus, out, clip_folder, base_folder, decoder_folder, prior_folder, facts)
    return out


def make_corpus(stages: Stages) -> Corpus:
    """Collect the meanings of the photos that may be trained on."""
    meanings = named_meanings(stages.photos, stages.keep)
    meanings += pixel_meanings(stages.photos, stages.keep)
    meanings += word_meanings(stages.encoder, stages.photos, stages.keep)
    settings = stages.recipe.decoder
    return Corpus(stages.photos, meanings, stages.keep, settings.exemplars, settings.min_purity)


def _train_clip(stages: Stages, folder: Path, advance: Callable[[int, float], None]) -> dict:
    pairs = contrastive.make_pairs(stages.encoder, stages.photos, stages.keep)
    contrastive.train_projection(
        stages.encoder, pairs, stages.recipe.encoder, stages.recipe.seed, advance
    )
    save_file(stages.encoder.projection.state_dict(), folder / "encoder.safetensors")
    found = contrastive.recall(stages.encoder, stages.photos, ~stages.keep)
    return {"pairs": len(pairs.texts), "held_out_captions": found}


def _train_base(
    stages: Stages, corpus: Corpus, folder: Path, advance: Callable[[int, float], None]
) -> dict:
    settings, data = stages.recipe.base, stages.recipe.data
    rng = np.random.default_rng(stages.recipe.seed)
    root = Path(data.root)
    texts = pretraining_texts(root, data.sentences, data.descriptions, stages.photos, stages.keep)
    texts += [corpus.text(rng) for _ in range(len(texts) // 10)]
    tokenizer = train_tokenizer(texts, settings.vocabulary)
    torch.manual_seed(stages.recipe.seed)
    model = build_gpt2(
        len(tokenizer), settings.layers, settings.width, settings.heads, settings.positions
    )
    ids, mask = encode_texts(tokenizer, texts, TOKENS)
    order = _batches(mask.sum(1).numpy(), settings.batch_size, settings.epochs, rng)

    def loss_of(wrapped: nn.Module, step: int) -> torch.Tensor:
        rows = order[step]
        longest = int(mask[rows].sum(1).max())
        return text_loss(wrapped, ids[rows, :longest], mask[rows, :longest], tokenizer.bos_token_id)

    losses = fit(
        stages.accelerator,
        model,
        loss_of,
        steps=len(order),
        learning_rate=settings.learning_rate,
        advance=advance,
    )
    model.half().save_pretrained(folder / "base")
    tokenizer.save_pretrained(folder / "tokenizer")
    return {
        "texts": len(texts),
        "steps": len(order),
        "loss": round(float(np.mean(losses[-50:])), 4),
    }


def _batches(
    lengths: np.ndarray, size: int, epochs: float, rng: np.random.Generator
) -> list[np.ndarray]:
    """Batches of texts of like length, in random order."""
    batches: list[np.ndarray] = []
    while len(batches) < epochs * len(lengths) / size:
        order = np.lexsort((rng.random(len(lengths)), lengths))
        epoch = [order[i : i + size] for i in range(0, len(order), size)]
        batches += [epoch[i] for i in rng.permutation(len(epoch))]
    return batches[: max(1, int(epochs * len(lengths) / size))]


class _Conditioned(nn.Module):
    """Set encoder and GPT-2 with LoRA as one module, so that one optimiser trains both."""

    model: Any

    def __init__(self, set_encoder: SetEncoder, model: nn.Module) -> None:
        super().__init__()
        self.set_encoder = set_encoder
        self.model = model

    def forward(
        self,
        features: torch.Tensor,
        joint: torch.Tensor,
        valid: torch.Tensor,
        ids: torch.Tensor,
        mask: torch.Tensor,
        bos: int,
    ) -> torch.Tensor:
        """Return the loss of a batch."""
        return prefix_loss(self.model, self.set_encoder(features, joint, valid), ids, mask, bos)


def _load_base(folder: Path) -> tuple[Any, PreTrainedTokenizerFast]:
    model = GPT2LMHeadModel.from_pretrained(folder / "base", dtype=torch.float32)
    return model, PreTrainedTokenizerFast.from_pretrained(folder / "tokenizer")


def _train_decoder(
    stages: Stages,
    corpus: Corpus,
    base_folder: Path,
    folder: Path,
    advance: Callable[[int, float], None],
) -> dict:
    settings, encoder = stages.recipe.decoder, stages.encoder
    torch.manual_seed(stages.recipe.seed)
    base, tokenizer = _load_base(base_folder)
    lora = {
        "r": settings.rank,
        "lora_alpha": settings.alpha,
        "lora_dropout": settings.dropout,
        "target_modules": list(settings.targets),
    }
    spec = SetEncoderSpec(encoder.width, encoder.spec.joint, base.config.n_embd, settings.prefix)
    set_encoder = SetEncoder(spec)
    sample = corpus.batch(128, np.random.default_rng(stages.recipe.seed))
    rows = sample.features[sample.valid].flatten(0, 1)
    set_encoder.mean.copy_(rows.mean(0))
    set_encoder.scale.copy_(1 / rows.std(0).clamp_min(1e-3))
    both = _Conditioned(set_encoder, with_lora(base, lora))
    rng = np.random.default_rng([stages.recipe.seed, 1, stages.accelerator.process_index])

    def loss_of(wrapped: nn.Module, step: int) -> torch.Tensor:
        batch = corpus.batch(settings.batch_size, rng)
        with torch.no_grad():
            joint = encoder.joint(batch.features)
        ids, mask = encode_texts(tokenizer, batch.texts, TOKENS)
        return wrapped(batch.features, joint, batch.valid, ids, mask, tokenizer.bos_token_id)

    losses = fit(
        stages.accelerator,
        both,
        loss_of,
        steps=settings.steps,
        learning_rate=settings.learning_rate,
        advance=advance,
    )
    both.model.save_pretrained(folder / "decoder")
    halves = {k: v.half() for k, v in set_encoder.state_dict().items()}
    save_file(halves, folder / "set_encoder.safetensors")
    spec_values = dataclasses.asdict(spec)
    return {"loss": round(float(np.mean(losses[-100:])), 4), "set_encoder": spec_values}


def _train_prior(
    stages: Stages,
    corpus: Corpus,
    base_folder: Path,
    folder: Path,
    advance: Callable[[int, float], None],
) -> dict:
    settings = stages.recipe.prior
    torch.manual_seed(stages.recipe.seed)
    base, tokenizer = _load_base(base_folder)
    lora = {
        "r": settings.rank,
        "lora_alpha": settings.alpha,
        "target_modules": list(stages.recipe.decoder.targets),
    }
    model: Any = with_lora(base, lora)
    rng = np.random.default_rng([stages.recipe.seed, 2, stages.accelerator.process_index])

    def loss_of(wrapped: nn.Module, step: int) -> torch.Tensor:
        texts = [corpus.text(rng) for _ in range(settings.batch_size)]
        ids, mask = encode_texts(tokenizer, texts, TOKENS)
        return text_loss(wrapped, ids, mask, tokenizer.bos_token_id)

    losses = fit(
        stages.accelerator,
        model,
        loss_of,
        steps=settings.steps,
        learning_rate=settings.learning_rate,
        advance=advance,
    )
    model.save_pretrained(folder / "prior")
    return {"loss": round(float(np.mean(losses[-100:])), 4)}


def _write(
    stages: Stages,
    corpus: Corpus,
    out: Path,
    clip: Path,
    base: Path,
    decoder: Path,
    prior: Path,
    facts: dict,
) -> None:
    """Put the finished stages together as one describer's folder."""
    if not stages.accelerator.is_main_process:
        return
    training: dict[str, Any] = {
        "recipe": asdict(stages.recipe),
        "facts": facts,
        "held_out_wnids": list(HELD_OUT_TINY),
        "held_out_classes": list(HELD_OUT_CALTECH),
        "held_out_names": held_out_names(),
        "photos": len(stages.photos),
        "photos_trained_on": int(stages.keep.sum()),
        "human_descriptions_held_out": len(
            human_descriptions(
                Path(stages.recipe.data.root) / stages.recipe.data.descriptions, held=True
            )
        ),
    }
    training["recipe"]["data"]["root"] = "data"  # no path of this machine in a describer
    with atomic_path(out) as temporary:
        temporary.mkdir(parents=True)
        shutil.copytree(base / "base", temporary / "base")
        shutil.copytree(base / "tokenizer", temporary / "tokenizer")
        _copy_adapter(decoder / "decoder", temporary / "decoder")
        _copy_adapter(prior / "prior", temporary / "prior")
        shutil.copy(decoder / "set_encoder.safetensors", temporary)
        projection = {k: v.half() for k, v in load_file(clip / "encoder.safetensors").items()}
        save_file(projection, temporary / "encoder.safetensors")
        content = {
            "name": stages.recipe.name,
            "encoder": asdict(stages.encoder.spec),
            "set_encoder": facts["decoder"]["set_encoder"],
            "search": {"beam": 50, "lam": 0.2, "max_tokens": 16},
            "training": training,
        }
        write_json(temporary / "describer.json", "milanx describer", 1, content)
        _write_words(stages, corpus, temporary / "words.json")
        write_text(temporary / "README.md", card(content))


def _write_words(stages: Stages, corpus: Corpus, path: Path) -> None:
    """Write the words that descriptions may hold: those met in the training text."""
    data = stages.recipe.data
    texts = pretraining_texts(
        Path(data.root), data.sentences, data.descriptions, stages.photos, stages.keep
    )
    counts = Counter(word for text in texts for word in normalise_text(text).split())
    words = {word for word, n in counts.items() if n >= MIN_WORD_COUNT}
    for text in corpus.all_texts():
        words |= set(normalise_text(text).split())
    write_json(path, "milanx words", 1, {"words": sorted(words)})


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
    config["base_model_name_or_path"] = "../base"
    (target / "adapter_config.json").write_text(json.dumps(config, indent=2, sort_keys=True))
