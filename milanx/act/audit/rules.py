"""The rules of an audit: what is looked for, how bad it is, and what to do about it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from milanx.errors import InputError, did_you_mean
from milanx.files import fingerprint
from milanx.files.yamls import parse_yaml

FORMAT, VERSION = "milanx-rules", 1
SHIPPED = Path(__file__).with_name("rules.yaml")
SEVERITIES = ("note", "warning", "error")  # mild to bad
PEOPLE = "people"
NAME = re.compile(r"[a-z][a-z0-9-]*")
TOP = ("format", "version", "shipped", "drop", "rules")
REQUIRED = ("id", "severity", "text", "advice")
LISTS = ("words", "unless", "meaning", "concept")
ALIKE = 0.75  # of a rule with a meaning and no threshold of its own


@dataclass(frozen=True)
class Rule:
    """What an audit looks for.

    Attributes:
        id: short name, lower case with hyphens.
        title: a few words.
        severity: of `SEVERITIES`.
        text: one sentence: what a unit that is found does.
        advice: what to do about it.
        words: whole words and phrases, one and many alike.
        unless: phrases whose words do not count.
        whose: ``people``: its words are parts that other things have too, and do not count where
            the description says that these are an animal's or a thing's. Empty for others.
        meaning: phrases; a description that lies near one is found without the words.
        alike: the cosine from which it lies near.
        concept: words by which labels, captions and regions name it; ``words`` where empty.
    """

    id: str
    severity: str
    text: str
    advice: str
    title: str = ""
    words: tuple[str, ...] = ()
    unless: tuple[str, ...] = ()
    whose: str = ""
    meaning: tuple[str, ...] = ()
    alike: float = ALIKE
    concept: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Its title, or its id where it has none."""
        return self.title or self.id

    @property
    def named_by(self) -> tuple[str, ...]:
        """The words by which labels, captions and regions name it."""
        return self.concept or self.words


def load_rules(path: Path | str | None = None) -> tuple[Rule, ...]:
    """Read rules: the shipped ones, extended by a file.

    Args:
        path: a yaml file (``docs/audit.md`` describes it). A rule with the id of a shipped one
            replaces it, ``drop`` leaves some out, ``shipped: false`` all of them.

    Raises:
        InputError: no such file, no yaml, or rules with mistakes; all are told at once.
    """
    shipped = _checked(SHIPPED, _read(SHIPPED), ())
    if path is None:
        return shipped
    content = _read(Path(path))
    own = _checked(Path(path), content, [rule.id for rule in shipped])
    kept = shipped if content.get("shipped", True) else ()
    replaced = {rule.id for rule in own} | set(_words(content.get("drop")))
    return (*(rule for rule in kept if rule.id not in replaced), *own)


def as_rules(given: Path | str | Sequence[Rule] | None) -> tuple[Rule, ...]:
    """Return rules that are given as such, or as a file that extends the shipped ones.

    Args:
        given: rules, or what `load_rules` takes.

    Raises:
        InputError: see `load_rules`.
    """
    return load_rules(given) if given is None or isinstance(given, str | Path) else tuple(given)


def pick_rules(
    names: Sequence[str], given: Path | str | Sequence[Rule] | None = None
) -> tuple[Rule, ...]:
    """Return the rules of these names, in their order.

    Args:
        names: ids.
        given: rules to pick from, or what `load_rules` takes.

    Raises:
        InputError: no rule is called so, rules from which none is named, or see `load_rules`.
    """
    if not names and given is None:
        return ()
    known = {rule.id: rule for rule in as_rules(given)}
    if not names:
        raise InputError("none of the rules is named", "rules choose units by their names alone",
                         f"--rule NAME, of {', '.join(known)}")  # fmt: skip
    absent = [name for name in names if name not in known]
    if absent:
        near = did_you_mean(absent[0], known)
        raise InputError(f"there is no rule {absent[0]!r}", f"there are {', '.join(known)}",
                         near or "--rules FILE brings others")  # fmt: skip
    return tuple(known[name] for name in dict.fromkeys(names))


def rules_fingerprint(rules: Sequence[Rule]) -> str:
    """Return 16 hex digits that stand for rules."""
    return fingerprint([asdict(rule) for rule in rules])


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot read the rules {path}", error.strerror or str(error),
                         "--rules takes a yaml file") from error  # fmt: skip
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is no yaml", str(error),
                         "see the rules in docs/audit.md") from error  # fmt: skip
    content = parse_yaml(text, str(path))
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise InputError(f"{path} holds no rules", f"it does not begin with format: {FORMAT}",
                         "see the rules in docs/audit.md")  # fmt: skip
    if content.get("version") != VERSION:
        raise InputError(f"{path} has version {content.get('version')} of the format {FORMAT}",
                         f"this milanx reads version {VERSION}", f"version: {VERSION}")  # fmt: skip
    return content


def _checked(path: Path, content: dict[str, Any], shipped: Sequence[str]) -> tuple[Rule, ...]:
    """Make rules of what a file says, or tell all its mistakes."""
    wrong = [f"{name!r} is not known ({did_you_mean(name, TOP) or ', '.join(TOP)})"
             for name in map(str, content) if name not in TOP]  # fmt: skip
    if not isinstance(content.get("shipped", True), bool):
        wrong.append("shipped is true or false")
    dropped = content.get("drop")
    if dropped is not None and not isinstance(dropped, str) and not _is_texts(dropped):
        wrong.append("drop is neither a list of names nor names with commas")
        dropped = None
    wrong += [f"drop: there is no rule {name!r} ({did_you_mean(name, shipped) or 'none like it'})"
              for name in _words(dropped) if name not in shipped]  # fmt: skip
    entries = content.get("rules") or []
    if not isinstance(entries, list):
        wrong.append("rules is no list")
        entries = []
    if not entries and not content.get("drop"):
        wrong.append("it holds no rule")
    for number, entry in enumerate(entries, 1):
        wrong += [f"rule {number}{_called(entry)}: {text}" for text in _mistakes(entry)]
    names = [entry.get("id") for entry in entries if isinstance(entry, dict)]
    wrong += [f"two rules are called {n!r}" for n in dict.fromkeys(names)
              if n is not None and names.count(n) > 1]  # fmt: skip
    if wrong:
        many = "a mistake" if len(wrong) == 1 else f"{len(wrong)} mistakes"
        raise InputError(f"{path} has {many}", "; ".join(wrong), "mend and try again")
    return tuple(_rule(entry) for entry in entries)


def _called(entry: Any) -> str:
    return f" ({entry['id']})" if isinstance(entry, dict) and "id" in entry else ""


def _mistakes(entry: Any) -> list[str]:
    """Return what is wrong with one rule, in words."""
    if not isinstance(entry, dict):
        return ["it is no mapping of names to values"]
    known = [f.name for f in fields(Rule)]
    wrong = [f"{name!r} is not known ({did_you_mean(name, known) or ', '.join(known)})"
             for name in map(str, entry) if name not in known]  # fmt: skip
    wrong += [f"it has no {name}" for name in REQUIRED if not entry.get(name)]
    for name in ("id", "title", "severity", "text", "advice", "whose"):
        if name in entry and not isinstance(entry[name], str):
            wrong.append(f"{name} is no text but {entry[name]!r}")
    if isinstance(entry.get("id"), str) and not NAME.fullmatch(entry["id"]):
        wrong.append("id takes lower case letters, digits and hyphens")
    severity = entry.get("severity")
    if isinstance(severity, str) and severity not in SEVERITIES:
        wrong.append(f"severity is {severity!r}, not {', '.join(SEVERITIES)}")
    if entry.get("whose") not in (None, "", PEOPLE):
        wrong.append(f"whose is {entry['whose']!r}; it may be {PEOPLE}")
    for name in LISTS:
        value = entry.get(name)
        if value is not None and not isinstance(value, str) and not _is_texts(value):
            wrong.append(f"{name} is neither a list of words nor words with commas")
    alike = entry.get("alike", ALIKE)
    if isinstance(alike, bool) or not isinstance(alike, int | float) or not 0 < alike <= 1:
        wrong.append(f"alike is {alike!r}, no cosine above 0 and up to 1")
    if not entry.get("words") and not entry.get("meaning"):
        wrong.append("it has neither words nor a meaning, so it finds nothing")
    return wrong


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _words(value: Any) -> tuple[str, ...]:
    parts = value.split(",") if isinstance(value, str) else (value or [])
    return tuple(str(part).strip() for part in parts if str(part).strip())


def _rule(entry: dict[str, Any]) -> Rule:
    lists: dict[str, Any] = {name: _words(entry.get(name)) for name in LISTS}
    plain = {k: v for k, v in entry.items() if k not in LISTS}
    return Rule(**{**plain, "text": entry["text"].strip(), "advice": entry["advice"].strip()},
                **lists)  # fmt: skip
