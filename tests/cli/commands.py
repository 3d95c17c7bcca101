"""How tests call the command line, and what a refusal looks like."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from milanx.cli import app
from typer.testing import CliRunner

LIAR = "tests.act.liar:liar"


def run(*args: object) -> tuple[int, str, str]:
    """Run a command; returns its exit code, stdout and stderr."""
    done = CliRunner().invoke(app, [str(a) for a in args])
    return done.exit_code, done.stdout, done.stderr


def refused(*args: object) -> str:
    """Run a command that must fail; returns its three lines."""
    result = CliRunner().invoke(app, [str(a) for a in args])
    assert result.exit_code == 2, (result.output, result.exception)
    lines = [line for line in result.stderr.splitlines() if not line.startswith("milanx ")]
    assert [line.split(":")[0].strip() for line in lines[-3:]] == ["error", "why", "do"], lines
    assert sum(line.startswith("error:") for line in lines) == 1
    assert "Traceback" not in result.output
    return " ".join(lines[-3:])


def contents(*folders: Path) -> dict[str, bytes | None]:
    """Return every file below some folders with its bytes, and every folder with None."""
    return {str(p): p.read_bytes() if p.is_file() else None
            for folder in folders for p in sorted(folder.rglob("*"))}  # fmt: skip


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Let the system refuse to make any file larger than ``size`` bytes, as a full disk does.

    The refusal comes from the kernel in the middle of the write, whatever library writes.
    """
    resource = pytest.importorskip("resource", reason="this platform limits no file's size")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
