"""`milanx recipes`: list, show, copy and check recipes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from milanx.cli import common as c

app = typer.Typer(help="List, show, copy and check recipes.", no_args_is_help=True)


@app.command("ls")
@c.explained
def ls(as_json: c.Json = False, debug: c.Debug = False) -> None:
    """List the recipes that ship with milanx."""
    import milanx.recipes

    from milanx.train.recipe import purpose

    paths = {path.stem: path for path in Path(milanx.recipes.__path__[0]).glob("*.yaml")}
    first = {name: purpose(paths[name].read_text(encoding="utf-8")) for name in sorted(paths)}
    if as_json:
        c.print_json([{"name": name, "purpose": line} for name, line in first.items()])
        return
    width = max(map(len, first), default=0)
    for name, line in first.items():
        typer.echo(f"{name:{width}}  {line}")


@app.command("show")
@c.explained
def show(name: c.Recipe, debug: c.Debug = False) -> None:
    """Print a recipe."""
    from milanx.train.recipe import recipe_path

    typer.echo(recipe_path(name).read_text(encoding="utf-8"), nl=False)


@app.command("cp")
@c.explained
def cp(
    name: c.Recipe,
    target: Annotated[Path, typer.Argument(help="The new file, or a folder for it.")],
    overwrite: c.Overwrite = False,
    debug: c.Debug = False,
) -> None:
    """Copy a recipe to change it."""
    from milanx.errors import InputError, MilanxError
    from milanx.files import write_text
    from milanx.train.recipe import load_recipe, recipe_path

    source = recipe_path(name)
    if target.is_dir():
        target = target / source.name
    if target.exists() and not overwrite:
        raise InputError(
            f"{target} is there already", "it would be lost", "--overwrite replaces it"
        )
    if target.exists():
        try:
            load_recipe(target)
        except MilanxError as error:
            raise InputError(
                f"{target} is not overwritten", "it is no recipe that milanx reads",
                "choose another name, or move it to another place",
            ) from error  # fmt: skip
    write_text(target, source.read_text(encoding="utf-8"))
    c.say(str(target))


@app.command("validate")
@c.explained
def validate(
    name: c.Recipe,
    overrides: c.Overrides = None,
    debug: c.Debug = False,
) -> None:
    """Check a recipe; all its errors at once."""
    from milanx.train.recipe import load_recipe, recipe_path

    load_recipe(recipe_path(name), overrides or [])
    c.say(f"{name} is fine")
