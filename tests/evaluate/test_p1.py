"""P1's rows on a run whose descriptions are known; names, kin, the linear probe."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from milanx.describing.describer import Describer, Description
from milanx.describing.ranker import Candidate
from milanx.describing.trained import FILE, Trained, TrainedPhoto, write_trained
from milanx.errors import InputError
from milanx.evaluate.common.names import ClassNamer, accepted_kin, accepted_names, wnid_of
from milanx.evaluate.p1 import kin, upper
from milanx.evaluate.p1 import protocol as p1
from milanx.images.splits import photo_group
from milanx.language.compare import lemma, lemmas
from milanx.pipeline import extract
from milanx.report.check import seal
from milanx.runs import Run, open_run, write_units
from tests.helpers import noise, write_parquet

NEVER = {"animal", "object", "thing", "person", "people", "item", "machine", "man", "woman"}
CLASSES = ["n01440764", "n01443537", "n01484850", "n01491361", "n01494475"]  # logits 0 to 4
NAMES = ["tench", "goldfish", "great white sharks", "a tiger shark", "hammerheads"]


def test_kin_never_holds_what_would_fit_anything() -> None:
    for name, kin_names in accepted_kin().items():
        assert len(kin_names) > 5, name
        assert not NEVER & {w for k in kin_names for w in (k, " ".join(lemmas(k)))}, name


def test_kin_names_all_held_out_classes_and_no_training_name_is_missed() -> None:
    from milanx.train.data.splits import HELD_OUT_CALTECH, HELD_OUT_TINY

    assert set(accepted_kin()) == {*HELD_OUT_TINY, *HELD_OUT_CALTECH}
    assert kin.in_imagenet("llama")
    assert kin.in_imagenet("n01443537")
    assert not kin.in_imagenet("okapi")


def test_kin_of_a_text() -> None:
    namer = ClassNamer(list(accepted_names()))
    assert namer.kin("zebras", "okapi")
    assert namer.kin("praying mantises", "n02236044")
    assert namer.kin("geese", "n01855672")
    assert not namer.kin("animals", "okapi")
    assert not namer.kin("zebras, lions, tigers and ostriches", "okapi")


def test_names_that_mean_one_class() -> None:
    assert wnid_of("grand_piano") == "n03452741"
    assert wnid_of("Leopards") == "n02128385"
    assert wnid_of("crane") == ""
    assert wnid_of("okapi") == ""


@pytest.mark.parametrize(("many", "one"), [
    ("mantises", "mantis"), ("nautiluses", "nautilus"), ("houses", "house"),
    ("horses", "horse"), ("potatoes", "potato"), ("shoes", "shoe"), ("lenses", "lens"),
    ("octopuses", "octopus"), ("scarves", "scarf"),
])  # fmt: skip
def test_more_plurals(many: str, one: str) -> None:
    assert lemma(many) == lemma(one)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("run")
    wnids = [CLASSES[i % 5] for i in range(60)]
    photos = write_parquet(folder / "photos.parquet", noise(60), wnid=wnids)
    return described(folder / "run", photos, NAMES)


def described(out: Path, photos: Path, texts: list[str]) -> Run:
    store = extract("tests.helpers:tiny", layers=["head"], images=photos, out=out)
    found = []
    for unit, text in enumerate(texts):
        best = (Candidate(text, 0.0, -2.0, -1.0), Candidate("sharks", -1.0, -1.0, -1.0))
        found.append(Description("head", unit, "+", "described", text, 0.0, -2.0, -1.0, best))
    write_units(out, found, store)
    content = json.loads((out / "run.json").read_text())
    content["describer"] = None
    content.pop("seal", None)
    (out / "run.json").write_text(json.dumps(content))
    return open_run(out)


def test_rows(run: Run, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(run.root, other)
    (other / "units.parquet").unlink()
    texts = ["tench", "sharks", "fish", "sea", "goldfish"]
    rival = [Description("head", i, "+", "described", t, candidates=(Candidate(t, 0.0, 0.0, 0.0),))
             for i, t in enumerate(texts)]  # fmt: skip
    write_units(other, rival, run.store)
    report = p1.evaluate(run, against=[open_run(other)])
    rows = report["rows"]
    assert rows["description"]["top-1"]["estimate"] == 1
    assert rows["other method (other)"]["top-1"]["estimate"] == pytest.approx(0.2)
    assert rows["argmax p(d|E)"]["top-1"]["estimate"] == 0
    assert rows["shuffled"]["top-1"]["estimate"] == pytest.approx(0.2, abs=0.1)
    assert not any("classes" in name for name in rows)
    assert any("linear probe: no row" in line for line in report["notes"])
    assert any(line.startswith("seen and never named classes: no rows") for line in report["notes"])


def test_what_training_saw_is_told_by_the_describer_s_folder(
    run: Run, describer: Describer, tmp_path: Path
) -> None:
    """Not by the run, nor by names of files: of the same run another folder tells another thing."""
    assert describer.root is not None
    settings = {**run.settings, "describer": {"fingerprint": describer.fingerprint,
                                              "held_out_wnids": [CLASSES[0]]}}  # fmt: skip
    made = Run(run.root, settings)
    table = run.store.image_table()
    shown = sorted({i for row in run.rows for i in row["images"]})
    groups = [photo_group(table[i]["path"], table[i]["fingerprint"]) for i in shown]
    for name, photos in {
        "wnids": [TrainedPhoto("x", "0" * 16, "anything", CLASSES[2])],
        "names": [TrainedPhoto(groups[0], "0" * 16, "hammerhead"), TrainedPhoto("y", "1" * 16)],
    }.items():
        folder = tmp_path / name
        shutil.copytree(describer.root, folder)
        write_trained(folder, photos)
        seal(folder)
        report = p1.evaluate(made, describer=folder)
        rows = report["rows"]
        assert rows["  seen classes (n = 1)"]["top-1"]["estimate"] == 1
        assert rows["  other classes (n = 3)"]["top-1"]["estimate"] == 1
        assert rows["  never named classes (n = 1)"]["close kin"]["estimate"] == 1
        # Of the five texts goldfish alone is its kin: "tench" is listed as kin too.
        assert rows["    shuffled, never named"]["close kin"]["estimate"] == pytest.approx(2 / 5)
        known = int(name == "names")
        assert (
            f"{known} of the {len(shown)} photos that are exemplars were trained on"
            in (report["notes"])
        )
    (folder / FILE).unlink()
    seal(folder)
    report = p1.evaluate(made, describer=folder)
    assert not any("classes" in name for name in report["rows"])
    assert any("does not tell which photos" in line for line in report["notes"])


def test_classes_are_parted_by_what_training_knew_of_them() -> None:
    trained = Trained(
        (TrainedPhoto("a", "0" * 16, "crane"), TrainedPhoto("b", "0" * 16, "okapi"),
         TrainedPhoto("c", "0" * 16, "x", CLASSES[3]), TrainedPhoto("d", "0" * 16, "tench")),
        frozenset({CLASSES[1], CLASSES[3]}),
    )  # fmt: skip
    parts = p1.classes_by_training(CLASSES, trained)
    assert parts["seen classes"].tolist() == [True, False, False, False, False]
    assert parts["never named classes"].tolist() == [False, True, False, True, False]
    assert parts["other classes"].tolist() == [False, False, True, False, True]


def test_runs_that_are_compared_describe_the_same_units(run: Run, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(run.root, other)
    (other / "units.parquet").unlink()
    write_units(other, [Description("head", 0, "+", "described", "tench")], run.store)
    with pytest.raises(InputError, match="lacks unit 1 of head"):
        p1.evaluate(run, against=[open_run(other)])


def test_linear_probe_reads_classes_off_pooled_features(tmp_path: Path) -> None:
    torch.manual_seed(0)
    weight, mean, scale = torch.eye(3, 8), torch.randn(8), torch.rand(8) + 0.5
    tensors = {"weight": weight.half(), "bias": torch.tensor([0.0, 0.0, 5.0]), "mean": mean,
               "scale": scale}  # fmt: skip
    save_file(tensors, tmp_path / "probe.safetensors", {"wnids": json.dumps(CLASSES[:3])})
    read, classes = upper.read_probe(tmp_path / "probe.safetensors")
    assert classes == CLASSES[:3]
    means = torch.stack([mean + weight[1] * 30 / scale, mean])
    assert upper.probe_classes(means.numpy(), read, classes) == [CLASSES[1], CLASSES[2]]


def test_kin_of_planted_classes_that_training_held_out(tmp_path: Path) -> None:
    names = [["n02099601", "n01443537"][i % 2] for i in range(24)]  # one of them is held out
    photos = write_parquet(tmp_path / "photos.parquet", noise(24), wnid=names)
    report = kin.evaluate(Describer.load(), [photos], each=1)
    assert [unit["class"] for unit in report["units"]] == ["n01443537"]
    assert report["units"][0]["description"]
