"""Data sets of torchvision: ``torchvision:CIFAR10?root=data&train=false``.

What follows the question mark goes to the data set's own constructor. Nothing is downloaded unless
``download=true`` stands there, and then a line says so first.
"""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode

from milanx.errors import InputError, MilanxError, did_you_mean
from milanx.images.decoding import why
from milanx.images.item import one_line
from milanx.images.pictures import Pictures

PREFIX = "torchvision:"
OWN = ("transform", "target_transform", "transforms", "loader", "is_valid_file")  # code, no text
WORDS = {"true": True, "false": False, "yes": True, "no": False}
EXAMPLE = "torchvision:CIFAR10?root=data&train=false"


def options_of(query: str, example: str) -> dict[str, Any]:
    """Read ``root=data&train=false``: words for yes and no are bools, digits are numbers.

    Raises:
        InputError: it is written otherwise.
    """
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query))
    except ValueError as error:
        raise InputError(f"{query!r} cannot be read", str(error), example) from error
    return {name: WORDS.get(value.lower(), int(value) if value.isdecimal() else value)
            for name, value in pairs}  # fmt: skip


def placed(spec: str) -> str:
    """Return what names a data set from any folder: its root is absolute."""
    called, _, query = spec.partition("?")
    given = {name: os.path.abspath(os.path.expanduser(value)) if name == "root" else value
             for name, value in parse_qsl(query, keep_blank_values=True)}  # fmt: skip
    return f"{called}?{urlencode(given, safe='/')}" if given else spec


def open_vision(spec: str, name: str) -> Pictures:
    """Open a data set of torchvision.

    Raises:
        InputError: there is none of that name, it does not lie there, or its options are others.
    """
    called, _, query = spec.removeprefix(PREFIX).partition("?")
    given = options_of(query, EXAMPLE)
    kind = _kind(called)
    known = inspect.signature(kind).parameters
    for option in given:
        if option in OWN or option not in known:
            there = [n for n in known if n not in OWN]
            raise InputError(f"{called} takes no {option!r}", f"it takes {', '.join(there)}",
                             did_you_mean(option, there) or EXAMPLE)  # fmt: skip
    if "root" in known and "root" not in given:
        raise InputError(f"where does {called} lie?", "no root was named", EXAMPLE)
    if "root" in given:
        given["root"] = os.path.expanduser(str(given["root"]))
    if given.get("download"):
        sys.stderr.write(f"torchvision may download {called} into {given.get('root')}\n")
    try:
        data = kind(**given)
    except MilanxError:
        raise
    except Exception as error:
        ways = ["look at the root and its options"]
        if "download" in known and not given.get("download"):
            ways.append("&download=true fetches it")
        raise InputError(f"cannot open {one_line(spec)}", why(error), ways) from error
    return Pictures(name, data, kind="torchvision", classes=_classes(data),
                    path=_paths(data, str(given.get("root", ""))))  # fmt: skip


def _paths(data: Any, root: str) -> Callable[[int], str]:
    """Return what gives an image's path below the root; its number where there is none."""
    known = getattr(data, "samples", None)
    if not (isinstance(known, list) and known and isinstance(known[0], tuple | list)):
        return str
    return lambda row: Path(os.path.relpath(str(known[row][0]), root)).as_posix()


def _kind(called: str) -> Any:
    """Return a data set's class.

    Raises:
        InputError: there is none of that name.
    """
    from torchvision import datasets

    known = {n for n in datasets.__all__ if inspect.isclass(getattr(datasets, n, None))
             and issubclass(getattr(datasets, n), datasets.VisionDataset)
             and n != "VisionDataset"}  # fmt: skip
    if called not in known:
        same = next((n for n in known if n.lower() == called.lower()), None)
        raise InputError(f"torchvision has no data set {called!r}", "or none of single images",
                         f"did you mean {same}?" if same else did_you_mean(called, known)
                         or EXAMPLE)  # fmt: skip
    return getattr(datasets, called)


def _classes(data: Any) -> tuple[str, ...]:
    """Return the names of the classes by their numbers; ImageNet gives several for each."""
    names = getattr(data, "classes", None)
    if not isinstance(names, list | tuple):
        return ()
    return tuple(n if isinstance(n, str) else ", ".join(map(str, n)) for n in names)
