"""What a describer's folder holds: its encoder or the name of one, set encoder, language models."""

from __future__ import annotations

import logging
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from milanx.describing.parts import About, Lexicon, Parts
from milanx.describing.settings import SearchSettings
from milanx.errors import FormatError, InputError, MilanxError, MissingWeights
from milanx.files import fingerprint, fingerprint_file, read_json

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel

    from milanx.describing.set_encoder import SetEncoder, SetEncoderSpec
    from milanx.features.encoder import Encoder
    from milanx.language.prior import Prior

FORMAT = "milanx describer"
VERSION = 3  # 3: every number that texts depend on is written
OLDER = (2,)  # what version 2 leaves unsaid has the defaults of the settings: it was made with them
WORDS = "milanx words"
WORDS_VERSION = 1
S = TypeVar("S", SearchSettings, "SetEncoderSpec")


def read_parts(root: Path, device: str) -> Parts:
    """Read a describer's folder.

    Args:
        root: the folder.
        device: where the parts compute.

    Raises:
        FormatError: no describer, a damaged one, or a version that this milanx does not know.
        InputError: what is there under the name of its encoder has other weights.
        MissingWeights: an open_clip model or a GPT-2 that it needs cannot be had here.
    """
    from milanx.describing.set_encoder import SetEncoderSpec

    path = root / "describer.json"
    content = read_json(path, FORMAT, VERSION, OLDER)
    settings = _read(path, SearchSettings, content["search"])
    spec = _read(path, SetEncoderSpec, content["set_encoder"])
    words = read_json(root / "words.json", WORDS, WORDS_VERSION)
    files = sorted(p for p in root.rglob("*") if p.suffix in {".safetensors", ".json"})
    known = [[p.name, fingerprint_file(p)] for p in files]
    decoder, prior = load_language(root, content, device)
    about = About(
        content["name"], settings, int(content["contrast"]), content["training"], root,
        fingerprint(known, asdict(settings), asdict(spec)),
    )  # fmt: skip
    return Parts(
        load_encoder(root, content).to(device),
        load_set_encoder(root, spec).to(device),
        decoder,
        prior,
        Lexicon(frozenset(words["words"]), tuple(words["vocabulary"])),
        about,
    )


def _read(path: Path, kind: type[S], values: dict[str, Any]) -> S:
    """Make settings of what a file says of them."""
    unknown = sorted(values.keys() - {f.name for f in fields(kind)})
    if unknown:
        raise FormatError(
            f"{path} holds settings that this milanx does not know",
            f"there is no {', '.join(unknown)} among its own",
            "use the milanx that wrote it",
        )
    try:
        return kind(**values)
    except TypeError as error:
        raise FormatError(f"{path} is damaged", str(error), "make it again") from error


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

        from milanx.features.smallclip import SmallClipEncoder, SmallClipSpec

        encoder = SmallClipEncoder(SmallClipSpec.from_dict(spec))
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
    return found


def load_set_encoder(root: Path, spec: SetEncoderSpec) -> SetEncoder:
    """Load the set encoder of a describer's folder."""
    from safetensors.torch import load_file

    from milanx.describing.set_encoder import SetEncoder

    set_encoder = SetEncoder(spec)
    weights = load_file(root / "set_encoder.safetensors")
    set_encoder.load_state_dict({k: v.float() for k, v in weights.items()})
    return set_encoder.eval().requires_grad_(False)


def load_language(
    root: Path, content: dict[str, Any], device: str
) -> tuple[GPT2LMHeadModel, Prior]:
    """Load p(d|E) and p(d); the base is the folder's or the one that it names."""
    from transformers import PreTrainedTokenizerFast

    from milanx.describing.set_encoder import load_merged
    from milanx.language.prior import Prior

    for name in ("transformers", "bitsandbytes"):  # peft imports the latter where it is installed
        logging.getLogger(name).setLevel(logging.ERROR)
    base = content.get("base") or str(root / "base")
    decoder = load_merged(base, str(root / "decoder")).to(device)
    unconditioned = load_merged(base, str(root / "prior")).to(device)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(root / "tokenizer")
    return decoder, Prior(unconditioned, tokenizer)
