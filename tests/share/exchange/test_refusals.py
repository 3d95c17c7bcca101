"""What cannot be exported or imported: three lines, nothing half-written, nothing foreign lost."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import milanx
from milanx.errors import FormatError, InputError, MilanxError
from milanx.files.digests import SEAL
from milanx.share.exchange import building
from milanx.share.exchange.export import FORMATS, TABLES
from tests.cli.commands import refused, run
from tests.helpers import contents, files_of_at_most


@pytest.fixture(scope="module")
def exports(odd: milanx.Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("exports")
    for form in FORMATS:
        milanx.export_run(odd, form, root / form)
    return root


@pytest.fixture
def milan(exports: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(exports / "milan", tmp_path / "milan"))


def test_an_unknown_format_is_told(odd: milanx.Run, tmp_path: Path) -> None:
    said = refused("export", odd.root, "fiftyon", "-o", tmp_path / "x")
    assert "fiftyone" in said and "milan" in said
    for command in ("import", "export"):
        given = (odd.root, "foo") if command == "export" else ("foo", odd.root)
        told = refused(command, *given, "-o", tmp_path / "x")
        assert "no format" in told and f"milanx {command} --help" in told
    assert "no run folder" in refused("export", tmp_path / "none", "csv", "-o", tmp_path / "x")
    assert "nothing of that name" in refused("import", "csv", tmp_path / "n", "-o", tmp_path / "x")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("form", FORMATS)
def test_nothing_is_replaced_unasked(odd: milanx.Run, form: str, tmp_path: Path) -> None:
    own, foreign = tmp_path / "own", tmp_path / "foreign"
    milanx.export_run(odd, form, own)
    with pytest.raises(InputError, match="there already"):
        milanx.export_run(odd, form, own)
    milanx.export_run(odd, form, own, overwrite=True)
    if form in TABLES:
        foreign.write_text("my own notes\n")
    else:
        foreign.mkdir()
        (foreign / "notes.txt").write_text("mine")
        (own / "notes.txt").write_text("mine")
    before = contents(own, foreign)
    for overwrite in (False, True):
        with pytest.raises(InputError):
            milanx.export_run(odd, form, foreign, overwrite=overwrite)
        if form not in TABLES:
            with pytest.raises(InputError):
                milanx.export_run(odd, form, own, overwrite=overwrite)
    (tmp_path / "link").symlink_to(foreign)
    with pytest.raises(InputError, match="link"):
        milanx.export_run(odd, form, tmp_path / "link", overwrite=True)
    assert contents(own, foreign) == before


@pytest.mark.parametrize("form", FORMATS)
def test_a_full_disk_leaves_nothing(odd: milanx.Run, form: str, tmp_path: Path) -> None:
    with files_of_at_most(300), pytest.raises(MilanxError):
        milanx.export_run(odd, form, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_an_import_never_replaces_what_is_foreign(exports: Path, tmp_path: Path) -> None:
    place = tmp_path / "run"
    place.mkdir()
    (place / "thesis.txt").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(InputError):
            milanx.import_run("csv", exports / "csv", place, overwrite=overwrite)
    assert (place / "thesis.txt").read_text() == "mine"
    first = milanx.import_run("csv", exports / "csv", tmp_path / "new")
    with pytest.raises(InputError, match="there already"):
        milanx.import_run("csv", exports / "csv", tmp_path / "new")
    again = milanx.import_run("milan", exports / "milan", tmp_path / "new", overwrite=True)
    assert again.root == first.root and again.settings["imported"]["format"] == "milan"


def rewrite(path: Path, change: Callable[[bytes], bytes]) -> None:
    path.write_bytes(change(path.read_bytes()))


BROKEN: list[tuple[str, Callable[[Path], object]]] = [
    ("is damaged", lambda r: rewrite(r / "conv2/images.npy", lambda b: b[:-100])),
    ("is damaged", lambda r: rewrite(r / "conv2/masks.npy", lambda b: b"x" * 50)),
    ("is damaged", lambda r: rewrite(r / "conv2/masks.npy", lambda b: b"")),
    ("is damaged", lambda r: np.save(r / "conv2/images.npy", np.array([{}]), allow_pickle=True)),
    ("is damaged", lambda r: np.save(r / "conv2/images.npy", np.zeros((12, 5, 3, 32, 32)))),
    ("is damaged", lambda r: np.save(r / "conv2/masks.npy", np.zeros((12, 5, 32, 32), np.uint8))),
    ("do not go together",
     lambda r: np.save(r / "conv2/masks.npy", np.ones((11, 5, 1, 32, 32), np.uint8))),
    ("do not go together",
     lambda r: np.save(r / "conv2/masks.npy", np.ones((12, 5, 1, 16, 16), np.uint8))),
    ("is damaged", lambda r: (np.savez(r / "a.npz", a=np.zeros(3)),
                              (r / "a.npz").rename(r / "conv2/images.npy"))),
    ("is damaged", lambda r: (r / "conv2/ids.csv").write_text("1,2,3\n")),
    ("is damaged", lambda r: (r / "conv2/ids.csv").write_text("a,b\nc,d\n")),
    ("is damaged", lambda r: rewrite(r / "conv2/activations.csv", lambda b: b"\xff\xfe" + b)),
    ("is damaged", lambda r: np.save(r / "conv2/units.npy", np.zeros(12, np.int64))),
    ("is damaged", lambda r: np.save(r / "conv2/units.npy", np.arange(5))),
    ("is damaged", lambda r: np.save(r / "conv2/units.npy", np.arange(12) - 3)),
    ("no column summary", lambda r: (r / "annotations.csv").write_text("layer,unit,text\n")),
    ("whole number", lambda r: (r / "annotations.csv").write_text("layer,unit,summary\na,x,t\n")),
    ("cells", lambda r: (r / "annotations.csv").write_text("layer,unit,summary\na,1\n")),
    ("several columns", lambda r: (r / "annotations.csv").write_text("layer,unit,unit\n")),
    ("cannot be read", lambda r: rewrite(r / "milanx-export.json", lambda b: b"{" + b)),
    ("is a link", lambda r: ((r / "conv2/ids.csv").unlink(),
                             (r / "conv2/ids.csv").symlink_to("/etc/hostname"))),
    ("masks.npy or images.npy", lambda r: [shutil.rmtree(r / n) for n in ("conv2", "head")]),
    ("no such folder", lambda r: (shutil.rmtree(r), r.write_text("x"))),
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(BROKEN)))
def test_damaged_arrays_are_told(milan: Path, number: int, tmp_path: Path) -> None:
    said, harm = BROKEN[number]
    harm(milan)
    with pytest.raises(MilanxError) as caught:
        milanx.import_run("milan", milan, tmp_path / "run")
    assert said in str(caught.value), str(caught.value)
    assert isinstance(caught.value, InputError | FormatError)
    assert not (tmp_path / "run").exists()
    assert refused("import", "milan", milan, "-o", tmp_path / "run")


def test_what_a_licence_forbids_may_be_missing(milan: Path, tmp_path: Path) -> None:
    """As MILANNOTATIONS are published: no pictures, no activations, three texts a unit."""
    shutil.rmtree(milan / "head")
    for name in ("conv2/images.npy", "conv2/activations.csv", "milanx-export.json"):
        (milan / name).unlink()
    (milan / "annotations.csv").write_text(
        "layer,unit,summary\nconv2,0,a dog\nconv2,0,the dog\nconv2,0,fur\nconv2,77,stray\n"
    )
    back = milanx.import_run("milan", milan, tmp_path / "run", target="resnet152")
    assert back.target == "resnet152" and len(back) == 12
    unit = back["conv2", 0]
    assert unit.description == "a dog"
    assert [c.text for c in unit.candidates] == ["a dog", "the dog", "fur"]
    assert (unit.exemplars.views == building.GREY).all() and not unit.exemplars.masks.all()
    notes = " ".join(back.settings["imported"]["left_out"])
    assert "grey" in notes and "1 units that have no exemplars" in notes
    assert "no activations.csv" in notes and np.isnan(unit.exemplars.activations).all()
    assert run("page", back.root)[0] == 0 and run("show", back.root, "--unit", "conv2:0")[0] == 0


def test_images_without_numbers_are_each_their_own(milan: Path, tmp_path: Path) -> None:
    (milan / "head" / "ids.csv").unlink()
    back = milanx.import_run("milan", milan, tmp_path / "run")
    views = np.load(milan / "conv2" / "images.npy")
    assert (back["conv2", 2].exemplars.views == views[2]).all()
    assert len({i for row in back.rows for i in row["images"]}) == 12 * 5 + 5 * 5


def test_large_numbers_of_images_are_numbered_anew(
    milan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(building, "MOST_NUMBERS", 10)
    back = milanx.import_run("milan", milan, tmp_path / "run")
    ids = np.loadtxt(milan / "conv2" / "ids.csv", delimiter=",").astype(int)
    table = back.store.image_table()
    assert [table[i]["path"] for i in back["conv2", 5].row["images"]] == [str(i) for i in ids[5]]
    assert any("numbered anew" in n for n in back.settings["imported"]["left_out"])


ROWS = [
    ("csv", "layer,unit\na,1\n", "no column description"),
    ("csv", "", "it is empty"),
    ("csv", "layer,unit,description\na,-1,x\n", "whole number"),
    ("csv", "layer,unit,description\n,1,x\n", "no layer"),
    ("csv", "layer,unit,description,sign\na,1,x,*\n", "sign '*'"),
    ("csv", "layer,unit,description,status\na,1,x,fine\n", "status 'fine'"),
    ("csv", "layer,unit,description,score\na,1,x,high\n", "no number"),
    ("csv", 'layer,unit,description\na,1,"x\n', "damaged"),
    ("csv", "layer,unit,description,candidates\na,1,x,{}\n", "candidates"),
    ("csv", "layer,unit,description,images,activations\na,1,x,3 4,1\n", "2 images and 1"),
    ("csv", "layer,unit,description\n", "nothing to import"),
    ("clip-dissect", "layer,unit,description\na,1,x\n", "no column similarity"),
    ("clip-dissect", "layer,unit,description,similarity\na,1,x,y\n", "no number"),
    ("jsonl", "", "it is empty"),
    ("jsonl", "[1]\n", "no object"),
    ("jsonl", "{\n", "is no unit"),
    ("jsonl", '{"layer": "a", "unit": 1}\n', "is no unit"),
    ("jsonl", '{"layer": 3, "unit": 1, "description": "x"}\n', "no layer"),
    ("jsonl", '{"layer": "a", "unit": true, "description": "x"}\n', "unit True"),
    ("jsonl", '{"layer": "a", "unit": 1, "description": 5}\n', "description 5"),
    ("jsonl", '{"layer": "a", "unit": 1, "description": "x", "sign": ["+"]}\n', "sign"),
    ("jsonl", '{"layer": "a", "unit": 1, "description": "x", "images": [-4]}\n', "below 0"),
    ("jsonl", '{"layer": "a", "unit": 1, "description": "x", "candidates": [3]}\n', "is no unit"),
]


@pytest.mark.parametrize(("form", "text", "said"), ROWS)
def test_tables_that_are_none(form: str, text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "t"
    path.write_text(text)
    with pytest.raises(MilanxError) as caught:
        milanx.import_run(form, path, tmp_path / "run")
    assert said in str(caught.value), str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == ["t"]


def test_small_tables_are_enough(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("\ufeffunit,layer,summary,mood\n3,conv,dog,gay\n3,conv,cat,-\n")
    back = milanx.import_run("csv", tmp_path / "a.csv", tmp_path / "run")
    assert [c.text for c in back["conv", 3].candidates] == ["dog", "cat"]
    assert "the columns mood" in back.settings["imported"]["left_out"]
    (tmp_path / "a.jsonl").write_text('{"layer": "c", "unit": 0, "description": "dog"}\n\n')
    assert milanx.import_run("jsonl", tmp_path / "a.jsonl", tmp_path / "j")["c", 0].status


@pytest.mark.parametrize("harm", ["info", "mask", "box", "path", "link", "size", "bomb", "none"])
def test_data_sets_of_fiftyone_that_mean_harm(exports: Path, harm: str, tmp_path: Path) -> None:
    import base64
    import zlib

    root = Path(shutil.copytree(exports / "fiftyone", tmp_path / "set"))
    samples = json.loads((root / "samples.json").read_text())
    first = samples["samples"][0]
    detection = next(s["exemplars"]["detections"][0] for s in samples["samples"]
                     if s["exemplars"]["detections"])  # fmt: skip
    if harm == "info":
        meta = json.loads((root / "metadata.json").read_text())
        meta["info"]["milanx"]["rows"][0].pop("layer")
        (root / "metadata.json").write_text(json.dumps(meta))
    elif harm == "mask":
        detection["mask"] = {"$binary": {"base64": "AAAA", "subType": "00"}}
    elif harm == "bomb":
        packed = base64.b64encode(zlib.compress(bytes(2**27))).decode()
        detection["mask"] = {"$binary": {"base64": packed, "subType": "00"}}
    elif harm == "box":
        detection["bounding_box"] = [0.5, 0.5, 2, 2]
    elif harm == "path":
        first["filepath"] = "../../etc/passwd"
    elif harm == "link":
        (root / first["filepath"]).unlink()
        (root / first["filepath"]).symlink_to("/etc/hostname")
    elif harm == "size":
        from PIL import Image

        Image.new("RGB", (8, 8)).save(root / samples["samples"][1]["filepath"])
    else:
        samples = {"samples": [{"filepath": "data/x.png"}]}
        (root / "metadata.json").unlink()
    (root / "samples.json").write_text(json.dumps(samples))
    with pytest.raises(MilanxError):
        milanx.import_run("fiftyone", root, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    assert refused("import", "fiftyone", root, "-o", tmp_path / "run")


def test_fiftyone_gives_masks_and_labels_of_its_own(exports: Path, tmp_path: Path) -> None:
    """As FiftyOne exports it again: ids, other fields, a version, and labels that were changed."""
    root = Path(shutil.copytree(exports / "fiftyone", tmp_path / "set"))
    meta = json.loads((root / "metadata.json").read_text())
    samples = json.loads((root / "samples.json").read_text())
    meta |= {"version": "1.9.0", "name": "x", "sample_fields": [], "info": {}}
    for sample in samples["samples"]:
        sample |= {"_id": {"$oid": "6" * 24}, "metadata": None, "_media_type": "image"}
        for detection in sample["exemplars"]["detections"]:
            detection |= {"_id": {"$oid": "7" * 24}, "confidence": None, "label": "mine"}
            detection["mask"] = None
    (root / "metadata.json").write_text(json.dumps(meta))
    (root / "samples.json").write_text(json.dumps(samples))
    back = milanx.import_run("fiftyone", root, tmp_path / "run")
    assert {row["description"] for row in back.rows} == {"mine"}
    assert back["conv2", 0].exemplars.masks.any()


def test_damaged_caches_of_semanticlens(exports: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(exports / "semanticlens", tmp_path / "cache"))
    file = next(root.glob("*/*/*/*conv2.safetensors"))
    whole = file.read_bytes()
    for content in (whole[:-50], b"", whole[:8] + b"x" + whole[9:]):
        file.write_bytes(content)
        with pytest.raises(FormatError):
            milanx.import_run("semanticlens", root, tmp_path / "run")
    file.write_bytes(whole)
    shutil.copytree(file.parent, file.parent.parent / "other")
    with pytest.raises(InputError, match="several models"):
        milanx.import_run("semanticlens", root, tmp_path / "run")
    one = milanx.import_run("semanticlens", file.parent, tmp_path / "run")
    assert one["conv2", 0].description == "=SUM(A1)"


def test_a_run_without_descriptions_is_refused(odd: milanx.Run, tmp_path: Path) -> None:
    bare = Path(shutil.copytree(odd.root, tmp_path / "bare"))
    (bare / "units.parquet").unlink()
    for form in FORMATS:
        with pytest.raises(MilanxError, match="holds no descriptions"):
            milanx.export_run(bare, form, tmp_path / form)
    assert SEAL in json.loads((bare / "run.json").read_text())
    assert [p.name for p in tmp_path.iterdir()] == ["bare"]


def test_other_commands_say_what_an_imported_run_lacks(exports: Path, tmp_path: Path) -> None:
    milanx.import_run("csv", exports / "csv", tmp_path / "run")
    refused("evaluate", tmp_path / "run", "--protocol", "p3")
    refused("prune", tmp_path / "run", "--match", "plain", "--out", tmp_path / "edit")
