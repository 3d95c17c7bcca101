"""Yaml that people write, read within limits: a short file can stand for a very large one."""

from __future__ import annotations

from typing import Any

import yaml

from milanx.errors import InputError

MOST_TEXT = 2**20  # characters; the bundled recipes have some 3,000
MOST_VALUES = 100_000  # with every alias written out
DEEPEST = 50  # levels
WAY_OUT = "write it out, as `milanx recipes show mini` does"


def parse_yaml(text: str, what: str) -> Any:
    """Read yaml whose mappings have names for keys.

    Args:
        text: yaml.
        what: it is of, for errors.

    Raises:
        InputError: it is none, stands for too much (anchors within anchors, deep nesting), or has
            keys that are no text.
    """
    try:
        _measure(text, what)
        found = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, ArithmeticError, TypeError) as error:
        raise InputError(f"{what} is not yaml", " ".join(str(error).split())[:500]) from error
    _check_keys(found, what)
    return found


def _measure(text: str, what: str) -> None:
    """Refuse what would stand for too much, before anything is made of it."""
    if len(text) > MOST_TEXT:
        raise InputError(f"{what} is too long", f"it has {len(text)} characters, and at most "
                         f"{MOST_TEXT} are read", WAY_OUT)  # fmt: skip
    anchors: dict[str, int | None] = {}  # values that each stands for; None: it is not at its end
    open_nodes: list[tuple[str | None, int]] = []  # anchor of each, and the values before it
    values = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        anchor = getattr(event, "anchor", None)
        if isinstance(event, yaml.AliasEvent):
            size = anchors.get(event.anchor or "", 1)
            if size is None:
                raise InputError(f"{what} holds itself", f"*{event.anchor} stands inside "
                                 f"&{event.anchor}", WAY_OUT)  # fmt: skip
            values += size
        elif isinstance(event, yaml.ScalarEvent):
            values += 1
            if anchor:
                anchors[anchor] = 1
        elif isinstance(event, yaml.CollectionStartEvent):
            open_nodes.append((anchor, values))
            values += 1
            if anchor:
                anchors[anchor] = None
        elif isinstance(event, yaml.CollectionEndEvent):
            name, before = open_nodes.pop()
            if name:
                anchors[name] = values - before
        if values > MOST_VALUES or len(open_nodes) > DEEPEST:
            raise InputError(
                f"{what} stands for too much", f"more than {MOST_VALUES} values with its aliases "
                f"written out, or more than {DEEPEST} levels", WAY_OUT,
            )  # fmt: skip


def _check_keys(found: Any, what: str, place: str = "") -> None:
    """Refuse mappings with keys that are no text, such as numbers."""
    inner = found.items() if isinstance(found, dict) else (
        enumerate(found) if isinstance(found, list) else ())  # fmt: skip
    for key, value in inner:
        if isinstance(found, dict) and not isinstance(key, str):
            raise InputError(
                f"{what} has the key {key!r}" + (f" in {place}" if place else ""),
                "keys are names, and this is none", f"put it in quotes if it is meant: '{key}'",
            )  # fmt: skip
        _check_keys(value, what, f"{place}.{key}".lstrip("."))
