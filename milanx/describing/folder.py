"""What a describer's folder holds: its encoder or the name of one, set encoder, language models."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from milanx.errors import InputError, MilanxError, MissingWeights

if TYPE_CHECKING:
    from milanx.describing.set_encoder import SetEncoder
    from milanx.features.encoder import Encoder


def load_encoder(root: Path, content: dict[str, Any]) -> Encoder:
    """Load the encoder that a describer's folder holds or names.

    Args:
        root: the folder.
        content: of its describer.json.

    Raises:
        MissingWeights: an open_clip model that it names cannot be had here.
        InputError: what is there under that name has other weights.
    """
    spec = content["encoder"]
    if spec.get("kind") != "open_clip":
        from safetensors.torch import load_file

        from milanx.features.encoder import Encoder, EncoderSpec

        encoder = Encoder(EncoderSpec.from_dict(spec))
        projection = load_file(root / "encoder.safetensors")
        encoder.projection.load_state_dict({k: v.float() for k, v in projection.items()})
        return encoder
    from milanx.features.openclip import OpenClipEncoder, OpenClipSpec

    named = f"{spec['model']} {spec['pretrained']}".strip()
    elsewhere = f"if it lies elsewhere, name the place in {root / 'describer.json'}: encoder.model"
    try:
        found = OpenClipEncoder(OpenClipSpec.from_dict(spec))
    except MilanxError as error:
        raise MissingWeights(
            f"the describer {root} needs the open_clip model {named}",
            f"{error.what}: {error.why}",
            [elsewhere, *error.ways_out[:1]],
        ) from error
    if found.fingerprint() != content["encoder_fingerprint"]:
        raise InputError(
            f"the open_clip model {named} is not the one that {root} was trained with",
            "its weights or its settings are others",
            elsewhere,
        )
    return cast("Encoder", found)


def load_set_encoder(root: Path, content: dict[str, Any]) -> SetEncoder:
    """Load the set encoder of a describer's folder; ``content`` is of its describer.json."""
    from safetensors.torch import load_file

    from milanx.describing.set_encoder import SetEncoder, SetEncoderSpec

    set_encoder = SetEncoder(SetEncoderSpec(**content["set_encoder"]))
    weights = load_file(root / "set_encoder.safetensors")
    set_encoder.load_state_dict({k: v.float() for k, v in weights.items()})
    return set_encoder.eval().requires_grad_(False)


def load_language(root: Path, content: dict[str, Any], device: str) -> tuple[Any, Any, Any]:
    """Load p(d|E), p(d) and their tokenizer; the base is the folder's or the one that it names."""
    from transformers import PreTrainedTokenizerFast

    from milanx.describing.set_encoder import load_merged
    from milanx.language.prior import Prior

    for name in ("transformers", "bitsandbytes"):  # peft imports the latter where it is installed
        logging.getLogger(name).setLevel(logging.ERROR)
    base = content.get("base") or str(root / "base")
    decoder = load_merged(base, str(root / "decoder")).to(device)
    unconditioned = load_merged(base, str(root / "prior")).to(device)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(root / "tokenizer")
    return decoder, Prior(unconditioned, tokenizer), tokenizer
