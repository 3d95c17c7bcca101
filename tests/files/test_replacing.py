"""Nothing that is not milanx's is deleted: real folders, by every command that writes."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from milanx.cli import app
from typer.testing import CliRunner

import milanx.assets
import milanx.exemplars.job as passes
from milanx.describing.describer import Description
from milanx.errors import InputError, Interrupted
from milanx.evaluate.p4 import study as p4
from milanx.exemplars.store import ExemplarStore
from milanx.files import atomic_path
from milanx.files.kinds import DESCRIBER, KINDS, RUN, SIMULATOR, STUDY
from milanx.files.replacing import beside, check_content, check_place, format_of, lasting_name
from milanx.pipeline import extract
from milanx.report.page import write_page
from milanx.runs import open_run, write_units
from milanx.train.engine.track import check_tracker, open_tracker
from tests.helpers import noise, write_parquet

TINY = "tests.helpers:tiny"
ASSETS = Path(milanx.assets.__path__[0])
FOLDERS = ["describe", "exemplars", "train", "simulator", "p2", "kin", "study"]
runner = CliRunner()


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_parquet(tmp_path_factory.mktemp("photos") / "p.parquet", noise(40))


@pytest.fixture(scope="module")
def made(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with descriptions, a page and a report."""
    out = tmp_path_factory.mktemp("runs") / "run"
    store = extract(TINY, layers=["conv2"], images=photos, out=out)
    units = store.units("conv2")
    write_units(out, [Description("conv2", u, s, "described", f"thing {u}", 0.0, 0.0, 0.0)
                      for u, s in units], store)  # fmt: skip
    write_page(open_run(out))
    report(out / "evaluation-p1.json")
    return out


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "a-run"))


def report(path: Path) -> None:
    path.write_text(json.dumps({"format": "milanx evaluation", "version": 1, "rows": {}}))


def thesis(folder: Path) -> Path:
    """A user's folder, with names that milanx also uses."""
    for name in ("thesis.tex", ".git/HEAD", ".git/objects/ab/cd", "exemplars/figure.png",
                 "page/index.html", "log.txt", "README.md", "run.json", "describer.json",
                 "key/key.json", "evaluation-of-my-work.json", "units.parquet",
                 ".extract/plan.txt", ".notes"):  # fmt: skip
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{name} took three years")
    return folder


def content(folder: Path) -> dict[str, object]:
    """All that lies in a folder: bytes of files, targets of links, folders."""
    return {
        str(p.relative_to(folder)):
        os.readlink(p) if p.is_symlink() else p.read_bytes() if p.is_file() else "folder"
        for p in [*folder.rglob("*")]
    }  # fmt: skip


def command(name: str, out: Path | str, photos: Path, run: Path) -> list[str]:
    images = ["--images", str(photos)]
    return [str(a) for a in {
        "describe": ["describe", TINY, "-l", "bn1:0-1", *images, "-o", out],
        "exemplars": ["exemplars", TINY, "-l", "bn1:0-1", *images, "-o", out],
        "train": ["train", "smoke", f"data.root={photos.parent}", "-o", out],
        "simulator": ["train", "simulator", f"data.root={photos.parent}", "-o", out],
        "p2": ["evaluate", out, "--protocol", "p2", *images],
        "kin": ["evaluate", out, "--protocol", "kin", *images],
        "study": ["study", "make", run, *images, "-o", out],
    }[name]]  # fmt: skip


def refused(*arguments: object) -> str:
    """Run a command that must end with 2 and three lines; returns them."""
    result = runner.invoke(app, [str(a) for a in arguments])
    assert result.exit_code == 2, (result.output, result.exception)
    lines = result.stderr.splitlines()[-3:]
    assert [line.split(":")[0].strip() for line in lines] == ["error", "why", "do"], lines
    return " ".join(lines)


@pytest.mark.parametrize("name", FOLDERS)
@pytest.mark.parametrize("told", [[], ["--overwrite"]])
def test_what_is_no_folder_of_milanxs_survives(
    name: str, told: list[str], photos: Path, made: Path, tmp_path: Path
) -> None:
    mine = thesis(tmp_path / "mine")
    (tmp_path / "link").symlink_to(mine)
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    before = content(tmp_path)
    for out, said in (
        (mine, "holds '"), (tmp_path / "link", "is a link"), (tmp_path / "dangling", "is a link"),
        (mine / "thesis.tex", "is a file"), (mine / "thesis.tex" / "x", "is no folder"),
        (mine / ".git", "holds '"),
    ):  # fmt: skip
        assert said in refused(*command(name, out, photos, made), *told)
        assert content(tmp_path) == before, out


@pytest.mark.parametrize("name", FOLDERS)
def test_the_folder_one_is_in_home_and_the_root_are_not_used(
    name: str, photos: Path, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside, home = tmp_path / "work" / "inside", tmp_path / "people" / "me"
    inside.mkdir(parents=True)
    home.mkdir(parents=True)
    monkeypatch.setenv("PYTHONPATH", str(Path.cwd()))
    monkeypatch.chdir(inside)
    monkeypatch.setenv("HOME", str(home))
    before = content(tmp_path)
    for out in (".", "..", "/", inside, home, home.parent, inside / "x" / ".."):
        said = refused(*command(name, out, photos, made), "--overwrite")
        assert "or one above it" in said
    assert content(tmp_path) == before


def other(name: str, folder: Path, run: Path) -> Path:
    """A folder of the kind that a command writes."""
    kinds = {"train": ASSETS / "mini", "simulator": ASSETS / "simulator"}
    if name == "study":
        for part in ("key", "pictures"):
            (folder / part).mkdir(parents=True)
        facts = {"format": p4.KEY, "version": 1}
        (folder / "key" / "key.json").write_text(json.dumps(facts))
        (folder / "pictures" / "a.jpg").write_bytes(b"a picture")
        return folder
    return Path(shutil.copytree(kinds.get(name, run), folder))


@pytest.mark.parametrize("name", FOLDERS)
@pytest.mark.parametrize("foreign", ["notes.txt", ".git", "exemplars/notes.txt", "a-link",
                                     "evaluation-mine.json", "drafts"])  # fmt: skip
def test_one_foreign_entry_keeps_a_folder(
    name: str, foreign: str, photos: Path, made: Path, tmp_path: Path
) -> None:
    out = other(name, tmp_path / "out", made)
    path = out / foreign
    path.parent.mkdir(exist_ok=True)
    if foreign == "a-link":
        path.symlink_to(made)
    elif "." in foreign[1:]:
        path.write_text("{}")
    else:
        path.mkdir()
    before, elsewhere = content(tmp_path), content(made)
    said = refused(*command(name, out, photos, made), "--overwrite")
    named = foreign if name not in ("train", "simulator") else foreign.split("/")[0]
    assert f"holds '{named}'" in said
    assert content(tmp_path) == before
    assert content(made) == elsewhere


@pytest.mark.parametrize("name", ["train", "simulator", "p2", "kin", "study"])
def test_another_of_the_kind_is_kept_unless_told(
    name: str, photos: Path, made: Path, tmp_path: Path
) -> None:
    out = other(name, tmp_path / "out", made)
    before = content(out)
    assert "--overwrite replaces it" in refused(*command(name, out, photos, made))
    assert content(out) == before


@pytest.mark.parametrize("name", FOLDERS)
def test_no_way_through_a_link_to_what_would_be_replaced(
    name: str, photos: Path, made: Path, tmp_path: Path
) -> None:
    other(name, tmp_path / "disk" / "out", made)
    (tmp_path / "linked").symlink_to(tmp_path / "disk")
    before = content(tmp_path)
    out = tmp_path / "linked" / "out"
    said = refused(*command(name, out, photos, made), "--overwrite")
    assert f"goes through the link {tmp_path / 'linked'}" in said
    assert content(tmp_path) == before


def test_overwrite_replaces_a_run_and_leaves_nothing_else(
    run: Path, photos: Path, tmp_path: Path
) -> None:
    check_content(run, RUN)
    arguments = command("exemplars", run, photos, run)
    assert "holds another run" in refused(*arguments)
    assert runner.invoke(app, [*arguments, "--overwrite"]).exit_code == 0
    assert ExemplarStore.open(run).layers == ["bn1"]
    assert not (run / "units.parquet").exists() and not (run / "page").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["a-run"]


def test_overwrite_replaces_a_study(made: Path, photos: Path, tmp_path: Path) -> None:
    arguments = [*command("study", tmp_path / "study", photos, made), "--questions", "2"]
    assert runner.invoke(app, arguments).exit_code == 0
    check_content(tmp_path / "study", STUDY)
    (tmp_path / "study" / "pictures" / "of-before.jpg").write_bytes(b"")
    assert "is there already" in refused(*arguments)
    done = runner.invoke(app, [*arguments, "--overwrite"])
    assert done.exit_code == 0, done.output
    assert not (tmp_path / "study" / "pictures" / "of-before.jpg").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["study"]


def test_describing_anew_removes_the_reports_of_before_and_no_other_file(
    photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    assert runner.invoke(app, command("exemplars", out, photos, out)).exit_code == 0
    report(out / "evaluation-p1.json")
    (out / "evaluation-mine.json").write_text('{"format": "my own"}')
    (out / "notes.txt").write_text("mine")
    assert "evaluation-mine.json" in refused(*command("describe", out, photos, out))
    (out / "evaluation-mine.json").rename(out / "my-evaluation.json")
    done = runner.invoke(app, command("describe", out, photos, out))
    assert done.exit_code == 0, (done.output, done.exception)
    assert not (out / "evaluation-p1.json").exists()
    assert (out / "my-evaluation.json").read_text() == '{"format": "my own"}'
    assert (out / "notes.txt").read_text() == "mine"
    assert len(open_run(out)) == 2


def test_a_foreign_file_in_the_place_of_a_part_is_kept(
    run: Path, photos: Path, tmp_path: Path
) -> None:
    describe = command("describe", run, photos, run)
    for name, *writing in (
        ("page/index.html", ["page", run], describe),
        ("evaluation-p1.json", ["evaluate", run], describe),
        ("units.parquet", describe),
        ("run.json", describe),
    ):
        kept = (run / name).read_bytes()
        (run / name).write_text("<p>mine</p>")
        for arguments in writing:
            assert "not overwritten" in refused(*arguments)
        assert (run / name).read_text() == "<p>mine</p>"
        (run / name).write_bytes(kept)
    www = thesis(tmp_path / "www")
    before = content(www)
    shutil.rmtree(run / "page")
    (run / "page").symlink_to(www / "page")
    assert "is a link" in refused("page", run)
    refused(*command("describe", run, photos, run))
    assert content(www) == before


def test_exemplars_without_their_index_are_not_replaced(run: Path, photos: Path) -> None:
    (run / "exemplars" / "index.json").unlink()
    (run / "exemplars" / "conv2" / "notes.txt").write_text("mine")
    before = content(run)
    assert "exemplars is there already" in refused(*command("exemplars", run, photos, run))
    assert content(run) == before
    assert "notes.txt" in refused(*command("exemplars", run, photos, run), "--overwrite")
    (run / "exemplars" / "conv2" / "notes.txt").unlink()
    done = runner.invoke(app, [*command("exemplars", run, photos, run), "--overwrite"])
    assert done.exit_code == 0, done.output


def stop(out: Path, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave an unfinished run."""

    def stopping(self: passes.Pass, *args: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(passes.Pass, "take", stopping)
        extract(TINY, layers=["bn1"], images=photos, out=out)
    assert (out / ".extract" / "pass.json").is_file()


@pytest.mark.parametrize("told", [[], ["--overwrite"]])
def test_what_a_kill_left_is_gone_on_with_or_replaced(
    told: list[str], photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    stop(out, photos, monkeypatch)
    for name in (".views.parquet.0123abcd.tmp", ".extract/.tmpAb3xY9",
                 ".extract/exemplars/bn1/.tmpAb3xY9"):  # fmt: skip
        (out / name).write_bytes(b"half")
    with atomic_path(out / ".extract" / "state-0.safetensors") as temporary:
        temporary.write_bytes(b"half")  # a checkpoint that no other settings may read
    done = runner.invoke(app, [*command("exemplars", out, photos, out), *told, "-k", "3"])
    assert done.exit_code == 0, (done.output, done.exception)
    assert ExemplarStore.open(out).layers == ["bn1"]
    assert not (out / ".extract").exists()


def test_a_folder_that_was_only_begun_is_used(photos: Path, tmp_path: Path) -> None:
    for number, told in enumerate(([], ["--overwrite"])):
        out = tmp_path / str(number)
        begun = beside(out / ".extract", "tmp")
        begun.mkdir(parents=True)
        (begun / ".pass.json.0123abcd.tmp").write_text('{"form')
        done = runner.invoke(app, [*command("exemplars", out, photos, out), *told])
        assert done.exit_code == 0, (done.output, done.exception)


def test_notes_in_the_work_folder_keep_it(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    stop(out, photos, monkeypatch)
    (out / ".extract" / "notes.txt").write_text("mine")
    before = content(out)
    for told in ([], ["--overwrite"]):
        assert "notes.txt" in refused(*command("exemplars", out, photos, out), *told)
        assert content(out) == before


def test_protocols_that_would_lose_one_anothers_run(run: Path, photos: Path) -> None:
    before = content(run)
    for protocols in ("p1,p2", "p3,kin", "p2,kin"):
        said = refused("evaluate", run, "--protocol", protocols, "--images", photos, "--overwrite")
        assert "cannot share" in said
    assert content(run) == before


@pytest.mark.parametrize("told", [[], ["--overwrite"]])
def test_recipes_cp_replaces_recipes_alone(told: list[str], tmp_path: Path) -> None:
    mine = thesis(tmp_path / "mine")
    (mine / "smoke.yaml").write_text("title: my thesis\n")
    (mine / "figure.yaml").write_bytes(np.arange(256, dtype=np.uint8).tobytes())
    (mine / "link.yaml").symlink_to(mine / "thesis.tex")
    before = content(tmp_path)
    for target in (mine, mine / "smoke.yaml", mine / "figure.yaml", mine / "thesis.tex",
                   mine / "link.yaml", mine / "thesis.tex" / "x.yaml"):  # fmt: skip
        refused("recipes", "cp", "smoke", target, *told)
        assert content(tmp_path) == before, target


def test_figures_of_a_training_replace_no_other_lines(tmp_path: Path) -> None:
    logs = tmp_path / "describer-logs"
    tracker = open_tracker("jsonl", logs, "decoder")
    tracker.log({"loss": 1.0}, 3)
    tracker.finish()
    with (logs / "decoder.jsonl").open("a") as file:
        file.write('{"st')  # as a kill leaves it
    check_tracker("jsonl", logs)
    (logs / "base.jsonl").write_text('{"text": "mine"}\n')
    with pytest.raises(InputError, match="would lose lines"):
        check_tracker("jsonl", logs)
    (tmp_path / "link").symlink_to(logs)
    with pytest.raises(InputError, match="is no folder"):
        check_tracker("jsonl", tmp_path / "link")


def test_atomic_path_replaces_no_folder_or_link_by_itself(tmp_path: Path) -> None:
    mine = thesis(tmp_path / "mine")
    (tmp_path / "link").symlink_to(mine / "thesis.tex")
    before = content(tmp_path)
    for path in (mine, tmp_path / "link"):
        with pytest.raises(InputError), atomic_path(path) as temporary:
            temporary.mkdir()
    with pytest.raises(InputError, match="a folder has that name"), atomic_path(mine) as temporary:
        temporary.write_text("x")
    with pytest.raises(InputError), atomic_path(mine, RUN) as temporary:
        temporary.mkdir()
    assert content(tmp_path) == before
    (tmp_path / "empty").mkdir()
    with atomic_path(tmp_path / "empty") as temporary:
        temporary.mkdir()
        (temporary / "a").touch()
    assert [p.name for p in (tmp_path / "empty").iterdir()] == ["a"]


def test_formats_are_those_that_are_written(made: Path) -> None:
    check_content(ASSETS / "mini", DESCRIBER)
    check_content(ASSETS / "simulator", SIMULATOR)
    for path in made.rglob("*.*"):
        part = RUN.part(str(path.relative_to(made)))
        assert path.is_dir() or part is not None, path
        if part and RUN.parts[part]:
            assert format_of(path) == RUN.parts[part]
    for kind in KINDS:
        assert all(kind.parts[marker] for marker in kind.markers)


def test_names_of_temporaries_are_read_back(tmp_path: Path) -> None:
    for name in ("run", ".extract", "a.b.tmp", "bn1"):
        assert lasting_name(beside(tmp_path / name, "tmp").name) == name
        assert lasting_name(beside(tmp_path / name, "old").name) == name
        assert lasting_name(name) == name
    for name in (".thesis.tmp", ".thesis.0123abcd.txt", "thesis.0123abcd.tmp"):
        assert lasting_name(name) == name


def test_a_new_place_is_fine_behind_a_link_too(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "linked").symlink_to(tmp_path / "disk")
    for overwrite in (False, True):
        check_place(tmp_path / "linked" / "new", RUN, overwrite=overwrite)
        check_place(tmp_path / "a" / "b", RUN, overwrite=overwrite)
