"""What a run folder was asked for, beside what is asked for now."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from milanx.errors import FormatError, InputError
from milanx.exemplars.request import Request, check_units
from milanx.exemplars.store import read_fingerprint
from milanx.files import read_json
from milanx.files.kinds import RUN
from milanx.targets.units import parse_units

# Names of run.json's settings on which exemplars hang, and how they are called.
CALLED = {"layers": "layers", "units": "units", "k": "exemplars a unit", "quantile": "quantile",
          "aside": "share kept aside", "seed": "seed", "signs": "signs", "limit": "limit of images",
          "read": "read", "sae": "autoencoder", "directions": "directions",
          "dtype": "dtype"}  # fmt: skip
# Those of which another value means other exemplars whatever target and images are.
CERTAIN = ("units", "k", "quantile", "aside", "seed", "signs")
WAYS = ["choose another --out", "--overwrite replaces it"]


def another_run(folder: Path, request: Request) -> InputError:
    """Return the refusal of a folder that holds what was found of another request."""
    told = differences(folder, request)
    return InputError(
        f"{folder} holds another run",
        ", ".join(told) or "its model, images or layers are not those asked for, or an older "
        "milanx found its exemplars", WAYS,
    )  # fmt: skip


def differences(
    folder: Path, request: Request, names: Collection[str] = tuple(CALLED)
) -> list[str]:
    """Say what was asked for there and is not asked for now.

    Args:
        folder: of a run.
        request: what is asked for.
        names: settings that are looked at.

    Returns:
        Empty where they agree, or nothing is known.
    """
    earlier, now = asked_there(folder), request.to_dict()
    return [
        f"{CALLED[name]} {_written(earlier.get(name))} there, {_written(now.get(name))} asked"
        for name in names
        if earlier and not _same(name, earlier.get(name), now.get(name))
    ]


def asked_there(folder: Path) -> dict[str, Any]:
    """Return the settings of a run folder's run.json; empty where there are none."""
    settings = _told(folder).get("settings")
    return settings if isinstance(settings, dict) else {}


def _told(folder: Path) -> dict[str, Any]:
    """Return what a run folder's run.json tells; empty where there is none."""
    try:
        return read_json(folder / "run.json", str(RUN.parts["run.json"]), 1)
    except FormatError:
        return {}


def check_same(folder: Path, request: Request) -> None:
    """Refuse at once, before anything is loaded, a folder that holds another run for certain.

    Raises:
        InputError: finished exemplars of the same layers, chosen otherwise; or units that these
            layers do not have.
    """
    earlier = asked_there(folder)
    if earlier.get("layers") != list(request.layers) or read_fingerprint(folder) is None:
        return
    if request.units is not None:
        for layer in _told(folder).get("layers") or ():
            check_units(parse_units(request.units), str(layer["name"]), int(layer["units"]))
    if told := differences(folder, request, CERTAIN):
        raise InputError(f"{folder} holds another run", ", ".join(told), WAYS)


def _same(name: str, there: Any, asked: Any) -> bool:
    if name == "units" and isinstance(there, str) and isinstance(asked, str):
        return set(parse_units(there)) == set(parse_units(asked))
    return bool(there == asked)


def _written(value: Any) -> str:
    if value is None:
        return "all"
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)
