"""How tests call the command line, and what a refusal looks like."""

from __future__ import annotations

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
