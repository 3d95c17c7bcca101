"""What each method says of the same units, or why it can say nothing of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from milanx.describing.ways import CONCEPT_WAYS, METHODS, MILAN, REGION_WAYS
from milanx.errors import InputError, did_you_mean
from milanx.progress import Reporter, Silent

if TYPE_CHECKING:
    from milanx.describing.candidates import Description
    from milanx.describing.describer import Describer
    from milanx.describing.milan.describer import Milan
    from milanx.exemplars.store import ExemplarStore
    from milanx.runs import Run

Units = list[tuple[str, int, str]]  # layer, unit, sign
ARGMAX = "argmax p(d|E)"  # of the describer's search: what is likeliest before anything is ranked


@dataclass(frozen=True)
class Said:
    """What a method says of n units.

    Attributes:
        texts: one a unit; none where it cannot say anything.
        five: of each unit the candidates, best first; the text alone where there are no others.
        why: it says nothing, in words.
    """

    texts: tuple[str, ...] = ()
    five: tuple[tuple[str, ...], ...] = ()
    why: str = ""

    @classmethod
    def of(cls, rows: Iterable[tuple[str, Sequence[str]]]) -> Said:
        """Make it of texts and candidates."""
        found = list(rows)
        return cls(tuple(text for text, _ in found),
                   tuple(tuple(all_of) or (text,) for text, all_of in found))  # fmt: skip


def methods_of(names: Sequence[str]) -> tuple[str, ...]:
    """Return the methods that are asked for; ``all`` are all of them.

    Raises:
        InputError: one that there is not.
    """
    asked = METHODS if "all" in names else tuple(dict.fromkeys(names))
    for name in asked:
        if name not in METHODS:
            hint = did_you_mean(name, METHODS) or "--method all"
            raise InputError(f"no method {name!r}", f"there are {', '.join(METHODS)}", hint)
    return asked


class Harness:
    """Asks methods about the same units.

    Args:
        store: the exemplars.
        units: which of its units.
        describer: whose encoder and whose phrases the methods over a list use.
        milan: MILAN's describer; None where none was given.
        progress: told about encoding and describing.
    """

    def __init__(
        self,
        store: ExemplarStore,
        units: Units,
        describer: Describer,
        milan: Milan | None,
        progress: Reporter | None = None,
    ) -> None:
        self.store, self.units = store, units
        self.describer, self.milan = describer, milan
        self.progress = progress or Silent()
        self._found: dict[tuple[str, int, str], Description] = {}

    def say(self, method: str) -> Said:
        """Ask one method that needs exemplars alone."""
        if method in REGION_WAYS:
            return Said(why="it needs the target over images with regions")
        if method == MILAN and self.milan is None:
            return Said(why="no folder of MILAN's was given")
        found = {(d.layer, d.unit, d.sign): d for d in self._describe(method)}
        self._found = found if method == "describer" else self._found
        return Said.of((found[key].text, [c.text for c in found[key].candidates])
                       for key in self.units)  # fmt: skip

    def likeliest(self) -> Said:
        """Return the likeliest texts of p(d|E) that the describer found, after it was asked."""
        return Said.of((self._found[key].likeliest, ()) for key in self.units)

    def _describe(self, method: str) -> list[Description]:
        from milanx.describing.concepts import ConceptSettings, describe_concepts

        layers = list(dict.fromkeys(layer for layer, _, _ in self.units))
        wanted: dict[str, Sequence[tuple[int, str]]] = {
            layer: [(unit, sign) for name, unit, sign in self.units if name == layer]
            for layer in layers
        }
        if method == MILAN:
            assert self.milan is not None
            same = self.milan.encoder.fingerprint() == self.describer.encoder.fingerprint()
            return self.milan.describe(
                self.store, layers, units=wanted, features=self._features if same else None,
                progress=self.progress,
            )  # fmt: skip
        if method not in CONCEPT_WAYS:
            return self.describer.describe(
                self.store, layers, units=wanted, features=self._features, progress=self.progress
            )
        return describe_concepts(
            self.store, self.describer.encoder, self.describer.vocabulary or None, layers=layers,
            units=wanted, settings=ConceptSettings(CONCEPT_WAYS[method]), features=self._features,
            progress=self.progress,
        )  # fmt: skip

    @cached_property
    def _features(self) -> dict[int, np.ndarray]:
        """The views, encoded once for all methods."""
        from milanx.features.encoder import encode_views

        with self.progress.stage("encode", len(self.store.view_indices())) as bar:
            return encode_views(self.describer.encoder, self.store, advance=bar.advance)


def runs_of(run: Run, others: Sequence[Run]) -> dict[str, Run]:
    """Return runs of the same exemplars by the method that described them; ``run`` itself is one.

    Raises:
        InputError: one of other exemplars, or two by one method.
    """
    made: dict[str, Run] = {}
    for other in (run, *others):
        if other.settings.get("exemplars") != run.settings.get("exemplars"):
            raise InputError(
                f"{other.root} is of other exemplars than {run.root}",
                "methods are compared on the same ones",
                "describe the same layers of the same target with the same images and settings",
            )
        method = str((other.settings.get("describer") or {}).get("method"))
        if method in made:
            raise InputError(f"{other.root} and {made[method].root} are both of {method}",
                             "a table has one row a method", "leave one out")  # fmt: skip
        made[method] = other
    return made


def said_of(run: Run, units: Units) -> Said:
    """Return what a run says of units.

    Raises:
        InputError: it lacks one of them.
    """
    rows = {(r["layer"], r["unit"], r["sign"]): r for r in run.rows}
    missing = [key for key in units if key not in rows]
    if missing:
        raise InputError(f"{run.root} lacks unit {missing[0][1]} of {missing[0][0]}",
                         "runs that are compared must describe the same units")  # fmt: skip
    return Said.of((rows[key]["description"] or "", _texts(rows[key])) for key in units)


def likeliest_of(run: Run, units: Units) -> Said:
    """Return the likeliest texts of p(d|E) of a describer's run."""
    from milanx.rows import likeliest

    rows = {(r["layer"], r["unit"], r["sign"]): r for r in run.rows}
    return Said.of((likeliest(rows[key]), ()) for key in units)


def _texts(row: Mapping[str, Any]) -> list[str]:
    return [candidate["text"] for candidate in row["candidates"] or ()]


def everything_said(
    run: Run, units: Units, methods: Sequence[str], others: Mapping[str, Run], harness: Harness
) -> dict[str, Said]:
    """Return what methods say of units of a run, in the order of the methods.

    Those of which there is a run are read; the others are asked, if exemplars are all they need.
    """
    found: dict[str, Said] = {}
    for method in methods:
        if method in others:
            found[method] = said_of(others[method], units)
        elif method in REGION_WAYS:
            found[method] = Said(why="no run of it was given: it needs images with regions")
        else:
            found[method] = harness.say(method)
        if method == "describer":
            found[ARGMAX] = (likeliest_of(others[method], units) if method in others
                             else harness.likeliest())  # fmt: skip
    return found
