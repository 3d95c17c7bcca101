"""The same units described under one setting after the other; what was described is kept.

What changes exemplars is a run of its own, with scores and confidence as any. What changes the
search alone is described from the exemplars and encoded views of the first run, and kept as json
under all that it depends on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from milanx.errors import InputError
from milanx.evaluate.p3.aside import run_features
from milanx.evaluate.stability.settings import AXES, BASE, PROBE, SHARE, StabilityAsked, probe_name
from milanx.exemplars.request import ExtractSettings
from milanx.files import fingerprint, read_json, reading, write_json
from milanx.pipeline import describe
from milanx.progress import Reporter
from milanx.runs import Run
from milanx.scoring.column import score_stored
from milanx.scoring.simulator import BUILTIN, Simulating

if TYPE_CHECKING:
    from milanx.describing.describer import Describer

FORMAT, VERSION = "milanx stability texts", 1
RUNS, TEXTS = "runs", "texts"
Unit = tuple[str, int]  # layer, number


@dataclass(frozen=True)
class Said:
    """What is said of the units under one setting.

    Attributes:
        axis: what was varied; ``base`` for the defaults.
        value: that it took.
        texts: of each unit; empty for one that is dead.
        scores: of those that have one.
    """

    axis: str
    value: Any
    texts: Mapping[Unit, str]
    scores: Mapping[Unit, float]


def check_axes(describer: Describer, asked: StabilityAsked) -> None:
    """Refuse values that a setting cannot take, before the long work.

    Raises:
        InputError: the first of them.
    """
    for name, values in asked.axes.items():
        for value in values:
            if AXES[name].search:
                describer.search_defaults(**{name: value})
            elif name != SHARE:
                ExtractSettings(**{name: value})
            elif not 0 < value <= 1:
                raise InputError(
                    f"a share of {value} of the probe images", "it lies above 0, up to 1",
                    "--vary share=0.25,0.5",
                )  # fmt: skip


class Varied:
    """Describes under settings.

    Args:
        describer: whose defaults are the base.
        asked: what is described.
        progress: told about each setting.
    """

    def __init__(self, describer: Describer, asked: StabilityAsked, progress: Reporter) -> None:
        self.describer, self.asked, self.progress = describer, asked, progress
        self.base = self._run(BASE, ExtractSettings())

    def all(self) -> Iterator[Said]:
        """Yield what is said under each setting, the base first.

        Raises:
            InputError: images or settings that cannot be used.
        """
        yield _said(BASE, "", self.base)
        for name, values in self.asked.axes.items():
            if name == PROBE:
                for probe in self.asked.probes:
                    self.progress.say(f"{AXES[name].title}: {probe_name(probe)}")
                    place = f"images-{fingerprint(probe)[:8]}"
                    run = self._run(place, ExtractSettings(), images=(probe,))
                    yield _said(name, probe_name(probe), run)
                continue
            for value in values:
                if value != self.usual(name):
                    self.progress.say(f"{AXES[name].title}: {value}")
                    yield self._searched(name, value) if AXES[name].search else self._extracted(
                        name, value)  # fmt: skip

    def usual(self, axis: str) -> Any:
        """Return the value that the base has."""
        if axis == SHARE:
            return 1.0
        how = self.describer.settings if AXES[axis].search else ExtractSettings()
        return getattr(how, axis)

    def depth(self) -> Run | None:
        """Describe the further layers under the defaults; None where none are asked for."""
        if not self.asked.depth:
            return None
        return self._run("depth", ExtractSettings(), layers=self.asked.depth)

    def _extracted(self, axis: str, value: Any) -> Said:
        """Describe with other exemplars."""
        if axis != SHARE:
            run = self._run(f"{axis}-{value}", ExtractSettings(**{axis: value}))
            return _said(axis, value, run)
        count = max(1, round(value * self.base.settings["images"]["count"]))
        return _said(axis, value, self._run(f"{axis}-{value}", ExtractSettings(), limit=count))

    def _run(
        self,
        name: str,
        settings: ExtractSettings,
        *,
        layers: tuple[str, ...] | None = None,
        images: tuple[str, ...] | None = None,
        limit: int | None = None,
    ) -> Run:
        """Describe in a folder of its own; what is there and was made so is used again."""
        asked = self.asked
        return describe(
            asked.model, layers=asked.addressed(layers or asked.layers),
            images=images or asked.images, limit=limit or asked.limit, weights=asked.weights,
            describer=self.describer, settings=settings, device=asked.device,
            out=asked.out / RUNS / name, progress=self.progress,
        )  # fmt: skip

    def _searched(self, axis: str, value: Any) -> Said:
        """Describe the base's exemplars with another search."""
        how = self.describer.search_defaults(**{axis: value})
        store = self.base.store
        key = fingerprint(store.fingerprint, self.describer.fingerprint, asdict(how))
        path = self.asked.out / TEXTS / f"{axis}-{value}-{key}.json"
        if not path.is_file():
            found = self.describer.describe(store, settings=how, progress=self.progress)
            texts = {(d.layer, d.unit, d.sign): d.text for d in found}
            scores = self._scores(texts)
            rows = [[*unit, text, scores.get(unit)] for unit, text in texts.items()]
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, FORMAT, VERSION, {"axis": axis, "value": value, "units": rows})
        return read_said(path)

    def _scores(self, texts: Mapping[tuple[str, int, str], str]) -> dict[Any, float | None]:
        """Score texts as the base's are, on the same images; none where these have no scores."""
        run = self.base
        if "reason" in (run.settings.get("score") or {}):
            return {}
        with Simulating.of(BUILTIN).opened() as judge:

            def look(indices: np.ndarray) -> np.ndarray:
                return run_features(judge, run, indices.tolist())

            scored = score_stored(texts, run.store, judge, look, ExtractSettings().seed)
        return {unit: score.value for unit, score in scored.units.items()}


def read_said(path: Path) -> Said:
    """Read texts that were kept.

    Raises:
        FormatError: they are damaged.
    """
    content = read_json(path, FORMAT, VERSION)
    with reading(path):
        rows = content["units"]
        return Said(
            content["axis"], content["value"],
            {(layer, unit): text for layer, unit, _, text, _ in rows},
            {(layer, unit): score for layer, unit, _, _, score in rows if score is not None},
        )  # fmt: skip


def _said(axis: str, value: Any, run: Run) -> Said:
    """Return what a run says."""
    rows = run.rows
    return Said(
        axis, value,
        {(row["layer"], row["unit"]): row["description"] or "" for row in rows},
        {(row["layer"], row["unit"]): row["score"] for row in rows if row["score"] is not None},
    )  # fmt: skip
