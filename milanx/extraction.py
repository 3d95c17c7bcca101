"""Extraction into a run's folder, and what is written of it there."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from milanx.environment import give_back_memory, join_processes, versions
from milanx.errors import FormatError, InputError
from milanx.files import explained, fingerprint
from milanx.files.digests import FILES
from milanx.files.kinds import RUN
from milanx.files.lock import check_free, held
from milanx.files.replacing import check_place, discard, remove_leftovers
from milanx.progress import Stage, Timed

if TYPE_CHECKING:
    from torch import nn

    from milanx.exemplars.inputs import Inputs
    from milanx.exemplars.request import Request
    from milanx.exemplars.store import ExemplarStore

T = TypeVar("T")
DEFAULT_MODEL = "tf_efficientnet_lite0"
DEFAULT_LAYER = "blocks.5.3.bn1"
DEFAULT_IMAGES = "builtin:probe"
OWN_METHOD = "describer"  # how exemplars are put into words unless told otherwise


# What a description writes into its run: a kill may leave each of them under a temporary name.
MADE = (".extract", "exemplars", "views.parquet", "images.parquet", "units.parquet", "run.json")


@dataclass(frozen=True, eq=False)
class Extracted:
    """What extraction made, and what it was made of."""

    inputs: Inputs
    store: ExemplarStore
    out: Path


class Stages(Timed):
    """Notes the seconds of stages; the memory of each is given back at its end."""

    @contextlib.contextmanager
    def stage(self, name: str, total: int | None = None) -> Iterator[Stage]:
        """Begin a stage."""
        with super().stage(name, total) as bar:
            yield bar
        give_back_memory()


def default_out(
    target: str, layers: Sequence[str], images: Sequence[str], method: str = OWN_METHOD
) -> Path:
    """Return ``milanx-runs/MODEL/NAME``, a name made of the layers, the images and the method.

    The describer's own method is not named; of every other one the table lies elsewhere, so that
    no method replaces what another wrote.
    """
    name = "+".join([*layers, *(Path(i).stem if ":" not in i else i for i in images)])
    safe = re.sub(r"[^\w.+@-]+", "-", name)
    if len(safe) > 80:
        safe = f"{safe[:60]}-{fingerprint(name)[:8]}"
    safe += "" if method == OWN_METHOD else f"+{method}"
    return Path("milanx-runs") / re.sub(r"[^\w.@-]+", "-", target) / safe


def several(given: Sequence[T] | T) -> tuple[T, ...]:
    """One name or path, or several of them, as a tuple."""
    if isinstance(given, Sequence) and not isinstance(given, str):
        return tuple(given)
    return (given,)  # type: ignore[return-value]


def path_of(given: Path | str | None) -> Path | None:
    """Return a path; None where none was given, or an empty one."""
    return Path(given) if given else None


def layers_of(model: str | nn.Module, given: Sequence[str] | str | None) -> tuple[str, ...]:
    """The layers asked for; the default model has one of its own, the others are asked back.

    Raises:
        InputError: none was named, or there is no such model.
    """
    if given is not None:
        return several(given)
    if model == DEFAULT_MODEL:
        return (DEFAULT_LAYER,)
    name = model if isinstance(model, str) else type(model).__name__
    if isinstance(model, str):
        from milanx.targets.zoo import check_name

        check_name(model)
    raise InputError(
        f"which layer of {name}?",
        "none was named",
        f"--layer NAME; milanx layers {name} lists them",
    )


def find_exemplars(
    request: Request,
    out: Path | None,
    overwrite: bool,
    timed: Timed,
    alone: contextlib.ExitStack,
    method: str = OWN_METHOD,
) -> Extracted:
    """Open what a request names and find its exemplars.

    Args:
        request: what is asked for.
        out: the run folder; `default_out` when None.
        overwrite: replace the run that is there.
        timed: told about the stages.
        alone: holds the folder from then on.
        method: that describes them.
    """
    from milanx.exemplars.estimate import estimate
    from milanx.exemplars.extract import extract as run_extraction
    from milanx.exemplars.extract import is_finished
    from milanx.exemplars.inputs import open_inputs

    check_request(request, out, overwrite, method)
    inputs = open_inputs(request, timed)
    names = [info.name for info in inputs.layers]
    shown = inputs.request.images
    given = [str(s) if isinstance(s, str | Path) else s.name for s in shown]
    folder = out or default_out(inputs.target.name, names, given, method)
    process = join_processes(cpu=inputs.device == "cpu")
    if process.is_main_process:
        check_place(folder, RUN, overwrite=overwrite, resumes=True)
        alone.enter_context(held(folder, timed.say, f"the run {folder}"))
        remove_leftovers(folder, *(folder / part for part in MADE))
        if overwrite and folder.exists():
            discard(folder, RUN)
    process.wait_for_everyone()
    if not is_finished(inputs, folder):
        timed.say(estimate(inputs, process.num_processes).text)
    with timed.stage("extract", len(inputs.images)) as bar:
        store = run_extraction(inputs, folder, bar.at)
    for line in store.odd_numbers():
        timed.say(f"note: {line}")
    return Extracted(inputs, store, folder)


def check_request(
    request: Request, out: Path | None, overwrite: bool, method: str = OWN_METHOD
) -> None:
    """Refuse, before the long work, what can be told to be in vain."""
    from milanx.exemplars.differences import check_same
    from milanx.images.sources import check_there as check_source
    from milanx.targets.checkpoints import check_there as check_checkpoint
    from milanx.targets.zoo import check_name, check_weights

    if out:
        check_place(out, RUN, overwrite=overwrite, resumes=True)
        if os.environ.get("WORLD_SIZE", "1") == "1":  # else the first of these may hold it by now
            check_free(out, f"the run {out}")
    name = request.target
    given = [str(image) for image in request.images if isinstance(image, str | Path)]
    if not overwrite and isinstance(name, str):
        named = [address.layer for address in request.addresses]
        check_same(out or default_out(name, named, given, method), request)
    if isinstance(name, str):
        check_name(name)
        if request.weights is None and not request.random_weights:
            check_weights(name)
    if request.weights is not None:
        check_checkpoint(request.weights)
    for image in given:
        check_source(image)


def write_run(
    made: Extracted,
    timed: Timed,
    facts: dict[str, Any] | None,
    measured: tuple[dict[str, Any], dict[str, Any]] | None = None,
) -> None:
    """Write ``run.json`` and a line of the log; of several processes the main one does.

    Args:
        made: what was extracted.
        timed: has the seconds.
        facts: how it was described; as before when None.
        measured: how it was scored, and how sure it is; likewise.
    """
    from milanx.images.sources import place_of
    from milanx.runs import open_run, tell_table, write_settings
    from milanx.targets.generated import made_by

    state = join_processes()  # made by the extraction
    if not state.is_main_process:
        return
    earlier: dict[str, Any] = {}
    with contextlib.suppress(FormatError, InputError):
        earlier = open_run(made.out).settings
    same = earlier.get("exemplars") == made.store.fingerprint
    described = facts if facts is not None else (earlier.get("describer") if same else None)
    inputs, images, target = made.inputs, made.inputs.images, made.inputs.target
    # Exemplars that were there keep the settings of the pass that found them.
    asked = {**inputs.request.to_dict(), "device": inputs.device, "processes": state.num_processes}
    settings = {
        "target": target.to_dict(),
        "layers": [info.to_dict() for info in inputs.layers],
        **({"lens": inputs.lens.facts()} if inputs.lens else {}),
        "images": {"count": len(images), "distinct": images.distinct,
                   "fingerprint": images.fingerprint, "notes": list(images.notes),
                   **made_by(target),
                   "skipped": [asdict(s) for s in images.skipped],
                   "sources": [{**asdict(info), **place_of(source)} for info, source in
                               zip(images.sources, inputs.request.images, strict=True)]},
        "describer": described,
        **_measured(measured, earlier if same else {}),
        "exemplars": made.store.fingerprint,
        "settings": earlier["settings"] if same and "settings" in earlier else asked,
        "versions": versions(),
        "seconds": {**(earlier.get("seconds", {}) if same else {}), **timed.seconds},
    }  # fmt: skip
    if facts is not None:
        settings[FILES] = tell_table(made.out)
    elif same and FILES in earlier:  # of a table that nobody looked at
        settings[FILES] = earlier[FILES]
    write_settings(made.out, settings)
    line = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in timed.seconds.items())
    with explained(made.out), (made.out / "log.txt").open("a", encoding="utf-8") as log:
        log.write(f"{time.strftime('%Y-%m-%dT%H:%M:%S%z')} {line}\n")


def _measured(
    told: tuple[dict[str, Any], dict[str, Any]] | None, earlier: dict[str, Any]
) -> dict[str, Any]:
    """What is said of scores and confidences: what is told, else what was said before."""
    names = ("score", "confidence")
    known = {name: earlier[name] for name in names if earlier.get(name) is not None}
    return {"score": None, **(known if told is None else dict(zip(names, told, strict=True)))}
