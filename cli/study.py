"""`milanx study`: blinded reading of descriptions."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from milanx.cli import common as c

app = typer.Typer(help="Blinded reading: which of five sheets does a text belong to?",
                  no_args_is_help=True)  # fmt: skip


@app.command("make")
@c.explained
def make_study(
    run: Annotated[Path, typer.Argument(help="Run, a folder or OWNER/NAME, that is read.")],
    images: Annotated[
        list[str], typer.Option("--images", help="The run's probe images, as they were given.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The study's folder.")],
    layer: Annotated[
        list[str] | None, typer.Option("--layer", "-l", help="Layers of the run [all].")
    ] = None,
    questions: Annotated[int, typer.Option(help="Of each kind and layer.", min=1)] = 50,
    against: Annotated[
        list[Path] | None, typer.Option(help="Run of another method on the same exemplars.")
    ] = None,
    words: Annotated[
        int, typer.Option(help="Candidates shown of a run that is compared.", min=1)
    ] = 4,
    shared_sheets: Annotated[
        bool, typer.Option("--shared-sheets", help="One picture a question for all methods.")
    ] = False,
    limit: c.Limit = None,
    weights: c.Weights = None,
    device: c.Device = "auto",
    seed: c.Seed = 0,
    overwrite: c.Overwrite = False,
    quiet: c.Quiet = False,
    debug: c.Debug = False,
) -> None:
    """Write sheets of kept-aside images, question lists, and the key in a folder of its own.

    Give a reader the pictures and one part of one list, never the folder key.
    """
    c.starting(quiet, False, f"milanx study make {run}")
    from milanx.environment import pick_device
    from milanx.evaluate.p4.questions import StudySettings
    from milanx.evaluate.p4.study import Material, make
    from milanx.runs import open_run

    material = Material(
        open_run(run), tuple(layer or ()), tuple(open_run(other) for other in against or ()),
        tuple(images), limit, weights, pick_device(device),
    )  # fmt: skip
    settings = StudySettings(questions, seed=seed, words=words, shared_sheets=shared_sheets)
    counts = make(
        material, out, settings=settings, overwrite=overwrite, progress=c.reporter(quiet)
    )  # fmt: skip
    for name, count in counts.items():
        c.say(f"{out / f'questions-{name}.json'}: {count} questions")


@app.command("score")
@c.explained
def score(
    study: Annotated[Path, typer.Argument(help="Folder that `milanx study make` wrote.")],
    choices: Annotated[list[Path], typer.Argument(help="Json files {question: letter}.")],
    as_json: c.Json = False,
    debug: c.Debug = False,
) -> None:
    """Open the key and score choices; a second file on the same questions gives agreement."""
    from milanx.evaluate.p4 import reading

    report = reading.score(study, choices)
    if as_json:
        c.print_json(report)
        return
    from milanx.report.terminal import print_report

    print_report(report)
