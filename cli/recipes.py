"""`milanx recipes`: list, show, copy and check recipes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from milanx.cli import common as c

app = typer.Typer(help="List, show, copy and check recipes.", no_args_is_help=True)


@app.command("ls")
@c.explained
def ls() -> None:
    """List the recipes that ship with milanx."""
    import milanx.recipes

    for path in sorted(Path(milanx.recipes.__path__[0]).glob("*.yaml")):
        first = path.read_text(encoding="utf-8").splitlines()[0].lstrip("# ")
        typer.echo(f"{path.stem:12} {first}")


@app.command("show")
@c.explained
def show(name: str) -> None:
    """Print a recipe."""
    from milanx.train.recipe import recipe_path

    typer.echo(recipe_path(name).read_text(encoding="utf-8"), nl=False)


@app.command("cp")
@c.explained
def cp(
    name: str,
    target: Path,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file.")] = False,
) -> None:
    """Copy a recipe to change it."""
    from milanx.errors import InputError
    from milanx.files import write_text
    from milanx.train.recipe import recipe_path

    if target.exists() and not overwrite:
        raise InputError(
            f"{target} is there already", "it would be lost", "--overwrite replaces it"
        )
    write_text(target, recipe_path(name).read_text(encoding="utf-8"))


@app.command("validate")
@c.explained
def validate(
    name: str, overrides: Annotated[list[str] | None, typer.Argument(help="KEY=VALUE")] = None
) -> None:
    """Check a recipe; all its errors at once."""
    from milanx.train.recipe import load_recipe, recipe_path

    load_recipe(recipe_path(name), overrides or [])
    typer.echo(f"{name} is fine")
