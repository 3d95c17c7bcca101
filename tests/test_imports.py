"""Who may import whom, and that the light parts stay light."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
import tomllib
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import milanx

ROOT = Path(milanx.__file__).parent
TOP = ROOT.parent
PAGE = (TOP / "docs" / "architecture.md").read_text(encoding="utf-8")
# From the ground up; a folder imports from folders on floors below its own, and from its own files.
FLOORS = (
    ("errors", "files", "progress", "workers", "environment", "assets"),
    ("hub", "measures"),
    ("images",),
    ("targets",),
    ("exemplars",),
    ("features", "language"),
    ("describing",),
    ("scoring",),
    ("rows",),
    ("runs",),
    ("extraction",),
    ("pipeline",),
    ("recipes",),
    ("train", "evaluate", "act"),
    ("report", "bench"),
    ("share",),
    ("cli",),
)
# The rooms of the two large folders, likewise; files that stand in the folder itself come last.
ROOMS = {
    "train": (
        ("code_key",),
        ("data",),
        ("recipe_data",),
        ("recipe",),
        ("units", "engine"),
        ("stages",),
    ),
    "evaluate": (
        ("common",),
        ("p1", "p2", "p3", "p4"),
        ("p5", "weights", "methods"),
        ("confidence", "stability"),
        ("senses",),
    ),
}
# On the ground everyone stands beside one another, in this order.
GROUND = FLOORS[0]
PLACE = {name: number for number, names in enumerate(FLOORS) for name in names}


def module_of(path: Path) -> str:
    """Return the dotted name of a file below ``milanx``."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports(path: Path) -> list[tuple[int, str]]:
    """Return (line, module below ``milanx``) of every import; names that are modules count."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "milanx":
            base = (node.module or "").removeprefix("milanx").removeprefix(".")
            for alias in node.names:
                inner = f"{base}.{alias.name}".strip(".")
                place = ROOT.joinpath(*inner.split("."))
                is_module = place.is_dir() or place.with_suffix(".py").is_file()
                found.append((node.lineno, inner if is_module else base))
        elif isinstance(node, ast.Import):
            found += [(node.lineno, a.name.removeprefix("milanx."))
                      for a in node.names if a.name.startswith("milanx.")]  # fmt: skip
    return [(line, name) for line, name in found if name and not name.startswith("__")]


def modules() -> list[tuple[Path, str]]:
    """Return every file with its dotted name, the package's own two aside."""
    found = [(path, module_of(path)) for path in sorted(ROOT.rglob("*.py"))]
    return [(path, name) for path, name in found if not name.startswith("__")]


def face(room: str) -> str:
    """Return what a folder says of itself."""
    text = ROOT.joinpath(*room.split("."), "__init__.py").read_text()
    return ast.get_docstring(ast.parse(text)) or ""


def room_of(name: str) -> tuple[str, int]:
    """Return a module's folder, and its floor among the rooms of that folder."""
    folder, *rest = name.split(".")
    rooms = ROOMS.get(folder, ())
    first = rest[0] if rest else ""
    place = next((i for i, names in enumerate(rooms) if first in names), len(rooms))
    return f"{folder}.{first}" if place < len(rooms) else folder, place


def goes_down(own: str, name: str) -> bool:
    """Whether a module ``own`` may import a module ``name``."""
    a, b = own.split(".")[0], name.split(".")[0]
    if a == b:
        (room, place), (other, there) = room_of(own), room_of(name)
        return room == other or there < place
    if a in GROUND and b in GROUND:
        return GROUND.index(b) < GROUND.index(a)
    return PLACE[b] < PLACE[a]


def test_imports_go_down() -> None:
    wrong, seen = [], 0
    for path, own in modules():
        assert own.split(".")[0] in PLACE, f"{path} stands on no floor"
        for line, name in imports(path):
            seen += 1
            if not goes_down(own, name):
                wrong.append(f"{path.relative_to(ROOT)}:{line} imports {name} from above or beside")
    assert seen > 100
    assert not wrong, "\n".join(wrong)


def test_no_circle_of_files() -> None:
    """Files of one folder build on one another without a circle, whatever is imported late."""
    names = {name for _, name in modules()}
    graph = {own: {n for _, n in imports(path) if n in names - {own}} for path, own in modules()}
    for own, to in graph.items():
        graph[own] = {n for n in to if not own.startswith(f"{n}.")}  # a file may name its folder
    list(TopologicalSorter(graph).static_order())  # raises CycleError, which names it


def test_a_folder_names_the_files_that_others_import() -> None:
    wrong = []
    for path, own in modules():
        for line, name in imports(path):
            room = name.rpartition(".")[0]
            if not room or room_of(own)[0] == room_of(name)[0]:
                continue
            if f"``{name.rpartition('.')[2]}``" not in face(room):
                wrong.append(f"{path.relative_to(ROOT)}:{line}: {room} does not name {name}")
    assert not wrong, "\n".join(wrong)


def test_nothing_else_stands_at_the_top() -> None:
    files = {p.stem for p in ROOT.glob("*.py")} - {"__init__", "__main__"}
    assert files == {
        "extraction",
        "pipeline",
        "rows",
        "runs",
        "errors",
        "progress",
        "workers",
        "environment",
    }


def test_every_folder_is_in_the_wheel() -> None:
    project = tomllib.loads((ROOT.parent / "pyproject.toml").read_text())
    packages = project["tool"]["setuptools"]["packages"]
    folders = {f"milanx.{module_of(p)}" for p in ROOT.rglob("__init__.py") if p.parent != ROOT}
    assert set(packages) == {"milanx", "milanx.cli", "milanx.recipes", *folders}


def part_of_page(title: str) -> str:
    """Return what stands under a heading of the page that shows the house."""
    return PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def ticked(text: str) -> list[str]:
    """Return what stands in backticks."""
    return re.findall(r"`([^`]+)`", text)


def test_the_page_lists_every_folder_and_its_files() -> None:
    listed = {}
    for row in part_of_page("The folders").splitlines():
        cells = row.split("|")
        if ticked(cells[1] if len(cells) > 1 else ""):
            name = ticked(cells[1])[0]
            assert name not in listed, f"{name} stands twice"
            listed[name] = set(ticked(cells[4]))
    kinds = {"recipes/": "*.yaml"}
    folders = {
        f"{p.parent.relative_to(TOP).as_posix()}/": p.parent
        for top in ("milanx", "cli", "recipes")
        for p in (TOP / top).rglob("__init__.py")
    }
    assert listed == {
        name: {p.stem for p in folder.glob(kinds.get(name, "*.py")) if not p.stem.startswith("__")}
        for name, folder in folders.items()
    }  # fmt: skip


def test_the_page_has_these_floors_and_shows_each_of_them() -> None:
    there = {p.stem for p in (*ROOT.iterdir(), TOP / "cli", TOP / "recipes")}
    floors = [tuple(n for n in names if n in there) for names in FLOORS]
    lines = re.findall(r"^(\d+)\. (.*)$", part_of_page("Floors"), re.M)
    assert [tuple(ticked(line)) for _, line in lines] == [names for names in floors if names]
    assert [int(number) for number, _ in lines] == [*range(1, len(lines) + 1)]
    picture = PAGE.partition("```mermaid\n")[2].partition("```")[0]
    assert set(re.findall(r"(\w+)\[\1\]", picture)) - {"ground"} == {n for f in floors for n in f}


def test_what_the_page_points_to_is_there() -> None:
    code = "".join(
        p.read_text() for top in (ROOT, TOP / "cli", TOP / "tests") for p in top.rglob("*.py")
    )
    names = {p.name for p in ROOT.rglob("*.*")}
    paths, words = [], []
    for found in ticked(part_of_page("Where do I put ...?")):
        (paths if re.search(r"/|\.(py|html|toml)$", found) else words).append(found)
    lost = [p for p in paths if p not in names and not any((r / p).exists() for r in (TOP, ROOT))]
    own = r"(\w+)(?:\(\))?"  # a name of the code, as it is, or called
    asked = [match[1] for word in words if (match := re.fullmatch(own, word))]
    lost += [name for name in asked if name != "p7" and not re.search(rf"\b{name}\b", code)]
    assert len(paths) > 30
    assert len(asked) > 20
    assert not lost


def test_help_and_import_load_nothing_heavy() -> None:
    code = ("import sys, milanx, milanx.cli\n"
            "heavy = {'torch', 'transformers', 'timm', 'open_clip', 'pyarrow', 'numpy'}\n"
            "sys.exit(', '.join(heavy & set(sys.modules)) or 0)")  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_public_names_outlive_the_import_of_modules() -> None:
    code = "import milanx, milanx.pipeline, milanx.exemplars; milanx.extract.__call__"
    done = subprocess.run(
        [sys.executable, "-c", code + "; assert milanx.extract is milanx.pipeline.extract"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_public_names() -> None:
    assert milanx.__all__ == sorted(milanx.__all__)
    for name in milanx.__all__:
        assert getattr(milanx, name).__doc__, name
    assert {"describe", "extract", "open_run", "Describer", "Run", "MilanxError"} <= set(
        milanx.__all__
    )


def test_folders_give_their_public_names_and_stay_light() -> None:
    """Names that users look for are at the face of a folder, and cost nothing until then."""
    wanted = {
        "targets": {"Capture", "find_layers", "list_layers", "load_target"},
        "images": {"Preprocess", "open_images"},
        "exemplars": {"ExemplarStore"},
        "describing": {"Describer"},
    }
    code = "".join(f"import milanx.{folder}\n" for folder in wanted)
    code += "import sys; sys.exit(', '.join({'torch', 'timm', 'numpy'} & set(sys.modules)) or 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for folder, names in wanted.items():
        module = importlib.import_module(f"milanx.{folder}")
        assert names <= set(module.__all__)
        assert dir(module) == module.__all__ == sorted(module.__all__)
        for name in module.__all__:
            assert getattr(module, name).__doc__, name
        with pytest.raises(AttributeError, match="nothing"):
            module.__getattr__("nothing")
