"""What of every family of models of timm's, transformers' and torchvision's can be described."""

from __future__ import annotations

import importlib
import json
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

from milanx.bench.checks import Checked, check_model
from milanx.bench.families.member import Member
from milanx.errors import InputError, MilanxError, did_you_mean
from milanx.files import fingerprint, fingerprint_file
from milanx.progress import Reporter, Silent
from milanx.targets.zoo import check_name

# By library, the file of `milanx.bench.families` that has its table.
LIBRARIES = {"timm": "timms", "transformers": "huggingface", "torchvision": "torchvisions"}
# What is counted of each model, and kept.
LISTS = ("units", "rows", "placed", "shifted", "bent", "untold")


def bench_models(
    models: Sequence[str] | None = None,
    *,
    libraries: Sequence[str] = tuple(LIBRARIES),
    keep: Path | None = None,
    progress: Reporter | None = None,
) -> list[dict[str, Any]]:
    """Check the layers of models with random weights, one after the other.

    Args:
        models: names of timm's, ``transformers:KIND`` or ``torchvision:NAME``; the small member of
            each family when None.
        libraries: whose families, when no models are named.
        keep: a file to which each model's row is added as a line of json. Rows that are there, of
            the same code, are not measured again.
        progress: told about each model.

    Returns:
        A row a model, with the counts of `Checked`; one that cannot be read at all says why.

    Raises:
        InputError: the file holds something else, or no such library or model of timm's.
    """
    progress, rows = progress or Silent(), []
    chosen = _families(libraries) if models is None else [_named(name) for name in models]
    codes = {library: code_key(library) for library in {library for library, _ in chosen}}
    known = _kept(keep) if keep else {}
    for library, member in chosen:
        code = fingerprint(codes[library], repr(member))
        if (member.name, code) not in known:
            with progress.stage(member.name, None):
                row = _measured(library, member) | {"code": code}
            if keep:
                with keep.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")
            known[member.name, code] = row
        rows.append(known[member.name, code])
    return rows


def _families(libraries: Sequence[str]) -> list[tuple[str, Member]]:
    """Return the small member of each family of some libraries, each with its library."""
    for library in libraries:
        if library not in LIBRARIES:
            raise InputError(f"no families of {library!r}", f"known are {', '.join(LIBRARIES)}",
                             did_you_mean(library, LIBRARIES) or [])  # fmt: skip
    return [(library, member) for library in LIBRARIES if library in libraries
            for member in _room(library).FAMILIES.values()]  # fmt: skip


def _named(name: str) -> tuple[str, Member]:
    """Return a model's library, and how it is looked at; refuse a name that timm does not know."""
    prefix, _, rest = name.partition(":")
    library = prefix if rest and prefix in LIBRARIES else "timm"
    if library == "timm":
        check_name(name)
    members = {member.name: member for member in _room(library).FAMILIES.values()}
    return library, members.get(name, Member(name))


def _room(library: str) -> ModuleType:
    return importlib.import_module(f"milanx.bench.families.{LIBRARIES[library]}")


def code_key(library: str) -> str:
    """Return what stands for the code that the rows of a library's models depend on."""
    root = Path(__file__).parents[1]
    files = [*sorted((root / "targets").glob("*.py")),
             *(root / "bench" / name for name in ("checks.py", "places.py"))]  # fmt: skip
    return fingerprint([fingerprint_file(f) for f in files], version(library), version("torch"))


def _kept(path: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """Read the rows of a file, by model and code."""
    if not path.exists():
        return {}
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        return {(row["model"], row["code"]): row for row in rows}
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise InputError(f"{path} is not overwritten", "it holds no rows of bench models",
                         "name another file") from error  # fmt: skip


def _measured(library: str, member: Member) -> dict[str, Any]:
    """Build a model and check it."""
    started = time.process_time()
    row: dict[str, Any] = {
        "model": member.name, "library": f"{library} {version(library)}", "image": member.image,
        # What is built of a name alone says itself what it is.
        "options": member.options if library == "timm" else {},
    }  # fmt: skip
    try:
        target = _room(library).load(member)
        row |= {"class": type(target.model).__name__, "side": target.preprocess.size[0],
                **_row(check_model(target))}  # fmt: skip
    except MilanxError as error:
        row["error"] = f"{error.what}: {error.why}"
    return row | {"seconds": round(time.process_time() - started, 1)}


def _row(found: Checked) -> dict[str, Any]:
    return {
        "described": found.described, "refused": sum(found.refused.values()), "maps": found.maps,
        "wrong": found.wrong, **{name: getattr(found, name) for name in LISTS},
        "reasons": dict(found.refused.most_common()),
    }  # fmt: skip
