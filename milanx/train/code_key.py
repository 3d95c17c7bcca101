"""What the code that makes a result is known by, so that a cache forgets what older code made.

The key of a module stands for its own source and for that of every module of milanx it imports,
directly or not: what they compute and the constants they compute with. Comments, docstrings and
what an error says change no result and are left out.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

import milanx
from milanx.files import fingerprint

ROOT = Path(milanx.__file__).parent
# What these hold changes no result, or stands in keys by its value: settings, weights, photos.
APART = frozenset({
    "errors", "files", "progress", "environment", "targets", "exemplars", "train.recipe",
    "train.recipe_data", "train.code_key", "train.engine.checkpoint", "train.engine.track",
})  # fmt: skip


def code_key(module: str, root: Path = ROOT) -> str:
    """Return 16 hex digits that stand for the code of a module and of all that it imports.

    Args:
        module: its dotted name.
        root: the folder of the package that it is a part of.
    """
    waiting, found = [module.removeprefix(f"{root.name}.")], dict[str, str]()
    while waiting:
        name = waiting.pop()
        path = root.joinpath(*name.split("."))
        path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        parents = {".".join(name.split(".")[:i]) for i in range(1, name.count(".") + 2)}
        if name not in found and not parents & APART and path.is_file():
            found[name], imported = _read(path, root.name)
            waiting += imported
    return fingerprint(sorted(found.items()))


@functools.cache
def _read(path: Path, package: str) -> tuple[str, tuple[str, ...]]:
    """Return what of a file's code counts, and what it imports of its package."""
    tree = _Bare().visit(ast.parse(path.read_text(encoding="utf-8")))
    return ast.unparse(tree), tuple(imports(tree, package))


def imports(tree: ast.Module, package: str) -> Iterator[str]:
    """Yield the names below ``package`` that a module imports, wherever it does."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and f"{node.module}.".startswith(f"{package}."):
            base = f"{node.module}.".removeprefix(f"{package}.")
            yield base.rstrip(".")
            yield from (base + alias.name for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name.removeprefix(f"{package}.") for alias in node.names
                        if alias.name.startswith(f"{package}."))  # fmt: skip


class _Bare(ast.NodeTransformer):
    """Leaves out what changes no result: docstrings, errors' words, imports for types alone."""

    def visit_Expr(self, node: ast.Expr) -> ast.AST:
        """Leave out strings that stand alone; `pass` keeps a body whole."""
        return ast.Pass() if isinstance(node.value, ast.Constant) else node

    def visit_Raise(self, node: ast.Raise) -> ast.AST:
        """Leave out what an error says."""
        return ast.Raise()

    def visit_If(self, node: ast.If) -> ast.AST:
        """Leave out what is for types alone."""
        name = getattr(node.test, "id", getattr(node.test, "attr", ""))
        return ast.Pass() if name == "TYPE_CHECKING" else self.generic_visit(node)
