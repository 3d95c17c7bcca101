"""The target of a run, loaded again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from milanx.errors import MilanxError

if TYPE_CHECKING:
    from milanx.runs import Run


def open_target(run: Run, model: Any = None, weights: str | None = None) -> tuple[Any, str]:
    """Load the target of a run again.

    Args:
        run: the run.
        model: the module, for a target that has no name.
        weights: its checkpoint, for one that was given.

    Returns:
        The target and "", or None and why it cannot be had.
    """
    from milanx.targets.zoo import load_target

    known = run.settings["target"]
    try:
        target = load_target(
            run.target if model is None else model,
            weights=Path(weights) if weights else None,
            random_weights=bool(known.get("random")),
        )
    except MilanxError as error:
        return None, f"the target cannot be loaded: {error.what}"
    if target.fingerprint != known.get("fingerprint"):
        return (
            None,
            f"{run.target} is not the model of the run: its weights or preprocessing differ",
        )
    return target, ""
