"""Who may import whom, and that the light parts stay light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import milanx

ROOT = Path(milanx.__file__).parent
# From the ground up; a file imports only from floors below its own.
FLOORS = [
    {"errors", "environment", "fetch", "files", "joining", "progress", "replacing", "splits"},
    {"zoo", "weights", "images", "scenes", "sources"},
    {"units", "stats", "masks"},
    {"discover", "capture"},
    {"exemplars", "passes", "extraction"},
    {"probes"},
    {"encode", "towers", "openclip", "language", "pixels"},
    {"critic", "prior", "response", "contrast", "compose"},
    {"decode"},
    {"incremental", "search_settings", "gather"},
    {"generate", "scoring"},
    {"search", "saved"},
    {"describer"},
    {"concepts"},
    {"runs"},
    {"pipeline", "bench", "bench_describing"},
    {"train", "evaluate", "act"},
    {"report"},
    {"share"},
    {"cli", "recipes", "assets"},
]
# Within a floor, who builds on whom.
ALLOWED = {
    ("files", "errors"), ("files", "replacing"), ("replacing", "errors"),
    ("environment", "errors"), ("environment", "files"),
    ("zoo", "weights"), ("images", "zoo"), ("images", "sources"), ("sources", "scenes"),
    ("capture", "discover"), ("passes", "exemplars"), ("extraction", "exemplars"),
    ("extraction", "passes"), ("concepts", "assets"), ("train", "recipes"),
    ("openclip", "encode"), ("openclip", "towers"), ("encode", "pixels"),
    ("openclip", "pixels"), ("describer", "assets"),
}  # fmt: skip
PLACE = {name: number for number, names in enumerate(FLOORS) for name in names}


def imports(path: Path) -> list[tuple[int, str]]:
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("milanx"):
            parts = node.module.split(".")
            names = [parts[1]] if len(parts) > 1 else [a.name for a in node.names]
            found += [(node.lineno, n) for n in names]
        elif isinstance(node, ast.Import):
            found += [(node.lineno, a.name.split(".")[1]) for a in node.names
                      if a.name.startswith("milanx.")]  # fmt: skip
    return found


def test_imports_go_down() -> None:
    wrong, seen = [], 0
    for path in sorted(ROOT.rglob("*.py")):
        own = path.relative_to(ROOT).parts[0].removesuffix(".py")
        if own in ("__init__", "__main__"):
            continue
        assert own in PLACE, f"{path} stands on no floor"
        for line, name in imports(path):
            seen += 1
            if name == own or name.startswith("__") or (own, name) in ALLOWED:
                continue
            if PLACE[name] >= PLACE[own]:
                wrong.append(f"{path.relative_to(ROOT)}:{line} imports {name} from above or beside")
    assert seen > 100
    assert not wrong, "\n".join(wrong)


def test_help_and_import_load_nothing_heavy() -> None:
    code = ("import sys, milanx, milanx.cli\n"
            "heavy = {'torch', 'transformers', 'timm', 'open_clip', 'pyarrow', 'numpy'}\n"
            "sys.exit(', '.join(heavy & set(sys.modules)) or 0)")  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_public_names_outlive_the_import_of_modules() -> None:
    code = "import milanx, milanx.pipeline, milanx.extraction; milanx.extract.__call__"
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
