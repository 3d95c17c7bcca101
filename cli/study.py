"""`milanx study`: blinded reading of descriptions."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from milanx.cli import common as c

app = typer.Typer(help="Blinded reading: which of five sheets does a text belong to? Does it hold?",
                  no_args_is_help=True)  # fmt: skip
StudyFolder = Annotated[Path, typer.Option("--out", "-o", help="The study's folder.")]
ReadLayers = Annotated[
    list[str] | None, typer.Option("--layer", "-l", help="Layers of the run [all].")
]
Against = Annotated[
    list[Path] | None, typer.Option(help="Run of another method on the same exemplars.")
]
Drawn = Annotated[int, typer.Option(help="Of all that is drawn.", min=0, max=c.MOST_SEED)]


@app.command("make")
@c.explained
def make_study(
    run: Annotated[Path, typer.Argument(help="Run, a folder or OWNER/NAME, that is read.")],
    images: Annotated[
        list[str], typer.Option("--images", help="The run's probe images, as they were given.")
    ],
    out: StudyFolder,
    layer: ReadLayers = None,
    questions: Annotated[int, typer.Option(help="Of each kind and layer.", min=1)] = 50,
    against: Against = None,
    words: Annotated[
        int, typer.Option(help="Candidates shown of a run that is compared.", min=1)
    ] = 4,
    shared_sheets: Annotated[
        bool, typer.Option("--shared-sheets", help="One picture a question for all methods.")
    ] = False,
    limit: c.Limit = None,
    weights: c.Weights = None,
    device: c.Device = "auto",
    seed: Drawn = 0,
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


@app.command("rate")
@c.explained
def rate(
    run: Annotated[Path, typer.Argument(help="Run, a folder or OWNER/NAME, that is read.")],
    out: StudyFolder,
    layer: ReadLayers = None,
    units: Annotated[int, typer.Option(help="Of each layer.", min=1)] = 60,
    against: Against = None,
    seed: Drawn = 0,
    overwrite: c.Overwrite = False,
    quiet: c.Quiet = False,
    debug: c.Debug = False,
) -> None:
    """Write exemplars with one text each, to be called right, nearly, half or wrong.

    Give readers the pictures and ratings.json, never the folder key.
    """
    c.starting(quiet, False, f"milanx study rate {run}")
    from milanx.evaluate.p4.rating import RatingSettings, make_ratings
    from milanx.evaluate.p4.study import Material
    from milanx.runs import open_run

    others = tuple(open_run(other) for other in against or ())
    material = Material(open_run(run), tuple(layer or ()), others)
    count = make_ratings(material, out, settings=RatingSettings(units, seed), overwrite=overwrite)
    c.say(f"{out / 'ratings.json'}: {count} entries")


@app.command("score")
@c.explained
def score(
    study: Annotated[Path, typer.Argument(help="Folder that `milanx study make` or `rate` wrote.")],
    choices: Annotated[
        list[Path], typer.Argument(help="Json files {question: letter}, or {entry: grade}.")
    ],
    as_json: c.Json = False,
    debug: c.Debug = False,
) -> None:
    """Open the key and score choices or ratings; a file a reader, several give their agreement."""
    from milanx.evaluate.p4.rated import is_rating, score_ratings
    from milanx.evaluate.p4.reading import score as score_choices

    report = (score_ratings if is_rating(study) else score_choices)(study, choices)
    if as_json:
        c.print_json(report)
        return
    from milanx.report.terminal import print_report

    print_report(report)
