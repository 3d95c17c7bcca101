"""One table of all methods by P1 or P3 (P2's is in `milanx.evaluate.methods.planted`).

Every method has its own ``shuffled`` (its texts permuted among the units) and ``constant`` (the one
of its texts that is best on the units of other folds); the first method is compared with each other
one on the same units, with Holm's correction over the table.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from milanx.evaluate.common.claims import Difference, settled
from milanx.evaluate.common.rows import constant, shuffled, signed
from milanx.evaluate.methods.say import Harness, Said, Units, everything_said, runs_of
from milanx.measures.intervals import DRAWS, bootstrap, resampled_counts
from milanx.progress import Reporter, Silent
from milanx.runs import Run

if TYPE_CHECKING:
    from milanx.describing.describer import Describer
    from milanx.describing.milan.describer import Milan
    from milanx.exemplars.store import ExemplarStore

Report = dict[str, Any]
Rows = dict[str, dict[str, Any]]
WHY = "cannot be measured"  # the cell that says why


@dataclass(frozen=True)
class Tools:
    """What methods are made of.

    Attributes:
        methods: which, in the order of the rows.
        describer: gives encoder and phrases, and describes planted units.
        milan: MILAN's; None where none is given.
        seed: of folds, permutations and draws.
        progress: told about long parts.
    """

    methods: tuple[str, ...]
    describer: Describer
    milan: Milan | None = None
    seed: int = 0
    progress: Reporter | None = None

    def harness(self, store: ExemplarStore, units: Units) -> Harness:
        """Return what asks the methods about units."""
        return Harness(store, units, self.describer, self.milan, self.progress)


def p1_table(run: Run, against: Sequence[Run], tools: Tools) -> Report:
    """Score every method on a run's logits: do its texts name their classes?

    Args:
        run: of a classifier's logits, over labelled images.
        against: further runs of the same exemplars: those of the methods that need regions.
        tools: of the others.
    """
    from milanx.evaluate.p1.logits import Logits, read_logits

    started, logits, seed = time.monotonic(), read_logits(run), tools.seed
    units = [(r["layer"], r["unit"], r["sign"]) for r in logits.rows]

    def five(said: Said) -> np.ndarray:
        rows = [{"candidates": [{"text": t} for t in texts]} for texts in said.five]
        found: np.ndarray = Logits.top5(logits, rows)
        return found

    def figures(said: Said, own: np.ndarray) -> dict[str, Any]:
        texts = list(said.texts)
        several = any(len(texts) > 1 for texts in said.five)
        return {
            "top-1": bootstrap(own),
            **({"top-5": bootstrap(five(said))} if several else {}),
            "shuffled": bootstrap(shuffled(logits.right, texts, seed)),
            "constant": bootstrap(constant(logits.right, texts, seed)),
        }

    others = runs_of(run, against)
    said = everything_said(run, units, tools.methods, others, tools.harness(run.store, units))
    table = Scoring(said, lambda s: logits.top1(list(s.texts)), figures, _by_unit(len(units), seed))
    return table.report("P1 named outputs, all methods", len(units), started) | _facts(run, tools)


def p3_table(
    run: Run, against: Sequence[Run], tools: Tools, *, simulator: Any, images: Sequence[str] = ()
) -> Report:
    """Score every method on a run's units: do its texts foretell what they do on images kept aside?

    Args:
        run: its images must be there to be read again.
        against: further runs of the same exemplars.
        tools: of the other methods.
        simulator: what `milanx.scoring.simulator.Simulating.of` takes.
        images: where the run's sources lie now.
    """
    from milanx.evaluate.p3.aside import read_probe
    from milanx.evaluate.p3.protocol import layer_scores, scored_layers
    from milanx.scoring.simulator import Simulating

    started, progress = time.monotonic(), tools.progress or Silent()
    others, layers = runs_of(run, against), scored_layers(run)
    rows: Rows = {}
    claims: dict[str, Difference] = {}
    count = 0
    with Simulating.of(simulator).opened() as judge:
        probe = read_probe(run, judge, images, tools.seed, progress)
        for layer in layers:
            made, places = layer_scores(run, layer, probe, tools.seed)
            if not places:
                continue
            count += len(places)
            units = [(layer, run.rows[i]["unit"], run.rows[i]["sign"]) for i in places]
            said = everything_said(run, units, tools.methods, others,
                                   tools.harness(run.store, units))  # fmt: skip
            prefix = f"{layer}: " if len(layers) > 1 else ""
            measured = {n: _simulated(made, s) for n, s in said.items() if s.texts}
            rows |= {prefix + n: measured[n][0] if n in measured else {WHY: said[n].why}
                     for n in said}  # fmt: skip
            claims |= _compared({n: (s, d) for n, (_, s, d) in measured.items()}, prefix)
    return _report("P3 simulation, all methods", count, rows, claims, started) | _facts(run, tools)


def _simulated(made: Any, said: Said) -> tuple[dict[str, Any], np.ndarray, np.ndarray]:
    """Return a method's figures on one layer, its score of each unit and its draws."""
    texts = list(said.texts)
    sigmoids = made.sigmoids(texts)
    own = made.row(made.predict(texts, sigmoids))
    controls = made.controls(texts, sigmoids)
    figures = {
        "correlation": own.figures["correlation"],
        "AUROC top 5 %": own.figures["AUROC top 5 %"],
        **{name: row.figures["correlation"] for name, row in sorted(controls.items(),
                                                                   reverse=True)},
    }  # fmt: skip
    return figures, own.scores, own.draws


@dataclass(frozen=True)
class Scoring:
    """What methods say, and how it is scored.

    Attributes:
        said: of each method.
        score: of each unit [n], by what the methods are compared.
        figures: the cells of a method that has said something.
        draws: bootstrap draws of the mean of values [n].
    """

    said: Mapping[str, Said]
    score: Callable[[Said], np.ndarray]
    figures: Callable[[Said, np.ndarray], dict[str, Any]]
    draws: Callable[[np.ndarray], np.ndarray]

    def report(self, title: str, count: int, started: float) -> Report:
        """Score every method."""
        rows: Rows = {}
        scored: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        for name, said in self.said.items():
            if not said.texts:
                rows[name] = {WHY: said.why}
                continue
            own = self.score(said)
            rows[name] = self.figures(said, own)
            scored[name] = own, self.draws(own)
        return _report(title, count, rows, _compared(scored, ""), started)


def _compared(
    scored: Mapping[str, tuple[np.ndarray, np.ndarray]], prefix: str
) -> dict[str, Difference]:
    """Return how far the first method is ahead of each other one, with the draws that they share.

    Args:
        scored: of each method the units' scores [n] and the draws of their mean [d].
        prefix: of the names.
    """
    names = list(scored)
    if not names:
        return {}
    own, draws = scored[names[0]]
    return {f"{prefix}{names[0]} - {name}": (float(own.mean() - scored[name][0].mean()),
                                             draws - scored[name][1])
            for name in names[1:]}  # fmt: skip


def _report(
    title: str, count: int, rows: Rows, claims: Mapping[str, Difference], started: float
) -> Report:
    found = settled(claims)
    notes = [f"{name}: {signed(claim)}, {'ahead' if claim['ahead'] else 'not ahead'} "
             f"(Holm p = {claim['p_holm']:.3f})" for name, claim in found.items()]  # fmt: skip
    return {"protocol": title, "n": count, "rows": rows, "paired": found, "notes": notes,
            "seconds": round(time.monotonic() - started, 1)}  # fmt: skip


def _facts(run: Run, tools: Tools) -> Report:
    return {"seed": tools.seed, "images": run.settings["images"]["fingerprint"],
            "versions": run.settings.get("versions"),
            "describer": run.settings.get("describer")}  # fmt: skip


def _by_unit(count: int, seed: int) -> Callable[[np.ndarray], np.ndarray]:
    """Return what draws the mean of units, the same draws for every method."""
    return weighted(resampled_counts(count, DRAWS, np.random.default_rng(seed)))


def weighted(weights: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Return what draws the mean of units that weigh ``weights`` [draws, n] in each draw."""
    total = np.maximum(weights.sum(1), 1e-9)

    def draws(values: np.ndarray) -> np.ndarray:
        found: np.ndarray = weights @ np.asarray(values, float) / total
        return found

    return draws
