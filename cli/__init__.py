"""The command line: one file a command, no logic: parse, call milanx, print."""

from __future__ import annotations

import io
import sys

import typer
from milanx.cli import (
    analyze,
    audit,
    bench,
    check,
    describe,
    edit,
    env,
    evaluate,
    exemplars,
    export,
    find,
    import_run,
    layers,
    page,
    prune,
    pull,
    push,
    recipes,
    robustness,
    shortcut,
    show,
    study,
    train,
)

from milanx.environment import calm_threads, keep_memory

app = typer.Typer(
    name="milanx",
    help="Say in plain words what the units of a vision model detect.",
    no_args_is_help=True,
    rich_markup_mode=None,  # of every command below: brackets in help are text, no markup
    pretty_exceptions_enable=False,
    epilog="Examples:  milanx describe  |  milanx layers vit_tiny_patch16_224  |  "
    "milanx describe resnet18 -l layer4 --images photos/  |  milanx find water  |  "
    "milanx prune --match text --dry-run",
)


@app.callback(invoke_without_command=True)
def main(
    version: bool = typer.Option(False, "--version", help="Print the version."),
) -> None:
    """Say in plain words what the units of a vision model detect."""
    for stream in (sys.stdout, sys.stderr):  # what a terminal has no characters for is written out
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    keep_memory()
    calm_threads()
    if version:
        from milanx import __version__

        typer.echo(__version__)
        raise typer.Exit


app.command("describe")(describe.describe)
app.command("exemplars")(exemplars.exemplars)
app.command("layers")(layers.layers)
app.command("show")(show.show)
app.command("find")(find.find)
app.command("page")(page.page)
app.command("check")(check.check)
app.command("prune")(prune.prune)
app.command("evaluate")(evaluate.evaluate)
app.command("analyze")(analyze.analyze)
app.command("audit")(audit.audit)
app.command("robustness")(robustness.robustness)
app.command("train")(train.train)
app.command("push")(push.push)
app.command("pull")(pull.pull)
app.command("export")(export.export)
app.command("import")(import_run.import_run)
app.command("env")(env.env)
app.add_typer(recipes.app, name="recipes")
app.add_typer(edit.app, name="edit")
app.add_typer(study.app, name="study")
app.add_typer(shortcut.app, name="shortcut")
app.add_typer(bench.app, name="bench")


def _tell_whole(group: typer.Typer) -> None:
    """Let the list of a group's commands tell the whole first line of each."""
    for command in group.registered_commands:
        command.short_help = (command.callback.__doc__ or "").partition("\n")[0]
    for below in group.registered_groups:
        if below.typer_instance is not None:
            below.short_help = str(below.typer_instance.info.help)
            _tell_whole(below.typer_instance)


_tell_whole(app)
