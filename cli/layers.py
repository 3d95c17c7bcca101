"""`milanx layers`: what of a model can be described."""

from __future__ import annotations

from typing import Annotated

import typer
from milanx.cli import common as c


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
    from milanx.errors import MissingWeights
    from milanx.targets.layers import discover
    from milanx.targets.zoo import load_target

    try:
        target = load_target(model, weights=weights, random_weights=random_weights)
    except MissingWeights:
        target = load_target(model, random_weights=True)
        if not quiet:
            c.say("its weights are not here; layers are listed with random ones", err=True)
    found = discover(target)
    if as_json:
        c.print_json([info.to_dict() | {"refused": info.refused} for info in found])
        return
    from milanx.report.terminal import print_layers

    print_layers(target.name, found)
