"""Pruning by words: the number, the controls, the report, on a model whose liars are known."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import nn

import milanx
from milanx.act.ablate import Edit, ablate, read_places
from milanx.act.corruptions import CORRUPTIONS, corrupt, generator_for
from milanx.act.curve import Bench, Editor, _expected, grid, random_orders, screen
from milanx.act.data import Classes, EvalSet, match_labels, model_classes
from milanx.act.figures import Resampler
from milanx.act.pruned import PruneSettings
from milanx.act.robustness.made import mixed, view_keys
from milanx.act.tail import Tail
from milanx.errors import InputError
from milanx.images.probe import ImageRecord
from milanx.report.plots import draw_curves
from milanx.targets.zoo import load_target
from tests.act.liar import LIARS, Liar, make_run, photos

QUICK = PruneSettings(draws=4, batch_size=16)


def prune(root: Path, **how: Any) -> milanx.PruneReport:
    run = how.pop("run", None) or make_run(root / "run")
    how = {"match": "text", "model": Liar(), "evaluate": photos(), "images": photos(),
           "settings": QUICK, "device": "cpu"} | how  # fmt: skip
    return milanx.prune(run, **how)


def accuracy(images: EvalSet, units: tuple[int, ...], right: np.ndarray | None = None) -> float:
    """Remove units by hand, and count."""
    model = Liar().eval()
    with torch.no_grad():
        for unit in units:
            model.conv.weight[unit] = 0
            model.conv.bias[unit] = 0
        views = np.stack([images.read(i) for i in range(len(images))])
        logits = model(torch.from_numpy(views).permute(0, 3, 1, 2).float() / 255)
    return float((logits.argmax(1).numpy() == (images.labels if right is None else right)).mean())


def test_the_liars_go_and_the_useful_unit_stays(tmp_path: Path) -> None:
    report = prune(tmp_path)
    assert {unit for _, unit in report.gone} == set(LIARS)
    assert report.count == 2 and len(report.order) == 3
    validation, test = photos().split(seed=0)
    curve = report.curves["chosen"]
    for size, value in zip(curve.sizes, curve.values[0], strict=True):
        gone = tuple(u for _, u in report.order[:size])
        assert value == pytest.approx(accuracy(validation, gone))
    alone = {u: accuracy(validation, (u,)) for u in (3, 4, 5)}
    assert report.order[0][1] == max(alone, key=lambda u: alone[u])
    f = report.figures
    assert f["target_before"].estimate == pytest.approx(accuracy(test, ()))
    assert f["target_after"].estimate == pytest.approx(accuracy(test, LIARS))
    assert f["target_change"].low > 0
    assert test.clean is not None
    assert f["clean_after"].estimate == pytest.approx(accuracy(test.clean, LIARS))
    assert report.images == {"validation": len(validation), "test": len(test), "clean": len(test)}
    assert report.worst is not None
    parts = {k: (test.labels == k) for k in range(3)}
    worst = min(accuracy(test.subset(np.flatnonzero(p).tolist()), LIARS) for p in parts.values())
    assert report.worst.after.estimate == pytest.approx(worst)
    assert f["over_random"].estimate > 0 and f["over_reversed"].estimate >= 0


def test_controls_are_what_they_are_called(tmp_path: Path) -> None:
    report = prune(tmp_path)
    curves = report.curves
    assert curves["reversed"].order[0] == curves["chosen"].order[0][::-1]
    assert curves["all"].sizes == curves["chosen"].sizes
    validation, test = photos().split(seed=0)
    for draw in curves["random"].order:  # the three that were not chosen
        assert sorted(u for _, u in draw) == [0, 1, 2]
    gains = [accuracy(test, LIARS) - accuracy(test, tuple(u for _, u in draw[:2]))
             for draw in curves["random"].order]  # fmt: skip
    assert report.figures["over_random"].estimate == pytest.approx(np.mean(gains))
    alone = {u: accuracy(validation, (u,)) for u in range(6)}
    best = [alone[u] for _, u in curves["all"].order[0]]
    assert best == sorted(alone.values(), reverse=True)[:3]


def test_zero_units_is_an_answer(tmp_path: Path) -> None:
    report = prune(tmp_path, units="conv:1", match=())
    assert report.count == 0 and report.gone == ()
    assert any(note.startswith("0 units") for note in report.notes)
    assert report.figures["target_change"].estimate == 0
    out = prune(tmp_path, units="conv:1", match=(), out=tmp_path / "out")
    assert out.edit is None and "no unit is removed" in out.weights[0]
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["prune.json"]


def test_without_labels_it_is_agreement_with_the_clean_image(tmp_path: Path) -> None:
    images = photos(labels=False)
    report = prune(tmp_path, evaluate=images, images=images)
    assert report.measure == "agreement with the unedited model on the clean image"
    assert report.worst is None
    _, test = images.split(seed=0)
    assert test.clean is not None
    clean = torch.from_numpy(np.stack([test.clean.read(i) for i in range(len(test))]))
    with torch.no_grad():
        right = Liar()(clean.permute(0, 3, 1, 2).float() / 255).argmax(1).numpy()
    assert report.figures["target_after"].estimate == pytest.approx(accuracy(test, LIARS, right))
    assert report.figures["clean_before"].estimate == 1


def test_adversarial_images_choose_and_the_others_report(tmp_path: Path) -> None:
    images, other = photos(seed=1), photos(40, marked=1.0, seed=2)
    report = prune(tmp_path, evaluate=(), images=images, adversarial=other)
    assert report.images["validation"] == 40 and report.images["test"] == 60
    assert {u for _, u in report.gone} == set(LIARS)
    shared = prune(tmp_path, evaluate=(), images=images, adversarial=images.subset(range(45)))
    assert shared.images["test"] == 15 and "45 images" in " ".join(shared.notes)
    with pytest.raises(InputError, match="too few images to report on"):
        prune(tmp_path, evaluate=(), images=images, adversarial=images)


def test_means_are_measured_where_the_run_does_not_hold_them(tmp_path: Path) -> None:
    report = prune(tmp_path, settings=PruneSettings(kind="mean", draws=2, batch_size=16))
    images, _ = photos().split(seed=0)
    views = torch.from_numpy(np.stack([images.read(i) for i in range(len(images))]))
    model = Liar().eval()
    with torch.no_grad():
        values = model.act(model.conv(views.permute(0, 3, 1, 2).float() / 255))
        for _, unit in report.order[:2]:
            values[:, unit] = values[:, unit].mean()
        logits = model.head(values.mean((2, 3)))
    expected = float((logits.argmax(1).numpy() == images.labels).mean())
    assert report.curves["chosen"].values[0][2] == pytest.approx(expected)


@pytest.mark.parametrize(("kind", "written"), [("scale", True), ("resample", False)])
def test_other_kinds(kind: str, written: bool, tmp_path: Path) -> None:
    how = PruneSettings(kind=kind, factor=0.1 * (kind == "scale"), draws=2, batch_size=16)
    rare = photos(marked=0.25)  # so that other images' values are mostly those without a mark
    report = prune(tmp_path, evaluate=rare, images=rare, settings=how, out=tmp_path / "out")
    assert report.count and report.figures["target_change"].estimate > 0
    content = json.loads((tmp_path / "out" / "prune.json").read_text())
    assert content["count"] == report.count and content["kind"] == kind
    assert (report.edit is not None) is written
    assert written or "resampling is not written" in report.weights[0]


def test_orders(tmp_path: Path) -> None:
    scores = [0.1, 0.1, 0.1, 0.2, 0.9, 0.5]
    run = make_run(tmp_path / "scored", score=scores)
    by = {
        order: [u for _, u in prune(tmp_path, run=run, settings=PruneSettings(
            order=order, draws=1, batch_size=16)).order]
        for order in ("score", "match")
    }  # fmt: skip
    assert by == {"score": [4, 5, 3], "match": [4, 5, 3]}
    with pytest.raises(InputError, match="no scores"):
        prune(tmp_path, settings=PruneSettings(order="score", draws=1))


def test_what_is_written_is_the_edit(tmp_path: Path) -> None:
    model = Liar()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    out = tmp_path / "edited"
    report = prune(tmp_path, model=model, out=out, command="milanx prune --match text")
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert not any(m._forward_hooks for m in model.modules())
    draw_curves(report, out / "curve.png")
    assert (out / "curve.png").read_bytes()[:4] == b"\x89PNG"
    weights = {"model.safetensors", "original.safetensors"}
    assert {p.name for p in out.iterdir()} == weights | {"edit.json", "prune.json", "curve.png"}
    other = Liar().eval()
    other.load_state_dict(load_file(out / "model.safetensors"))
    x = torch.rand(8, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(other(x), milanx.load_edited(out, model)(x), atol=1e-5, rtol=0)
    content = json.loads((out / "edit.json").read_text())
    assert content["why"]["selection"] == {
        "match": ["text"], "within": "description", "threshold": 0.5}  # fmt: skip
    assert content["why"]["command"] == "milanx prune --match text"
    assert [u["text"] for u in content["edits"][0]["units"]]
    with pytest.raises(InputError, match="is there already"):
        prune(tmp_path, out=out)
    prune(tmp_path, out=out, overwrite=True)


def test_a_dry_run_lists_and_stops(tmp_path: Path) -> None:
    report = prune(tmp_path, dry_run=True, model=None, out=tmp_path / "out")
    assert [(c.unit, c.text) for c in report.choice.units] == [
        (3, "text"), (4, "white texts"), (5, "words and text")]  # fmt: skip
    assert report.count is None and not (tmp_path / "out").exists()


def test_what_cannot_be_pruned_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the whole of conv"):
        prune(tmp_path, units="conv", match=())
    changed = Liar()
    with torch.no_grad():
        changed.head.weight[0, 0] += 1
    with pytest.raises(InputError, match="are not those of the run"):
        prune(tmp_path, model=changed)
    with pytest.raises(InputError, match="too few images to choose on"):
        prune(tmp_path, evaluate=photos(12), images=photos(12))
    for wrong in ({"order": "size"}, {"kind": "cut"}, {"draws": 0}, {"kind": "scale", "factor": 1},
                  {"positions": "left"}):  # fmt: skip
        with pytest.raises(InputError):
            PruneSettings(**wrong)


# Data


def record(**how: Any) -> ImageRecord:
    return ImageRecord(0, "s", "p", "f", "g", **how)


def test_labels_go_by_wnid_then_name_then_number() -> None:
    known = Classes(3, (("cat",), ("dog", "hound"), ("crane",)), ("n00000001", "n00000002",
                                                                 "n00000003"))  # fmt: skip
    by_wnid = [record(wnid="n00000003", label=0), record(wnid="n00000001", label=7)]
    assert match_labels(by_wnid, known, "s").tolist() == [2, 0]
    assert match_labels([record(name="n00000002")], known, "s").tolist() == [1]
    assert match_labels([record(name="Hound", label=9)], known, "s").tolist() == [1]
    assert match_labels([record(label=2)], known, "s").tolist() == [2]
    assert match_labels([record()], known, "s") is None
    folders = [record(name="b"), record(name="a"), record(name="b")]
    assert match_labels(folders, Classes(2), "s").tolist() == [1, 0, 1]


def test_labels_that_fit_no_class_show_both_sides() -> None:
    known = Classes(3, (("cat",), ("crane",), ("crane",)))
    for records, text in (
        ([record(name="cta")], "'cta'; the model's are 'cat', 'crane', 'crane'"),
        ([record(name="crane")], "name several"),
        ([record(label=5)], "from 5 to 5, the model's from 0 to 2"),
    ):
        with pytest.raises(InputError, match="fit no class") as error:
            match_labels(records, known, "photos")
        assert text in error.value.why
    with pytest.raises(InputError, match="fit no class"):
        match_labels([record(name="a"), record()], Classes(3), "s")
    with pytest.raises(InputError, match="2 classes are given"):
        model_classes(3, ["a", "b"])
    assert model_classes(1000).wnids[0] == "n01440764"
    assert model_classes(1000).names[0][0] == "tench"


@settings(max_examples=30, deadline=None)
@given(st.integers(20, 80), st.integers(0, 5), st.integers(1, 4))
def test_a_photograph_is_never_on_both_sides(count: int, seed: int, each: int) -> None:
    groups = tuple(f"g{i // each}" for i in range(count))
    images = EvalSet("x", lambda i: np.full((2, 2, 3), i, np.uint8), groups)
    try:
        one, other = images.split(seed=seed)
    except InputError:
        return
    assert not set(one.groups) & set(other.groups)
    assert len(one) + len(other) == count
    pixels = torch.cat(list(one.batches(7)))[:, 0, 0, 0].tolist()
    assert pixels == [i for i, g in enumerate(groups) if g in set(one.groups)]


def test_random_sets_match_the_layers() -> None:
    infos = {"a": read_places(load_target(Liar()), ["conv"])["conv"]}
    infos["b"] = infos["a"]
    order = [("a", 0), ("b", 1), ("a", 2)]
    draws, note = random_orders(order, infos, 5, 0)
    assert not note
    for draw in draws:
        assert [layer for layer, _ in draw] == ["a", "b", "a"]
        assert len(set(draw)) == 3 and not set(draw) & set(order)
    assert draws == random_orders(order, infos, 5, 0)[0]
    _, note = random_orders([("a", i) for i in range(4)], infos, 2, 0)
    assert "may be chosen ones" in note
    assert [grid(n) for n in (1, 2, 5, 10)] == [[0, 1], [0, 2], [0, 2, 5], [0, 2, 4, 6, 8, 10]]


def test_the_gradient_keeps_the_units_whose_removal_helps() -> None:
    target, images = load_target(Liar()), photos(marked=1.0)
    infos = read_places(target, ["conv"])
    assert images.labels is not None
    with Tail(target, list(infos.values()), images, batch_size=16) as tail:
        bench = Bench(tail, images.labels, Editor(infos))
        assert {u for _, u in screen(bench, 2)} == set(LIARS)
        assert len(screen(bench, 6)) == 6
        assert not any(m._forward_hooks for m in target.model.modules())


def test_of_two_classes_behind_a_linear_head_the_gradient_is_exact() -> None:
    """The expected order is then the order that ablating every unit gives."""
    model = Liar()
    torch.manual_seed(0)
    model.head = nn.Linear(6, 2)
    with torch.no_grad():
        model.head.weight.mul_(30)
    target, images = load_target(model), photos()
    infos = read_places(target, ["conv"])
    assert images.labels is not None
    with Tail(target, list(infos.values()), images, batch_size=16) as tail:
        bench = Bench(tail, images.labels % 2, Editor(infos))
        before = tail.before.log_softmax(1).gather(1, bench.right[:, None]).mean()
        right, gain = _expected(bench, infos["conv"])
        for unit in range(6):
            accuracy, log_p = bench.effect(("conv", unit))
            assert right[unit] == round(accuracy * len(images))
            # Log p is concave in the logits: to first order it gains more.
            assert log_p - before <= gain[unit] / len(images) + 1e-6
        effects = [bench.effect(u)[0] for u in screen(bench, 5)]
        assert effects == sorted((bench.effect(("conv", u))[0] for u in range(6)), reverse=True)[:5]
        assert len(set(effects)) > 2


def test_intervals_draw_whole_photographs() -> None:
    """Ten rows of one photograph count as one: the interval is that of the photographs."""
    values = np.repeat([0.0, 1.0] * 10, 10)
    each = Resampler([str(i // 10) for i in range(200)]).mean(values)
    alone = Resampler([str(i) for i in range(200)]).mean(values)
    assert each.estimate == alone.estimate == 0.5
    means = [np.mean(np.random.default_rng(s).choice([0.0, 1.0] * 10, 20)) for s in range(2000)]
    low, high = np.percentile(means, [2.5, 97.5])
    assert (each.low, each.high) == (pytest.approx(low, abs=0.06), pytest.approx(high, abs=0.06))
    assert each.high - each.low > 2 * (alone.high - alone.low)
    seeds = Resampler([str(i) for i in range(200)]).mean(np.stack([values, 1 - values]))
    assert seeds.estimate == 0.5 and seeds.low < 0.5 < seeds.high
    worst = Resampler([str(i) for i in range(200)]).worst(values, ["a"] * 100 + ["b"] * 96
                                                          + ["c"] * 4)  # fmt: skip
    assert worst is not None and worst[0] in "ab" and worst[1].estimate <= 0.5
    assert Resampler(["0", "1"]).worst(np.ones(2), ["a", "b"]) is None


def test_every_subset_of_units_by_the_tail_is_the_edit_by_hand(tmp_path: Path) -> None:
    target, images = load_target(Liar()), photos(20)
    infos = read_places(target, ["conv"])
    for units in itertools.combinations(range(6), 2):
        with torch.no_grad(), ablate(target, [Edit("conv", units)], infos):
            logits = torch.cat([target.model(target.inputs(v)) for v in images.batches(8)])
        assert (logits.argmax(1).numpy() == images.labels).mean() == accuracy(images, units)


def test_corrupted_images_choose_and_a_table_tells_of_the_test(tmp_path: Path) -> None:
    how = PruneSettings(draws=2, batch_size=16, sample=6, severities=(1, 3))
    clean = photos().clean
    assert clean is not None
    report = prune(tmp_path, units="conv:0", match=(), evaluate="imagenet-c", images=clean,
                   settings=how)  # fmt: skip
    table = report.robustness
    assert table is not None and table.kind == "imagenet-c" and table.images == 6
    assert set(table.figures["corruptions"]) == set(CORRUPTIONS)
    assert table.models == (("unedited", "edited") if report.gone else ("unedited",))
    _, test = mixed(clean).split(seed=0)
    assert len(set(test.parts)) > 5 and report.images["test"] == len(test)
    assert report.figures["target_before"].estimate == pytest.approx(accuracy(test, ()))
    assert not any(note.startswith("0 images") for note in report.notes)
    assert json.loads(json.dumps(report.to_dict()))["robustness"]["images"] == 6
    with pytest.raises(InputError, match="no images of cues in conflict"):
        prune(tmp_path, evaluate="cue-conflict", images=clean)


def test_corruptions_are_shared_out_equally_and_stay_the_same() -> None:
    clean = photos().clean
    assert clean is not None
    one, again = mixed(clean, 3), mixed(clean, 3)
    tags = [tag.rpartition(" ") for tag in one.tags]
    counts = Counter(one.tags)
    assert max(counts.values()) - min(counts.values()) <= 1 and len(counts) == min(75, len(clean))
    for i in (0, 7):
        name, _, severity = tags[i]
        key = view_keys(clean, 1)[i]
        wanted = corrupt(
            clean.read(i), name, int(severity), generator_for(3, key, name, int(severity))
        )
        assert (one.read(i) == wanted).all() and (again.read(i) == wanted).all()
    assert one.parts == tuple(name for name, _, _ in tags) and one.groups == clean.groups
