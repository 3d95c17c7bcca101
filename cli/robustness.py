"""`milanx robustness`: how models do on corrupted images and on cues in conflict."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from milanx.cli import common as c


@c.explained
def robustness(
    model: Annotated[
        list[str],
        typer.Argument(
            help="Targets, by name, or an edit.json, which brings its target as it was and edited; "
            "all are compared with the first."
        ),
    ],
    evaluation: Annotated[
        str,
        typer.Option("--eval", help="imagenet-c, cue-conflict, or a labelled folder or .parquet."),
    ] = "imagenet-c",
    images: Annotated[
        list[str] | None,
        typer.Option("--images", help="Clean images to corrupt: folder or .parquet; repeatable."),
    ] = None,
    eval_images: Annotated[
        Path | None,
        typer.Option(help="The released ImageNet-C (ROOT/fog/3/WNID), or the cue-conflict images."),
    ] = None,
    corruption: Annotated[
        list[str] | None, typer.Option(help="Of the fifteen; repeatable [all].")
    ] = None,
    severities: Annotated[str, typer.Option(help="Of 1 to 5, with commas.")] = "1,2,3,4,5",
    sample: Annotated[int | None, typer.Option(help="At most this many images.", min=1)] = None,
    frost: Annotated[
        Path | None, typer.Option(help="Folder of pictures of ice [milanx's own].")
    ] = None,
    classes: Annotated[
        Path | None, typer.Option(help="The models' classes, a name or WordNet id a line.")
    ] = None,
    device: c.Device = "auto",
    batch_size: c.BatchSize = None,
    seed: Annotated[int, typer.Option(help="Of sample, corruptions and intervals.")] = 0,
    workers: c.Workers = 2,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write a json file.")] = None,
    as_json: c.Json = False,
    quiet: c.Quiet = False,
    debug: c.Debug = False,
) -> None:
    """Errors on ImageNet-C, shape bias, or accuracy, of several models on the same pictures."""
    c.starting(quiet, as_json, f"milanx robustness {' '.join(model)} --eval {evaluation}")
    from milanx.act.robustness.evaluate import evaluate_robustness, kind_of
    from milanx.act.robustness.subjects import named_subjects
    from milanx.environment import pick_device

    kind, shown, released = kind_of(evaluation, images, eval_images)
    found = evaluate_robustness(
        named_subjects(model, pick_device(device)),
        shown,
        kind=kind,
        released=released,
        corruptions=corruption,
        severities=c.whole_numbers(severities, "--severities"),
        sample=sample,
        seed=seed,
        frost=frost,
        classes=classes,
        batch_size=batch_size,
        workers=workers,
        progress=c.reporter(quiet, as_json),
    )
    if out is not None:
        found.write(out)
    if as_json:
        c.print_json(found.to_dict())
        return
    from milanx.report.robustness import print_robustness

    print_robustness(found)
