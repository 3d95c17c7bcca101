"""`milanx shortcut`: the paper's experiment of spurious text, with its controls."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from milanx.cli import common as c

app = typer.Typer(help="Names on images, and a test where they lie.", no_args_is_help=True)


@app.callback()
def main() -> None:
    """Names on images, and a test where they lie."""


@app.command("make")
@c.explained
def make(
    data: Annotated[
        Path, typer.Argument(help="A folder with a subfolder a class, or a .parquet with names.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write.")],
    test: Annotated[
        Path | None, typer.Option(help="Images of the same classes to test on [a part of DATA].")
    ] = None,
    share: Annotated[
        list[int], typer.Option("--share", help="Percent of each class with its name; repeatable.")
    ] = [10, 50],  # noqa: B006 - typer copies it
    side: Annotated[int, typer.Option(help="Of the images, in pixels.")] = 64,
    roam: Annotated[
        float, typer.Option(help="Names begin in the upper left corner (0) to anywhere (1).")
    ] = 0.0,
    colours: Annotated[int, typer.Option(help="Of letters: 1 to 6.")] = 1,
    seed: Annotated[int, typer.Option(help="Of splits, letters and lies.")] = 0,
    overwrite: c.Overwrite = False,
    as_json: c.Json = False,
    quiet: c.Quiet = False,
    debug: c.Debug = False,
) -> None:
    """Write class names on a share of the training images, and wrong ones on the test images.

    The same seed, images and version of Pillow give the same bytes.
    """
    c.starting(quiet, as_json, f"milanx shortcut make {data}")
    from milanx.act.shortcut.lettering import Style
    from milanx.act.shortcut.make import MakeSettings
    from milanx.act.shortcut.make import make as make_images

    made = make_images(
        data,
        out,
        test=test,
        settings=MakeSettings(tuple(share), seed, side, style=Style(roam=roam, colours=colours)),
        overwrite=overwrite,
        progress=c.reporter(quiet, as_json),
    )
    if as_json:
        c.print_json(made.settings)
        return
    counts = ", ".join(f"{n} {split}" for split, n in made.settings["counts"].items())
    c.say(f"{len(made.classes)} classes; {counts}; fingerprint {made.fingerprint}")
    c.say(f"milanx shortcut run {out}")


@app.command("run")
@c.explained
def run(
    folder: Annotated[Path, typer.Argument(help="What milanx shortcut make wrote.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder of results [FOLDER-results].")
    ] = None,
    share: Annotated[
        list[int] | None, typer.Option("--share", help="Which of its shares [all]; repeatable.")
    ] = None,
    seeds: Annotated[int, typer.Option(help="Networks of each share.", min=1)] = 10,
    first_seed: Annotated[int, typer.Option(help="Their first seed.", min=0)] = 0,
    match: Annotated[
        list[str] | None,
        typer.Option(help="Word that chooses a unit; repeatable [text, word, letter, ...]."),
    ] = None,
    within: Annotated[
        str, typer.Option("--in", help="Where words are looked for: description or candidates.")
    ] = "candidates",
    draws: Annotated[int, typer.Option(help="Random orders of units.", min=1)] = 20,
    epochs: Annotated[int, typer.Option(help="Of training.", min=1)] = 12,
    shift: Annotated[
        int, typer.Option(help="Pixels by which a batch is shifted at most in training.", min=0)
    ] = 0,
    describer: c.DescribedBy = "builtin",
    device: c.Device = "auto",
    as_json: c.Json = False,
    quiet: c.Quiet = False,
    debug: c.Debug = False,
) -> None:
    """Train small networks on them, describe, prune what is said to see text, and measure.

    Stopped, it goes on where it was; what is done already is not done again.
    """
    c.starting(quiet, as_json, f"milanx shortcut run {folder}")
    from milanx.act.shortcut.fit import FitSettings
    from milanx.act.shortcut.prune import MATCH
    from milanx.act.shortcut.run import RunSettings, results_folder
    from milanx.act.shortcut.run import run as run_experiment

    found = run_experiment(
        folder,
        out,
        settings=RunSettings(
            tuple(share or ()),
            seeds,
            first_seed,
            tuple(match or MATCH),
            within,
            draws,
            FitSettings(epochs, shift=shift),
            device,
        ),
        describer=describer,
        progress=c.reporter(quiet, as_json),
    )
    from milanx.report.shortcut import shortcut_table, write_shortcut

    written = write_shortcut(found, results_folder(folder, out))
    if as_json:
        c.print_json(found)
        return
    c.say(shortcut_table(found))
    c.say(f"{', '.join(map(str, written))}")
