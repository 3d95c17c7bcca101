"""What a describer's folder holds: its encoder or the name of one, set encoder, language models.

``describer.json`` tells every other file by a digest (`milanx.files.digests`), and itself by its
seal; folders of an earlier milanx have neither. What lies there besides is not read.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from milanx.describing import checks
from milanx.describing.checks import INDEX, part_names, settings_of
from milanx.describing.confidence import FILE as CONFIDENCE
from milanx.describing.parts import About, Lexicon, Parts
from milanx.describing.settings import SearchSettings
from milanx.errors import FormatError, InputError, MilanxError, MissingWeights
from milanx.files import fingerprint, read_json, reading, write_json
from milanx.files.digests import AGAIN, FILES, MOST_TEXT, SEAL, Listing, digest_file, regular
from milanx.files.kinds import DESCRIBER
from milanx.hub.address import address_of
from milanx.hub.fetch import Access, Wanted, fetch

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel

    from milanx.describing.confidence import Calibration
    from milanx.describing.set_encoder import SetEncoder, SetEncoderSpec
    from milanx.features.encoder import Encoder
    from milanx.language.prior import Prior

BUILTIN = "builtin"  # as which the bundled describer is named
FORMAT = "milanx describer"
VERSION = 3  # 3: every number that texts depend on is written
OLDER = (2,)  # what version 2 leaves unsaid has the defaults of the settings: it was made with them
WORDS = "milanx words"
WORDS_VERSION = 1
MOST_CONTRAST = 1000  # contrast views


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
    from milanx.features.encoder import read_width

    content, listing = read_content(root)
    path = root / INDEX
    settings = settings_of(path, SearchSettings, content["search"])
    spec = settings_of(path, SetEncoderSpec, content["set_encoder"])
    stamp = stamp_of(root, content, listing)
    lexicon = read_words(root)
    decoder, prior = load_language(root, content)
    encoder = load_encoder(root, content)
    with reading(path):
        if (read_width(encoder), encoder.spec.joint) != (spec.features, spec.joint):
            raise ValueError("its encoder and its set encoder do not fit one another")
        if decoder.config.n_embd != spec.width:
            raise ValueError("its set encoder and its language models do not fit one another")
        if len(lexicon.vocabulary) not in (0, spec.vocabulary):
            raise ValueError(f"{len(lexicon.vocabulary)} phrases for {spec.vocabulary} vectors")
    set_encoder = load_set_encoder(root, spec)
    about = About(
        content["name"], settings, content["contrast"], content["training"], root, stamp,
    )  # fmt: skip
    prior.model.to(device)
    return Parts(
        encoder.to(device), set_encoder.to(device), decoder.to(device), prior, lexicon, about
    )


def read_content(root: Path) -> tuple[dict[str, Any], Listing]:
    """Read ``describer.json``, and what it tells of the other files, none of which is read.

    Raises:
        FormatError: no describer, a damaged one, or a version that this milanx does not know.
    """
    path = root / INDEX
    if path.is_symlink() or path.exists():
        regular(path, MOST_TEXT)
    content = read_json(path, FORMAT, VERSION, OLDER)
    kinds = {"name": str, "encoder": dict, "set_encoder": dict, "search": dict, "contrast": int,
             "training": dict}  # fmt: skip
    for name, kind in kinds.items():
        if type(content.get(name)) is not kind:
            raise FormatError(f"{path} is damaged", f"its {name} is no {kind.__name__}", AGAIN)
    if not 0 <= content["contrast"] <= MOST_CONTRAST:
        raise FormatError(f"{path} is damaged", f"its contrast is {content['contrast']}", AGAIN)
    return content, Listing.read(root, content, path)


def stamp_of(root: Path, content: dict[str, Any], listing: Listing) -> str:
    """Return the fingerprint of a describer's folder, after a look at all of its files.

    Raises:
        FormatError: a file that is not what the index tells, or settings that are not known.
    """
    from milanx.describing.set_encoder import SetEncoderSpec

    settings = settings_of(root / INDEX, SearchSettings, content["search"])
    spec = settings_of(root / INDEX, SetEncoderSpec, content["set_encoder"])
    return fingerprint(_told(root, content, listing), asdict(settings), asdict(spec))


def write_content(root: Path, content: dict[str, Any]) -> None:
    """Write ``describer.json``, which tells all other files that lie in the folder; last.

    Args:
        root: the folder.
        content: what it says beside; what it told before is left out.
    """
    rest = {name: value for name, value in content.items()
            if name not in (FILES, SEAL, "format", "version")}  # fmt: skip
    told = Listing.of(root, part_names(root)).to_dict()
    version = content.get("version", VERSION)
    write_json(root / INDEX, FORMAT, version, {**rest, FILES: told})


def keep_calibration(root: Path, calibration: Calibration) -> None:
    """Put a calibration of confidence into the folder of the describer that it is for.

    Raises:
        InputError: it is for another.
        FormatError: no describer, or a damaged one.
    """
    content, listing = read_content(root)
    if calibration.describer != stamp_of(root, content, listing):
        raise InputError(f"{root} is another describer", "it was calibrated for other weights",
                         "milanx bench confidence fit")  # fmt: skip
    calibration.write(root)
    write_content(root, content)


def from_folder(model: str, root: Path) -> str:
    """Return how a describer in the folder ``root`` names a model: a path starts at the folder."""
    plain = model.removeprefix("local-dir:")
    if not Path(plain).is_absolute() or not Path(plain).exists():
        return model
    return Path(os.path.relpath(plain, root.resolve())).as_posix()


def _place_of(model: object, root: Path) -> Any:
    """Return the model that `from_folder` named; one of another kind is named as it is."""
    if isinstance(model, str) and model.startswith(("../", "./")):
        return os.path.normpath(root.resolve() / model)
    return model


def _told(root: Path, content: dict[str, Any], listing: Listing) -> list[list[str]]:
    """Return names and digests of the files that texts depend on, after a look at all of them.

    Raises:
        FormatError: a file that is not what the index tells.
    """
    listing.check_there()
    checks.check_listed(root, listing)
    found = []
    for name in sorted([INDEX, *part_names(root)], key=lambda name: root / name):
        if Path(name).suffix not in (".safetensors", ".json") or name == CONFIDENCE:
            continue
        if name == INDEX:
            digest = _digest_of(root, content)
        else:
            digest = digest_file(root / name)
            if listing.files is not None and listing.files[name].sha256 != digest:
                listing.check(name)  # says what is wrong
                raise FormatError(f"{root / name} is damaged", "another sha256 digest", AGAIN)
        found.append([Path(name).name, digest[:16]])
    return found


def _digest_of(root: Path, content: dict[str, Any]) -> str:
    """Return the digest of ``describer.json`` without what it tells of files.

    The files stand beside it in the fingerprint, which was made so before it told them.
    """
    if FILES not in content and SEAL not in content:
        return digest_file(root / INDEX)
    rest = {name: value for name, value in content.items() if name not in (FILES, SEAL)}
    return hashlib.sha256(
        (json.dumps(rest, indent=2, ensure_ascii=False) + "\n").encode()
    ).hexdigest()


def read_words(root: Path) -> Lexicon:
    """Read ``words.json``."""
    path = root / "words.json"
    regular(path, MOST_TEXT)
    found = read_json(path, WORDS, WORDS_VERSION)
    for name in ("words", "vocabulary"):
        texts = found.get(name)
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise FormatError(f"{path} is damaged", f"its {name} are no texts", AGAIN)
    return Lexicon(frozenset(found["words"]), tuple(found["vocabulary"]))


def load_encoder(root: Path, content: dict[str, Any]) -> Encoder:
    """Load the encoder that a describer's folder holds or names.

    Args:
        root: the folder.
        content: of its describer.json.

    Raises:
        MissingWeights: an open_clip model that it names cannot be had here.
        InputError: what is there under that name has other weights.
    """
    path = root / INDEX
    spec = {name: _place_of(value, root) for name, value in content["encoder"].items()}
    if spec.get("kind") != "open_clip":
        from milanx.features.smallclip import SmallClipEncoder, SmallClipSpec

        small = settings_of(path, SmallClipSpec, spec)
        checks.check_sizes(path, {"image_size": small.image_size, "grid": small.grid,
                                  "joint": small.joint}, len(small.stages))  # fmt: skip
        with reading(path):
            encoder = SmallClipEncoder(small)
        checks.load_state(encoder.projection, root / "encoder.safetensors")
        return encoder
    from milanx.features.openclip import OpenClipEncoder, OpenClipSpec

    named = f"{spec.get('model')} {spec.get('pretrained', '')}".strip()
    elsewhere = (f"if it lies elsewhere, name the place in {path}: encoder.model, and take its "
                 f"{SEAL!r} out")  # fmt: skip
    try:
        found = OpenClipEncoder(settings_of(path, OpenClipSpec, spec))
    except FormatError:
        raise
    except MilanxError as error:
        raise MissingWeights(
            f"the describer {root} needs the open_clip model {named}",
            f"{error.what}: {error.why}",
            [elsewhere, *error.ways_out[:1]],
        ) from error
    if found.fingerprint() != content.get("encoder_fingerprint"):
        raise InputError(
            f"the open_clip model {named} is not the one that {root} was trained with",
            "its weights or its settings are others",
            elsewhere,
        )
    return found


def load_set_encoder(root: Path, spec: SetEncoderSpec) -> SetEncoder:
    """Load the set encoder of a describer's folder.

    Raises:
        FormatError: its weights are others than its settings say.
    """
    from milanx.describing.set_encoder import SetEncoder

    sizes = {name: size for name, size in asdict(spec).items() if type(size) is int}
    checks.check_sizes(root / INDEX, sizes, spec.layers)
    if spec.heads < 1 or spec.width % spec.heads:
        raise FormatError(
            f"{root / INDEX} is damaged", f"{spec.heads} heads of {spec.width}", AGAIN
        )
    path = root / "set_encoder.safetensors"
    with torch.device("meta"):  # costs nothing, however large
        shapes = {name: tuple(v.shape) for name, v in SetEncoder(spec).state_dict().items()}
    checks.compare(path, shapes, checks.shapes_of(path))
    set_encoder = SetEncoder(spec)
    checks.load_state(set_encoder, path)
    return set_encoder.eval().requires_grad_(False)


def load_language(root: Path, content: dict[str, Any]) -> tuple[GPT2LMHeadModel, Prior]:
    """Load p(d|E) and p(d); the base is the folder's or the one that it names.

    Raises:
        FormatError: they are not what their configs say, or more than a GPT-2 with plain LoRA.
        MissingWeights: the base that it names cannot be had here.
    """
    from transformers import PreTrainedTokenizerFast

    from milanx.describing.set_encoder import load_merged
    from milanx.language.prior import Prior

    for name in ("transformers", "bitsandbytes"):  # peft imports the latter where it is installed
        logging.getLogger(name).setLevel(logging.ERROR)
    base = _place_of(content.get("base"), root) or str(root / "base")
    tokenizer_file = root / "tokenizer"
    if not content.get("base"):
        checks.check_base(root / "base")
    elif not isinstance(base, str):
        raise FormatError(f"{root / INDEX} is damaged", f"its base is {base!r}", AGAIN)
    models = []
    for name in ("decoder", "prior"):
        checks.check_adapter(root / name)
        models.append(load_merged(base, str(root / name)))
    regular(tokenizer_file / "tokenizer.json", MOST_TEXT)
    with reading(tokenizer_file):
        tokenizer = PreTrainedTokenizerFast.from_pretrained(tokenizer_file, local_files_only=True)
        ends = (tokenizer.bos_token_id, tokenizer.eos_token_id)
        if None in ends or len(tokenizer) > models[0].config.vocab_size:
            raise ValueError("it does not fit the language models")
    return models[0], Prior(models[1], tokenizer)


def whole_content(root: Path) -> tuple[dict[str, Any], Listing]:
    """Read a describer's index, after a look at every file that it tells.

    Raises:
        FormatError: no describer, a damaged one, or of an unknown version.
    """
    content, listing = read_content(root)
    for fault in listing.faults():
        raise fault
    return content, listing


WANTED = Wanted(DESCRIBER, "model", whole_content)


def describer_root(
    spec: str | Path, revision: str | None = None, access: Access | None = None
) -> Path:
    """Return the folder of a describer; one that is named by its repository is fetched.

    Raises:
        InputError: no such folder or repository.
        FormatError: a repository that holds no describer.
        MilanxError: the Hub does not answer, and nothing was fetched before.
    """
    if str(spec) == BUILTIN:
        import milanx.assets

        root = Path(milanx.assets.__path__[0]) / "mini"
        if not (root / "describer.json").is_file():
            raise FormatError(
                "the bundled describer is missing",
                f"{root} holds none, so the installation is incomplete",
                "install milanx again",
            )
        return root
    address = address_of(spec)
    if address is not None:
        return fetch(address.at(revision), WANTED, access)
    root = Path(spec)
    if not root.is_dir():
        raise InputError(
            f"no describer {str(spec)!r}",
            "it is neither 'builtin' nor a folder, nor OWNER/NAME on the Hugging Face Hub",
            "give the folder that `milanx train` wrote",
        )
    return root
