"""Tokenizer, base GPT-2, and exact log-probabilities of texts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from milanx.environment import announce_hub, hushed
from milanx.errors import FormatError, InputError, MissingWeights
from milanx.hub.reach import within_reach

END = "<|endoftext|>"
MAX_VOCABULARY = 8000
# Tokens of one forward pass when texts are scored: their logits fit in a CPU cache, or fill a GPU.
BATCH_TOKENS = {"cpu": 1024, "cuda": 32768}
BATCH_TOKENS_ELSEWHERE = 8192
FILES = ("model.safetensors", "pytorch_model.bin")  # of which a GPT-2 on the Hub has one
# The largest GPT-2 has 48, 1600, 1024 and 50257.
MOST = {"n_layer": 1000, "n_embd": 10**5, "n_positions": 10**6, "vocab_size": 10**7}


def train_tokenizer(texts: Iterable[str], size: int) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE of at most ``size`` tokens; one token is beginning, end and padding.

    Raises:
        ValueError: a size above `MAX_VOCABULARY`.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    if size > MAX_VOCABULARY:
        raise ValueError(f"a vocabulary of {size} is above {MAX_VOCABULARY}")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=END, eos_token=END, pad_token=END
    )


def build_gpt2(
    vocabulary: int, layers: int = 4, width: int = 256, heads: int = 4, positions: int = 64
) -> GPT2LMHeadModel:
    """Build a small GPT-2 with random weights."""
    config = GPT2Config(
        vocab_size=vocabulary,
        n_positions=positions,
        n_embd=width,
        n_layer=layers,
        n_head=heads,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
        embd_pdrop=0.0,  # few passes over the data: dropout only slows it down
        attn_pdrop=0.0,
        resid_pdrop=0.0,
    )
    return GPT2LMHeadModel(config)


def gpt2_config(source: str | Path) -> GPT2Config:
    """Read the shape of a GPT-2: a folder that ``save_pretrained`` wrote, or a name on the Hub.

    Raises:
        InputError: a model of another family.
        MissingWeights: it cannot be had here.
    """
    from transformers import AutoConfig

    try:
        with within_reach(source):
            if not Path(source).is_dir():
                announce_hub(str(source), FILES, "the language model")
            config = AutoConfig.from_pretrained(str(source), trust_remote_code=False)
    except (OSError, ValueError) as error:  # transformers' and the Hub's refusals are such
        raise _missing(source, error) from error
    if not isinstance(config, GPT2Config):
        raise InputError(
            f"{source} is no GPT-2",
            f"it is a {config.model_type}, and the search reads GPT-2's own weights",
            "name gpt2, distilgpt2, another of that family, or a folder with one",
        )
    sizes = {name: getattr(config, name) for name in MOST}
    for name, size in sizes.items():
        if type(size) is not int or not 0 < size <= MOST[name]:
            raise InputError(f"{source} is no GPT-2 that can be", f"its {name} is {size!r}, and at "
                             f"most {MOST[name]}", "name another")  # fmt: skip
    return config


def load_gpt2(source: str | Path) -> GPT2LMHeadModel:
    """Read a GPT-2 in float32, without dropout: a folder, or a name on the Hub.

    Raises:
        InputError: a model of another family.
        MissingWeights: it cannot be had here.
    """
    config = gpt2_config(source)
    config.embd_pdrop = config.attn_pdrop = config.resid_pdrop = 0.0
    try:
        with within_reach(source), hushed():
            model, told = GPT2LMHeadModel.from_pretrained(
                str(source), config=config, dtype=torch.float32, output_loading_info=True
            )
    except (OSError, ValueError, RuntimeError) as error:
        raise _missing(source, error) from error
    _check_whole(source, model, told)
    if config.activation_function == "gelu_new":
        for block in model.transformer.h:  # the same function in one pass over memory, not eight
            block.mlp.act = torch.nn.GELU(approximate="tanh")
    return model.eval()


def _check_whole(source: str | Path, model: GPT2LMHeadModel, told: dict[str, Any]) -> None:
    """Refuse a model of which tensors were not found, or are no numbers.

    Raises:
        FormatError: it is one.
    """
    lacking = [*sorted(map(str, told["missing_keys"])), *sorted(map(str, told["mismatched_keys"]))]
    lacking += [n for n, value in model.state_dict().items() if not value.isfinite().all()]
    if lacking:
        raise FormatError(
            f"the language model {source} is damaged",
            f"{lacking[0]} is missing, of another shape, or holds what is no number (NaN)",
            "make it again, or fetch it again",
        )


def load_tokenizer(source: str | Path) -> PreTrainedTokenizerFast:
    """Read the tokenizer of a GPT-2; a text's first word is written as one amid a sentence.

    Raises:
        MissingWeights: it cannot be had here.
    """
    from transformers import AutoTokenizer

    try:
        with within_reach(source):
            found: Any = AutoTokenizer.from_pretrained(
                str(source), add_prefix_space=True, trust_remote_code=False
            )
    except (OSError, ValueError) as error:
        raise _missing(source, error) from error
    return found


def _missing(source: str | Path, error: Exception) -> MissingWeights:
    return MissingWeights(
        f"the language model {source} cannot be had here",
        next(filter(None, map(str.strip, str(error).splitlines())), type(error).__name__),
        ["fetch it once where there is a network and copy the Hugging Face cache (HF_HOME) here",
         "name a local folder that save_pretrained wrote"],
    )  # fmt: skip


def encode_texts(
    tokenizer: PreTrainedTokenizerFast, texts: Sequence[str], max_tokens: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Turn texts into token ids with the end token, padded on the right.

    Args:
        tokenizer: its end token closes each text.
        texts: n texts.
        max_tokens: longer texts are cut to this many tokens, the end token included.

    Returns:
        ids int64 [n, t] and mask bool [n, t], True on each text's tokens and its end token.
    """
    end = tokenizer.eos_token_id
    rows = [
        [*row[: max_tokens - 1], end]
        for row in tokenizer(list(texts), add_special_tokens=False)["input_ids"]
    ]
    longest = max((len(row) for row in rows), default=1)
    ids = torch.full((len(rows), longest), end, dtype=torch.long)
    mask = torch.zeros(len(rows), longest, dtype=torch.bool)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row)
        mask[i, : len(row)] = True
    return ids, mask


@torch.inference_mode()
def log_probabilities(
    model: GPT2LMHeadModel, ids: torch.Tensor, mask: torch.Tensor
) -> torch.Tensor:
    """Compute the log-probability of whole texts, end token included, in nats.

    The sequence that the model reads is beginning token, text, end token.

    Args:
        model: a causal language model.
        ids: int64 [n, t], as `encode_texts` gives them.
        mask: bool [n, t].

    Returns:
        float32 [n], on the CPU.
    """
    device = model.get_input_embeddings().weight.device
    batch_tokens = BATCH_TOKENS.get(device.type, BATCH_TOKENS_ELSEWHERE)
    lengths = mask.sum(1)
    order = torch.argsort(lengths, stable=True)
    out = torch.empty(len(ids), dtype=torch.float32)
    start = 0
    while start < len(order):
        # As many of the shortest that are left as fit; their padding stays small.
        size = max(1, batch_tokens // (int(lengths[order[start]]) + 1))
        rows = order[start : start + size]
        longest = int(lengths[rows].max())
        here, where = ids[rows, :longest].to(device), mask[rows, :longest].to(device)
        begin = here.new_full((len(rows), 1), model.config.bos_token_id)
        embedded = model.get_input_embeddings()(torch.cat([begin, here[:, :-1]], dim=1))
        logits = model(inputs_embeds=embedded).logits.float()
        chosen = logits.gather(2, here[..., None]).squeeze(2) - logits.logsumexp(2)
        out[rows] = (chosen * where).sum(1).cpu()
        start += len(rows)
    return out
