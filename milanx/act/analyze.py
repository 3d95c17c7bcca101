"""What kinds of things a model's units detect, layer by layer.

Shares of units whose description names a colour, a texture, an object ..., and of words by their
part of speech (MILAN, section 5); with labelled images also what the units of a kind are worth to
the model (`milanx.act.importance`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from milanx.act.categories import (
    GENERIC,
    KINDS,
    PARTS_OF_SPEECH,
    UNSURE,
    Categories,
    Named,
    parts_of_speech,
)
from milanx.act.importance import ImportanceSettings, importance
from milanx.act.reopen import find_target
from milanx.act.select import described, taking_part
from milanx.errors import InputError, MilanxError
from milanx.language.compare import Embed
from milanx.measures.intervals import bootstrap, wilson
from milanx.progress import Reporter, Silent
from milanx.targets.given import gives_back

if TYPE_CHECKING:
    from milanx.runs import Run

FORMAT, VERSION = "milanx-analysis", 1
NOTHING = "nothing else"  # only generic words: "objects", "areas in the image"
SAMPLE = 250  # labelled images on which units are ablated, when nothing else is asked for
BOOTSTRAP_DRAWS = 2_000


@dataclass(frozen=True)
class Analysis:
    """What was counted in a run.

    Attributes:
        run: its folder.
        target: its name.
        layers: layer -> `count_layer`, in the order of the run; ``all`` comes last where there is
            more than one.
        words: how words were placed: ``lexicon``, ``similarity``, ``unsure``.
        importance: of `importance`; None without labelled images.
        notes: what a reader should know.
    """

    run: str
    target: str
    layers: dict[str, dict[str, Any]]
    words: dict[str, int]
    importance: dict[str, Any] | None
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return everything, as ``analysis.json`` holds it."""
        return {"run": self.run, "target": self.target, "layers": self.layers,
                "words": self.words, "importance": self.importance,
                "notes": list(self.notes)}  # fmt: skip


@gives_back
def analyze(
    run: Run | Path | str,
    images: Sequence[str | Path] | str | Path | None = None,
    *,
    model: Any = None,
    weights: str | None = None,
    classes: Sequence[str] | Path | None = None,
    sample: int = SAMPLE,
    settings: ImportanceSettings | None = None,
    embed: Embed | None = None,
    progress: Reporter | None = None,
) -> Analysis:
    """Count what kinds of things the descriptions of a run name; measure what such units are worth.

    Args:
        run: the run, or its folder.
        images: labelled images of the target's classes; importance is measured where given.
        model: the target's module, where it has no name.
        weights: the target's checkpoint, where it was given one.
        classes: the target's classes in the order of its logits, or a file of them, where they
            are not ImageNet's.
        sample: at most so many labelled images.
        settings: of the ablations.
        embed: sentence embeddings; all-MiniLM-L6-v2 when None.
        progress: told about the stages.

    Raises:
        InputError: no run, nothing described, images without labels, or a target that cannot be
            had again.
    """
    from milanx.runs import open_run

    opened = open_run(run) if isinstance(run, str | Path) else run
    rows = described(opened)
    progress = progress or Silent()
    with progress.stage("sort words", None):
        named = Categories(embed=embed)([row["description"] for row in rows])
    layers = {
        name: count_layer([(row, n) for row, n in zip(rows, named, strict=True)
                           if row["layer"] == name])
        for name in dict.fromkeys(row["layer"] for row in rows)
    }  # fmt: skip
    if len(layers) > 1:
        layers["all"] = count_layer(list(zip(rows, named, strict=True)))
    worth = None
    if images is not None:
        sources = [images] if isinstance(images, str | Path) else list(images)
        worth = _importance(opened, (rows, named), sources, (model, weights, classes), sample,
                            settings or ImportanceSettings(), progress)  # fmt: skip
    return Analysis(str(opened.root), opened.target, layers, _placed(named), worth,
                    _notes(opened, rows))  # fmt: skip


def named_kinds(named: Sequence[Named]) -> set[str]:
    """Return the kinds that a description names.

    `UNSURE` where nothing was told but a word that fits no kind, `NOTHING` where all words are
    generic; never beside a kind.
    """
    kinds = {n.kind for n in named}
    told = kinds & set(KINDS)
    return told or ({UNSURE} if UNSURE in kinds else {NOTHING})


def count_layer(pairs: Sequence[tuple[dict[str, Any], Sequence[Named]]]) -> dict[str, Any]:
    """Count kinds and parts of speech.

    Args:
        pairs: a row of the table with a description, and what it names.

    Returns:
        ``units``; ``kinds``: of each kind, and of ``unsure`` and ``nothing else``, ``units``,
        ``share`` and ``interval`` (Wilson); a unit may name several. ``parts_of_speech``: of each
        the share of a description's words, mean over units, with ``interval`` (bootstrap).
    """
    units = len(pairs)
    found = Counter(kind for _, named in pairs for kind in named_kinds(named))
    kinds = {
        kind: {"units": found[kind], "share": found[kind] / units if units else 0.0,
               "interval": list(wilson(found[kind], units))}
        for kind in (*KINDS, UNSURE, NOTHING)
    }  # fmt: skip
    shares = np.array([_parts(row["description"]) for row, _ in pairs]).reshape(-1, 4)
    speech = {part: bootstrap(shares[:, i], draws=BOOTSTRAP_DRAWS)
              for i, part in enumerate(PARTS_OF_SPEECH)}  # fmt: skip
    return {"units": units, "kinds": kinds, "parts_of_speech": speech}


def _parts(text: str) -> list[float]:
    """Return the share of each part of speech among a description's words."""
    tagged = parts_of_speech(text)
    return [sum(part == wanted for _, part in tagged) / max(len(tagged), 1)
            for wanted in PARTS_OF_SPEECH]  # fmt: skip


def _placed(named: Sequence[Sequence[Named]]) -> dict[str, int]:
    ways = Counter(UNSURE if n.kind == UNSURE else n.way for names in named for n in names)
    return {way: ways[way] for way in ("lexicon", "similarity", UNSURE)}


def _importance(
    run: Run, table: tuple[Sequence[dict[str, Any]], Sequence[Sequence[Named]]],
    sources: Sequence[str | Path], source: tuple[Any, str | None, Sequence[str] | Path | None],
    sample: int, settings: ImportanceSettings, progress: Reporter,
) -> dict[str, Any]:  # fmt: skip
    """Ablate the units of each kind and part of speech."""
    from milanx.act.data import image_set, model_classes
    from milanx.images.probe import open_images

    model, weights, classes = source
    with progress.stage("load target", None):
        try:
            target = find_target(run.settings["target"], model=model, weights=weights)
        except MilanxError as error:
            raise InputError("importance cannot be measured", f"{error.what}: {error.why}",
                             [*error.ways_out, "leave --images away to count words alone"],
                             ) from error  # fmt: skip
    with progress.stage("open images", None):
        probe = open_images(sources, limit=sample)
    for note in probe.notes:
        progress.say(f"note: {note}")
    shown = image_set(probe, target, model_classes(_outputs(target), classes, target.classes))
    if shown.labels is None:
        raise InputError(f"the images of {shown.name} have no labels",
                         "importance is measured by accuracy",
                         "a folder a class, or a parquet file with a column label")  # fmt: skip
    groups: dict[str, list[tuple[str, int]]] = {}
    for row, named in zip(*table, strict=True):
        spoken = {part for _, part in parts_of_speech(row["description"]) if part}
        for name in named_kinds(named) - {UNSURE, NOTHING} | spoken:
            groups.setdefault(name, []).append((row["layer"], int(row["unit"])))
    units = [(row["layer"], int(row["unit"])) for row in table[0]]
    ordered = {n: groups[n] for n in (*KINDS, *PARTS_OF_SPEECH) if n in groups}
    return importance(run, target, shown, (ordered, units), settings, progress)


def _outputs(target: Any) -> int:
    """Return how many logits a target gives.

    Raises:
        InputError: it gives something else.
    """
    import torch

    from milanx.targets.units import first_tensor

    height, width = target.preprocess.size
    with torch.inference_mode():
        views = torch.zeros(1, 3, height, width, dtype=torch.uint8)
        output = first_tensor(target.model(target.inputs(views)))
    if output is None or output.ndim != 2:
        raise InputError(f"{target.name} gives no class logits", "importance needs a classifier",
                         "leave --images away to count words alone")  # fmt: skip
    return int(output.shape[1])


def _notes(run: Run, rows: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    notes = [f"{taking_part(run, rows)} A unit may name several kinds. "
             f"{GENERIC.capitalize()} words (object, area) name none."]  # fmt: skip
    if run.demonstration:
        notes.append("The probe images are the built-in ones, a demonstration: what they hold "
                     "decides what can be named.")  # fmt: skip
    return tuple(notes)
