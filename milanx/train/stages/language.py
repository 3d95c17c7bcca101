"""Training of the critic and the language side: base GPT-2, p(d|E) and p(d).

The base learns captions and descriptions, half of them behind the prefix of an exemplar set; so
it reads prefixes before LoRA adapts it, once to descriptions of exemplars, once without them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import PreTrainedTokenizerFast

from milanx.describing.set_encoder import SetEncoder, SetEncoderSpec, with_lora
from milanx.errors import InputError
from milanx.features.encoder import Encoder, read_pixels, read_width
from milanx.features.evidence import Evidence
from milanx.language.gpt2 import (
    build_gpt2,
    encode_texts,
    load_gpt2,
    load_tokenizer,
    train_tokenizer,
)
from milanx.train.engine.fit import fit_model, share
from milanx.train.engine.losses import prefix_sums, text_sums
from milanx.train.engine.quant import load_4bit, lora_on_4bit, without_dropout
from milanx.train.engine.schedule import FitSettings
from milanx.train.engine.track import Tracker
from milanx.train.recipe import BaseSettings, DecoderSettings, PriorSettings, Recipe
from milanx.train.stages.critic import train_critic
from milanx.train.units.corpus import Batch, Corpus

TOKENS = 24  # longest description in training, in tokens; captions are cut there
SAMPLE = 512  # units from which the features' usual values are learned
NO_WORDS = 0.3  # share of the units that retrieve no words in training
BEHIND = 6.0  # weight of a token behind a prefix beside one of the longer plain texts
CHECKED = 384  # units of a check
PEOPLE = 0.3  # share of people's descriptions among those that p(d) is fitted to


@dataclass(frozen=True)
class Desk:
    """Where one training works: its recipe, processes, checkpoint, tracker and progress."""

    recipe: Recipe
    accelerator: Any
    checkpoint: Path
    tracker: Tracker | None
    advance: Callable[[int, float], None]

    def fit(
        self,
        model: nn.Module,
        loss_of: Callable[[nn.Module, int], Any],
        settings: BaseSettings | DecoderSettings | PriorSettings,
        held_out: Callable[[nn.Module], Any] | None = None,
    ) -> dict[str, Any]:
        """Train ``model`` and return what happened: losses, checks, the best step."""
        chosen = FitSettings(
            settings.steps, settings.learning_rate, accumulate=settings.accumulate,
            optimiser=settings.optimiser, check_every=settings.check_every if held_out else 0,
            patience=settings.patience if held_out else 0,
        )  # fmt: skip
        fitted = fit_model(
            self.accelerator, model, loss_of, chosen, seed=self.recipe.seed,
            checkpoint=self.checkpoint, held_out=held_out, tracker=self.tracker,
            advance=self.advance,
        )  # fmt: skip
        return {
            "loss": round(float(np.mean(fitted.losses[-50:])), 4),
            "steps": len(fitted.losses),
            "held_out": [[step, round(value, 4)] for step, value in fitted.held_out],
            "best_step": fitted.best_step,
            "stopped_early": fitted.stopped_early,
        }


class Conditioned(nn.Module):
    """Set encoder and GPT-2 as one module, so that one optimiser trains both."""

    model: Any

    def __init__(self, set_encoder: SetEncoder, model: nn.Module) -> None:
        super().__init__()
        self.set_encoder = set_encoder
        self.model = model

    def forward(
        self,
        evidence: Evidence,
        ids: torch.Tensor,
        mask: torch.Tensor,
        bos: int,
        plain: tuple[torch.Tensor, torch.Tensor] | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return summed loss and tokens of texts behind their sets, or beside plain texts.

        With plain texts, the sum over these and `BEHIND` times the other, and the plain tokens.
        """
        device = self.set_encoder.mean.device
        evidence, ids, mask = evidence.to(device), ids.to(device), mask.to(device)
        with_words = None
        if self.training:
            with_words = torch.rand(len(evidence), device=ids.device) >= NO_WORDS
        prefix = self.set_encoder(evidence, with_words)
        total, tokens = prefix_sums(self.model, prefix, ids, mask, bos)
        if plain is None:
            return total, tokens
        plain_total, plain_tokens = text_sums(self.model, *plain, bos)
        return plain_total + BEHIND * total, plain_tokens


def step_rng(seed: int, stage: int, step: int) -> np.random.Generator:
    """Return the randomness of one step's batch: the same however the step was reached."""
    return np.random.default_rng([seed, stage, step])


def new_set_encoder(
    recipe: Recipe, encoder: Encoder, corpus: Corpus, vocabulary: Sequence[str]
) -> SetEncoder:
    """Build a set encoder that knows the features' usual values and the vocabulary."""
    spec = SetEncoderSpec(
        read_width(encoder), encoder.spec.joint, recipe.base.width, recipe.decoder.prefix,
        layers=recipe.decoder.layers, vocabulary=len(vocabulary),
        pixels=read_pixels(encoder), critic=recipe.critic.width,
    )  # fmt: skip
    set_encoder = SetEncoder(spec)
    sample = corpus.batch(SAMPLE, step_rng(recipe.seed, 0, 0)).evidence
    set_encoder.learn_usual(sample, encoder.texts(vocabulary).cpu())
    often = corpus.frequencies()
    set_encoder.frequency.copy_(torch.tensor([often.get(t, min(often.values()))
                                              for t in vocabulary]).log())  # fmt: skip
    return set_encoder


def train_agreement(
    desk: Desk,
    encoder: Encoder,
    corpus: Corpus,
    check: Corpus,
    vocabulary: Sequence[str],
    folder: Path,
) -> dict[str, Any]:
    """Train the critic of a new set encoder; write the set encoder."""
    recipe = desk.recipe
    set_encoder = new_set_encoder(recipe, encoder, corpus, vocabulary)
    facts = train_critic(
        set_encoder, encoder, corpus, check, recipe.critic, recipe.seed, desk.advance
    )
    save_file(set_encoder.state_dict(), folder / "set_encoder.safetensors")
    return {**facts, "set_encoder": asdict(set_encoder.spec)}


def load_set_encoder(folder: Path, spec: dict[str, Any]) -> SetEncoder:
    """Load the set encoder that a stage wrote, its critic frozen."""
    set_encoder = SetEncoder(SetEncoderSpec(**spec))
    set_encoder.load_state_dict(load_file(folder / "set_encoder.safetensors"))
    set_encoder.critic.requires_grad_(False)
    return set_encoder


def train_base(
    desk: Desk,
    corpus: Corpus,
    texts: list[str],
    before: Path,
    spec: dict[str, Any],
    folder: Path,
) -> dict[str, Any]:
    """Pretrain the base on ``texts`` and on units; write base, tokenizer and set encoder.

    The set encoder goes on from the one in ``before``, whose critic stays as it is.
    """
    recipe, settings = desk.recipe, desk.recipe.base
    if settings.model:
        return _train_prefixes(desk, corpus, before, spec, folder)
    rng = np.random.default_rng(recipe.seed)
    drawn = [corpus.text(rng) for _ in range(len(texts) // 10)]
    tokenizer = train_tokenizer([*texts, *drawn], settings.vocabulary)
    torch.manual_seed(recipe.seed)
    model = build_gpt2(
        len(tokenizer), settings.layers, settings.width, settings.heads, settings.positions
    )
    both = Conditioned(load_set_encoder(before, spec), model)
    ids, mask = encode_texts(tokenizer, texts, TOKENS)
    count = settings.steps * settings.accumulate
    order = _batches(mask.sum(1).numpy(), settings.batch_size, count, rng)

    def loss_of(wrapped: nn.Module, step: int) -> Any:
        rows = order[step][share(len(order[step]), desk.accelerator)]
        longest = int(mask[rows].sum(1).max())
        batch = corpus.batch(settings.units, step_rng(recipe.seed, 1, step))
        part = share(settings.units, desk.accelerator)
        return wrapped(
            batch.evidence.rows(part), *encode_texts(tokenizer, batch.texts[part], TOKENS),
            tokenizer.bos_token_id, (ids[rows, :longest], mask[rows, :longest]),
        )  # fmt: skip

    facts = desk.fit(both, loss_of, settings)
    model.half().save_pretrained(folder / "base")
    tokenizer.save_pretrained(folder / "tokenizer")
    save_file(both.set_encoder.state_dict(), folder / "set_encoder.safetensors")
    return {**facts, "texts": len(texts)}


def _batches(
    lengths: np.ndarray, size: int, steps: int, rng: np.random.Generator
) -> list[np.ndarray]:
    """Batches of texts of like length, in random order."""
    batches: list[np.ndarray] = []
    while len(batches) < steps:
        order = np.lexsort((rng.random(len(lengths)), lengths))
        epoch = [order[i : i + size] for i in range(0, len(order), size)]
        batches += [epoch[i] for i in rng.permutation(len(epoch))]
    return batches[:steps]


def _train_prefixes(
    desk: Desk, corpus: Corpus, before: Path, spec: dict[str, Any], folder: Path
) -> dict[str, Any]:
    """Teach the set encoder to make prefixes that the recipe's frozen GPT-2 reads.

    The model is neither trained nor written: nothing of its language can be lost, and LoRA adapts
    it later. Writes its tokenizer and the set encoder.

    Raises:
        InputError: too few positions, or a tokenizer that does not fit.
    """
    recipe, settings = desk.recipe, desk.recipe.base
    model, tokenizer = _load_base(desk, None)
    both = Conditioned(load_set_encoder(before, spec), model.requires_grad_(False))
    ends = (tokenizer.bos_token_id, tokenizer.eos_token_id)
    if ends != (model.config.bos_token_id, model.config.eos_token_id) or None in ends:
        raise InputError(
            f"the language model {settings.model} does not fit its tokenizer",
            f"the tokenizer begins and ends texts with tokens {ends}, its config.json says others",
            "write both with save_pretrained, with the same bos and eos tokens",
        )
    longest = both.set_encoder.prefix_length + 1 + TOKENS
    if model.config.n_positions < longest:
        raise InputError(
            f"the language model {settings.model} has {model.config.n_positions} positions",
            f"prefix and text need {longest}",
            "choose another base.model, or a smaller decoder.prefix",
        )

    def loss_of(wrapped: nn.Module, step: int) -> Any:
        batch = corpus.batch(settings.units, step_rng(recipe.seed, 1, step))
        part = share(settings.units, desk.accelerator)
        ids, mask = encode_texts(tokenizer, batch.texts[part], TOKENS)
        return wrapped(batch.evidence.rows(part), ids, mask, tokenizer.bos_token_id)

    facts = desk.fit(both, loss_of, settings)
    tokenizer.save_pretrained(folder / "tokenizer")
    save_file(both.set_encoder.state_dict(), folder / "set_encoder.safetensors")
    return facts


def _load_base(desk: Desk, folder: Path | None) -> tuple[Any, PreTrainedTokenizerFast]:
    """Load the recipe's GPT-2, or else the small one of ``folder``, and the tokenizer."""
    base = desk.recipe.base
    if base.load_in_4bit:
        model = without_dropout(load_4bit(base.model, device=desk.accelerator.device))
    else:
        model = load_gpt2(base.model or f"{folder}/base")
    if base.model:
        return model, load_tokenizer(base.model)
    return model, PreTrainedTokenizerFast.from_pretrained(f"{folder}/tokenizer")


def train_decoder(
    desk: Desk,
    corpus: Corpus,
    check: Corpus,
    base_folder: Path,
    spec: dict[str, Any],
    folder: Path,
) -> dict[str, Any]:
    """Adapt the base with LoRA to descriptions of exemplar sets; write adapter and set encoder.

    The weights that are kept are those of the best loss on ``check``'s units, of photos that no
    training saw.
    """
    recipe, settings = desk.recipe, desk.recipe.decoder
    torch.manual_seed(recipe.seed)
    base, tokenizer = _load_base(desk, base_folder)
    adapt = lora_on_4bit if recipe.base.load_in_4bit else with_lora
    lora = {
        "r": settings.rank,
        "lora_alpha": settings.alpha,
        "lora_dropout": settings.dropout,
        "target_modules": list(settings.targets),
    }
    set_encoder = load_set_encoder(base_folder, spec)
    both = Conditioned(set_encoder, adapt(base, lora))

    def loss_of(wrapped: nn.Module, step: int) -> Any:
        batch = corpus.batch(settings.batch_size, step_rng(recipe.seed, 2, step))
        part = share(settings.batch_size, desk.accelerator)
        ids, mask = encode_texts(tokenizer, batch.texts[part], TOKENS)
        return wrapped(batch.evidence.rows(part), ids, mask, tokenizer.bos_token_id)

    # Where too few photos are kept for a check, the last weights are taken.
    checked = check.batch(CHECKED, step_rng(recipe.seed, 3, 0)) if check.kinds else None

    def held_out(model: nn.Module) -> Any:
        assert checked is not None
        part = share(CHECKED, desk.accelerator)
        ids, mask = encode_texts(tokenizer, checked.texts[part], TOKENS)
        return model(checked.evidence.rows(part), ids, mask, tokenizer.bos_token_id)

    facts = desk.fit(both, loss_of, settings, held_out if checked else None)
    both.model.save_pretrained(folder / "decoder")
    halves = {k: v.half() for k, v in set_encoder.state_dict().items()}
    save_file(halves, folder / "set_encoder.safetensors")
    if checked:
        facts["held_out_by_kind"] = losses_by_kind(both, checked, tokenizer)
    return facts


@torch.inference_mode()
def losses_by_kind(
    both: Conditioned, batch: Batch, tokenizer: PreTrainedTokenizerFast
) -> dict[str, float]:
    """Mean negative log-likelihood a token of fresh units, by kind of meaning."""
    both.eval()
    found = {}
    for kind in sorted(set(batch.kinds)):
        rows = torch.tensor([i for i, k in enumerate(batch.kinds) if k == kind])
        texts = [batch.texts[i] for i in rows]
        ids, mask = encode_texts(tokenizer, texts, TOKENS)
        total, tokens = both(batch.evidence.rows(rows), ids, mask, tokenizer.bos_token_id)
        found[kind] = round(float(total / tokens), 3)
    return found


def train_prior(
    desk: Desk, corpus: Corpus, people: Sequence[str], base_folder: Path, folder: Path
) -> dict[str, Any]:
    """Fit the base with a LoRA of its own to descriptions without their sets.

    They are those of units, and a share of what people wrote of units elsewhere, so that p(d)
    knows how they would say it.
    """
    recipe, settings = desk.recipe, desk.recipe.prior
    torch.manual_seed(recipe.seed)
    base, tokenizer = _load_base(desk, base_folder)
    adapt = lora_on_4bit if recipe.base.load_in_4bit else with_lora
    lora = {
        "r": settings.rank,
        "lora_alpha": settings.alpha,
        "target_modules": list(recipe.decoder.targets),
    }
    model: Any = adapt(base, lora)

    def loss_of(wrapped: nn.Module, step: int) -> Any:
        rng = step_rng(recipe.seed, 4, step)
        written = round(PEOPLE * settings.batch_size) if people else 0
        texts = [corpus.text(rng) for _ in range(settings.batch_size - written)]
        texts += [str(people[i]) for i in rng.integers(0, max(len(people), 1), written)]
        part = share(settings.batch_size, desk.accelerator)
        ids, mask = encode_texts(tokenizer, texts[part], TOKENS)
        return text_sums(wrapped, ids, mask, tokenizer.bos_token_id)

    facts = desk.fit(model, loss_of, settings)
    model.save_pretrained(folder / "prior")
    return facts
