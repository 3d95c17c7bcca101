"""The target that a run or an edit is about, loaded again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from milanx.errors import InputError, MilanxError
from milanx.images.preprocess import Preprocess
from milanx.targets.generator import Generator
from milanx.targets.zoo import Target, load_target

if TYPE_CHECKING:
    from torch import nn

    from milanx.runs import Run


def find_target(
    known: Mapping[str, Any],
    *,
    model: nn.Module | None = None,
    weights: Path | str | None = None,
    device: str = "cpu",
    what: str = "the run",
) -> Target:
    """Load the target that a run or an edit is about.

    Args:
        known: what `Target.to_dict` gives: ``name``, ``place`` where that is a path,
            ``fingerprint``, ``random`` and, unless it is the target's own, ``preprocess``.
        model: the model itself, where its name does not give it.
        weights: its checkpoint, likewise.
        device: where it goes.
        what: what is about it, in words.

    Raises:
        InputError: its weights are not those of then.
        MissingWeights: they cannot be had.
    """
    target = load_target(
        _spec(known) if model is None else model,
        weights=Path(weights) if weights else None,
        random_weights=bool(known.get("random")) and model is None,
        preprocess=_preprocess(known.get("preprocess")),
        device=device,
    )
    if model is None:
        target.name = known["name"]  # as it was asked for, whatever the path of it is now
    if target.fingerprint != known["fingerprint"]:
        raise InputError(
            f"the weights of {known['name']} are not those of {what}",
            f"fingerprint {target.fingerprint} ({target.weights}), then {known['fingerprint']} "
            f"({known.get('weights', 'unknown')})",
            ["give the checkpoint of then with --weights FILE", "describe the model anew"],
        )
    return target


def _spec(known: Mapping[str, Any]) -> str:
    """Return what loads a target: the folder where it lay, if it still does, else its name."""
    place = str(known.get("place") or "")
    return place if place and Path(place.partition(":")[2]).is_dir() else str(known["name"])


def _preprocess(known: Mapping[str, Any] | None) -> Preprocess | None:
    """Return the preprocessing that json holds; None for the target's own."""
    if known is None:
        return None
    height, width = known["size"]
    resize = known["resize"]
    return Preprocess(
        (height, width),
        tuple(resize) if isinstance(resize, list) else resize,
        known["interpolation"],
        tuple(known["mean"]),
        tuple(known["std"]),
        bool(known.get("rounds_down", False)),
    )


def open_target(
    run: Run, model: nn.Module | None = None, weights: str | None = None
) -> tuple[Target | None, str]:
    """Load the target of a run, for what can do without it.

    Args:
        run: the run.
        model: the module, for a target that has no name.
        weights: its checkpoint, for one that was given.

    Returns:
        The target and "", or None and why it cannot be had.
    """
    try:
        target = find_target(run.settings["target"], model=model, weights=weights)
        if isinstance(target.model, Generator):
            return None, "the target is a generator, which is shown no images"
        return target, ""
    except MilanxError as error:
        return None, f"the target cannot be loaded: {error.what}"
