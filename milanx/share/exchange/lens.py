"""SemanticLens' cache: the images that excite each unit most, and its concept database.

``CACHE/ActivationComponentVisualizer/DATASET/MODEL/`` holds a file a layer,
``AGGREGATION-N-LAYER.safetensors``: ``activations`` float32 and ``sample_ids`` int64 [units, n],
-inf and -1 where there are fewer, and in its metadata ``aggregation_fn_name``, ``n_collect``,
``n_latents`` and ``layer_name``. ``concept_database/ENCODER/concept_db-....safetensors`` beside
them holds for each layer the embeddings of these images [units, n, d]. Layout: ``ActMax`` and
``ActMaxCache`` of ``component_visualization/activation_caching.py``, ``storage_dir`` of
``activation_based.py`` there and ``Lens.compute_concept_db`` of ``lens.py`` of
github.com/jim-berend/semanticlens (0.2.1).

The concept database is made with a describer's encoder: ``Lens`` finds it for a foundation model
of the name `ENCODER` whose texts that encoder embeds. Descriptions stand in the metadata, which
SemanticLens passes over.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from milanx.errors import InputError
from milanx.files import explained, reading
from milanx.files.digests import regular
from milanx.progress import Stage
from milanx.share.exchange.bundle import Bundle, Text, UnitKey, Units, missing
from milanx.share.exchange.place import read_marker

if TYPE_CHECKING:
    from milanx.describing.describer import Describer
    from milanx.runs import Run

ROOT, DATABASE = "ActivationComponentVisualizer", "concept_database"
AGGREGATION, ENCODER = "aggregate_conv_max", "milanx"
DESCRIPTIONS = "descriptions"  # in the metadata: a json list, a text a unit
VIEWS_AT_ONCE = 64
LONGEST = 240  # characters of a file's name; disks take 255
LEFT_OUT = ("views and masks: it holds numbers of images, activations and embeddings",
            "candidates other than the first, and all figures of texts",
            "scores and confidence")  # fmt: skip


def write_lens(
    run: Run, root: Path, bar: Stage, describer: Describer
) -> tuple[int, tuple[str, ...], dict[str, str]]:
    """Write the cache; returns the units, what is left out, and the files' layers."""
    from safetensors.numpy import save_file

    data = "+".join(str(s.get("name", "images")) for s in run.sources) or "images"
    folder = root / ROOT / _plain(data) / _plain(run.target)
    (folder / DATABASE / ENCODER).mkdir(parents=True)
    notes, names, count = list(LEFT_OUT), {}, 0
    embedded = _embedded(run, describer, bar)
    database: dict[str, np.ndarray] = {}
    texts = {(r["layer"], r["unit"], r["sign"]): r["description"] for r in run.rows}
    for name in run.store.layers:
        place = {u: row for row, (u, sign) in enumerate(run.store.units(name)) if sign == "+"}
        low = len(run.store.units(name)) - len(place)
        notes += [f"{name}: {low} units of the sign -: the cache knows none"] * bool(low)
        if not place:
            continue
        n, rows = max(place) + 1, [place[u] for u in sorted(place)]
        notes += [f"{name}: {n - len(place)} units that were not described stand empty"] * (
            n > len(place)
        )
        images, values = run.store.images(name)[rows], run.store.activations(name)[rows]
        k = images.shape[1]
        ids, activations = np.full((n, k), -1, np.int64), np.full((n, k), -np.inf, np.float32)
        ids[sorted(place)], activations[sorted(place)] = images, np.where(images < 0, -np.inf,
                                                                          values)  # fmt: skip
        said = [texts.get((name, unit, "+")) or "" for unit in range(n)]
        meta = {"aggregation_fn_name": AGGREGATION, "n_collect": str(k), "n_latents": str(n),
                "layer_name": name, DESCRIPTIONS: json.dumps(said, ensure_ascii=False),
                "units": json.dumps(sorted(place))}  # fmt: skip
        file = f"{AGGREGATION}-{k}-{_plain(name)}.safetensors"
        with explained(folder):
            save_file({"activations": activations, "sample_ids": ids}, folder / file, meta)
        database[name] = _database(ids, embedded)
        names[file], count = name, count + len(place)
    if not database:
        raise InputError("there is nothing to export", "the run's units are all of the sign -, "
                         "which this format does not know", "export it as jsonl")  # fmt: skip
    listed = f"concept_db-{AGGREGATION}-{k}-{list(database)!s}"
    if len(listed) > LONGEST or "/" in listed:
        listed = f"concept_db-{AGGREGATION}-{k}"
        notes.append("the name that SemanticLens gives the concept database, which is too long for "
                     f"a file: it is {listed}.safetensors")  # fmt: skip
    with explained(folder):
        save_file(database, folder / DATABASE / ENCODER / f"{listed}.safetensors")
    return count, tuple(notes), names


def _plain(name: str) -> str:
    """Return a name that a folder can bear."""
    return re.sub(r"[^\w.@+-]+", "-", name).strip(".")[:100] or "unknown"


def _embedded(run: Run, describer: Describer, bar: Stage) -> dict[int, np.ndarray]:
    """Return the embedding of every view, float32 [d] with a length of one."""
    import torch

    from milanx.features.encoder import encode_views

    found: dict[int, np.ndarray] = {}
    encoder, indices = describer.encoder, [int(i) for i in run.store.view_indices()]
    for start in range(0, len(indices), VIEWS_AT_ONCE):
        some = indices[start : start + VIEWS_AT_ONCE]
        dense = encode_views(encoder, run.store, some)
        means = np.stack([dense[i].astype(np.float32).mean((0, 1)) for i in some])
        with torch.no_grad():
            joint = encoder.joint(torch.from_numpy(means).to(encoder.device)).cpu().numpy()
        found.update(zip(some, joint.astype(np.float32), strict=True))
        bar.advance(len(some))
    return found


def _database(ids: np.ndarray, embedded: dict[int, np.ndarray]) -> np.ndarray:
    """Return the embeddings of a layer's exemplars, float32 [units, n, d]; zero for none."""
    width = len(next(iter(embedded.values()))) if embedded else 1
    made = np.zeros((*ids.shape, width), np.float32)
    for (unit, rank), image in np.ndenumerate(ids):
        if image >= 0:
            made[unit, rank] = embedded[int(image)]
    return made


def read_lens(path: Path) -> Bundle:
    """Read the files of the layers; the concept database says nothing that a run holds.

    Raises:
        InputError: there are none, or of several models.
        FormatError: a file is damaged.
    """
    if not path.is_dir():
        raise missing(path, "there is no such folder", "name SemanticLens' cache_dir")
    files = sorted(p for p in path.rglob("*.safetensors")
                   if DATABASE not in p.relative_to(path).parts and not p.is_symlink())  # fmt: skip
    if not files:
        raise missing(path, "it holds no .safetensors of layers", "name SemanticLens' cache_dir")
    folders = sorted({str(file.parent) for file in files})
    if len(folders) > 1:
        raise missing(path, f"it holds several models: {', '.join(folders[:3])}", "name one")
    layers: dict[str, Units] = {}
    texts: dict[UnitKey, Text] = {}
    for file in files:
        units, said = _read_layer(file)
        if units.layer in layers:
            raise missing(path, f"it holds the layer {units.layer} twice, with several n or "
                          "aggregations", "leave one of them there")  # fmt: skip
        layers[units.layer] = units
        texts |= said
    target = str(read_marker(path).get("target") or Path(folders[0]).name)
    return Bundle(target, tuple(layers.values()), texts,
                  notes=("the concept database: a run holds no embeddings",))  # fmt: skip


def _read_layer(file: Path) -> tuple[Units, dict[UnitKey, Text]]:
    """Read the file of a layer, and the descriptions where milanx wrote it."""
    from safetensors import safe_open

    regular(file)
    with reading(file), safe_open(file, "numpy") as opened:
        meta = opened.metadata() or {}
        ids, values = opened.get_tensor("sample_ids"), opened.get_tensor("activations")
        name = meta["layer_name"]
        if ids.ndim != 2 or ids.shape != values.shape or not ids.size or ids.dtype.kind != "i":
            raise ValueError(f"it holds {ids.dtype} {ids.shape} and {values.dtype} {values.shape}")
        said = json.loads(meta.get(DESCRIPTIONS, "[]"))
        chosen = json.loads(meta.get("units", "null"))
        chosen = list(range(len(ids))) if chosen is None else chosen
        if not set(chosen) <= set(range(len(ids))) or len(said) not in (0, len(ids)):
            raise ValueError(f"{len(said)} descriptions and {len(chosen)} units for {len(ids)}")
    values = np.where(ids < 0, np.nan, values).astype(np.float32)
    units = Units(name, tuple((int(unit), "+") for unit in chosen),
                  np.maximum(ids[chosen], -1).astype(np.int64), values[chosen])  # fmt: skip
    return units, {(name, int(unit), "+"): Text(str(said[unit])) for unit in chosen if said}
