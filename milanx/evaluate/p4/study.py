"""P4, blinded reading: which of five sheets does a description belong to?

`make` writes question lists, one a method, over the same sheets of kept-aside images;
`milanx.evaluate.p4.reading` opens the key after the choices are written down. ``far`` questions
hold five units drawn at random, ``near`` ones a seed unit and its four nearest by pooled
features; the true one is drawn at random among the five.

Ratings of descriptions from 1 to 5 by several people are not part of this.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from milanx.errors import InputError
from milanx.evaluate.p4.sheets import (
    LETTERS,
    Sheet,
    aside_sheets,
    columns,
    draw_exemplars,
    draw_question,
    exemplar_sheet,
    reload_target,
    save_jpeg,
    top_aside,
    variety,
)
from milanx.files import atomic_path, cache_dir, fingerprint, write_json
from milanx.files.replacing import STUDY, check_place
from milanx.progress import Reporter, Silent
from milanx.runs import open_run

if TYPE_CHECKING:
    from milanx.exemplars.store import ExemplarStore
    from milanx.features.encoder import Encoder
    from milanx.runs import Run

QUESTIONS, KEY, VERSION = "milanx-questions", "milanx-study-key", 1
FIVE = 5
TWICE = 0.2  # share of the questions that a second reader answers too
EACH = 5  # kept-aside images of each source on a sheet
KINDS = ("far", "near")
EXEMPLARS, DESCRIPTION = "exemplars", "description"
INSTRUCTIONS = (
    "Each question shows five sheets, A to E, of images that excite one part of a vision model "
    "each; what excites it most is bright, the rest is dimmed. Pick the sheet that the text fits "
    "best (or, where there is a picture instead of a text, the sheet of the same part). Judge "
    "each question by itself. Answer as json: {question id: letter}. One reader answers the "
    "questions of one part; those marked second_reader are read again by somebody else who knows "
    "nothing of the first reading."
)


@dataclass(frozen=True)
class StudySettings:
    """What a study asks.

    Attributes:
        questions: of each kind and layer.
        seed: of everything that is drawn.
        each: kept-aside images of each source on a sheet.
        words: candidates of a run that is compared, joined by commas; a run of the method
            ``nearest`` has joined its words already.
        shared_sheets: one picture a question for all methods; else the sheets' order is drawn
            anew for each.
    """

    questions: int = 50
    seed: int = 0
    each: int = EACH
    words: int = 4
    shared_sheets: bool = False


@dataclass(frozen=True)
class Question:
    """Five units of a layer, the true one among them."""

    layer: str
    kind: str
    number: int
    units: tuple[int, ...]
    true: int
    part: int


def make(
    run: Run,
    out: Path,
    *,
    layers: Sequence[str] | None = None,
    images: Sequence[str | Path] = (),
    limit: int | None = None,
    against: Sequence[Run] = (),
    weights: Path | None = None,
    encoder: Encoder | None = None,
    settings: StudySettings | None = None,
    device: str = "cpu",
    overwrite: bool = False,
    progress: Reporter | None = None,
) -> dict[str, int]:
    """Write a study: pictures, question lists, and the key in a folder of its own.

    Args:
        run: whose descriptions are read.
        out: the study's folder.
        layers: of the run; all when None.
        images: the run's probe images, as they were given to it.
        limit: as it was given to the run.
        against: runs of the same exemplars, described by other methods.
        weights: a checkpoint of the run's target.
        encoder: whose features say which units are near; the bundled describer's when None.
        settings: what is asked.
        device: where the target runs.
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
    chosen = list(layers) if layers else list(run.store.layers)
    texts = {DESCRIPTION: _texts(run, chosen, 1)}
    for number, other in enumerate(against, 1):
        _check_same(run, other)
        name = "words" if number == 1 else f"words-{number}"
        nearest = (other.settings.get("describer") or {}).get("method") == "nearest"
        texts[name] = _texts(other, chosen, 1 if nearest else settings.words)
    probe = _open_probe(run, images, limit)
    target = reload_target(run, weights, device)
    counts, questions = {}, []
    looks = unit_features(run, chosen, encoder, progress)
    for layer in chosen:
        alive, counts[layer] = _alive(run, layer, texts)
        place = columns(run.store, layer)
        features = looks[layer][[place[u][0] for u in alive]]
        questions += draw_questions(layer, alive, features, settings)
    sheets: dict[tuple[str, int], Sheet] = {}
    for layer in chosen:
        units = sorted({u for q in questions if q.layer == layer for u in q.units})
        wanted = top_aside(run, layer, units, settings.each)
        with progress.stage(
            f"sheets {layer}", len({int(i) for v in wanted.values() for i in v})
        ) as bar:
            made = aside_sheets(run, layer, wanted, target, probe, advance=bar.advance)
        sheets |= {(layer, unit): sheet for unit, sheet in made.items()}
    facts = {
        "target": run.settings["target"]["name"],
        "exemplars": run.store.fingerprint,
        "describers": {DESCRIPTION: run.settings.get("describer"),
                       **{name: other.settings.get("describer")
                          for name, other in zip([n for n in texts if n != DESCRIPTION], against,
                                                 strict=True)}},
        "settings": settings.__dict__,
        "layers": counts,
        "variety": {layer: variety(list(texts[DESCRIPTION][layer].values())) for layer in chosen},
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


def _open_probe(run: Run, images: Sequence[str | Path], limit: int | None) -> Any:
    from milanx.images.probe import open_images

    probe = open_images(images, limit=limit)
    if probe.fingerprint != run.settings["images"]["fingerprint"]:
        known = ", ".join(f"{s['name']} ({s['count']})" for s in run.sources)
        raise InputError(
            f"these are not the {run.settings['images']['count']} images of {run.root}",
            f"it was made of {known}, perhaps with --limit",
            "give the same --images in the same order, and the same --limit",
        )
    return probe


def _alive(
    run: Run, layer: str, texts: dict[str, dict[str, dict[int, str]]]
) -> tuple[list[int], dict[str, int]]:
    """Return the units that every method describes, and how many are dead."""
    place, status = columns(run.store, layer), run.store.status(layer)
    dead = sum(status[row] == "dead" for row, _ in place.values())
    alive = [u for u in place if all(u in by_layer[layer] for by_layer in texts.values())]
    if len(alive) < FIVE:
        raise InputError(
            f"{layer} has {len(alive)} described units in all runs",
            "a question needs five",
            "describe more units of it",
        )
    return alive, {"units": len(place), "dead": dead, "described": len(alive)}


def unit_features(
    run: Run,
    layers: Sequence[str],
    encoder: Encoder | None = None,
    progress: Reporter | None = None,
) -> dict[str, np.ndarray]:
    """Pool each unit's exemplars under their masks: layer -> float32 [rows, d], as in the store.

    Kept in the cache by the fingerprints of exemplars and encoder.
    """
    from milanx.features.encoder import encode_views

    if encoder is None:
        from milanx.describing.describer import Describer

        encoder = Describer.load().encoder
    store, encoding = run.store, encoder.fingerprint()
    paths = {layer: cache_dir("study", f"{fingerprint(store.fingerprint, encoding, layer)}.npy")
             for layer in layers}  # fmt: skip
    new = [layer for layer, path in paths.items() if not path.is_file()]
    if new:
        with (progress or Silent()).stage("encode", len(store.view_indices())) as bar:
            features = encode_views(encoder, store, advance=bar.advance)
        for layer in new:
            paths[layer].parent.mkdir(parents=True, exist_ok=True)
            with atomic_path(paths[layer]) as temporary, temporary.open("wb") as file:
                np.save(file, _pooled(store, layer, encoder, features), allow_pickle=False)
    return {layer: np.load(path, allow_pickle=False) for layer, path in paths.items()}


def _pooled(
    store: ExemplarStore, layer: str, encoder: Encoder, features: dict[int, np.ndarray]
) -> np.ndarray:
    """Pool the exemplars of a layer's units under their masks: float32 [rows, d]."""
    from milanx.features.encoder import MASKED, exemplar_features

    grid, rows = encoder.spec.grid, list(range(len(store.units(layer))))
    weights = store.mask_weights(layer, rows, (grid, grid))
    parts = []
    for start in range(0, len(rows), 64):
        here = rows[start : start + 64]
        pooled, valid = exemplar_features(features, store.images(layer)[here], weights[here])
        share = valid.float() / valid.sum(1, keepdim=True).clamp_min(1)
        parts.append((pooled[:, :, MASKED] * share[..., None]).sum(1).numpy())
    return np.concatenate(parts).astype(np.float32)


def draw_questions(
    layer: str, units: Sequence[int], features: np.ndarray, settings: StudySettings
) -> list[Question]:
    """Draw the far and near questions of a layer.

    A question goes into the first part of the list in which none of its sheets appears, so that
    a reader who answers one part meets no sheet twice.

    Args:
        layer: its name.
        units: that may be asked for.
        features: float32 [units, d].
        settings: how many, and the seed.
    """
    rng = np.random.default_rng([settings.seed, int(fingerprint(layer), 16) % 2**32])
    centred = (features - features.mean(0)) / (features.std(0) + 1e-6)
    centred /= np.linalg.norm(centred, axis=1, keepdims=True) + 1e-9
    likeness = centred @ centred.T
    np.fill_diagonal(likeness, np.inf)
    drawn: list[tuple[str, np.ndarray]] = []
    order = rng.permutation(len(units))
    while len(drawn) < settings.questions:
        if len(order) < FIVE:
            order = rng.permutation(len(units))
        drawn.append(("far", order[:FIVE]))
        order = order[FIVE:]
    seeds = np.concatenate([rng.permutation(len(units))
                            for _ in range(-(-settings.questions // len(units)))])  # fmt: skip
    for seed in seeds[: settings.questions]:
        drawn.append(("near", np.argsort(-likeness[seed], kind="stable")[:FIVE]))
    parts: list[set[int]] = []
    made = []
    for number, (kind, five) in enumerate(drawn):
        there = set(five.tolist())
        part = next((i for i, used in enumerate(parts) if not used & there), len(parts))
        if part == len(parts):
            parts.append(set())
        parts[part] |= there
        shown = tuple(int(units[i]) for i in rng.permutation(five))
        true = shown[int(rng.integers(FIVE))]
        made.append(Question(layer, kind, number % settings.questions, shown, true, part + 1))
    return made


def _write_pictures(
    run: Run, out: Path, questions: Sequence[Question], sheets: dict[tuple[str, int], Sheet],
    texts: dict[str, dict[str, dict[int, str]]], settings: StudySettings,
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


def open_study_runs(run: Path, against: Sequence[Path]) -> tuple[Run, list[Run]]:
    """Open the runs of a study by their folders."""
    return open_run(run), [open_run(other) for other in against]
