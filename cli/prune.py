"""`milanx prune`: remove the units that words name, as many as help."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from milanx.cli import common as c

if TYPE_CHECKING:
    from milanx.act.pruned import PruneReport

Words = Annotated[list[str], typer.Option("--match", help="Whole word or phrase; repeatable.")]
Rules = Annotated[list[str], typer.Option("--rule", help="What a rule of milanx audit finds.")]
Like = Annotated[list[str], typer.Option("--like", help="A meaning, by sentence similarity.")]


@c.explained
def prune(
    run: Annotated[
        Path | None, typer.Argument(help="Folder or OWNER/NAME [the newest run].")
    ] = None,
    match: Words = [],  # noqa: B006 - typer copies it
    like: Like = [],  # noqa: B006
    unit: Annotated[list[str], typer.Option("--units", help="Address, LAYER:3,17.")] = [],  # noqa: B006
    rule: Rules = [],  # noqa: B006
    rules: c.RulesFile = None,
    exclude: Annotated[
        list[str], typer.Option("--exclude", help="Layer, pattern, address or word.")
    ] = [],  # noqa: B006
    regex: Annotated[bool, typer.Option("--regex", help="--match holds expressions.")] = False,
    within: Annotated[str, typer.Option("--in", help="description or candidates.")] = "description",
    threshold: Annotated[float, typer.Option(help="Similarity from which --like takes.")] = 0.5,
    min_score: Annotated[float | None, typer.Option(help="Least score of a unit.")] = None,
    min_confidence: c.MinConfidence = None,
    max_units: Annotated[int | None, typer.Option(min=1, help="At most so many.")] = None,
    mode: Annotated[str, typer.Option(help="zero, mean, resample or scale.")] = "zero",
    factor: Annotated[float, typer.Option(help="Of --mode scale.")] = 0.0,
    positions: Annotated[str, typer.Option(help="Of tokens: all, patches or class.")] = "all",
    order: Annotated[str, typer.Option(help="Units go by effect, score or match.")] = "effect",
    draws: Annotated[int, typer.Option(min=1, help="Random sets.")] = 20,
    images: Annotated[
        list[str], typer.Option("--images", help="Clean images, labelled or not [the run's].")
    ] = [],  # noqa: B006
    adversarial: Annotated[
        list[str], typer.Option("--adversarial", help="Images that the number is chosen on.")
    ] = [],  # noqa: B006
    evaluate: Annotated[
        list[str],
        typer.Option(
            "--eval", help="What the edit is for: imagenet-c, cue-conflict, a folder or .parquet."
        ),
    ] = [],  # noqa: B006
    eval_images: Annotated[
        Path | None,
        typer.Option(help="The released ImageNet-C (ROOT/fog/3/WNID), or the cue-conflict images."),
    ] = None,
    sample: Annotated[int, typer.Option(min=1, help="Photos of the table of corruptions.")] = 40,
    severities: Annotated[str, typer.Option(help="Of that table.")] = "1,2,3,4,5",
    classes: Annotated[Path | None, typer.Option(help="The model's classes, one a line.")] = None,
    limit: c.Limit = None,
    weights: c.Weights = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Folder of the edit [milanx-edits/MODEL/NAME]."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the units and stop.")] = False,
    device: c.Device = "auto",
    batch_size: c.BatchSize = None,
    seed: Annotated[int, typer.Option(help="Of split, random sets and intervals.")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an edit.")] = False,
    as_json: c.Json = False,
    quiet: c.Quiet = False,
    debug: c.Debug = False,
) -> None:
    """Remove the units that words name; the number is chosen on some photos, reported on others."""
    c.starting(quiet, as_json, "milanx prune")
    from milanx.act.prune import PruneSettings
    from milanx.act.prune import prune as run_prune
    from milanx.act.pruned import default_out
    from milanx.runs import newest_run, open_run

    opened = newest_run() if run is None else open_run(run)
    out = out or default_out(opened.target, [*match, *like, *rule, *unit])
    command = shlex.join(["milanx", *sys.argv[1:]])
    report = run_prune(
        opened,
        match=match, like=like, units=unit, rule=rule, rules=rules, exclude=exclude,
        regex=regex, within=within, threshold=threshold, min_score=min_score, max_units=max_units,
        min_confidence=min_confidence,
        images=images, adversarial=adversarial, evaluate=evaluate,
        eval_images=eval_images, classes=classes, limit=limit,
        settings=PruneSettings(
            kind=mode, factor=factor, positions=positions, order=order, draws=draws,
            batch_size=batch_size, sample=sample, seed=seed,
            severities=tuple(c.whole_numbers(severities, "--severities")),
        ),
        weights=weights, device=device, out=out, overwrite=overwrite,
        command=command, dry_run=dry_run,
        progress=c.reporter(quiet, as_json),
    )  # fmt: skip
    if as_json:
        c.print_json(report.to_dict())
    else:
        _print(report)
    if not dry_run:  # last: what was measured is told by now
        from milanx.report.edit_page import write_edit_page

        page = write_edit_page(report, opened, out, command)
        if not as_json:
            c.say(f"edit  {out}\npage  {page}")


def _print(report: PruneReport) -> None:
    from milanx.report.edits import print_choice, print_prune

    if report.count is None:
        print_choice(report)
        return
    print_prune(report)
    if report.robustness is not None:
        from milanx.report.robustness import print_robustness

        print_robustness(report.robustness)
