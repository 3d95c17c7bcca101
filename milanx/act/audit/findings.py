"""An audit: the units of a run that rules find, each with its evidence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from milanx.act.audit.concepts import Aside, control, holding, read_aside, tell_apart
from milanx.act.audit.effects import (
    ABLATED,
    RANDOM_UNITS,
    AblationSettings,
    Effect,
    Unit,
    measure,
)
from milanx.act.audit.match import Hit, Matcher
from milanx.act.audit.rules import SEVERITIES, Rule, as_rules, rules_fingerprint
from milanx.act.reopen import open_target
from milanx.act.select import described, taking_part
from milanx.errors import InputError, did_you_mean
from milanx.language.compare import Embed
from milanx.measures.intervals import wilson
from milanx.progress import Reporter, Silent
from milanx.rows import UNCLEAR
from milanx.targets.given import gives_back

if TYPE_CHECKING:
    from milanx.runs import Run

FORMAT, VERSION = "milanx-audit", 1
LEVEL = 0.05  # of the false discovery rate
SHOWN = 15  # exemplars of a finding
NO_SCORE = "this run measured no score of its descriptions"


@dataclass(frozen=True)
class Finding:
    """A unit whose description a rule concerns.

    Attributes:
        rule: its id.
        severity: of the rule.
        layer: of the unit.
        unit: its number.
        sign: ``+`` or ``-``.
        description: of the unit.
        reason: why the rule found it.
        exemplars: ``image``, ``path`` and ``activation`` of each, best first.
        score: of the description; None with the reason in ``why_no_score``.
        why_no_score: empty where there is one.
        apart: of `tell_apart`, with ``p_fdr``.
        effect: of `measure`, or why there is none.
        status: ``described``, or ``unclear`` where the description is a best guess.
        confidence: of the description; None where the run tells none.
    """

    rule: str
    severity: str
    layer: str
    unit: int
    sign: str
    description: str
    reason: str
    exemplars: tuple[dict[str, Any], ...]
    score: float | None
    why_no_score: str
    apart: dict[str, Any]
    effect: Effect | str
    status: str = "described"
    confidence: float | None = None

    @property
    def address(self) -> str:
        """``LAYER:17``, or ``LAYER:-17``."""
        return f"{self.layer}:{'-' if self.sign == '-' else ''}{self.unit}"

    @property
    def above(self) -> float:
        """How far its evidence is above its controls, from -1 to 1; what was not measured adds 0.

        The share of random units that change the classes less, and the AUROC, each less the half
        that chance gives.
        """
        auroc = self.apart.get("auroc", 0.5)
        if isinstance(self.effect, str) or not self.effect.random_units:
            return float(auroc) - 0.5
        return float(auroc) - 0.5 + self.effect.beside / self.effect.random_units - 0.5

    @property
    def correlates(self) -> str:
        """What is seen together with the concept, in words that claim no more."""
        if "why" in self.apart:
            return (
                f"Whether it goes together with the concept was not measured: {self.apart['why']}."
            )
        low, high = self.apart["interval"]
        told = (f"on images kept aside, {self.apart['holds']} that hold it by their "
                f"{' and '.join(self.apart['by'])} and {self.apart['others']} others: "
                f"AUROC {self.apart['auroc']:.2f} [{low:.2f}, {high:.2f}]")  # fmt: skip
        told += f", p {self.apart['p_fdr']:.2g} among all findings"
        if self.apart["p_fdr"] >= LEVEL:
            return f"It was not seen to go together with the concept {told}."
        if self.apart["auroc"] > 0.5:
            return f"It goes together with the concept {told}. This is no proof that it drives it."
        return f"It responds less, not more, to the concept {told}."

    @property
    def causes(self) -> str:
        """What the unit does to the classes, in words."""
        if isinstance(self.effect, str):
            return f"What it does to the classes was not measured: {self.effect}."
        effect, (low, high) = self.effect, self.effect.fall["interval"]
        told = (
            f"Set to its mean on its {effect.images} exemplars, it changes the class logits by "
            f"{effect.change:.3g} (root mean square), more than {effect.beside} of "
            f"{effect.random_units} random units of its layer on theirs"
        )
        if not effect.stands_out:
            return f"{told}: no more than other units."
        return (f"{told}. This it causes, in this model on these images: {effect.falls} falls "
                f"most, by {effect.fall['estimate']:.3g} [{low:.3g}, {high:.3g}].")  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        """Return everything, and the sentences made of it."""
        known: dict[str, Any] = asdict(self)
        return {"address": self.address, **known, "correlates": self.correlates,
                "causes": self.causes}  # fmt: skip


@dataclass(frozen=True)
class Audit:
    """What rules found in a run.

    Attributes:
        run: its folder.
        target: its name.
        rules: that were applied.
        findings: worst first: by severity, by how far they are above their controls, by
            confidence, then by rule and unit.
        units: of the run, a row each, in the order of its table.
        described: units with a description; they and the unclear ones take part in shares.
        unclear: units whose text is a best guess.
        notes: what a reader should know.
        facts: fingerprints, versions and seeds.
    """

    run: str
    target: str
    rules: tuple[Rule, ...]
    findings: tuple[Finding, ...]
    units: tuple[dict[str, Any], ...]
    described: int
    unclear: int
    notes: tuple[str, ...]
    facts: dict[str, Any]

    def at_least(self, severity: str) -> tuple[Finding, ...]:
        """Return the findings of a severity or worse.

        Raises:
            InputError: no such severity.
        """
        check_severity(severity)
        least = SEVERITIES.index(severity)
        return tuple(f for f in self.findings if SEVERITIES.index(f.severity) >= least)

    def rule(self, name: str) -> Rule:
        """Return a rule by its id."""
        return next(rule for rule in self.rules if rule.id == name)

    def shares(self) -> list[dict[str, Any]]:
        """Return, for each rule, how many units it found, their share and its 95 % interval."""
        rows = []
        for rule in self.rules:
            found = sum(f.rule == rule.id for f in self.findings)
            of = self.described + self.unclear
            share = found / of if of else 0.0
            rows.append({"rule": rule.id, "severity": rule.severity, "units": found,
                         "of": of, "share": share,
                         "interval": list(wilson(found, of))})  # fmt: skip
        return rows

    def to_dict(self) -> dict[str, Any]:
        """Return the whole audit, as ``findings.json`` holds it."""
        return {
            "run": self.run, "target": self.target, **self.facts, "described": self.described,
            "unclear": self.unclear, "notes": list(self.notes),
            "rules": [asdict(rule) for rule in self.rules],
            "shares": self.shares(), "findings": [f.to_dict() for f in self.findings],
        }  # fmt: skip


def check_severity(severity: str) -> None:
    """Refuse what is no severity.

    Raises:
        InputError: it is none.
    """
    if severity not in SEVERITIES:
        raise InputError(f"no severity {severity!r}", f"there are {', '.join(SEVERITIES)}",
                         did_you_mean(severity, SEVERITIES))  # fmt: skip


@gives_back
def audit(
    run: Run | Path | str,
    *,
    rules: Path | str | Sequence[Rule] | None = None,
    images: Sequence[str] = (),
    model: Any = None,
    weights: str | None = None,
    ablated: int = ABLATED,
    random_units: int = RANDOM_UNITS,
    min_confidence: float | None = None,
    seed: int = 0,
    embed: Embed | None = None,
    progress: Reporter | None = None,
) -> Audit:
    """Find the units of a run that rules concern, and gather what speaks for each.

    Args:
        run: the run, or its folder.
        rules: a yaml file that extends the shipped rules, or rules; the shipped ones when None.
        images: where the probe images lie now, for their captions and regions.
        model: the target's module, where it has no name.
        weights: the target's checkpoint, where it was given one.
        ablated: at most so many found units are ablated, the worst severity first; 0 for none.
        random_units: of each layer, ablated beside them.
        min_confidence: units that are less sure concern no rule.
        seed: of the choice of random units.
        embed: sentence embeddings; all-MiniLM-L6-v2 when None.
        progress: told about the stages.

    Returns:
        The audit; `milanx.report.audit` writes it.

    Raises:
        InputError: no run, nothing described, or rules with mistakes.
    """
    from milanx.runs import open_run

    opened = open_run(run) if isinstance(run, str | Path) else run
    chosen = as_rules(rules)
    progress = progress or Silent()
    rows = described(opened, min_confidence)
    with progress.stage("match rules", None):
        hits = Matcher(chosen, embed)([row["description"] for row in rows])
    pairs = [(rule, row, found[rule.id]) for rule in sorted(
        chosen, key=lambda r: -SEVERITIES.index(r.severity)
    ) for row, found in zip(rows, hits, strict=True) if rule.id in found]  # fmt: skip
    with progress.stage("read images", None):
        aside = read_aside(opened, images)
    settings = AblationSettings(ablated, random_units, seed)
    effects = _effects(opened, pairs, (model, weights), settings, progress)
    findings = _gather(opened, pairs, aside, effects)
    unclear = sum(row["status"] == UNCLEAR for row in rows)
    return Audit(
        run=str(opened.root), target=opened.target, rules=chosen, findings=findings,
        units=tuple(_unit_row(row) for row in opened.rows), described=len(rows) - unclear,
        unclear=unclear, notes=_notes(opened, rows, min_confidence),
        facts=_facts(opened, chosen, seed),
    )  # fmt: skip


Pair = tuple[Rule, dict[str, Any], Hit]


def _unit(row: dict[str, Any]) -> Unit:
    return row["layer"], int(row["unit"]), row["sign"]


def _unit_row(row: dict[str, Any]) -> dict[str, Any]:
    return {k: row[k] for k in ("layer", "unit", "sign", "status", "description", "score")}


def _effects(
    run: Run,
    pairs: Sequence[Pair],
    source: tuple[Any, str | None],
    settings: AblationSettings,
    progress: Reporter,
) -> dict[Unit, Effect | str]:
    """Ablate the found units, each once, or say why not."""
    units = list(dict.fromkeys(_unit(row) for _, row, _ in pairs))
    if not units:
        return {}
    if settings.units <= 0:
        return dict.fromkeys(units, "no units were to be ablated")
    with progress.stage("load target", None):
        target, why = open_target(run, *source)
    if target is None:
        progress.say(f"note: no unit is ablated: {why}")
        return dict.fromkeys(units, why)
    rest = f"only the first {settings.units} of {len(units)} units found were ablated"
    made: dict[Unit, Effect | str] = dict.fromkeys(units, rest)
    made.update(measure(run, target, units[: settings.units], settings, progress))
    return made


def _gather(
    run: Run, pairs: Sequence[Pair], aside: Aside, effects: dict[Unit, Effect | str]
) -> tuple[Finding, ...]:
    """Make the findings."""
    table = run.store.image_table()
    marks = {rule.id: holding(aside, rule) for rule in dict.fromkeys(r for r, _, _ in pairs)}
    findings = []
    for rule, row, hit in pairs:
        score = row.get("score")
        why = "" if score is not None else (row.get("score_reason") or NO_SCORE)
        exemplars = tuple(
            {"image": int(i), "path": table[int(i)]["path"], "activation": float(a)}
            for i, a in list(zip(row["images"], row["activations"], strict=True))[:SHOWN]
        )
        unit = _unit(row)
        apart = tell_apart(run, aside, marks[rule.id], unit)
        findings.append(Finding(rule.id, rule.severity, *unit, row["description"], hit.text,
                                exemplars, score, why, apart, effects[unit], row["status"],
                                row["confidence"]))  # fmt: skip
    control([finding.apart for finding in findings])
    return tuple(sorted(findings, key=lambda finding: (
        -SEVERITIES.index(finding.severity), -finding.above, -(finding.confidence or 0.0)
    )))  # fmt: skip


def _notes(run: Run, rows: Sequence[dict[str, Any]], least: float | None) -> tuple[str, ...]:
    """Return what a reader should know of an audit."""
    notes = [f"{taking_part(run, rows)} Shares are of these.",
             "A finding says that a description names something; look at the exemplars to see "
             "whether the description is right."]  # fmt: skip
    if least is None and any(row["status"] == UNCLEAR for row in rows):
        notes.append("--min-confidence leaves units out that are less sure.")
    if run.demonstration:
        notes.append("The probe images are the built-in ones, a demonstration: an audit that "
                     "matters is made on images of the task.")  # fmt: skip
    return tuple(notes)


def _facts(run: Run, rules: Sequence[Rule], seed: int) -> dict[str, Any]:
    from milanx.environment import versions

    return {
        "target_fingerprint": run.settings["target"].get("fingerprint"),
        "exemplars": run.store.fingerprint,
        "describer": (run.settings.get("describer") or {}).get("fingerprint"),
        "rules_fingerprint": rules_fingerprint(rules), "seed": seed, "versions": versions(),
    }  # fmt: skip
