"""`milanx layers`: what of a model can be described."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from milanx.cli import common as c

if TYPE_CHECKING:
    from milanx.targets import listed


@c.explained
def layers(
    model: Annotated[str, typer.Argument(help=c.TARGET)],
    weights: c.Weights = None,
    random_weights: c.RandomWeights = False,
    as_json: c.Json = False,
    quiet: c.Quiet = False,
    debug: c.Debug = False,
) -> None:
    """List every layer that can be described.

    Units are read after their own nonlinearity where they have one (after relu6, after gelu).
    Linear layers (residual streams such as a ViT's blocks.6, bottlenecks, logits) have no basis
    of their own: a better layer is named beside them, and --sign - describes their other side.
    In a ViT, blocks.N.mlp.fc1 are the neurons that MILAN describes. LAYER@class reads the class
    token, LAYER@head has one unit an attention head and LAYER@head3 what head 3 writes. What cannot
    be described stands below the table, with its reason. No weights are needed to list layers:
    random ones serve.
    """
    c.starting(quiet, as_json, f"milanx layers {model}")
    from milanx.report.terminal import print_layers
    from milanx.targets import listed

    known = None if weights else listed.kept(model)
    if known and (random_weights or (known.repository and listed.out_of_reach(known.repository))):
        rows, name = known.layers, model
    else:
        rows, name, known = _found(model, weights, random_weights)
    if not (random_weights or quiet) and known:
        c.say("its weights are not here; layers are listed with random ones", err=True)
    if as_json:
        c.print_json(rows)
        return
    print_layers(name, listed.Kept(rows).listed())


def _found(
    model: str, weights: Path | None, random_weights: bool
) -> tuple[list[dict[str, Any]], str, listed.Kept | None]:
    """Build a model and find its layers, which are kept where its weights are random.

    Returns:
        The layers, the model's name, and what stands in for a model whose weights are not here.
    """
    from milanx.errors import MissingWeights
    from milanx.targets import listed
    from milanx.targets.layers import discover
    from milanx.targets.zoo import load_target

    lacking = False
    try:
        target = load_target(model, weights=weights, random_weights=random_weights)
    except MissingWeights:
        target, lacking = load_target(model, random_weights=True), True
    rows = [info.to_dict() | {"refused": info.refused} for info in discover(target)]
    if target.random:
        listed.keep(model, rows, _repository(target.model) if lacking else "")
    return rows, target.name, listed.Kept(rows) if lacking else None


def _repository(model: Any) -> str:
    """Return the repository that timm fetches a model's weights from; "" for another library's."""
    return str((getattr(model, "pretrained_cfg", None) or {}).get("hf_hub_id") or "")
