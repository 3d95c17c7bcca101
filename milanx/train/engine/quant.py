"""bitsandbytes (extra ``quant``): an 8-bit optimiser, and language models with a 4-bit base."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from milanx.errors import InputError, MissingWeights
from milanx.hub.reach import within_reach

INSTALL = "pip install 'milanx[quant]'"
SMALLEST = 4096  # elements from which bitsandbytes keeps a parameter's moments in 8 bits


def adamw8bit(
    params: Iterable[nn.Parameter],
    lr: float,
    *,
    betas: tuple[float, float] = (0.9, 0.98),
    weight_decay: float = 0.01,
    device: torch.device | str = "cpu",
) -> torch.optim.Optimizer:
    """Return AdamW whose moments are 8-bit numbers in blocks (Dettmers et al. 2022).

    Moments of parameters below `SMALLEST` elements stay in 32 bits.

    Args:
        params: what is trained.
        lr: learning rate.
        betas: of AdamW.
        weight_decay: of AdamW.
        device: where ``params`` will be trained.

    Raises:
        InputError: bitsandbytes is not installed, or cannot do it on this device.
    """
    bnb = _bitsandbytes()
    _try(f"the 8-bit optimiser does not run on {device}", lambda: _one_step(bnb, device),
         "train with the optimiser adamw")  # fmt: skip
    chosen = bnb.optim.AdamW8bit(
        list(params), lr, betas=betas, weight_decay=weight_decay, min_8bit_size=SMALLEST
    )
    assert isinstance(chosen, torch.optim.Optimizer)
    return chosen


def load_4bit(
    source: str | Path, *, device: torch.device | str = "cpu", dtype: torch.dtype | None = None
) -> Any:
    """Read a causal language model with the weights of its linear maps in 4 bits.

    The format is nf4 with double quantisation (Dettmers et al. 2023, "QLoRA"): about 4.1 bits a
    weight. Embeddings, norms, biases and the output map are in float32, so that the model can be
    used within autocast and without. Nothing of it is trained; an adapter may be
    (`milanx.train.engine.lora`).

    Args:
        source: a folder, or a name on the Hub.
        device: where it will be used.
        dtype: of the linear maps' products; float32 on a CPU, else bfloat16, or float16 where the
            device has none.

    Raises:
        InputError: bitsandbytes is not installed, or cannot do it on this device.
        MissingWeights: no such model can be had here.
    """
    bnb = _bitsandbytes()
    device = torch.device(device)
    _try(f"4-bit weights do not run on {device}", lambda: _one_product(bnb, device),
         "load the model in 16 or 32 bits")  # fmt: skip
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    dtype = dtype or _compute_dtype(device)
    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )
    try:
        with within_reach(source):
            model = AutoModelForCausalLM.from_pretrained(
                str(source), quantization_config=config, device_map={"": device},
                dtype=torch.float32, trust_remote_code=False,
            )  # fmt: skip
    except (OSError, ValueError) as error:  # no such file or name; a folder of something else
        raise MissingWeights(
            f"no language model {source}",
            str(error).splitlines()[0],
            "give a folder that save_pretrained wrote, or a name on the Hub",
        ) from error
    for module in model.modules():
        # bitsandbytes' layout for CPUs with AVX512-BF16 is taken at the first look without
        # gradients, such as a check in the midst of training, and has no gradients afterwards.
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    return model.requires_grad_(False).eval()


def without_dropout(model: Any) -> Any:
    """Return ``model`` with its dropout set to nothing: few passes are made over the data."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return model


def _bitsandbytes() -> Any:
    """Import bitsandbytes, without its advice on the terminal."""
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    try:
        import bitsandbytes
    except ImportError as error:
        raise InputError(
            "8-bit and 4-bit training cannot be had", "bitsandbytes is not installed", INSTALL
        ) from error
    except Exception as error:  # a broken driver or library of the platform, in its own words
        raise InputError(
            "8-bit and 4-bit training cannot be had",
            f"bitsandbytes does not load: {_line(error)}",
            "train without it",
        ) from error
    return bitsandbytes


def _try(what: str, work: Any, way_out: str) -> None:
    """Do a tiny piece of the work, since bitsandbytes finds out only then what it lacks."""
    try:
        work()
    except Exception as error:  # RuntimeError, NotImplementedError, AttributeError: it varies
        raise InputError(
            what, f"bitsandbytes lacks it on this platform: {_line(error)}", way_out
        ) from error


def _one_step(bnb: Any, device: torch.device | str) -> None:
    weight = nn.Parameter(torch.zeros(SMALLEST, device=device))
    weight.grad = torch.ones_like(weight)
    bnb.optim.AdamW8bit([weight], 1e-3, min_8bit_size=SMALLEST).step()


def _one_product(bnb: Any, device: torch.device) -> None:
    dtype = _compute_dtype(device)
    layer = bnb.nn.Linear4bit(64, 64, compute_dtype=dtype, quant_type="nf4").to(device)
    layer(torch.ones(1, 64, dtype=dtype, device=device, requires_grad=True)).sum().backward()


def _compute_dtype(device: torch.device) -> torch.dtype:
    if device.type == "cpu":
        return torch.float32
    if device.type == "cuda" and not torch.cuda.is_bf16_supported():
        return torch.float16
    return torch.bfloat16


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
