"""The run folder: what was learned about one target, and the table of its units."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from milanx.errors import FormatError, InputError, MilanxError, did_you_mean
from milanx.files import read_json, read_table, write_json
from milanx.files.digests import AGAIN, FILES, Listing
from milanx.files.kinds import RUN as RUN_FOLDER
from milanx.hub.address import address_of
from milanx.hub.fetch import Access, Wanted, fetch, fetched_from
from milanx.rows import (
    OLDER_UNITS,
    SENSES,
    TABLE,
    UNITS,
    UNITS_VERSION,
    UnitKey,
    candidates_of,
    current,
    row_of,
    senses_of,
    sureness,
    write_rows,
)

if TYPE_CHECKING:
    import pyarrow as pa

    from milanx.describing.candidates import Candidate, Description
    from milanx.describing.confidence import Judge
    from milanx.exemplars.store import ExemplarSet, ExemplarStore
    from milanx.scoring.column import Score
    from milanx.scoring.senses import Sense

RUN = "milanx-run"
RUN_VERSION = 1
RUNS = Path("milanx-runs")  # below which runs lie unless told otherwise
LENSES = ("sae", "directions")  # behind @ in the names of layers that are read through a file
SHORT = 7  # digits of a commit in a name
# What ``run.json`` holds under some of its names, where it holds them.
KINDS: dict[str, type] = {"layers": list, "images": dict, "describer": dict, "score": dict,
                          "confidence": dict, "settings": dict, "versions": dict,
                          "seconds": dict}  # fmt: skip


def write_settings(root: Path, settings: dict[str, Any]) -> None:
    """Write ``run.json``.

    Args:
        root: the run folder.
        settings: ``target`` (name, fingerprint, weights), ``layers``, ``images`` (count,
            fingerprint, skipped, ``sources``: name, kind, count, demonstration, concepts),
            ``describer``, ``score``, ``confidence``, ``settings``, ``versions``, ``seconds`` for
            each stage, and ``files``, which tells the table (`tell_table`).
    """
    write_json(root / "run.json", RUN, RUN_VERSION, settings)


def tell_table(root: Path) -> dict[str, Any]:
    """Return what ``run.json`` says of the table, by which another one is known."""
    return Listing.of(root, [TABLE]).to_dict()


def write_units(
    root: Path,
    descriptions: Sequence[Description],
    store: ExemplarStore,
    scores: Mapping[UnitKey, Score] | None = None,
    judge: Judge | None = None,
    *,
    senses: Mapping[UnitKey, Sequence[Sense]] | None = None,
    told: bool = True,
) -> None:
    """Write ``units.parquet``; scores stay null without ``scores``, confidence without ``judge``.

    Args:
        root: the run folder.
        descriptions: one for each unit and sign, in any order; written in the store's order.
        store: the exemplars that they describe.
        scores: of each of them.
        judge: says how sure each of them is, and so which are unclear.
        senses: of the units that have several.
        told: by the ``run.json`` that is there; else whoever writes that tells it.

    Raises:
        ValueError: a description of a unit that the store does not hold, or two of one unit.
    """
    by_unit = {(d.layer, d.unit, d.sign): d for d in descriptions}
    if len(by_unit) != len(descriptions):
        raise ValueError("a unit is described twice")
    rows = []
    for layer in store.layers:
        images, activations = store.images(layer), store.activations(layer)
        for row, (unit, sign) in enumerate(store.units(layer)):
            description = by_unit.pop((layer, unit, sign), None)
            if description is not None:
                kept = images[row] >= 0
                rows.append(row_of(description, images[row][kept], activations[row][kept]))
                rows[-1][SENSES] = senses_of((senses or {}).get((layer, unit, sign), ()), kept)
    if by_unit:
        raise ValueError(f"described but not extracted: {sorted(by_unit)[:3]}")
    write_rows(root, rows, scores, judge)
    if told and (root / "run.json").is_file():
        write_settings(root, {**open_run(root).settings, FILES: tell_table(root)})


def write_judged(run: Run, scores: Mapping[UnitKey, Score] | None, judge: Judge) -> None:
    """Write a run's table again, with confidences, and scores where there are new ones."""
    write_rows(run.root, run.rows, scores, judge)


@dataclass(frozen=True)
class UnitView:
    """One unit of a run: its row of the table, and its exemplars when they are asked for."""

    layer: str
    unit: int
    sign: str
    status: str
    description: str
    score: float | None
    score_interval: list[float] | None
    score_reason: str | None
    confidence: float | None
    confidence_reason: str | None
    pmi: float | None
    log_p_given_exemplars: float | None
    log_p_prior: float | None
    agreement: float | None
    response: float | None
    rank: float | None
    row: dict[str, Any] = field(repr=False, compare=False)
    run: Run = field(repr=False, compare=False)

    @property
    def exemplars(self) -> ExemplarSet:
        """The views [k, 3, H, W], masks [k, H, W] and activations [k] that the text is about."""
        return self.run.store.get(self.layer, self.unit, self.sign)

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """The best texts, best first."""
        return candidates_of(self.row)

    @property
    def senses(self) -> list[dict[str, Any]]:
        """The things that it answers to, where it has several; exemplars are places among its."""
        return list(self.row.get(SENSES) or ())

    @property
    def sureness(self) -> float | None:
        """What units are sorted by, the surest last; None where nothing is known."""
        return sureness(self.row)


class Run:
    """A run folder, opened; nothing but ``run.json`` is read before it is asked for.

    Args:
        root: the folder.
        settings: what ``run.json`` says.
    """

    def __init__(self, root: Path, settings: dict[str, Any]) -> None:
        self.root = root
        self.settings = settings

    def __repr__(self) -> str:
        return f"Run({str(self.root)!r}, target={self.target!r})"

    @property
    def target(self) -> str:
        """The name of the target."""
        return str((self.settings.get("target") or {}).get("name", "unknown"))

    @property
    def results(self) -> Path:
        """Where commands write what they make of the run: into it, unless it was fetched.

        A fetched run is named by its commit and stays what that is; its pages and reports go to
        ``milanx-runs/OWNER/NAME@COMMIT``, where the user stands.
        """
        address = fetched_from(self.root)
        if address is None:
            return self.root
        return RUNS / f"{address.repo_id}@{str(address.revision)[:SHORT]}"

    @property
    def sources(self) -> list[dict[str, Any]]:
        """What is known of every source of probe images."""
        return list((self.settings.get("images") or {}).get("sources", []))

    @property
    def k(self) -> int | None:
        """How many exemplars a unit has at most; None where that is not known."""
        k = (self.settings.get("settings") or {}).get("k")
        return k if isinstance(k, int) else None

    @property
    def photos(self) -> int | None:
        """How many distinct photos its images are of; None where that is not known."""
        try:
            return len(set(self.store.photos.tolist()))
        except MilanxError:
            return None

    def files(self, images: Sequence[int]) -> dict[int, str]:
        """Return the paths of images within their sources, as far as they are known."""
        wanted = set(images)
        try:
            table = self.store.image_table()
        except MilanxError:
            return {}
        return {row["index"]: row["path"] for row in table if row["index"] in wanted}

    @property
    def demonstration(self) -> bool:
        """Whether built-in images took part; no protocol is run on such runs."""
        return any(source.get("demonstration") for source in self.sources)

    @property
    def concepts(self) -> list[str]:
        """The concepts that the built-in images hold; empty for images of the user's own."""
        return [concept for source in self.sources for concept in source.get("concepts", ())]

    @cached_property
    def store(self) -> ExemplarStore:
        """The exemplars."""
        from milanx.exemplars.store import ExemplarStore

        store = ExemplarStore.open(self.root)
        if self.settings.get("exemplars", store.fingerprint) != store.fingerprint:
            raise FormatError(
                f"the exemplars in {self.root} are not those of its run.json",
                "one of them was exchanged, or a run was ended midway",
                "run the command that made it again",
            )
        return store

    @cached_property
    def units(self) -> pa.Table:
        """The table, a row a unit and sign (columns: `units_schema`).

        In one of an earlier version ranks are null and have no terms, and nothing is scored.

        Raises:
            InputError: nothing was described yet.
            FormatError: it is damaged, or not the one that ``run.json`` tells of.
        """
        path = self.root / TABLE
        if not path.exists():
            raise InputError(
                f"{self.root} holds no descriptions",
                "there is no units.parquet: only exemplars were extracted, or the run was stopped",
                f"milanx describe ... --out {self.root}",
            )
        told = Listing.read(self.root, self.settings, self.root / "run.json")
        try:
            told.check(TABLE)
        except FormatError as error:
            raise FormatError(
                f"{path} is not the table that {self.root / 'run.json'} tells of",
                f"{error.why}: it is damaged, or describing was ended before run.json was written",
                f"milanx describe ... --out {self.root} describes anew",
            ) from error
        return current(path, read_table(path, UNITS, UNITS_VERSION, OLDER_UNITS))

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """The table as plain rows."""
        rows: list[dict[str, Any]] = self.units.to_pylist()
        return rows

    @cached_property
    def _positions(self) -> dict[tuple[str, int, str], int]:
        return {(r["layer"], r["unit"], r["sign"]): i for i, r in enumerate(self.rows)}

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[UnitView]:
        return (self._view(row) for row in self.rows)

    def __getitem__(self, key: tuple[str, int] | tuple[str, int, str]) -> UnitView:
        """Return a unit: ``run["layer4", 17]``, or ``run["layer4", 17, "-"]``.

        Raises:
            InputError: the run has no such layer or unit.
        """
        layer, unit, sign = (*key, "+")[:3]
        position = self._positions.get((layer, unit, sign))
        if position is None:
            raise self._unknown(layer, unit, sign)
        return self._view(self.rows[position])

    def _view(self, row: dict[str, Any]) -> UnitView:
        names = UnitView.__dataclass_fields__.keys() - {"row", "run"}
        known: dict[str, Any] = {name: row.get(name) for name in names}
        return UnitView(**known, row=row, run=self)

    def _unknown(self, layer: str, unit: int, sign: str) -> InputError:
        layers = list(dict.fromkeys(row["layer"] for row in self.rows))
        if layer not in layers:
            hint = did_you_mean(layer, layers)
            return InputError(
                f"this run has no layer {layer!r}", f"it has {', '.join(layers) or 'none'}", hint
            )
        there = sorted(r["unit"] for r in self.rows if r["layer"] == layer and r["sign"] == sign)
        if not there:
            return InputError(
                f"this run has no unit {unit} of sign {sign} in {layer}",
                f"that layer was not described with the sign {sign}",
                f"describe it with --sign {sign}",
            )
        return InputError(
            f"this run has no unit {unit} in {layer}",
            f"it holds {len(there)} of its units, between {there[0]} and {there[-1]}",
            f"choose one of those, or describe it: {self._asked_by(layer, unit)}",
        )

    def _asked_by(self, layer: str, unit: int) -> str:
        """Return the options that ask for a unit; of latents and directions their file's too."""
        asked = self.settings.get("settings") or {}
        base, _, kind = layer.rpartition("@")
        if kind in LENSES and base:
            return f"--layer {base}:{unit} --{kind} {asked.get(kind, 'FILE')}"
        return f"--layer {layer}:{unit}"


def open_run(root: Path | str, access: Access | None = None) -> Run:
    """Open a run folder.

    Args:
        root: the folder, or a repository of the Hugging Face Hub, ``owner/name`` or
            ``owner/name@revision``, which is fetched. A path that is there wins.
        access: how a repository is reached.

    Raises:
        InputError: the path is no run folder, and no such repository can be had.
        FormatError: a damaged run, or a version that this milanx does not know.
    """
    address = address_of(root)
    root = Path(root) if address is None else fetch(address, WANTED, access)
    if not (root / "run.json").is_file():
        why = "there is no run.json in it" if root.is_dir() else "there is no such folder"
        raise InputError(
            f"{root} is no run folder", why, "name the folder that milanx describe wrote (--out)"
        )
    settings = read_json(root / "run.json", RUN, RUN_VERSION)
    if not isinstance(settings.get("target"), dict):
        raise FormatError(f"{root / 'run.json'} is damaged", "it names no target", AGAIN)
    for name, kind in KINDS.items():
        if not isinstance(settings.get(name, kind()), kind | None):
            why = f"its {name} is no {kind.__name__}"
            raise FormatError(f"{root / 'run.json'} is damaged", why, AGAIN)
    sources = (settings.get("images") or {}).get("sources", [])
    if not isinstance(sources, list) or not all(isinstance(s, dict) for s in sources):
        raise FormatError(f"{root / 'run.json'} is damaged", "its sources are no list", AGAIN)
    return Run(root, settings)


def _whole(root: Path) -> None:
    """Look at every file of a run.

    Raises:
        FormatError: one of them is damaged, or of an unknown version.
    """
    run = open_run(root)
    if (root / TABLE).exists():
        len(run)
    for fault in run.store.listing.faults():
        raise fault


WANTED = Wanted(RUN_FOLDER, "dataset", _whole)


def newest_run(root: Path | str = RUNS) -> Run:
    """Open the run with descriptions that was written last.

    Args:
        root: the folder below which runs lie, as `milanx describe` names them.

    Raises:
        InputError: there is none.
    """
    found = [p for p in Path(root).glob("*/*/run.json") if (p.parent / TABLE).is_file()]
    if not found:
        raise InputError(f"no run with descriptions in {root}", "milanx describe writes one",
                         "describe a model first, or name the run's folder")  # fmt: skip
    return open_run(max(found, key=lambda p: (p.stat().st_mtime, str(p))).parent)
