"""P3, simulation on images kept aside: do the texts foretell what the units do?

A simulator predicts each unit's spatial maximum on images that never became exemplars from the
unit's text alone, s = sigmoid(a * similarity(text, image) + b). One pair a > 0, b a layer, fitted
on other units and on the other images (five folds of units; least squares on activations brought
to 0..1 between each unit's lowest and highest). The score is the Pearson correlation within each
source, averaged, as Oikarinen, Yan and Weng (2025) find that correlation passes their tests.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from milanx.errors import InputError
from milanx.evaluate.common.claims import settled
from milanx.evaluate.common.rows import signed
from milanx.evaluate.p3.aside import Probe, read_probe
from milanx.evaluate.p3.simulate import LayerScores, Row
from milanx.files import fingerprint
from milanx.measures.intervals import with_interval
from milanx.progress import Reporter, Silent
from milanx.rows import likeliest
from milanx.runs import Run, open_run
from milanx.scoring import correlate as co
from milanx.scoring.simulator import BUILTIN, Simulating, Simulator


def layer_scores(
    run: Run, layer: str, probe: Probe, seed: int = 0
) -> tuple[LayerScores, list[int]]:
    """Bring together the units of a layer that can be scored, and their places in ``run.rows``.

    Left out are dead units, the sign ``-`` (its images have no record of every image), and units
    that give one value on all images kept aside.
    """
    maxima = run.store.maxima(layer)
    rows = [
        i
        for i, row in enumerate(run.rows)
        if row["layer"] == layer and row["sign"] == "+" and row["status"] != "dead"
    ]
    at = [run.store.column(layer, run.rows[i]["unit"]) for i in rows]
    aside = np.asarray(maxima[probe.aside.indices], np.float32)[:, at].T
    search = np.asarray(maxima[probe.search.indices], np.float32)[:, at].T
    alive: np.ndarray = np.asarray(co.varying(aside, probe.aside.sources).any(1))
    similar = probe.simulator.similarity
    made = LayerScores(
        aside[alive], probe.aside.sources, search[alive], probe.search.sources,
        lambda texts: similar(texts, probe.aside.features),
        lambda texts: similar(texts, probe.search.features), seed,
    )  # fmt: skip
    return made, [i for i, keep in zip(rows, alive, strict=True) if keep]


def scored_layers(run: Run) -> list[str]:
    """Return the layers that reach the output; inert ones leave every denominator."""
    inert = {x["name"] for x in run.settings.get("layers", []) if x.get("inert")}
    return [layer for layer in run.store.layers if layer not in inert]


def evaluate(
    run: Run,
    *,
    simulator: Simulating | Simulator | str | Path = BUILTIN,
    against: Path | None = None,
    vocabulary: Path | None = None,
    images: Sequence[str] = (),
    seed: int = 0,
    progress: Reporter | None = None,
) -> dict[str, Any]:
    """Score a run's descriptions by simulation.

    Args:
        run: the run; its images must be there to be read again.
        simulator: one, or what `Simulator.load` takes, with where it computes or without.
        against: another run of the same target, for a row beside (concepts, for example).
        vocabulary: texts, one a line, for the row ``best of vocabulary``; the run's own always
            belong to it.
        images: where the run's sources lie now.
        seed: of folds, permutations and bootstrap draws.
        progress: told about encoding and scoring.

    Returns:
        A report: n, rows with estimates and 95 % intervals, comparisons, notes, units.

    Raises:
        InputError: images that are not found, nothing to score, an ``against`` that does not fit.
    """
    started = time.monotonic()
    progress = progress or Silent()
    other = _Other(run, against) if against else None
    words = _read_vocabulary(vocabulary)
    table = _Table()
    layers = scored_layers(run)
    with Simulating.of(simulator).opened() as judge:
        probe = read_probe(run, judge, images, seed, progress)
        with progress.stage("score", len(layers)) as bar:
            for layer in layers:
                made, rows = layer_scores(run, layer, probe, seed)
                if rows:
                    prefix = f"{layer}: " if len(layers) > 1 else ""
                    _score(table, run, made, rows, other, words, prefix)
                bar.advance(1)
    if not table.units:
        raise InputError("nothing to score", "no described unit of this run takes more than one "
                         "value on the images kept aside", "describe other layers")  # fmt: skip
    claims = table.settled()
    return {
        "protocol": "P3 simulation on images kept aside",
        "n": len(table.units),
        "rows": table.rows,
        "paired": claims,
        "seed": seed,
        "dead": sum(r["status"] == "dead" for r in run.rows),
        "images": run.settings["images"]["fingerprint"],
        "kept_aside": {name: int((probe.aside.sources == i).sum())
                       for i, name in enumerate(probe.names)},
        "descriptions": fingerprint([u["description"] for u in table.units]),
        "simulator": {"name": probe.simulator.name, "fingerprint": probe.simulator.fingerprint},
        "shared": list(probe.simulator.shared),
        "versions": run.settings.get("versions"),
        "describer": run.settings.get("describer"),
        "seconds": round(time.monotonic() - started, 1),
        "units": table.units,
        "notes": _notes(run, probe, claims, layers),
    }  # fmt: skip


class _Table:
    """Rows, claims and units of all layers."""

    def __init__(self) -> None:
        self.rows: dict[str, dict[str, Any]] = {}
        self.units: list[dict[str, Any]] = []
        self._claims: dict[str, tuple[float, np.ndarray]] = {}
        self._shares: dict[str, dict[str, Any]] = {}

    def add(self, prefix: str, rows: dict[str, Row]) -> None:
        """Add a layer's rows and what is claimed of them."""
        own = rows["description"]
        for name, row in rows.items():
            self.rows[prefix + name] = row.figures
            if name not in ("description", "best of vocabulary"):
                difference = float(own.scores.mean() - row.scores.mean())
                self._claims[f"{prefix}description - {name}"] = difference, own.draws - row.draws
        best = rows["best of vocabulary"]
        self._shares[f"{prefix}description / best of vocabulary"] = with_interval(
            own.scores.mean() / best.scores.mean(), own.draws / best.draws
        )

    def settled(self) -> dict[str, dict[str, Any]]:
        """Return the differences with intervals and Holm's p values over the whole table."""
        return settled(self._claims) | self._shares


def _score(
    table: _Table,
    run: Run,
    made: LayerScores,
    rows: list[int],
    other: _Other | None,
    words: list[str],
    prefix: str,
) -> None:
    """Score one layer into the table. Every method's sigmoid is fitted on its own texts."""
    texts = [run.rows[i]["description"] or "" for i in rows]
    sigmoids = made.sigmoids(texts)
    found = {"description": made.row(made.predict(texts, sigmoids))}
    argmax = [likeliest(run.rows[i]) for i in rows]
    methods = {} if argmax == texts else {"argmax p(d|E)": argmax}
    if other is not None:
        methods[other.name] = other.texts([run.rows[i] for i in rows])
    for name, theirs in methods.items():
        found[name] = made.row(made.predict(theirs, made.sigmoids(theirs)))
    found |= made.controls(texts, sigmoids)
    if len(np.unique(made.sources)) > 1:
        found["source only"] = made.source_only()
    vocabulary = sorted({t for t in [*texts, *words] if t})
    best = made.best_texts(vocabulary, sigmoids)
    found["best of vocabulary"] = made.row(made.predict(best, made.sigmoids(best)))
    table.add(prefix, found)
    for place, i in enumerate(rows):
        table.units.append({
            "layer": run.rows[i]["layer"], "unit": run.rows[i]["unit"],
            "description": texts[place], "best": best[place],
            "correlation": float(found["description"].scores[place]),
            "best_correlation": float(found["best of vocabulary"].scores[place]),
        })  # fmt: skip


class _Other:
    """Another run of the same target, for its texts."""

    def __init__(self, run: Run, root: Path) -> None:
        other = open_run(root)
        if other.settings["target"].get("fingerprint") != run.settings["target"]["fingerprint"]:
            raise InputError(
                f"{root} describes another target",
                f"it is of {other.target}, this run of {run.target}",
                "give a run of the same target with --against",
            )
        self.root = root
        self.name = str((other.settings.get("describer") or {}).get("name") or root.name)
        if self.name == (run.settings.get("describer") or {}).get("name"):
            self.name = root.name
        self._texts = {(r["layer"], r["unit"], r["sign"]): r["description"] for r in other.rows}

    def texts(self, rows: Sequence[dict[str, Any]]) -> list[str]:
        """Return its texts for the units of ``rows``."""
        keys = [(r["layer"], r["unit"], r["sign"]) for r in rows]
        missing = sum(key not in self._texts for key in keys)
        if missing:
            raise InputError(
                f"{self.root} does not describe {missing} of the {len(keys)} units of {keys[0][0]}",
                "a comparison needs the same units",
                "describe them there too",
            )
        return [self._texts[key] or "" for key in keys]


def _read_vocabulary(path: Path | None) -> list[str]:
    if path is None:
        return []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the vocabulary {path}", str(error),
                         "give a text file with one text a line") from error  # fmt: skip
    return [line.strip() for line in lines if line.strip()]


def _notes(
    run: Run, probe: Probe, claims: dict[str, dict[str, Any]], layers: list[str]
) -> list[str]:
    lines = []
    for name, claim in claims.items():
        text = f"{name}: {signed(claim)}"
        if "p_holm" in claim:
            text += (
                f", {'ahead' if claim['ahead'] else 'not ahead'} (Holm p = {claim['p_holm']:.3f})"
            )
        lines.append(text)
    counts = ", ".join(f"{int((probe.aside.sources == i).sum())} of {name}"
                       for i, name in enumerate(probe.names))  # fmt: skip
    lines.append(f"images kept aside: {counts}; simulator: {probe.simulator.name}")
    if probe.simulator.shared:
        lines.append(f"shared by simulator and describer: {', '.join(probe.simulator.shared)}")
    if probe.simulator.tower and _family(probe.simulator.tower) == _family(run.target):
        lines.append(f"the simulator's image tower is of the target's family ({run.target})")
    inert = [layer for layer in run.store.layers if layer not in layers]
    if inert:
        lines.append(f"inert, left out: {', '.join(inert)}")
    minus = sum(r["sign"] == "-" for r in run.rows)
    if minus:
        lines.append(f"{minus} units of the sign - are not scored")
    return [*lines, *probe.notes]


def _family(name: str) -> str:
    """Return a model's family: its name to the first underscore after timm's ``tf_``."""
    return name.removeprefix("tf_").split("_")[0]
