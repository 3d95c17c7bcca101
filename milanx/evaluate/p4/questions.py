"""Which five units a question shows: drawn at random, or alike by what their exemplars show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from milanx.files import cache_dir, fingerprint
from milanx.files.arrays import keep_arrays, kept_arrays
from milanx.progress import Reporter, Silent

if TYPE_CHECKING:
    from milanx.exemplars.store import ExemplarStore
    from milanx.features.encoder import Encoder
    from milanx.runs import Run

FIVE = 5
EACH = 5  # kept-aside images of each source on a sheet
KINDS = ("far", "near")


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


def unit_features(
    run: Run,
    layers: Sequence[str],
    encoder: Encoder | None = None,
    progress: Reporter | None = None,
) -> dict[str, np.ndarray]:
    """Pool each unit's exemplars under their masks: layer -> float32 [rows, d], as in the store.

    Kept in the cache by the fingerprints of exemplars and encoder.
    """
    from milanx.features.encoded import encoded_views

    if encoder is None:
        from milanx.describing.describer import Describer

        encoder = Describer.load().encoder
    store, encoding = run.store, encoder.fingerprint()
    paths = {layer: cache_dir("study", f"{fingerprint(store.fingerprint, encoding, layer)}"
                                       ".safetensors") for layer in layers}  # fmt: skip
    found = {layer: kept[layer] for layer, path in paths.items()
             if (kept := kept_arrays(path)) is not None}  # fmt: skip
    new = [layer for layer in layers if layer not in found]
    if new:
        with (progress or Silent()).stage("encode", len(store.view_indices())) as bar:
            features = encoded_views(encoder, store, advance=bar.advance)
        for layer in new:
            found[layer] = _pooled(store, layer, encoder, features)
            keep_arrays(paths[layer], {layer: found[layer]})
    return {layer: found[layer] for layer in layers}


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
