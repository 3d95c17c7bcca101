"""Two models under the same rules: of which does a larger share of units fall under a rule?

The question of MILAN's section 6: does a model that was trained on blurred faces still have units
for faces? There 142 units of the blurred models beside 213 of the others, counted without
denominators; here shares of the described units, their difference with its interval, and tests
corrected over the rules by Holm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from milanx.act.audit.match import Matcher
from milanx.act.audit.rules import Rule, as_rules, rules_fingerprint
from milanx.act.select import described, taking_part
from milanx.errors import InputError
from milanx.language.compare import Embed
from milanx.measures.intervals import holm, shares_apart, wilson

if TYPE_CHECKING:
    from milanx.runs import Run

LEVEL = 0.05


@dataclass(frozen=True)
class Versus:
    """Two runs compared.

    Attributes:
        first: folder of run A.
        second: of run B.
        rows: a rule each: ``rule``, ``severity``, ``first`` and ``second`` (``units``, ``of``,
            ``share``, ``interval``), ``difference`` (A less B), its ``interval``, ``p`` and
            ``p_holm``.
        layers: layer -> rows of that layer alone, where both runs have it.
        notes: what makes the comparison weaker.
        facts: fingerprints.
    """

    first: str
    second: str
    rows: tuple[dict[str, Any], ...]
    layers: dict[str, list[dict[str, Any]]]
    notes: tuple[str, ...]
    facts: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Return everything."""
        return {"first": self.first, "second": self.second, **self.facts, "rows": list(self.rows),
                "layers": self.layers, "notes": list(self.notes)}  # fmt: skip

    def sentences(self) -> list[str]:
        """Say of each rule what was seen."""
        return [_sentence(row) for row in self.rows]


def audit_versus(
    first: Run | Path | str,
    second: Run | Path | str,
    *,
    rules: Path | str | Sequence[Rule] | None = None,
    min_confidence: float | None = None,
    embed: Embed | None = None,
) -> Versus:
    """Compare the shares of units that fall under rules in two runs.

    Args:
        first: run A, or its folder.
        second: run B.
        rules: a yaml file that extends the shipped rules, or rules; the shipped ones when None.
        min_confidence: units that are less sure take no part.
        embed: sentence embeddings; all-MiniLM-L6-v2 when None.

    Raises:
        InputError: no runs, nothing described, the same run twice, or rules with mistakes.
    """
    from milanx.runs import open_run

    runs = [open_run(r) if isinstance(r, str | Path) else r for r in (first, second)]
    if runs[0].root.resolve() == runs[1].root.resolve():
        raise InputError("a run is not compared with itself", f"both are {runs[0].root}",
                         "--versus names another run")  # fmt: skip
    chosen = as_rules(rules)
    matcher = Matcher(chosen, embed)
    tables = [described(run, min_confidence) for run in runs]
    found = [matcher([row["description"] for row in rows]) for rows in tables]
    marked = [
        [(row["layer"], set(hits)) for row, hits in zip(rows, hits_of, strict=True)]
        for rows, hits_of in zip(tables, found, strict=True)
    ]
    names = [{layer for layer, _ in marks} for marks in marked]
    shared = [n for n in dict.fromkeys(layer for layer, _ in marked[0]) if n in names[1]]
    layers = {
        name: _compare(chosen, *([h for layer, h in marks if layer == name] for marks in marked))
        for name in shared
    }
    rows = _compare(chosen, *([hits for _, hits in marks] for marks in marked))
    return Versus(
        str(runs[0].root), str(runs[1].root), tuple(rows), layers if len(shared) > 1 else {},
        _notes(runs, tables, names), {"rules_fingerprint": rules_fingerprint(chosen),
                              "targets": [run.settings["target"] for run in runs]},
    )  # fmt: skip


def _compare(
    rules: Sequence[Rule], first: Sequence[set[str]], second: Sequence[set[str]]
) -> list[dict[str, Any]]:
    """Return a row a rule, corrected over the rules."""
    rows = []
    for rule in rules:
        sides = [_share(sum(rule.id in hits for hits in side), len(side))
                 for side in (first, second)]  # fmt: skip
        apart = shares_apart(*((side["units"], side["of"]) for side in sides))
        rows.append({"rule": rule.id, "severity": rule.severity, "first": sides[0],
                     "second": sides[1], "difference": apart["estimate"],
                     "interval": apart["interval"], "p": apart["p"]})  # fmt: skip
    for row, corrected in zip(rows, holm([row["p"] for row in rows]), strict=True):
        row["p_holm"] = corrected
    return rows


def _share(units: int, of: int) -> dict[str, Any]:
    return {"units": units, "of": of, "share": units / of if of else 0.0,
            "interval": list(wilson(units, of))}  # fmt: skip


def _sentence(row: dict[str, Any]) -> str:
    low, high = row["interval"]
    shares = (f"{row['rule']}: {row['first']['units']} of {row['first']['of']} units in A, "
              f"{row['second']['units']} of {row['second']['of']} in B")  # fmt: skip
    told = f"{100 * row['difference']:+.1f} points [{100 * low:+.1f}, {100 * high:+.1f}]"
    if row["p_holm"] < LEVEL:
        return f"{shares}; A has {'more' if row['difference'] > 0 else 'fewer'}, {told}."
    return f"{shares}; no difference was shown, {told}."


def _notes(
    runs: Sequence[Run], tables: Sequence[list[dict[str, Any]]], names: Sequence[set[str]]
) -> tuple[str, ...]:
    """Return which units take part, and what makes two runs poorly comparable."""
    pairs = zip("AB", runs, tables, strict=True)
    notes = [f"{side}: {taking_part(run, rows)}" for side, run, rows in pairs]
    notes.append("Units of one model are not independent draws; the intervals take them as such.")
    images = [run.settings.get("images", {}).get("fingerprint") for run in runs]
    describers = [(run.settings.get("describer") or {}).get("fingerprint") for run in runs]
    if images[0] != images[1]:
        notes.append("The runs saw different probe images: a difference may be the images'.")
    if describers[0] != describers[1]:
        notes.append("The runs were described by different describers: a difference may be theirs.")
    if names[0] != names[1]:
        only = sorted(names[0] ^ names[1])
        notes.append(f"Layers of one run alone: {', '.join(only[:4])}. Compare the same layers.")
    for name, run in zip("AB", runs, strict=True):
        if run.demonstration:
            notes.append(f"Run {name} saw the built-in images, a demonstration.")
    return tuple(notes)
