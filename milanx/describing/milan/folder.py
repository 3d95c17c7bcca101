"""The folder of a MILAN: ``describer.json``, which tells its files, networks and words."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from milanx.describing import checks
from milanx.describing.checks import INDEX, settings_of
from milanx.describing.folder import load_encoder
from milanx.describing.milan.network import AttentionDecoder, LanguageModel, MilanSpec
from milanx.describing.milan.search import MilanSearch
from milanx.describing.milan.words import SPECIAL
from milanx.errors import FormatError
from milanx.features.encoder import read_width
from milanx.files import fingerprint, read_json, reading, write_json
from milanx.files.digests import AGAIN, FILES, MOST_TEXT, SEAL, Listing, regular
from milanx.files.kinds import MILAN

if TYPE_CHECKING:
    from milanx.features.encoder import Encoder

FORMAT, VERSION = "milanx milan", 1
WORDS, WORDS_VERSION = "milanx milan words", 1
DECODER, PRIOR, WORDS_FILE = "decoder.safetensors", "prior.safetensors", "words.json"
ENCODER = "encoder.safetensors"
APART = (INDEX, checks.CARD)  # of the parts those that no digest tells
KINDS: dict[str, type] = {"name": str, "encoder": dict, "network": dict, "search": dict,
                          "training": dict}  # fmt: skip


@dataclass(frozen=True)
class MilanParts:
    """What a folder holds."""

    encoder: Encoder
    decoder: AttentionDecoder
    prior: LanguageModel
    words: tuple[str, ...]
    search: MilanSearch
    name: str
    fingerprint: str
    training: dict[str, Any]


def write_milan(root: Path, content: dict[str, Any], words: tuple[str, ...]) -> None:
    """Write the words, and last ``describer.json``, into a folder that holds the networks.

    Args:
        root: the folder.
        content: ``name``, ``encoder``, ``network`` (`MilanSpec`), ``search`` (`MilanSearch`),
            ``training``.
        words: the vocabulary.
    """
    write_json(root / WORDS_FILE, WORDS, WORDS_VERSION, {"words": list(words)})
    write_index(root, content)


def write_index(root: Path, content: dict[str, Any]) -> None:
    """Write ``describer.json``, which tells the other files as they lie in the folder now.

    Args:
        root: the folder.
        content: what it says beside; what it told before is left out.
    """
    rest = {name: value for name, value in content.items()
            if name not in (FILES, SEAL, "format", "version")}  # fmt: skip
    names = [p.name for p in root.iterdir() if MILAN.part(p.name) and p.name not in APART]
    told = Listing.of(root, names).to_dict()
    write_json(root / INDEX, FORMAT, VERSION, {**rest, FILES: told})


def read_milan(root: Path) -> MilanParts:
    """Read a folder that `write_milan` finished.

    Raises:
        FormatError: none, a damaged one, or a version that this milanx does not know.
        MissingWeights: an open_clip model that it names cannot be had here.
    """
    path = root / INDEX
    content, listing = read_listing(root)
    for name in listing.files or ():
        listing.check(name)
    spec = settings_of(path, MilanSpec, content["network"])
    search = settings_of(path, MilanSearch, content["search"])
    words = _read_words(root, spec)
    encoder = load_encoder(root, content)
    with reading(path):
        if read_width(encoder) != spec.features:
            raise ValueError(f"it reads {spec.features} features of {read_width(encoder)}")
    _check_sizes(path, spec)
    decoder = _network(AttentionDecoder, spec, root / DECODER)
    prior = _network(LanguageModel, spec, root / PRIOR)
    digests = sorted((name, entry.sha256) for name, entry in (listing.files or {}).items()
                     if name in (DECODER, PRIOR, WORDS_FILE))  # fmt: skip
    stamp = fingerprint(digests, asdict(spec), asdict(search), encoder.fingerprint())
    return MilanParts(
        encoder, decoder, prior, words, search, content["name"], stamp, content["training"]
    )


def read_listing(root: Path) -> tuple[dict[str, Any], Listing]:
    """Read ``describer.json``, and what it tells of the other files, none of which is read.

    Raises:
        FormatError: none of MILAN's, a damaged one, or a version that this milanx does not know.
    """
    path = root / INDEX
    if path.is_symlink() or path.exists():
        regular(path, MOST_TEXT)
    content = read_json(path, FORMAT, VERSION)
    for name, kind in KINDS.items():
        if type(content.get(name)) is not kind:
            raise FormatError(f"{path} is damaged", f"its {name} is no {kind.__name__}", AGAIN)
    listing = Listing.read(root, content, path)
    if listing.files is None or not {DECODER, PRIOR, WORDS_FILE} <= listing.files.keys():
        raise FormatError(f"{path} is damaged", "it does not tell its networks", AGAIN)
    return content, listing


def _check_sizes(path: Path, spec: MilanSpec) -> None:
    """Refuse sizes that no network here has."""
    sizes = {name: size for name, size in asdict(spec).items() if type(size) is int}
    checks.check_sizes(path, sizes, spec.layers)
    with reading(path):
        if min(sizes.values()) < 1 or not 0 <= spec.dropout < 1:
            raise ValueError(f"its networks are {asdict(spec)}")


def _read_words(root: Path, spec: MilanSpec) -> tuple[str, ...]:
    path = root / WORDS_FILE
    regular(path, MOST_TEXT)
    words = read_json(path, WORDS, WORDS_VERSION).get("words")
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise FormatError(f"{path} is damaged", "its words are no texts", AGAIN)
    if len(words) + SPECIAL != spec.words:
        raise FormatError(f"{path} is damaged",
                          f"{len(words)} words for networks of {spec.words - SPECIAL}",
                          AGAIN)  # fmt: skip
    return tuple(words)


def _network(kind: type[nn.Module], spec: MilanSpec, path: Path) -> Any:
    """Build a network and give it the weights of a file, which must be exactly its own."""
    with torch.device("meta"):  # costs nothing, however large
        shapes = {name: tuple(v.shape) for name, v in kind(spec).state_dict().items()}
    checks.compare(path, shapes, checks.shapes_of(path))
    network = kind(spec)
    checks.load_state(network, path)
    return network.eval().requires_grad_(False)
