"""Target + images + describer -> run."""

from __future__ import annotations

import contextlib
import fnmatch
import re
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from milanx.environment import pick_device, versions
from milanx.errors import FormatError, InputError, MilanxError
from milanx.files import fingerprint
from milanx.files.replacing import EVALUATION, RUN, check_place, discard, format_of
from milanx.progress import Reporter, Silent, Timed

if TYPE_CHECKING:
    from torch import nn

    from milanx.describing.describer import Describer
    from milanx.describing.ranker import SearchSettings
    from milanx.exemplars.job import ExtractSettings
    from milanx.exemplars.store import ExemplarStore
    from milanx.images.preprocess import Preprocess
    from milanx.images.probe import ProbeImages
    from milanx.runs import Run
    from milanx.targets.units import LayerInfo
    from milanx.targets.zoo import Target

DEFAULT_MODEL = "tf_efficientnet_lite0"
DEFAULT_LAYER = "blocks.5.3.bn1"
DEFAULT_IMAGES = "builtin:probe"
CONCEPT_WAYS = {"concepts": "softwpmi", "nearest": "nearest"}
METHODS = ("describer", *CONCEPT_WAYS)


@dataclass(frozen=True)
class Extracted:
    """What extraction made, and what it was made of."""

    target: Target
    layers: list[LayerInfo]
    images: ProbeImages
    store: ExemplarStore
    out: Path
    signs: tuple[str, ...]
    places: list[dict[str, str]]


def select_units(
    infos: Sequence[LayerInfo], layers: Sequence[str], units: str | None
) -> dict[str, list[int]]:
    """Return which units of each layer are asked for; a layer that is absent means all of them.

    Args:
        infos: the layers that the patterns in ``layers`` matched.
        layers: addresses, possibly with units (``blocks.6:0-63``).
        units: a range for every layer, such as ``0-63``, or None.

    Raises:
        InputError: a unit that a layer does not have.
    """
    from milanx.targets.units import parse_address, parse_units

    asked: dict[str, list[int]] = {}
    everywhere = list(parse_units(units)) if units else None
    for info in infos:
        wanted = everywhere
        for text in layers:
            address = parse_address(text)
            if address.units is not None and fnmatch.fnmatchcase(info.name, address.layer):
                wanted = [*(wanted or []), *address.units]
        if wanted is None:
            continue
        beyond = [u for u in wanted if not 0 <= u < info.units]
        if beyond:
            raise InputError(
                f"{info.name} has no unit {beyond[0]}",
                f"its units are 0 to {info.units - 1}",
                f"choose among them, for example --units 0-{min(63, info.units - 1)}",
            )
        asked[info.name] = sorted(set(wanted))
    return asked


def default_out(target: str, layers: Sequence[str], images: Sequence[str]) -> Path:
    """Return ``milanx-runs/MODEL/NAME``, a name made of the layers and the images."""
    name = "+".join([*layers, *(Path(i).stem if ":" not in i else i for i in images)])
    safe = re.sub(r"[^\w.+@-]+", "-", name)
    if len(safe) > 80:
        safe = f"{safe[:60]}-{fingerprint(name)[:8]}"
    return Path("milanx-runs") / re.sub(r"[^\w.@-]+", "-", target) / safe


def extract(
    model: str | nn.Module = DEFAULT_MODEL,
    *,
    layers: Sequence[str] = (DEFAULT_LAYER,),
    images: Sequence[str | Path] | str | Path = (DEFAULT_IMAGES,),
    units: str | None = None,
    limit: int | None = None,
    out: Path | str | None = None,
    weights: Path | str | None = None,
    random_weights: bool = False,
    preprocess: Preprocess | None = None,
    read: str = "auto",
    signs: Sequence[str] = ("+",),
    settings: ExtractSettings | None = None,
    device: str = "auto",
    dtype: str = "float32",
    overwrite: bool = False,
    progress: Reporter | None = None,
) -> ExemplarStore:
    """Find the exemplars of a target's units.

    Args:
        model: a timm name, an alias of the literature, ``package.module:function``, or a module.
        layers: names, shell patterns or addresses (``blocks.6:0-63``, ``blocks.6@class``).
        images: sources of probe images: folders, parquet files, ``builtin:probe``.
        units: a range of units for every layer, such as ``0-63``; all when None.
        limit: at most this many images.
        out: the run folder; ``milanx-runs/MODEL/NAME`` when None.
        weights: a checkpoint of the target's.
        random_weights: use random weights, for tests and controls.
        preprocess: for a module that brings none.
        read: ``auto`` reads units after their own nonlinearity, ``raw`` before it.
        signs: ``+``, ``-`` or both.
        settings: of the extraction; the defaults when None.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        dtype: ``float32``, ``bfloat16`` or ``float16``.
        overwrite: replace the run that is there; a folder that holds anything else is refused.
        progress: told about the stages.

    Returns:
        The store of exemplars in the run folder.

    Raises:
        MilanxError: a model, layer, image source or folder that cannot be used.
    """
    timed = Timed(progress or Silent())
    made = _extract(model, layers, images, units, limit, out, weights, random_weights, preprocess,
                    read, signs, settings, device, dtype, overwrite, timed)  # fmt: skip
    _write_run(made, timed, None)
    return made.store


def _extract(
    model: str | nn.Module, layers: Sequence[str], images: Sequence[str | Path] | str | Path,
    units: str | None, limit: int | None, out: Path | str | None, weights: Path | str | None,
    random_weights: bool, preprocess: Preprocess | None, read: str, signs: Sequence[str],
    settings: ExtractSettings | None, device: str, dtype: str, overwrite: bool, timed: Timed,
) -> Extracted:  # fmt: skip
    from dataclasses import replace

    import torch

    from milanx.exemplars.extract import estimate
    from milanx.exemplars.extract import extract as run_extraction
    from milanx.exemplars.job import ExtractSettings
    from milanx.images.probe import open_images
    from milanx.targets.capture import find_layers
    from milanx.targets.units import parse_address
    from milanx.targets.zoo import load_target

    where = pick_device(device)
    if out:
        check_place(Path(out), RUN, overwrite=overwrite, resumes=True)
    with timed.stage("load target", None):
        target = load_target(
            model,
            weights=Path(weights) if weights else None,
            random_weights=random_weights,
            preprocess=preprocess,
            device=where,
        )
        if dtype != "float32":
            target.model.to(getattr(torch, dtype))
        addresses = [parse_address(text) for text in layers]
        infos = find_layers(target, [a.layer for a in addresses], read=read)
    asked = select_units(infos, layers, units)
    signs = tuple(dict.fromkeys([*signs, *(a.sign for a in addresses if a.sign == "-")]))
    if any(a.sign == "-" for a in addresses) and all(a.sign == "-" for a in addresses):
        signs = ("-",)
    for info in infos:
        if info.inert:
            timed.say(f"warning: {info.name} is inert here: nothing of it reaches the output")
        if info.linear and signs == ("+",):
            better = f"; {info.better} reads clearer" if info.better else ""
            timed.say(
                f"note: {info.name} is linear: its units have a second side (--sign -){better}"
            )
    sources = [images] if isinstance(images, str | Path) else list(images)
    with timed.stage("open images", None):
        probe = open_images(sources, limit=limit)
    if probe.skipped:
        first = probe.skipped[0]
        timed.say(f"skipped {len(probe.skipped)} unreadable: {first.path} ({first.why}), ...")
    settings = replace(settings or ExtractSettings(), signs=tuple(signs))
    folder = Path(out) if out else default_out(target.name, [i.name for i in infos],
                                               [str(s) for s in sources])  # fmt: skip
    if overwrite:
        _remove_run(folder, where)
    timed.say(estimate(target, infos, probe, settings).text)
    with timed.stage("extract", len(probe)) as bar:
        store = run_extraction(
            target,
            infos,
            probe,
            folder,
            settings,
            units=asked,
            progress=bar.at,
            device=where,
        )
    places = [{} if ":" in str(s) and not Path(s).exists() else {"path": str(Path(s).resolve())}
              for s in sources]  # fmt: skip
    return Extracted(target, infos, probe, store, folder, settings.signs, places)


def _remove_run(folder: Path, device: str) -> None:
    """Remove a run folder, and nothing that is not one; of several processes the main one does."""
    from accelerate import PartialState

    process = PartialState(cpu=device == "cpu")
    if process.is_main_process:
        check_place(folder, RUN, overwrite=True)
        if folder.exists():
            discard(folder, RUN)
    process.wait_for_everyone()


def describe(
    model: str | nn.Module = DEFAULT_MODEL,
    *,
    layers: Sequence[str] = (DEFAULT_LAYER,),
    images: Sequence[str | Path] | str | Path = (DEFAULT_IMAGES,),
    units: str | None = None,
    limit: int | None = None,
    out: Path | str | None = None,
    describer: str | Path | Describer = "builtin",
    method: str = "describer",
    concepts: Path | str | None = None,
    weights: Path | str | None = None,
    random_weights: bool = False,
    preprocess: Preprocess | None = None,
    read: str = "auto",
    signs: Sequence[str] = ("+",),
    search: SearchSettings | None = None,
    settings: ExtractSettings | None = None,
    device: str = "auto",
    dtype: str = "float32",
    overwrite: bool = False,
    progress: Reporter | None = None,
) -> Run:
    """Describe the units of a target; see `extract` for what is not listed here.

    Args:
        model: the target.
        layers: which layers.
        images: probe images.
        units: which units.
        limit: at most this many images.
        out: the run folder.
        describer: ``builtin``, a describer's folder, or one that is loaded.
        method: ``describer``, or without its language models, over a list of concepts with its
            encoder (`milanx.describing.concepts`): ``concepts``, by softWPMI, or ``nearest``, the
            four words nearest to the exemplars.
        concepts: a file of concepts, one a line; the bundled list when None.
        weights: a checkpoint of the target's.
        random_weights: use random weights.
        preprocess: for a module that brings none.
        read: ``auto`` or ``raw``.
        signs: ``+``, ``-`` or both.
        search: how to search; the describer's own settings when None.
        settings: of the extraction.
        device: where to compute.
        dtype: of the target.
        overwrite: replace the run that is there; a folder that holds anything else is refused.
        progress: told about the stages.

    Returns:
        The run, opened.

    Raises:
        MilanxError: something given cannot be used.
    """
    from milanx.describing.concepts import ConceptSettings, describe_concepts, load_concepts
    from milanx.describing.describer import Describer
    from milanx.runs import open_run, write_units

    if method not in METHODS:
        raise InputError(f"no method {method!r}", f"there are {', '.join(METHODS)}")
    if out:
        check_place(Path(out), RUN, overwrite=overwrite, resumes=True)
    timed = Timed(progress or Silent())
    words = load_concepts(concepts) if method in CONCEPT_WAYS else ()
    with timed.stage("load describer", None):  # what is wrong with it is said before the long work
        loaded = describer if isinstance(describer, Describer) else Describer.load(
            describer, pick_device(device))  # fmt: skip
    made = _extract(model, layers, images, units, limit, out, weights, random_weights, preprocess,
                    read, signs, settings, device, dtype, overwrite, timed)  # fmt: skip
    how = search or loaded.settings
    facts = _describer_facts(loaded, how, method, words)
    if _is_described(made, facts):
        timed.say(f"described before with the same describer and settings: {made.out}")
        return open_run(made.out)
    if method in CONCEPT_WAYS:
        found = describe_concepts(
            made.store, loaded.encoder, words,
            settings=ConceptSettings(CONCEPT_WAYS[method]), progress=timed,
        )  # fmt: skip
    else:
        found = loaded.describe(made.store, settings=how, progress=timed)
    for report in made.out.glob("evaluation-*.json"):  # of other descriptions
        if format_of(report) == EVALUATION:
            report.unlink()
    write_units(made.out, found, made.store)
    _write_run(made, timed, facts)
    return open_run(made.out)


def _describer_facts(
    describer: Describer, search: SearchSettings, method: str, concepts: Sequence[str]
) -> dict[str, Any]:
    made: dict[str, Any] = {"method": method}
    if method in CONCEPT_WAYS:
        made["concepts"] = fingerprint(concepts)
    return made | {
        "name": describer.name,
        "fingerprint": describer.fingerprint,
        "search": asdict(search),
        "held_out_wnids": describer.training.get("held_out_wnids", []),
    }


def _is_described(made: Extracted, facts: dict[str, Any]) -> bool:
    """Whether the run's table was made of the same exemplars by the same describer."""
    from milanx.runs import open_run

    if not (made.out / "units.parquet").is_file():
        return False
    try:
        known = open_run(made.out).settings
    except MilanxError:
        return False
    return known.get("describer") == facts and known.get("exemplars") == made.store.fingerprint


def _write_run(made: Extracted, timed: Timed, facts: dict[str, Any] | None) -> None:
    """Write ``run.json`` and a line of the log; of several processes the main one does."""
    from accelerate import PartialState

    from milanx.runs import open_run, write_settings

    state = PartialState()  # made by the extraction
    if not state.is_main_process:
        return
    earlier: dict[str, Any] = {}
    with contextlib.suppress(FormatError, InputError):
        earlier = open_run(made.out).settings
    same = earlier.get("exemplars") == made.store.fingerprint
    described = facts if facts is not None else (earlier.get("describer") if same else None)
    images, target = made.images, made.target
    settings = {
        "target": {"name": target.name, "fingerprint": target.fingerprint,
                   "weights": target.weights, "random": target.random,
                   "preprocess": target.preprocess.to_dict()},
        "layers": [info.to_dict() for info in made.layers],
        "images": {"count": len(images), "fingerprint": images.fingerprint,
                   "skipped": [asdict(s) for s in images.skipped],
                   "sources": [{**asdict(s), **place} for s, place in
                               zip(images.sources, made.places, strict=True)]},
        "describer": described,
        "exemplars": made.store.fingerprint,
        "settings": {"signs": list(made.signs), "processes": state.num_processes},
        "versions": versions(),
        "seconds": {**(earlier.get("seconds", {}) if same else {}), **timed.seconds},
    }  # fmt: skip
    write_settings(made.out, settings)
    line = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in timed.seconds.items())
    with (made.out / "log.txt").open("a", encoding="utf-8") as log:
        log.write(f"{time.strftime('%Y-%m-%dT%H:%M:%S%z')} {line}\n")
