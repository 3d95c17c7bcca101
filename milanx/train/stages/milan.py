"""Training of MILAN's own networks: an attention LSTM for p(d|E), and an LSTM for p(d).

Both learn the units and texts that the describer learns (`milanx.train.units.corpus`), word by word
over one vocabulary. MILAN's optimiser and rate are kept (AdamW, 1e-3), and the check by the loss of
units that no training saw; instead of epochs over fixed units each step draws new ones.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

from milanx.describing.milan.folder import DECODER, PRIOR
from milanx.describing.milan.network import AttentionDecoder, LanguageModel, MilanSpec
from milanx.describing.milan.words import Vocabulary
from milanx.describing.set_encoder import whitening
from milanx.features.encoder import MASKED, read_pixels, read_width
from milanx.files import read_json, write_json
from milanx.train.engine.fit import share
from milanx.train.engine.schedule import ADAM, FitSettings
from milanx.train.stages.desk import Course, Desk, step_rng
from milanx.train.units.corpus import Batch, Corpus

SAMPLE = 512  # units from which the features' usual values are learned
CHECKED = 384  # units, and texts, of a check
WORDS = ("milanx milan vocabulary", 1)  # format and version of a file of the stage's folder


def make_milan(desk: Desk) -> dict[str, Any]:
    """Train p(d|E); write it, its vocabulary and its shape."""
    course, encoder, settings = desk.course, desk.course.encoder, desk.recipe.milan
    corpus, check = course.corpus(), course.corpus(check=True)
    vocabulary = vocabulary_of(corpus)
    pixels = read_pixels(encoder)
    spec = MilanSpec(
        read_width(encoder), settings.components + pixels, len(vocabulary), settings.embedding,
        settings.hidden, settings.attention, settings.layers, settings.dropout, settings.longest,
    )  # fmt: skip
    torch.manual_seed(desk.recipe.seed)
    decoder = AttentionDecoder(spec)
    sample = corpus.batch(SAMPLE, step_rng(desk.recipe.seed, 0, 0)).evidence
    rows = sample.features[:, :, MASKED][sample.valid]
    decoder.mean.copy_(rows.mean(0))
    decoder.axes.copy_(whitening(rows, settings.components, pixels))
    facts = train_milan(desk, decoder, vocabulary, corpus, check)
    _save(decoder, desk, DECODER)
    write_json(desk.folder / "vocabulary.json", *WORDS,
               {"words": list(vocabulary.words), "network": asdict(spec)})  # fmt: skip
    return {**facts, "words": len(vocabulary.words)}


def vocabulary_of(corpus: Corpus) -> Vocabulary:
    """Return the words of every text that a corpus can draw."""
    return Vocabulary.of([*corpus.all_texts(), "or"])


def train_milan(
    desk: Desk, decoder: AttentionDecoder, vocabulary: Vocabulary, corpus: Corpus, check: Corpus
) -> dict[str, Any]:
    """Train p(d|E) on the units of a corpus, in place; the best on those of ``check`` is kept."""
    seed, settings = desk.recipe.seed, desk.recipe.milan
    longest = decoder.spec.longest

    def part_of(batch: Batch) -> Any:
        own = share(len(batch.texts), desk.accelerator)
        return batch.evidence.rows(own), *vocabulary.encode(batch.texts[own], longest)

    def loss_of(wrapped: nn.Module, step: int) -> Any:
        batch = corpus.batch(settings.batch_size, step_rng(seed, 13, step))
        return wrapped(*part_of(batch), settings.even)

    checked = check.batch(CHECKED, step_rng(seed, 15, 0)) if check.kinds else None

    def held_out(model: nn.Module) -> Any:
        assert checked is not None
        return model(*part_of(checked))

    return desk.fit(decoder, loss_of, _settings(desk, settings.steps, checked is not None),
                    held_out if checked else None)  # fmt: skip


def make_milan_prior(desk: Desk) -> dict[str, Any]:
    """Train p(d) on the same texts without their units; write it."""
    course, seed = desk.course, desk.recipe.seed
    words, spec = read_vocabulary(course)
    torch.manual_seed(seed)
    prior = LanguageModel(spec)
    facts = train_milan_prior(desk, prior, words, course.corpus(), course.corpus(check=True))
    _save(prior, desk, PRIOR)
    return facts


def train_milan_prior(
    desk: Desk, prior: LanguageModel, vocabulary: Vocabulary, corpus: Corpus, check: Corpus
) -> dict[str, Any]:
    """Train p(d) on the texts of a corpus, in place; the best on those of ``check`` is kept."""
    seed, settings = desk.recipe.seed, desk.recipe.milan

    def texts(source: Corpus, count: int, rng: np.random.Generator) -> Any:
        drawn = [source.text(rng) for _ in range(count)]
        return vocabulary.encode(drawn[share(count, desk.accelerator)], prior.spec.longest)

    def loss_of(wrapped: nn.Module, step: int) -> Any:
        return wrapped(*texts(corpus, settings.prior_batch_size, step_rng(seed, 14, step)))

    def held_out(model: nn.Module) -> Any:
        return model(*texts(check, CHECKED, step_rng(seed, 15, 1)))

    checked = bool(check.kinds)
    return desk.fit(prior, loss_of, _settings(desk, settings.prior_steps, checked),
                    held_out if checked else None)  # fmt: skip


def read_vocabulary(course: Course) -> tuple[Vocabulary, MilanSpec]:
    """Read the vocabulary and the shape of the networks that the stage ``milan`` wrote."""
    content = read_json(course.made["milan"].folder / "vocabulary.json", *WORDS)
    return Vocabulary(tuple(content["words"])), MilanSpec(**content["network"])


def _settings(desk: Desk, steps: int, checked: bool) -> FitSettings:
    settings = desk.recipe.milan
    every, patience = settings.check_every * checked, settings.patience * checked
    return FitSettings(
        steps, settings.learning_rate, betas=ADAM, check_every=every, patience=patience
    )


def _save(network: nn.Module, desk: Desk, name: str) -> None:
    """Write a network as float16."""
    halves = {key: value.half().contiguous() for key, value in network.state_dict().items()}
    save_file(halves, desk.folder / name, metadata={"format": "pt"})
