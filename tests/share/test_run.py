"""A run goes to the Hub as a data set that others load, and comes back the same run."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

import milanx
from milanx.errors import FormatError, InputError
from milanx.evaluate.protocols import VERSION, write_report
from milanx.files import read_json
from milanx.files.digests import SEAL
from milanx.files.kinds import EVALUATION
from milanx.runs import write_settings
from milanx.share.run import GROUP, without_paths
from milanx.share.sheets import SHOWN
from tests.cli.commands import refused, run
from tests.files.test_damage import served
from tests.hub.server import Hub

NAME = "user/run"
DATA = "data/train-00000-of-00001.parquet"


@pytest.fixture
def own(made: Path, tmp_path: Path) -> Path:
    """A run of photos of one's own, with paths of this machine in its run.json."""
    return Path(shutil.copytree(made, tmp_path / "own"))


def test_the_pulled_run_is_the_pushed_one(hub: Hub, own: Path) -> None:
    sent = milanx.push(own, NAME)
    assert sent.url.endswith("/datasets/user/run") and sent.private
    first, second = milanx.open_run(own), milanx.open_run(NAME)
    assert second.store.fingerprint == first.store.fingerprint
    one, two = served(first.root), served(second.root)
    assert one[1:] == two[1:]  # type: ignore[index] - all but run.json
    milanx.check(second.root).require()
    copied = milanx.pull(NAME, own.parent / "copy")
    assert copied.kind == "a run" and served(copied.root) == two
    milanx.pull(NAME, copied.root, overwrite=True)


def test_commands_take_a_repository_for_a_run(hub: Hub, own: Path) -> None:
    milanx.push(own, NAME)
    code, out, _ = run("show", NAME, "--json")
    assert code == 0 and json.loads(out) == milanx.open_run(own).rows
    assert not Path("user").exists()


def test_what_is_made_of_a_fetched_run_goes_to_the_user(
    hub: Hub, own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fetched copy is a commit, and stays what that is, whichever way it is named."""
    milanx.push(own, NAME)
    fetched = milanx.pull(NAME)
    monkeypatch.chdir(tmp_path)
    before = {path: path.read_bytes() for path in fetched.root.rglob("*") if path.is_file()}
    place = Path(f"milanx-runs/user/run@{fetched.commit[:7]}")
    for name in (NAME, fetched.root):
        code, out, _ = run("page", name)
        assert code == 0 and Path(out.strip()) == place / "page" / "index.html"
    assert Path(place, "page", "index.html").is_file()
    for command in (["analyze", f"{NAME}@main"], ["audit", NAME, "--ablate", "0"]):
        code, _, err = run(*command)
        assert code == 0, err
    assert {path.name for path in place.iterdir()} == {"page", "analysis", "audit"}
    assert {path: path.read_bytes() for path in fetched.root.rglob("*") if path.is_file()} == before
    copy = milanx.pull(NAME, tmp_path / "copy").root  # one's own is written into
    code, out, _ = run("page", copy)
    assert code == 0 and Path(out.strip()) == copy / "page" / "index.html"


def test_nothing_tells_of_this_machine(hub: Hub, own: Path, tmp_path: Path) -> None:
    settings = milanx.open_run(own).settings
    settings["target"]["weights"] = f"{tmp_path}/secret project/model.pth"
    write_settings(own, {n: v for n, v in settings.items() if n != SEAL})
    assert str(tmp_path.parent) in json.dumps(settings)  # where the photos lie
    milanx.push(own, NAME)
    files = hub.files(NAME, "dataset")
    for name, content in files.items():
        assert str(tmp_path.parent).encode() not in content, name
    told = json.loads(files["run.json"])
    assert told["target"]["weights"].endswith("model.pth")
    assert told["images"]["sources"][0]["path"] == "p.parquet"
    assert "log.txt" not in files and milanx.open_run(NAME).target == settings["target"]["name"]


def test_reports_go_with_the_run_and_stand_in_its_card(hub: Hub, own: Path) -> None:
    figure = {"estimate": 0.25, "interval": [0.125, 0.5]}
    report = {"protocol": "P3 simulation", "n": 30, "rows": {"description": {"AUROC": figure}},
              "images": [f"{own.parent}/photos"]}  # fmt: skip
    write_report(own, "p3", report)
    milanx.push(own, NAME)
    card = hub.files(NAME, "dataset")["README.md"].decode()
    assert "P3 simulation, n = 30: AUROC 0.250 (0.125 to 0.500)" in card
    assert f"milanx evaluate {NAME} --protocol p3" in card
    pulled = read_json(milanx.open_run(NAME).root / "evaluation-p3.json", EVALUATION, VERSION)
    assert pulled["images"] == ["photos"] and pulled["rows"] == report["rows"]


@pytest.mark.parametrize(("text", "said"), [
    ("/home/me/photos", "photos"), ("~/x/y.pth", "y.pth"), ("C:\\Users\\me\\x.pth", "x.pth"),
    ("file /srv/data/a.bin, 3 MB", "file a.bin, 3 MB"), ("https://a.b/c/d", "https://a.b/c/d"),
    ("blocks/0/x", "blocks/0/x"), ("and/or", "and/or"), ("a / b", "a / b"), ("1/2", "1/2"),
    ("hf-hub:owner/name", "hf-hub:owner/name"), ("", ""),
    ("hf:/srv/data/pets:train", "hf:pets:train"),
    ("torchvision:MNIST?root=/srv/data/MN&train=false", "torchvision:MNIST?root=MN&train=false"),
])  # fmt: skip
def test_paths_are_cut_to_their_names(text: str, said: str) -> None:
    assert without_paths({"a": [text, (text,), 1, None]}) == {"a": [said, [said], 1, None]}


def test_the_data_is_made_for_the_viewer(hub: Hub, planted: milanx.Run) -> None:
    milanx.push(planted.root, NAME)
    files = hub.files(NAME, "dataset")
    data = pq.ParquetFile(io.BytesIO(files[DATA]))
    sizes = [data.metadata.row_group(i).num_rows for i in range(data.num_row_groups)]
    assert sum(sizes) == len(planted) and max(sizes) <= GROUP == 100
    schema = data.schema_arrow
    assert str(schema.field("sheet").type) == "struct<bytes: binary, path: string>"
    told = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
    assert told["sheet"] == {"_type": "Image"} and list(told) == schema.names
    for row, known in zip(data.read().to_pylist(), planted.rows, strict=True):
        assert [row[n] for n in ("layer", "unit", "description")] == [
            known[n] for n in ("layer", "unit", "description")
        ]
        if not known["images"]:
            assert row["sheet"] is None
            continue
        sheet = Image.open(io.BytesIO(row["sheet"]["bytes"]))
        assert sheet.format == "JPEG" and sheet.size[0] == 5 * 116 - 4
        assert row["sheet"]["path"].endswith(".jpg") and SHOWN == 10


def test_a_sheet_shows_the_best_views_lit_where_the_mask_is(planted: milanx.Run) -> None:
    import numpy as np

    from milanx.share.sheets import DIM, Sheets

    row = next(row for row in planted.rows if len(row["images"]) >= 10)
    view = planted[row["layer"], row["unit"], row["sign"]].exemplars
    made = Sheets(planted.store).draw([row, row])
    assert made[0] == made[1] and made[0] is not None
    sheet = np.asarray(Image.open(io.BytesIO(made[0])), float)
    for place, (pixels, mask) in enumerate(zip(view.views[:10], view.masks, strict=False)):
        top, left = place // 5 * 116, place % 5 * 116
        tile = sheet[top : top + 112, left : left + 112]
        light = np.where(mask, 1.0, DIM)
        shown = (pixels.transpose(1, 2, 0) * light[..., None]).astype(np.uint8)
        want = np.asarray(
            Image.fromarray(shown).resize((112, 112), Image.Resampling.LANCZOS), float
        )
        assert np.abs(tile - want).mean() < 12  # of 255: jpeg, and smooth edges of masks


def test_the_card_of_a_run(hub: Hub, planted: milanx.Run) -> None:
    milanx.push(planted.root, NAME)
    files = hub.files(NAME, "dataset")
    _, head, body = files["README.md"].decode().split("---\n", 2)
    told = yaml.safe_load(head)
    assert told["license"] == "other" and told["library_name"] == "milanx"
    assert [c["config_name"] for c in told["configs"]] == ["default", "table"]
    for part in ("## Ten units", "## Measured", "## Procedure", "milanx describe", "## Limits",
                 "## Data and its terms", f"milanx show {NAME}"):  # fmt: skip
        assert part in body
    assert body.count('<img src="sheets/') == 10
    assert b"creativecommons.org" in files["CREDITS.md"]
    assert files["page/index.html"] == (planted.root / "page" / "index.html").read_bytes()


def test_a_run_of_ones_own_images_has_no_licence_unless_one_is_given(hub: Hub, own: Path) -> None:
    assert run("push", own, NAME)[0] == 0
    assert b"license: unknown" in hub.files(NAME, "dataset")["README.md"]
    code, _, err = run("push", own, "user/open", "--public", "--license", "cc-by-4.0")
    assert code == 0 and "of your images" in err
    assert b"license: cc-by-4.0" in hub.files("user/open", "dataset")["README.md"]


def test_datasets_loads_it(
    hub: Hub, own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the server, as anybody would; a process of its own reads the settings that it needs."""
    pytest.importorskip("datasets", reason="datasets is not installed (pip install datasets)")
    import subprocess
    import sys

    from tests.share.test_refusals import environment

    milanx.push(own, NAME)
    code = f"""
import datasets, json
shown = datasets.load_dataset("{NAME}", split="train")
table = datasets.load_dataset("{NAME}", "table", split="train")
print(json.dumps([len(shown), len(table), str(shown.features["sheet"]), shown[0]["sheet"].size[0],
                  shown[0]["description"], table[0]["candidates"][0]["text"], shown["unit"][:]]))
"""
    done = subprocess.run([sys.executable, "-c", code], env=environment(hub, tmp_path),
                          capture_output=True, text=True, timeout=300)  # fmt: skip
    assert done.returncode == 0, done.stderr
    count, again, kind, width, text, candidate, units = json.loads(done.stdout)
    rows = milanx.open_run(own).rows
    assert count == again == len(rows) and kind.startswith("Image(") and width == 576
    assert (text, candidate, units) == (rows[0]["description"], "a dog", [r["unit"] for r in rows])


def test_a_table_alone(hub: Hub, own: Path, tmp_path: Path) -> None:
    code, out, _ = run("push", own / "units.parquet", "user/table", "--json")
    assert code == 0 and json.loads(out)["files"] == 2
    assert set(hub.files("user/table", "dataset")) == {".gitattributes", "README.md",
                                                      "units.parquet"}  # fmt: skip
    pulled = milanx.pull("user/table", tmp_path / "table")
    assert pulled.kind == "a table"
    assert (pulled.root / "units.parquet").read_bytes() == (own / "units.parquet").read_bytes()
    assert milanx.pull("user/table", local_files_only=True).kind == "a table"
    assert milanx.push(pulled.root, "user/again").files == 2
    with pytest.raises(FormatError, match="is not a run"):
        milanx.open_run("user/table")
    milanx.push(own, NAME)
    with pytest.raises(InputError, match="it holds a run"):
        milanx.push(own / "units.parquet", NAME)


def test_runs_that_are_not_pushed(hub: Hub, own: Path) -> None:
    damaged = own / "exemplars" / "conv2" / "max.npy"
    content = damaged.read_bytes()
    damaged.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert "is damaged" in refused("push", own, NAME)
    damaged.unlink()
    damaged.symlink_to("/etc/hostname")
    assert "is a link" in refused("push", own, NAME)
    damaged.unlink()
    damaged.write_bytes(content)
    (own / "units.parquet").unlink()
    assert "holds no descriptions" in refused("push", own, NAME)
    assert not hub.log


def test_a_run_of_a_newer_format_and_one_that_is_damaged(hub: Hub, own: Path) -> None:
    files = {p.relative_to(own).as_posix(): p.read_bytes() for p in own.rglob("*") if p.is_file()}
    told = json.loads(files["run.json"])
    for name, content, said in (
        ("newer", {**told, "version": 99}, "has version 99"),
        ("other", {**told, "exemplars": "f" * 16}, "its seal is another's"),
        ("none", {"format": "x"}, "is no milanx-run"),
    ):
        hub.put(f"user/{name}", {**files, "run.json": json.dumps(content).encode()}, "dataset")
        with pytest.raises(FormatError, match=said) as caught:
            milanx.open_run(f"user/{name}")
        assert ".part" not in str(caught.value)
    parts = {n: c for n, c in files.items() if n != "run.json"}
    hub.put("user/parts", parts, "dataset")
    with pytest.raises(FormatError, match="is not a run"):
        milanx.open_run("user/parts")
    views = bytearray(files["views.parquet"])
    views[len(views) // 2] ^= 1
    hub.put("user/views", {**files, "views.parquet": bytes(views)}, "dataset")
    with pytest.raises(FormatError, match=r"views\.parquet(.|\n)*tell its owner"):
        milanx.open_run("user/views")
    lost = {n: c for n, c in files.items() if not n.endswith("mean.npy")}
    hub.put("user/lost", lost, "dataset")
    with pytest.raises(FormatError, match=r"mean\.npy does not exist"):
        milanx.open_run("user/lost")
