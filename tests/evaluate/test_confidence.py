"""Confidence is calibrated on one side and reported on the other; units, controls, the fit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from milanx.describing.confidence import INPUTS, read_inputs
from milanx.describing.describer import Describer
from milanx.errors import InputError
from milanx.evaluate.common.names import accepted_names
from milanx.evaluate.confidence import planted
from milanx.evaluate.confidence.controls import DISPLACED, _other_images, _other_masks
from milanx.evaluate.confidence.fit import (
    NEVER,
    SIGNS,
    Table,
    calibrate,
    inputs_of,
    with_threshold,
)
from milanx.evaluate.confidence.lists import (
    CALIBRATED,
    CALIBRATION,
    DIVIDED,
    HALVED,
    LOGITS,
    REPORT,
    REPORTED,
    calibrates,
)
from milanx.evaluate.confidence.planted import (
    LEAST_MEANINGS,
    LEAST_PHOTOS,
    PER_FILE,
    Plot,
    answering,
    apart,
    at_random,
    enough,
    meant_atoms,
    of_side,
    planted_units,
)
from milanx.evaluate.confidence.protocol import measured
from milanx.evaluate.confidence.units import RANDOM, Judged
from milanx.evaluate.p2.atoms import COLOURS, KIND_OF, Lettering
from milanx.evaluate.p2.photos import PlantedPhoto, kinds_above, read_photos
from milanx.evaluate.p2.planted import BACKGROUND, SourcePool, build
from milanx.exemplars.planted import LAYER, MAP, Meaning, plant
from milanx.measures.folds import FOLDS
from milanx.progress import Silent
from tests.helpers import noise, png, write_parquet

HALF = np.zeros((MAP, MAP), np.float32)
HALF[: MAP // 2] = 1


# ------------------------------------------------------------------ what is on which side


def test_nothing_is_both_calibrated_and_reported() -> None:
    assert not CALIBRATED.layers.keys() & REPORTED.layers.keys()
    assert not set(CALIBRATED.seeds) & set(REPORTED.seeds)
    assert not {*CALIBRATED.photos} & {*REPORTED.photos}
    assert not {*DIVIDED} & {*CALIBRATED.photos, *REPORTED.photos}
    assert CALIBRATION.reports != REPORT.reports
    for atom in (*KIND_OF, *kinds_above(), *(names[0] for names in accepted_names().values())):
        assert CALIBRATION.meant(atom) != REPORT.meant(atom)


def test_each_side_has_colours_and_classes_and_a_class_goes_with_its_kinds() -> None:
    names = accepted_names()
    assert {calibrates(colour) for colour in COLOURS} == {True, False}
    share = np.mean([calibrates(names[w][0].lower()) for w in names])
    assert 0.4 < share < 0.6
    for kind, wnids in kinds_above().items():
        assert {calibrates(names[w][0].lower()) for w in wnids} == {calibrates(kind)}


def test_files_of_the_other_side_are_refused() -> None:
    paths = (Path("a/tiny_imagenet_ten.parquet"), Path(f"{LOGITS}.parquet"))
    assert CALIBRATION.sort(paths) == (paths[:1], paths[1:])
    both = tuple(Path(f"{name}.parquet") for name in HALVED)
    assert REPORT.sort(both) == CALIBRATION.sort(both) == (both, ())
    with pytest.raises(InputError, match="reported"):
        REPORT.sort(paths)


def test_photos_of_classes_are_on_one_side() -> None:
    empty = np.zeros((8, 8, 3), np.uint8)
    names = [names[0].lower() for names in accepted_names().values()][:50]
    shown = [PlantedPhoto(empty, {name: HALF, "red": HALF}, "imagenet_sample", "class", group=name)
             for name in names]  # fmt: skip
    shown.append(replace(shown[0], text=Lettering("SALE", 30, 0, 0, (0, 0, 0))))
    sides = [of_side(shown, side, 0) for side in (CALIBRATION, REPORT)]
    groups = [{p.group for p in photos} for photos in sides]
    assert not groups[0] & groups[1] and min(map(len, groups)) > 15
    assert sum(map(len, sides)) == len(shown)


def test_each_side_reads_its_own_photographs_of_files_with_groups(
    describer: Describer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the same rule as whoever chooses weights and whoever reports P2."""
    mask = png(Image.fromarray(np.full((48, 48), 255, np.uint8)))
    path = write_parquet(
        tmp_path / "parts.parquet", noise(150, side=48), group=[f"g/{i}" for i in range(150)],
        source=["clothes"] * 150, regions=[[{"name": "dress", "mask": mask}]] * 150,
    )  # fmt: skip
    read: list[PlantedPhoto] = []

    def caught(photos: list[PlantedPhoto], *rest: Any) -> list[PlantedPhoto]:
        read.extend(photos)
        return photos

    monkeypatch.setattr(planted, "of_side", caught)
    for side in (CALIBRATION, REPORT):
        read.clear()
        with pytest.raises(InputError, match="too few photos"):
            planted_units(describer, (side, [path]), Plot(10, 0, 0), tmp_path / "run", Silent())
        own = read_photos([path], describer.trained, reported=side is REPORT)
        assert {p.group for p in read} == {p.group for p in own} and len(own) > 5


def test_of_a_file_so_many_photographs_are_kept() -> None:
    empty = np.zeros((8, 8, 3), np.uint8)
    shown = [PlantedPhoto(empty, {"dress": HALF}, "regions", group=f"g{i // 2}")
             for i in range(2 * PER_FILE + 40)]  # fmt: skip
    kept = of_side(shown, REPORT, 0)
    assert len({p.group for p in kept}) == PER_FILE and len(kept) == 2 * PER_FILE


def test_sources_with_enough_photographs_stand_by_themselves() -> None:
    empty = np.zeros((8, 8, 3), np.uint8)
    some = {"b": LEAST_PHOTOS, "a": LEAST_PHOTOS + 3, "few": LEAST_PHOTOS - 1, "poor": LEAST_PHOTOS}
    shown = []
    for source, count in some.items():
        kinds = LEAST_MEANINGS - (source == "poor")  # each photo shows one of so many things
        shown += [PlantedPhoto(empty, {f"a{i % kinds}": HALF}, source, group=f"{source}{i}")
                  for i in range(count)]  # fmt: skip
    found = enough(shown, 0)
    assert [(part[0].source, len(part)) for part in found] == [("a", some["a"]), ("b", some["b"])]
    assert all(len({p.source for p in part}) == 1 for part in found)
    with pytest.raises(InputError, match="no source"):
        enough([p for p in shown if p.source in ("few", "poor")], 0)


# ------------------------------------------------------------------ planted units


def photos() -> list[PlantedPhoto]:
    """Each a group of two; a third shows red, a third blue, half a dress."""
    made = []
    for i in range(60):
        atoms = {name: HALF for name, every in (("red", 3), ("blue", 4), ("dress", 2))
                 if i % every == 0}  # fmt: skip
        made.append(PlantedPhoto(np.zeros((8, 8, 3), np.uint8), atoms, "s", group=f"g{i // 2}"))
    return made


def test_meanings_are_those_of_the_side_that_have_accepted_phrases() -> None:
    both = PlantedPhoto(np.zeros((8, 8, 3), np.uint8), dict.fromkeys(
        ("red", "orange color", "dress", "cat tail"), HALF))  # fmt: skip
    atoms = [set(meant_atoms(both, side).atoms) for side in (CALIBRATION, REPORT)]
    assert sorted(map(sorted, atoms)) == [["cat tail", "red"], ["orange color"]]


def test_a_photograph_is_on_one_side_of_the_split() -> None:
    searched, aside = apart(photos(), 0)
    assert len(searched) + len(aside) == 60 and len(aside) == 12
    assert not {p.group for p in searched} & {p.group for p in aside}


def test_a_unit_answers_to_photos_kept_aside_by_its_meaning() -> None:
    searched, aside = apart(photos(), 0)
    aside.append(PlantedPhoto(np.zeros((8, 8, 3), np.uint8), {"red": HALF}, "other", group="x"))
    rng = np.random.default_rng(0)
    unit = build(SourcePool(searched, "s", 0), Meaning(("red",)), len(searched), rng)
    found = answering(unit, searched, aside, rng).activations
    assert found[: len(searched)] == pytest.approx(unit.activations)
    told = found[len(searched) :]
    assert [bool(v > 0.5) for v in told[:-1]] == ["red" in p.atoms for p in aside[:-1]]
    assert told[-1] == 0  # of another source: no score is taken there


def test_a_set_at_random_shows_photos_at_random_and_answers_to_nothing() -> None:
    searched, aside = apart(photos(), 0)
    rng = np.random.default_rng(0)
    other = build(SourcePool(searched, "s", 0), Meaning(("red",)), len(searched), rng)
    sets = [at_random(searched, [other], rng) for _ in range(40)]
    shows = np.mean(["red" in searched[i].atoms for s in sets for i in s.images if i >= 0])
    assert abs(shows - np.mean(["red" in p.atoms for p in searched])) < 0.1
    one = answering(sets[0], searched, aside, rng)
    assert (one.activations[one.images[one.images >= 0]] > 1 - 2 * BACKGROUND).all()
    assert (one.activations > 0.5).sum() >= (one.images >= 0).sum()


# ------------------------------------------------------------------ the fit


def judged(n: int, seed: int, *, kind: str = "planted units") -> list[Judged]:
    """Units that are right the more often, the higher the response of their texts."""
    rng = np.random.default_rng(seed)
    made = []
    for i in range(n):
        told, other = rng.normal(size=2)
        right = float(rng.random() < 1 / (1 + np.exp(-2 * told)))
        row: dict[str, Any] = {
            "description": "dogs", "rank": other, "log_p_given_exemplars": other,
            "response": told,
        }  # fmt: skip
        row["candidates"] = [row | {"text": "dogs"}]
        made.append(Judged(row, right, kind, (f"{seed}-{i}",), f"meaning {i // 2}"))
    return made


def test_what_tells_right_from_wrong_is_found_and_calibrated() -> None:
    found = calibrate(judged(4000, 0), "d", seed=0)
    weights = dict(zip(INPUTS, found.weights, strict=True))
    assert weights["response"] > 5 * max(abs(w) for n, w in weights.items() if n != "response")
    assert all(weight * SIGNS[name] >= 0 for name, weight in weights.items())
    assert weights["words"] == weights["behind"] == 0  # they never vary
    fresh = judged(2000, 1)
    report = measured(found, fresh, {})["rows"]["all"]
    assert report["AUROC"]["estimate"] > 0.85
    assert report["ECE"]["estimate"] < 0.04
    assert report["error at 50 % / full"]["estimate"] < 0.5


def test_what_weighs_against_its_meaning_is_left_out() -> None:
    units = judged(400, 0)
    found = calibrate([replace(u, right=1 - u.right) for u in units], "d", seed=0)
    assert found.weights[INPUTS.index("response")] == 0


def test_a_meaning_is_in_one_fold_and_units_without_one_are_in_none() -> None:
    units = [unit for i, kind in enumerate(("a", "b", RANDOM)) for unit in judged(60, i, kind=kind)]
    table = Table.of(units, 0)
    first, second = table.fold[:60], table.fold[60:120]
    assert (first == second).all() and (first[::2] == first[1::2]).all()
    assert {*first.tolist()} == {*range(FOLDS)} and (table.fold[120:] == NEVER).all()


def test_how_many_units_mean_nothing_does_not_lower_the_confidence_of_others() -> None:
    meant = [unit for i, kind in enumerate("abc") for unit in judged(300, i, kind=kind)]
    nothing = [replace(u, right=0.0) for u in judged(400, 7, kind=RANDOM)]
    found = calibrate([*meant, *nothing], "d", seed=0)
    sure = found(inputs_of(meant))
    assert sure.mean() == pytest.approx(np.mean([u.right for u in meant]), abs=0.03)


def test_the_threshold_leaves_controls_out() -> None:
    found = calibrate(judged(400, 0), "d")
    controls = judged(100, 3, kind="control")
    made = with_threshold(found, controls)
    assert np.mean(made(inputs_of(controls)) < made.threshold) == pytest.approx(0.92, abs=0.011)
    report = measured(made, judged(100, 4), {"control": controls})
    assert report["controls"]["control"]["unclear"] == pytest.approx(0.92, abs=0.011)


def test_too_few_units_and_units_of_other_rankings_are_refused() -> None:
    with pytest.raises(InputError, match="needed to calibrate"):
        calibrate(judged(50, 0), "d")
    units = judged(200, 0)
    units[7].row["response"] = None
    assert read_inputs(units[7].row) is None
    with pytest.raises(InputError, match="lacks what"):
        calibrate(units, "d")


# ------------------------------------------------------------------ controls


@pytest.fixture
def store(tmp_path: Path) -> Any:
    """Two units on twenty images, of which ten are shown and four kept aside."""
    rng = np.random.default_rng(0)
    activations = rng.random((20, 2)).astype(np.float32)
    order = np.argsort(-activations[:16], 0)[:3].T
    shown = sorted({*order.ravel().tolist(), *range(8)})
    views = ((i, np.full((224, 224, 3), 10 * i, np.uint8)) for i in shown)
    table = [{"index": i, "split": "aside" if i > 15 else "exemplars", "source": "s",
              "group": None} for i in range(20)]  # fmt: skip
    maps = [np.tile(HALF, (3, 1, 1)) for _ in range(2)]
    return plant(tmp_path / "real", list(order), maps, views, table, activations=activations)


def test_random_sets_are_the_tops_of_activations_of_other_images(
    store: Any, tmp_path: Path
) -> None:
    made = _other_images(store, LAYER, tmp_path / "sets", np.random.default_rng(1))
    before, after = (np.asarray(s.maxima(LAYER)) for s in (store, made))
    assert np.sort(after, 0) == pytest.approx(np.sort(before, 0))
    assert not np.allclose(after, before)
    shown = set(store.view_indices().tolist())
    for row in range(2):
        own, was = made.images(LAYER)[row], store.images(LAYER)[row]
        assert set(own.tolist()) <= shown
        assert after[own, row] == pytest.approx(before[was, row])
    assert (made.view(int(own[0])) == store.view(int(own[0]))).all()


def test_displaced_masks_lie_elsewhere_on_the_same_images(store: Any, tmp_path: Path) -> None:
    made = _other_masks(store, LAYER, tmp_path / "masks", np.random.default_rng(1))
    assert (made.images(LAYER) == store.images(LAYER)).all()
    assert np.asarray(made.maxima(LAYER)) == pytest.approx(np.asarray(store.maxima(LAYER)))
    for unit in range(2):
        was, now = store.masks(LAYER, [unit])[0], made.masks(LAYER, [unit])[0]
        assert now.sum((1, 2)).tolist() == was.sum((1, 2)).tolist()
        overlap = (was & now).sum((1, 2)) / was.sum((1, 2))
        assert (overlap <= 1 - DISPLACED[0] / (MAP // 2) + 1e-6).all()
