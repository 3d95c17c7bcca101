"""A describer as what is sent to the Hub: its folder as it is, a config.json, a card."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from milanx.describing.checks import CARD, INDEX, part_names
from milanx.describing.folder import stamp_of, whole_content
from milanx.errors import FormatError, InputError
from milanx.files.kinds import DESCRIBER
from milanx.hub.address import Address
from milanx.hub.card import Card
from milanx.hub.content import READ
from milanx.hub.send import Item, Parcel

CONFIG = "config.json"  # a download of it is what the Hub counts
USE = """## Use

    milanx describe resnet18 -l layer4 --images photos/ --describer {address}

or, from Python, `milanx.Describer.from_pretrained("{repo_id}")`. `milanx pull {address}` fetches it
once, and from then on it is there offline too. `decoder/` and `prior/` are adapters in peft's own
format: `PeftModel.from_pretrained(gpt2, "{repo_id}", subfolder="decoder")`, where `gpt2` is {base}.

Fingerprint of weights and settings: `{stamp}`.{made}"""


def describer_parcel(
    root: Path,
    address: Address,
    *,
    licence: str | None = None,
    examples: str = "",
    pictures: tuple[Item, ...] = (),
) -> Parcel:
    """Return a describer's folder as a parcel, after a look at every file of it.

    Args:
        root: the folder.
        address: where it will go, which the card names.
        licence: of the card, over its own.
        examples: a section for the card, in markdown.
        pictures: that the section shows.

    Raises:
        FormatError: no describer, a damaged one, or of an unknown version.
        InputError: its card names no licence, or it needs a model that lies beside it.
    """
    content, listing = whole_content(root)
    stamp = stamp_of(root, content, listing)
    _check_whole(root, content)
    names = part_names(root)
    for name in names:
        if Path(name).suffix not in READ:
            raise FormatError(
                f"{root / name} is not pushed", f"milanx opens {', '.join(READ)} alone",
                [f"take it out of {root}", f"milanx check {root} --seal"],
            )  # fmt: skip
    path = root / CARD
    text = path.read_text(encoding="utf-8") if path.is_file() else f"# {content['name']}\n"
    card = Card.read(text, str(path)).licensed(licence, str(path)).tagged()
    card = card.with_part(f"{_use(address, content, stamp)}\n\n{examples}")
    items = [Item(name, root / name) for name in (INDEX, *names)]
    config = {"model_type": "milanx", "library_name": "milanx", "architectures": ["Describer"],
              "name": content["name"], "version": content["version"],
              "fingerprint": stamp}  # fmt: skip
    items += [Item(CARD, str(card).encode()),
              Item(CONFIG, (json.dumps(config, indent=2) + "\n").encode()), *pictures]  # fmt: skip
    message = f"Push the describer {content['name']} ({stamp})"
    return Parcel(DESCRIBER, "model", tuple(items), message, own=(CONFIG, "sheets/"))


def _use(address: Address, content: dict[str, Any], stamp: str) -> str:
    recipe = (content["training"].get("recipe") or {}).get("name")
    made = f" The training wrote this card's figures: `milanx train {recipe}`." if recipe else ""
    base = f"`{content['base']}`" if content.get("base") else "the model in `base/`"
    return USE.format(address=address, repo_id=address.repo_id, base=base, stamp=stamp, made=made)


def _check_whole(root: Path, content: dict[str, Any]) -> None:
    """Refuse a describer that names a folder of this machine: nobody else could load it."""
    named = {"encoder.model": content["encoder"].get("model"),
             "encoder.pretrained": content["encoder"].get("pretrained"),
             "base": content.get("base")}  # fmt: skip
    for name, model in named.items():
        if isinstance(model, str) and model.startswith((".", "/", "~", "local-dir:")):
            raise InputError(
                f"{root} is not pushed",
                f"its {name} lies beside it ({model}), where nobody else has it",
                f"name it in {root / INDEX} as the Hub has it (hf-hub:OWNER/NAME), and "
                f"milanx check {root} --seal",
            )
