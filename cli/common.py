"""What the commands share: options, errors in three lines, a terminal that shows progress."""

from __future__ import annotations

import errno
import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ParamSpec, TypeVar

import click
import typer

from milanx.errors import InputError, Interrupted, MilanxError, one_line, plain

if TYPE_CHECKING:
    from milanx.progress import Reporter

MOST_SEED = 2**63 - 1  # of torch's generators
P = ParamSpec("P")
R = TypeVar("R")

_LAYER = typer.Option(
    "--layer", "-l", help="Layer, pattern ('blocks.*') or address ('blocks.6:0-63')."
)
RunFolder = Annotated[
    Path, typer.Argument(metavar="RUN", help="Run folder, or OWNER/NAME on the Hub.")
]
AnyRun = Annotated[
    Path | None,
    typer.Argument(metavar="RUN", help="Run folder, or OWNER/NAME on the Hub [the newest run]."),
]
RulesFile = Annotated[
    Path | None, typer.Option(help="yaml that extends the shipped rules (docs/audit.md).")
]
MinConfidence = Annotated[float | None, typer.Option(help="Least confidence of a unit, 0 to 1.")]
Recipe = Annotated[str, typer.Argument(help="A recipe's name or file.")]
Overrides = Annotated[
    list[str] | None, typer.Argument(help="Settings over the recipe's: decoder.steps=500")
]
Into = Annotated[Path | None, typer.Option(help="Page of Markdown whose tables are written anew.")]
Sort = Annotated[str, typer.Option(help="Of units: sure, score or number.")]
DescribedBy = Annotated[
    str, typer.Option("--describer", help="builtin, a folder, or OWNER/NAME on the Hub.")
]
Layers = Annotated[list[str], _LAYER]
LayersOrDefault = Annotated[list[str] | None, _LAYER]
Images = Annotated[
    list[str],
    typer.Option(
        "--images",
        help="Folder, .parquet file, .tar shards, hf:NAME:SPLIT, torchvision:NAME?root=DIR "
        "or builtin:probe; may be repeated.",
    ),
]
Units = Annotated[str | None, typer.Option(help="Units of every layer, such as 0-63 or 3,17.")]
Limit = Annotated[int | None, typer.Option(help="At most this many images.", min=1)]
Out = Annotated[
    Path | None, typer.Option("--out", "-o", help="Run folder [milanx-runs/MODEL/NAME].")
]
TARGET = (
    "Target, by name: timm's or the literature's, hf:FOLDER, hf:owner/name, torchvision:NAME, "
    "clip:NAME/TAG, package.module:function."
)
Weights = Annotated[Path | None, typer.Option(help="Checkpoint, .safetensors or .pth.")]
RandomWeights = Annotated[bool, typer.Option("--random-weights", help="Random weights.")]
Read = Annotated[str, typer.Option(help="auto: after the own nonlinearity; raw: before it.")]
Sae = Annotated[
    Path | None,
    typer.Option(help="Folder of a sparse autoencoder: its latents are the units."),
]
Directions = Annotated[
    Path | None,
    typer.Option(help="Directions, .safetensors: the projections on them are the units."),
]
Sign = Annotated[
    list[str], typer.Option("--sign", help="+ or - (images of the lowest values); repeatable.")
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]
Dtype = Annotated[str, typer.Option(help="Of the target: float32, bfloat16 or float16.")]
K = Annotated[int, typer.Option("-k", help="Exemplars a unit.")]
Quantile = Annotated[float, typer.Option(help="Above which a mask lies.")]
BatchSize = Annotated[int | None, typer.Option("--batch-size", "-b", help="Images a step.")]
Seed = Annotated[int, typer.Option(help="Of the split into exemplars and kept aside.")]
Workers = Annotated[int, typer.Option("--workers", "-j", help="Decoding threads.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what milanx wrote there.")]
Json = Annotated[bool, typer.Option("--json", help="One json document on stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no notes.")]
Debug = Annotated[bool, typer.Option("--debug", help="Traceback of an error.")]


def explained(command: Callable[P, R]) -> Callable[P, R]:
    """Print a `MilanxError` in three lines and exit with its code; traceback with --debug."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            check_seed(kwargs.get("seed"))
            return command(*args, **kwargs)
        except MilanxError as error:
            if kwargs.get("debug") or os.environ.get("MILANX_DEBUG"):
                raise
            _tell(error)
            raise typer.Exit(error.exit_code) from error
        except KeyboardInterrupt as error:
            typer.echo("stopped; run the same command again to go on", err=True)
            raise typer.Exit(Interrupted.exit_code) from error
        except BrokenPipeError:  # whoever read has gone: no fault
            raise
        except (typer.Exit, typer.Abort, click.ClickException):
            raise
        except Exception as error:
            if kwargs.get("debug") or os.environ.get("MILANX_DEBUG"):
                raise
            _tell(_unforeseen(error))
            raise typer.Exit(MilanxError.exit_code) from error

    return run


def check_seed(seed: object) -> None:
    """Refuse a seed from which no generator draws, whichever command is given it."""
    if isinstance(seed, int) and not 0 <= seed <= MOST_SEED:
        raise InputError(f"the seed cannot be {seed}", f"it is a whole number, 0 to {MOST_SEED}",
                         "--seed 0")  # fmt: skip


def _tell(error: MilanxError) -> None:
    """Print an error in its three lines."""
    lines = {"error": error.what, "  why": error.why or "see above",
             "   do": "; or ".join(error.ways_out) or "milanx --help"}  # fmt: skip
    for name, text in lines.items():
        say(f"{name}: {one_line(text)}", err=True)


def _unforeseen(error: Exception) -> MilanxError:
    """Put a fault that nobody foresaw into the three lines of the others."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
    if isinstance(error, MemoryError):
        return MilanxError("there is not enough memory", said, "ask for less at a time")
    named = getattr(error, "filename", None)
    if isinstance(error, OSError) and named:
        return InputError(f"{named} cannot be used", error.strerror or said, "look at that file")
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return InputError("there is no room for what is written", error.strerror or said,
                          "free some space, or write and print elsewhere")  # fmt: skip
    return MilanxError(
        said, "milanx did not foresee this: a fault of its own, or of what it was given",
        "--debug shows where; please report it",
    )  # fmt: skip


def reporter(quiet: bool, as_json: bool = False) -> Reporter:
    """Return what shows progress on stderr; nothing when quiet or for json."""
    from milanx.progress import Silent

    if quiet or as_json:
        return Silent()
    from milanx.report.terminal import TerminalReporter

    return TerminalReporter()


def whole_numbers(text: str, option: str) -> list[int]:
    """Read whole numbers with commas, such as ``1,3,5``."""
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as error:
        raise InputError(
            f"{option} {text!r}", "it takes whole numbers with commas", f"{option} 1,3,5"
        ) from error


def hush() -> None:
    """Keep the libraries' own progress bars and advice off the terminal."""
    import warnings

    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    warnings.filterwarnings("ignore", category=FutureWarning)


def print_json(value: Any) -> None:
    """Write one json document to stdout; numbers that are not finite are null."""
    from milanx.files.jsons import json_text

    text = json_text(value, indent=2, default=str)
    sys.stdout.write(plain(text, json=True) + "\n")


def say(text: str, err: bool = False) -> None:
    """Write a line, with what a terminal would obey as text."""
    typer.echo(plain(text), err=err)


def starting(quiet: bool, as_json: bool, text: str) -> None:
    """Say that work begins, before the heavy imports."""
    hush()
    if not quiet and not as_json:
        say(text, err=True)


def load_describer(way: str, spec: str, device: str, /, **changes: Any) -> Any:
    """Load the describer of a way with search settings changed by the options that were given."""
    from milanx.describing import ways
    from milanx.environment import pick_device

    given = {name: value for name, value in changes.items() if value is not None}
    describer: Any = ways.load_describer(way, spec, pick_device(device))
    if way == ways.MILAN:
        return describer.searching(**given)
    describer.settings = describer.search_defaults(**given)
    return describer
