"""P4, blinded reading: which of five sheets does a description belong to?

`make` writes question lists, one a method, over the same sheets of kept-aside images;
`milanx.evaluate.p4.reading` opens the key after the choices are written down. ``far`` questions
hold five units drawn at random, ``near`` ones a seed unit and its four nearest by pooled
features; the true one is drawn at random among the five.

Ratings of descriptions beside their exemplars: `milanx.evaluate.p4.rating`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from milanx.errors import InputError
from milanx.evaluate.p4.questions import (
    FIVE,
    Question,
    StudySettings,
    draw_questions,
    unit_features,
)
from milanx.evaluate.p4.sheets import (
    LETTERS,
    Sheet,
    aside_sheets,
    draw_exemplars,
    draw_question,
    exemplar_sheet,
    plus_rows,
    reload_target,
    save_jpeg,
    top_aside,
    variety,
)
from milanx.files import atomic_path, fingerprint, write_json
from milanx.files.kinds import STUDY
from milanx.files.replacing import check_place
from milanx.progress import Reporter, Silent

if TYPE_CHECKING:
    from milanx.features.encoder import Encoder
    from milanx.images.probe import ProbeImages
    from milanx.runs import Run

QUESTIONS, KEY, VERSION = "milanx-questions", "milanx-study-key", 1
TWICE = 0.2  # share of the questions that a second reader answers too
EXEMPLARS, DESCRIPTION = "exemplars", "description"
Texts = dict[str, dict[str, dict[int, str]]]  # method -> layer -> unit -> text
INSTRUCTIONS = (
    "Each question shows five sheets, A to E, of images that excite one part of a vision model "
    "each; what excites it most is bright, the rest is dimmed. Pick the sheet that the text fits "
    "best (or, where there is a picture instead of a text, the sheet of the same part). Judge "
    "each question by itself. Answer as json: {question id: letter}. One reader answers the "
    "questions of one part; those marked second_reader are read again by somebody else who knows "
    "nothing of the first reading."
)


@dataclass(frozen=True)
class Material:
    """What a study is made of.

    Attributes:
        run: whose descriptions are read.
        layers: of the run; all when empty.
        against: runs of the same exemplars, described by other methods.
        images: the run's probe images, as they were given to it.
        limit: as it was given to the run.
        weights: a checkpoint of the run's target.
        device: where the target runs.
    """

    run: Run
    layers: tuple[str, ...] = ()
    against: tuple[Run, ...] = ()
    images: tuple[str | Path, ...] = ()
    limit: int | None = None
    weights: Path | None = None
    device: str = "cpu"

    @property
    def chosen(self) -> list[str]:
        """The layers that are asked about."""
        return list(self.layers or self.run.store.layers)

    def describers(self) -> dict[str, Any]:
        """Return the describer of each list, as the runs record it."""
        runs = (self.run, *self.against)
        return {n: r.settings.get("describer") for n, r in zip(self.lists(), runs, strict=True)}

    def lists(self) -> list[str]:
        """Return the names of the methods: the description, the words of the others."""
        further = [f"words-{n}" if n > 1 else "words" for n in range(1, len(self.against) + 1)]
        return [DESCRIPTION, *further]

    def texts(self, words: int) -> Texts:
        """Return what every method says of each unit.

        Args:
            words: candidates of a run that is compared, joined by commas; a run of the method
                ``nearest`` has joined its words already.

        Raises:
            InputError: a run of other exemplars.
        """
        _, *further = self.lists()
        found = {DESCRIPTION: _texts(self.run, self.chosen, 1)}
        for name, other in zip(further, self.against, strict=True):
            _check_same(self.run, other)
            nearest = (other.settings.get("describer") or {}).get("method") == "nearest"
            found[name] = _texts(other, self.chosen, 1 if nearest else words)
        return found

    def probe(self) -> ProbeImages:
        """Open the run's images.

        Raises:
            InputError: they are others.
        """
        from milanx.images.probe import open_images
        from milanx.targets.generated import images_again, is_generated

        run = self.run
        if is_generated(run.settings):
            probe = images_again(run.settings)
        else:
            probe = open_images(self.images, limit=self.limit)
        if probe.fingerprint != run.settings["images"]["fingerprint"]:
            known = ", ".join(f"{s['name']} ({s['count']})" for s in run.sources)
            raise InputError(
                f"these are not the {run.settings['images']['count']} images of {run.root}",
                f"it was made of {known}, perhaps with --limit",
                "give the same --images in the same order, and the same --limit",
            )
        return probe


def make(
    material: Material,
    out: Path,
    *,
    settings: StudySettings | None = None,
    encoder: Encoder | None = None,
    overwrite: bool = False,
    progress: Reporter | None = None,
) -> dict[str, int]:
    """Write a study: pictures, question lists, and the key in a folder of its own.

    Args:
        material: what it is made of.
        out: the study's folder.
        settings: what is asked.
        encoder: whose features say which units are near; the bundled describer's when None.
        overwrite: replace a study that is there.
        progress: told about the stages.

    Returns:
        Questions of each list.

    Raises:
        InputError: other images, other weights or other units than the run's, or ``out`` holds
            what must not be replaced.
    """
    check_place(out, STUDY, overwrite=overwrite)
    settings, progress = settings or StudySettings(), progress or Silent()
    run, texts = material.run, material.texts(settings.words)
    probe = material.probe()
    target = reload_target(run, material.weights, material.device)
    counts: dict[str, dict[str, int]] = {}
    questions: list[Question] = []
    looks = unit_features(run, material.chosen, encoder, progress)
    best: dict[str, dict[int, np.ndarray]] = {}
    for layer in material.chosen:
        alive, counts[layer] = _alive(run, layer, texts)
        best[layer] = top_aside(run, layer, alive, settings.each)
        alive = _excited(layer, best[layer])
        place = plus_rows(run.store, layer)
        features = looks[layer][[place[u] for u in alive]]
        questions += draw_questions(layer, alive, features, settings)
    sheets: dict[tuple[str, int], Sheet] = {}
    for layer in material.chosen:
        units = sorted({u for q in questions if q.layer == layer for u in q.units})
        wanted = {unit: best[layer][unit] for unit in units}
        with progress.stage(
            f"sheets {layer}", len({int(i) for v in wanted.values() for i in v})
        ) as bar:
            made = aside_sheets(run, layer, wanted, target, probe, advance=bar.advance)
        sheets |= {(layer, unit): sheet for unit, sheet in made.items()}
    facts = {
        "target": run.settings["target"]["name"],
        "exemplars": run.store.fingerprint,
        "describers": material.describers(),
        "settings": asdict(settings),
        "layers": counts,
        "variety": {layer: variety(list(texts[DESCRIPTION][layer].values()))
                    for layer in material.chosen},
    }  # fmt: skip
    with atomic_path(out, STUDY if overwrite else None) as new:
        lists, key = _write_pictures(run, new, questions, sheets, texts, settings)
        for name, entries in lists.items():
            content = {"instructions": INSTRUCTIONS, "questions": entries}
            write_json(new / f"questions-{name}.json", QUESTIONS, VERSION, content)
        write_json(new / "key" / "key.json", KEY, VERSION, {**facts, "questions": key})
    return {name: len(entries) for name, entries in lists.items()}


def _texts(run: Run, layers: Sequence[str], candidates: int) -> dict[str, dict[int, str]]:
    """Return layer -> unit -> text: the description, or the best candidates with commas."""
    found: dict[str, dict[int, str]] = {layer: {} for layer in layers}
    for row in run.rows:
        if row["layer"] in found and row["sign"] == "+" and row["status"] != "dead":
            text = row["description"]
            if candidates > 1:
                best = list(dict.fromkeys(c["text"] for c in row["candidates"]))[:candidates]
                text = ", ".join(best) or text
            found[row["layer"]][row["unit"]] = text or ""
    return found


def _check_same(run: Run, other: Run) -> None:
    if run.store.fingerprint != other.store.fingerprint:
        raise InputError(
            f"{other.root} holds other exemplars than {run.root}",
            "methods that are compared must see the same exemplars",
            "describe the same layers, images and units with both",
        )


def _excited(layer: str, best: Mapping[int, np.ndarray]) -> list[int]:
    """Return the units that any image kept aside excites: the others have no sheet."""
    excited = [unit for unit, images in best.items() if len(images)]
    if len(excited) < FIVE:
        raise InputError(
            f"the images kept aside excite {len(excited)} of the {len(best)} units of {layer}",
            "a question needs five",
            "describe with more images",
        )
    return excited


def _alive(run: Run, layer: str, texts: Texts) -> tuple[list[int], dict[str, int]]:
    """Return the units that every method describes, and how many are dead."""
    place, status = plus_rows(run.store, layer), run.store.status(layer)
    dead = sum(status[row] == "dead" for row in place.values())
    alive = [u for u in place if all(u in by_layer[layer] for by_layer in texts.values())]
    if len(alive) < FIVE:
        raise InputError(
            f"{layer} has {len(alive)} described units in all runs",
            "a question needs five",
            "describe more units of it",
        )
    return alive, {"units": len(place), "dead": dead, "described": len(alive)}


def _write_pictures(
    run: Run, out: Path, questions: Sequence[Question], sheets: dict[tuple[str, int], Sheet],
    texts: Texts, settings: StudySettings,
) -> tuple[dict[str, list[dict[str, Any]]], dict[str, dict[str, Any]]]:  # fmt: skip
    """Draw every question; returns the lists by method, and the key by question."""
    lists: dict[str, list[dict[str, Any]]] = {name: [] for name in (*texts, EXEMPLARS)}
    key: dict[str, dict[str, Any]] = {}
    for question in questions:
        place = (settings.seed, run.store.fingerprint, question.layer, question.kind,
                 question.number)  # fmt: skip
        rng = np.random.default_rng(int(fingerprint("order", *place), 16))
        twice = int(fingerprint("twice", *place), 16) / 2**64 < TWICE
        shared = f"pictures/{fingerprint('sheets', *place)}.jpg"
        for name, entries in lists.items():
            ident = fingerprint(name, *place)[:10]
            units = question.units
            picture = shared
            if not settings.shared_sheets:
                units = tuple(question.units[i] for i in rng.permutation(FIVE))
                picture = f"pictures/{ident}.jpg"
            if not settings.shared_sheets or name == DESCRIPTION:
                save_jpeg(draw_question([sheets[question.layer, u] for u in units]), out / picture)
            entry: dict[str, Any] = {
                "id": ident,
                "picture": picture,
                "part": question.part,
                "second_reader": twice,
            }
            if name == EXEMPLARS:
                entry["exemplars"] = f"exemplars/{ident}.jpg"
                sheet = exemplar_sheet(run.store, question.layer, question.true)
                save_jpeg(draw_exemplars(sheet), out / entry["exemplars"])
            else:
                entry["text"] = texts[name][question.layer][question.true]
            entries.append(entry)
            key[ident] = {
                "list": name, "layer": question.layer, "kind": question.kind,
                "number": question.number, "units": list(units), "unit": question.true,
                "answer": LETTERS[units.index(question.true)],
            }  # fmt: skip
    for entries in lists.values():
        entries.sort(key=lambda e: (e["part"], e["id"]))
    return lists, key
