"""Target + images + describer -> run."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from milanx.environment import hushed, join_processes, pick_device
from milanx.errors import InputError, MilanxError
from milanx.extraction import (
    DEFAULT_IMAGES,
    DEFAULT_MODEL,
    OWN_METHOD,
    Extracted,
    Stages,
    check_request,
    find_exemplars,
    layers_of,
    path_of,
    several,
    write_run,
)
from milanx.files.kinds import EVALUATION
from milanx.files.replacing import format_of
from milanx.progress import Reporter, Silent, Timed

if TYPE_CHECKING:
    from torch import nn

    from milanx.describing.candidates import Description
    from milanx.describing.describer import Describer
    from milanx.describing.milan.describer import Milan
    from milanx.describing.settings import SearchSettings
    from milanx.describing.ways import Way
    from milanx.exemplars.inputs import Inputs
    from milanx.exemplars.request import ExtractSettings
    from milanx.exemplars.store import ExemplarStore
    from milanx.images.item import Source
    from milanx.images.preprocess import Preprocess
    from milanx.runs import Run
    from milanx.scoring.column import Scores, UnitKey
    from milanx.scoring.senses import Senses
    from milanx.scoring.simulator import Simulating

Images: TypeAlias = "Source | Iterable[Any] | str | Path"  # as `extract` says


def extract(
    model: str | nn.Module = DEFAULT_MODEL,
    *,
    layers: Sequence[str] | str | None = None,
    images: Images = (DEFAULT_IMAGES,),
    units: str | None = None,
    limit: int | None = None,
    out: Path | str | None = None,
    weights: Path | str | None = None,
    random_weights: bool = False,
    preprocess: Preprocess | None = None,
    read: str = "auto",
    sae: Path | str | None = None,
    directions: Path | str | None = None,
    signs: Sequence[str] | str = ("+",),
    settings: ExtractSettings | None = None,
    device: str = "auto",
    dtype: str = "float32",
    overwrite: bool = False,
    progress: Reporter | None = None,
) -> ExemplarStore:
    """Find the exemplars of a target's units.

    Args:
        model: a timm name, an alias of the literature, ``package.module:function``, or a module.
        layers: names, shell patterns or addresses (``blocks.6:0-63``, ``blocks.6@class``); None
            for the default model's late layer.
        images: sources of probe images: folders, parquet files, shards, ``hf:NAME:SPLIT``,
            ``torchvision:NAME?root=...``, ``builtin:probe``; or a sequence of pictures, alone or
            with their labels (`milanx.images.pictures`).
        units: a range of units for every layer, such as ``0-63``; all when None.
        limit: at most this many images.
        out: the run folder; ``milanx-runs/MODEL/LAYERS+IMAGES`` when None.
        weights: a checkpoint of the target's.
        random_weights: use random weights, for tests and controls.
        preprocess: for a module that brings none.
        read: ``auto`` reads units after their own nonlinearity, ``raw`` before it.
        sae: folder or file of a sparse autoencoder: its latents are the units (docs/units.md).
        directions: a safetensors file: the projections on its directions are the units.
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
    from milanx.exemplars.request import ExtractSettings, Request
    from milanx.images.sources import given_sources
    from milanx.targets.given import as_given

    request = Request(
        target=model, layers=layers_of(model, layers), images=given_sources(images), units=units,
        limit=limit, weights=path_of(weights), random_weights=random_weights, preprocess=preprocess,
        read=read, sae=path_of(sae), directions=path_of(directions), signs=several(signs),
        settings=settings or ExtractSettings(), device=device, dtype=dtype,
    )  # fmt: skip
    timed = Stages(progress or Silent())
    with as_given(model), contextlib.ExitStack() as alone:
        made = find_exemplars(request, path_of(out), overwrite, timed, alone)
        write_run(made, timed, None)
    return made.store


def check(
    model: str | nn.Module = DEFAULT_MODEL,
    *,
    layers: Sequence[str] | str | None = None,
    images: Images = (DEFAULT_IMAGES,),
    units: str | None = None,
    limit: int | None = None,
    out: Path | str | None = None,
    method: str = OWN_METHOD,
    concepts: Path | str | None = None,
    weights: Path | str | None = None,
    random_weights: bool = False,
    read: str = "auto",
    sae: Path | str | None = None,
    directions: Path | str | None = None,
    signs: Sequence[str] | str = ("+",),
    settings: ExtractSettings | None = None,
    device: str = "auto",
    dtype: str = "float32",
    score: bool = True,
    senses: int = 1,
    overwrite: bool = False,
) -> None:
    """Refuse what can be told to be in vain before anything is loaded; see `describe`.

    Raises:
        MilanxError: a model, weights or images that are not to be had, a folder that holds another
            run, a layer that is not named, a method that there is not.
    """
    from milanx.exemplars.request import ExtractSettings, Request
    from milanx.images.sources import given_sources

    request = Request(
        target=model, layers=layers_of(model, layers), images=given_sources(images), units=units,
        limit=limit, weights=path_of(weights), random_weights=random_weights, read=read,
        sae=path_of(sae), directions=path_of(directions), signs=several(signs),
        settings=settings or ExtractSettings(), device=device, dtype=dtype,
    )  # fmt: skip
    _checked_words(method, concepts, senses, score)
    check_request(request, path_of(out), overwrite, method)


def _checked_words(
    method: str, concepts: Path | str | None, senses: int, score: bool
) -> tuple[str, ...]:
    """Return the list that a method chooses from; refuse what cannot be asked of it.

    Raises:
        InputError: no such method or list, or senses that nothing can bear out.
    """
    from milanx.describing.senses import SenseSettings
    from milanx.describing.ways import words_of

    words = words_of(method, concepts)
    SenseSettings(senses)  # says what is wrong with it
    if senses > 1 and not score:
        raise InputError("no senses without scores", "images kept aside must bear them out",
                         "leave out --no-score, or --senses 1")  # fmt: skip
    return words


def describe(
    model: str | nn.Module = DEFAULT_MODEL,
    *,
    layers: Sequence[str] | str | None = None,
    images: Images = (DEFAULT_IMAGES,),
    units: str | None = None,
    limit: int | None = None,
    out: Path | str | None = None,
    describer: str | Path | Describer | Milan = "builtin",
    method: str = OWN_METHOD,
    concepts: Path | str | None = None,
    weights: Path | str | None = None,
    random_weights: bool = False,
    preprocess: Preprocess | None = None,
    read: str = "auto",
    sae: Path | str | None = None,
    directions: Path | str | None = None,
    signs: Sequence[str] | str = ("+",),
    search: SearchSettings | None = None,
    settings: ExtractSettings | None = None,
    device: str = "auto",
    dtype: str = "float32",
    score: bool = True,
    senses: int = 1,
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
        out: the run folder; ``milanx-runs/MODEL/LAYERS+IMAGES`` when None, and ``+METHOD`` of a
            method other than ``describer``.
        describer: ``builtin``, a describer's folder, its repository on the Hugging Face Hub, or
            one that is loaded.
        method: ``describer``; ``milan``, MILAN's own, whose folder ``describer`` names
            (`milanx.describing.milan`); or without language models, over a list of concepts with
            the describer's encoder (`milanx.describing.concepts`): ``concepts``, by softWPMI, or
            ``nearest``, the four words nearest to the exemplars; or by overlap with the regions
            that the images bring (`milanx.describing.dissect`): ``netdissect`` or ``compexp``.
        concepts: a file of concepts, one a line; the bundled list when None.
        weights: a checkpoint of the target's.
        random_weights: use random weights.
        preprocess: for a module that brings none.
        read: ``auto`` or ``raw``.
        sae: folder or file of a sparse autoencoder.
        directions: file of directions.
        signs: ``+``, ``-`` or both.
        search: how to search; the describer's own settings when None.
        settings: of the extraction.
        device: where to compute.
        dtype: of the target.
        score: measure for each description how well it foretells its unit on images kept aside
            (`milanx.scoring.column`); where it cannot be measured, the table says why.
        senses: that a unit may have, 1 to 3: beyond one where images kept aside bear all of them
            out (docs/senses.md).
        overwrite: replace the run that is there; a folder that holds anything else is refused.
        progress: told about the stages.

    Returns:
        The run, opened.

    Raises:
        MilanxError: something given cannot be used.
    """
    from milanx.describing.ways import Way, check_pair, load_describer
    from milanx.exemplars.request import ExtractSettings, Request
    from milanx.images.sources import given_sources
    from milanx.runs import open_run
    from milanx.targets.given import as_given

    request = Request(
        target=model, layers=layers_of(model, layers), images=given_sources(images), units=units,
        limit=limit, weights=path_of(weights), random_weights=random_weights, preprocess=preprocess,
        read=read, sae=path_of(sae), directions=path_of(directions), signs=several(signs),
        settings=settings or ExtractSettings(), device=device, dtype=dtype,
    )  # fmt: skip
    words = _checked_words(method, concepts, senses, score)
    check_request(request, path_of(out), overwrite, method)
    timed = Stages(progress or Silent())
    given = not isinstance(describer, str | Path)
    stage = contextlib.nullcontext() if given else timed.stage("load describer", None)
    with stage:  # what is wrong with it is said before the long work
        with hushed():
            loaded = describer if not isinstance(describer, str | Path) else load_describer(
                method, describer, pick_device(device))  # fmt: skip
        check_pair(method, loaded)
    way = Way(loaded, search or loaded.settings, method, words, senses)
    with as_given(model), contextlib.ExitStack() as alone:
        made = find_exemplars(request, path_of(out), overwrite, timed, alone, method)
        _describe(made, way, score, timed)
    return open_run(made.out)


def _describe(made: Extracted, way: Way, score: bool, timed: Timed) -> None:
    """Put exemplars into words and score them, unless that was done before in the same way.

    The table comes first and then ``run.json``, which tells it by its digest: what a kill between
    the two leaves is known to be nobody's, and described anew.
    """
    from milanx.runs import write_judged, write_units
    from milanx.scoring.column import NOT_ASKED, Scores

    process = join_processes()  # made by the extraction
    facts, judge = way.facts(), way.judge()
    known = _described(made, facts, timed)
    process.wait_for_everyone()
    if known is not None:
        timed.say(f"described before with the same describer and settings: {made.out}")
        before = known.settings.get("score") or {"reason": NOT_ASKED}
        scores = None
        if score and before.get("reason") == NOT_ASKED:
            scores = _score(made, {(u.layer, u.unit, u.sign): u.description for u in known}, timed)
        if scores is not None or known.settings.get("confidence") != judge.facts():
            if process.is_main_process:
                write_judged(known, scores.units if scores else None, judge)
            write_run(made, timed, facts, (scores.facts if scores else before, judge.facts()))
        return
    found = way.describe(made.store, made.inputs, timed, process)
    texts = {(d.layer, d.unit, d.sign): d.text for d in found}
    scores = _score(made, texts, timed) if score else Scores.none(texts, NOT_ASKED)
    senses = _senses(made, way, (found, scores.facts), timed)
    if process.is_main_process:
        for report in made.out.glob("evaluation-*.json"):  # of other descriptions
            if format_of(report) == EVALUATION:
                report.unlink()
        write_units(made.out, found, made.store, scores.units, judge, senses=senses.units,
                    told=False)  # fmt: skip
    write_run(made, timed, facts, ({**scores.facts, **senses.facts}, judge.facts()))
    process.wait_for_everyone()


def _score(made: Extracted, texts: dict[UnitKey, str], timed: Timed) -> Scores:
    """Score descriptions on the images kept aside."""
    from milanx.exemplars.extract import unreadable
    from milanx.scoring.column import score_texts

    inputs = made.inputs
    try:
        scores = score_texts(
            texts, made.store, inputs.images, inputs.target, simulator=_simulating(inputs),
            seed=inputs.request.settings.seed, progress=timed,
        )  # fmt: skip
    except OSError as error:
        raise unreadable(error) from error
    if "reason" in scores.facts:
        timed.say(f"no scores: {scores.facts['reason']}")
    return scores


def _simulating(inputs: Inputs) -> Simulating:
    """What scores descriptions, and where."""
    import torch

    from milanx.scoring.simulator import BUILTIN, Simulating, Where

    where = Where(
        torch.device(inputs.device), getattr(torch, inputs.request.dtype), join_processes()
    )
    return Simulating(BUILTIN, where)


def _senses(
    made: Extracted, way: Way, told: tuple[list[Description], dict[str, Any]], timed: Timed
) -> Senses:
    """Look for units of several senses, given all descriptions and what is told of their scores."""
    from milanx.describing.describer import Describer
    from milanx.describing.senses import SenseSettings, propose_senses
    from milanx.describing.settings import SearchSettings
    from milanx.features.encoded import encoded_views
    from milanx.scoring.column import opened
    from milanx.scoring.senses import Senses, keep_senses

    found, scored = told
    if way.senses == 1:
        return Senses({}, {})
    if "reason" in scored:
        timed.say(f"no senses: {scored['reason']}")
        return Senses({}, {"senses": {"asked": way.senses, "reason": scored["reason"]}})
    assert isinstance(way.describer, Describer)
    assert isinstance(way.search, SearchSettings)
    features = encoded_views(way.describer.encoder, made.store, process=join_processes())
    proposed = propose_senses(way.describer, made.store, features, SenseSettings(way.senses),
                              search=way.search, progress=timed)  # fmt: skip
    texts = {(d.layer, d.unit, d.sign): [c.text for c in d.candidates] for d in found}
    inputs = made.inputs
    with opened(made.store, inputs.images, inputs.target, _simulating(inputs),
                inputs.request.settings.seed, None) as seen:  # fmt: skip
        kept = {} if isinstance(seen, str) else keep_senses(proposed, texts, made.store, seen)
    timed.say(f"senses: {len(proposed)} units may have several, of {len(kept)} they hold")
    return Senses(kept, {"senses": {"asked": way.senses, "proposed": len(proposed),
                                    "kept": len(kept)}})  # fmt: skip


def _described(made: Extracted, facts: dict[str, Any], timed: Timed) -> Run | None:
    """Return the run that is there, if its table was made of these exemplars in this way."""
    from milanx.runs import open_run

    if not (made.out / "units.parquet").is_file():
        return None
    try:
        known = open_run(made.out)
        same = known.settings.get("exemplars") == made.store.fingerprint
        if not same or known.settings.get("describer") != facts:
            return None
        len(known)  # reads the table
    except MilanxError as error:
        timed.say(f"described anew: {error.what}: {error.why}")
        return None
    return known
