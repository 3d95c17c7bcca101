"""Edited models on disk: plain weights where weights express the edit, and ``edit.json`` always.

A folder holds ``edit.json`` (format milanx-edit), and where the weights express it
``model.safetensors``, which loads with ``load_state_dict`` into the same model without milanx, and
``original.safetensors``, what the changed tensors were before. Neither the target nor its files are
ever changed.
"""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors.torch import load_file, save_file
from torch import nn

from milanx.act.ablate import Edit, layer_from, replacement
from milanx.act.places import Place, check_units
from milanx.act.reopen import find_target
from milanx.act.weights import Written
from milanx.errors import FormatError, InputError
from milanx.files import atomic_path, read_json, reading, write_json
from milanx.files.digests import FILES, Listing
from milanx.files.jsons import json_text
from milanx.files.kinds import EDIT as EDIT_FOLDER
from milanx.files.replacing import check_place
from milanx.targets.units import LayerInfo
from milanx.targets.zoo import Target

if TYPE_CHECKING:
    from milanx.act.reopen import find_target
from milanx.act.select import Chosen

FORMAT, VERSION = "milanx-edit", 1
EDIT, MODEL, ORIGINAL = "edit.json", "model.safetensors", "original.safetensors"


@dataclass(frozen=True)
class Why:
    """Where an edit comes from.

    Attributes:
        run: the run folder.
        selection: what was looked for, as json can write it.
        chosen: the units, with text, score and reason.
        command: that made it, or empty.
        report: figures that go with it.
    """

    run: str = ""
    selection: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    chosen: Sequence[Chosen] = ()
    command: str = ""
    report: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True)
class StoredEdit:
    """An ``edit.json``, read.

    Attributes:
        path: of the file.
        content: all of it.
        edits: what it does.
        infos: how the layers are read.
        listing: its weights, by which damage is told.
    """

    path: Path
    content: dict[str, Any]
    edits: tuple[Edit, ...]
    infos: dict[str, LayerInfo]
    listing: Listing

    @property
    def weights(self) -> Path | None:
        """The file of edited weights, or None where there is none."""
        name = self.content["weights"].get("file")
        return self.path.parent / name if name else None


def write_edit(
    folder: Path,
    target: Target,
    edits: Sequence[Edit],
    infos: Mapping[str, LayerInfo],
    why: Why | None = None,
    written: Written | None = None,
    *,
    overwrite: bool = False,
) -> Path:
    """Write an edit as a folder, whole or not at all.

    Args:
        folder: where.
        target: the model as it is.
        edits: what is done to it; resampling cannot be written.
        infos: how its layers are read.
        why: where it comes from.
        written: what `weights.write_weights` made of it.
        overwrite: replace the edit that is there; a folder that holds anything else is refused.

    Raises:
        InputError: a folder that holds something else or cannot be written, or an edit that needs
            other images.
    """
    if any(e.kind == "resample" for e in edits):
        raise InputError(
            "an edit that resamples is not written",
            "it needs the values of other images",
            "--mode zero, mean or scale",
        )
    check_place(folder, EDIT_FOLDER, overwrite=overwrite)
    with atomic_path(folder, EDIT_FOLDER) as temporary:
        temporary.mkdir()
        fill_edit(temporary, target, edits, infos, why, written)
    return folder / EDIT


def fill_edit(
    folder: Path,
    target: Target,
    edits: Sequence[Edit],
    infos: Mapping[str, LayerInfo],
    why: Why | None = None,
    written: Written | None = None,
) -> None:
    """Put the files of an edit into a folder that is being made; see `write_edit`."""
    stored: dict[str, Any] = {
        "file": None,
        "reason": "; ".join(written.ways) if written else "no weights were asked for",
    }
    if written is not None and written.state is not None:
        save_file(written.state, folder / MODEL, metadata={"format": "pt"})
        before = target.model.state_dict()
        kept = {k: before[k].detach().cpu().contiguous().clone() for k in written.changed}
        save_file(kept, folder / ORIGINAL, metadata={"format": "pt"})
        stored = {
            "file": MODEL,
            "changed": list(written.changed),
            "ways": list(written.ways),
            "largest_difference": written.gap,
            "images": written.images,
        }
    content: dict[str, Any] = {
        "target": target.to_dict(),
        "edits": [_edit(e, infos[e.layer], why) for e in edits],
        "why": _why(why or Why()),
        "weights": stored,
    }
    weights = [name for name in (MODEL, ORIGINAL) if (folder / name).exists()]
    content[FILES] = Listing.of(folder, weights).to_dict()
    write_json(folder / EDIT, FORMAT, VERSION, json.loads(json_text(content, default=str)))


def _edit(edit: Edit, info: LayerInfo, why: Why | None) -> dict[str, Any]:
    chosen = {(c.layer, c.unit): c for c in why.chosen} if why else {}
    units = []
    for i, unit in enumerate(edit.units):
        entry: dict[str, Any] = {"unit": unit}
        if edit.values:
            entry["value"] = edit.values[i]
        found = chosen.get((edit.layer, unit))
        if found is not None:
            entry |= {"text": found.text, "score": found.score, "why": found.why}
        units.append(entry)
    made = {
        "layer": edit.layer,
        "kind": edit.kind,
        "positions": edit.positions,
        "units": units,
        "read": info.to_dict(),
    }
    return made | ({"factor": edit.factor} if edit.kind == "scale" else {})


def _why(why: Why) -> dict[str, Any]:
    from milanx.environment import versions

    return {
        "run": why.run,
        "selection": dict(why.selection),
        "command": why.command,
        "report": dict(why.report),
        "versions": versions(),
    }


def read_edit(path: Path | str) -> StoredEdit:
    """Read an ``edit.json``, or the folder that holds it.

    Raises:
        InputError: there is none.
        FormatError: a damaged one, or a version that this milanx does not know.
    """
    path = Path(path)
    path = path / EDIT if path.is_dir() else path
    if not path.is_file():
        raise InputError(
            f"no edit at {path}", "there is no such file", "name what milanx prune --out wrote"
        )
    content = read_json(path, FORMAT, VERSION)
    listing = Listing.read(path.parent, content, path)
    try:
        edits, infos = [], {}
        for entry in content["edits"]:
            info = layer_from(entry["read"])
            infos[entry["layer"]] = info
            edits.append(
                Edit(
                    entry["layer"],
                    tuple(u["unit"] for u in entry["units"]),
                    entry["kind"],
                    entry["positions"],
                    tuple(u["value"] for u in entry["units"] if "value" in u),
                    entry.get("factor", 0.0),
                )
            )
        if not {"fingerprint", "name", "preprocess"} <= content["target"].keys():
            raise KeyError("target")
        content["weights"].get("file")
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise FormatError(
            f"{path} is damaged", f"what it says of {error} cannot be read"
        ) from error
    return StoredEdit(path, content, tuple(edits), infos, listing)


def load_edited(
    path: Path | str,
    model: nn.Module | None = None,
    *,
    weights: Path | str | None = None,
    device: str = "cpu",
) -> nn.Module:
    """Load a model with an edit in force, by hooks.

    Args:
        path: ``edit.json``, or its folder.
        model: the model that was edited, for one that its name alone does not give; it is copied.
        weights: its checkpoint, likewise.
        device: where it goes.

    Returns:
        The model in evaluation mode; whoever calls it gets the edited model's outputs.

    Raises:
        MilanxError: no such edit, a model that cannot be had, or weights that are not those that
            were edited.
    """
    stored = read_edit(path)
    known = stored.content["target"]
    target = find_target(
        known, model=copy.deepcopy(model), weights=weights, device=device, what=str(stored.path)
    )
    places = []
    for edit in stored.edits:
        where = check_units(stored.infos[edit.layer], edit.units, edit.positions)
        places.append(Place(target.model, where.info, replacement(edit, where)))

    def check(module: nn.Module, args: Any, output: Any) -> None:
        for place in places:
            place.check()

    target.model.register_forward_hook(check)
    return target.model


def undo(path: Path | str, out: Path | str | None = None) -> Path:
    """Write the original weights anew, from the edited ones and what was changed.

    Args:
        path: ``edit.json``, or its folder.
        out: the file; ``restored.safetensors`` beside it when None.

    Returns:
        The file.

    Raises:
        InputError: an edit without weights, or they are no longer there.
        FormatError: weights that were changed since.
    """
    stored = read_edit(path)
    edited = stored.weights
    if edited is None:
        raise InputError(
            f"{stored.path} changed no weights",
            "it acts by hooks alone, where it is loaded",
            "load the model without it",
        )
    original = edited.with_name(ORIGINAL)
    if not edited.is_file() or not original.is_file():
        raise InputError(
            f"{stored.path} cannot be undone",
            f"{edited.name} or {original.name} is no longer beside it",
        )
    for fault in stored.listing.faults():
        raise FormatError(fault.what, fault.why, "load the original weights instead")
    with reading(edited):
        state = {**load_file(edited), **load_file(original)}
    out = Path(out) if out else edited.with_name("restored.safetensors")
    with atomic_path(out) as temporary:
        save_file(state, temporary, metadata={"format": "pt"})
    return out
