"""The images kept aside, on which descriptions are scored, and those searched, as features."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from milanx.errors import InputError
from milanx.images.preprocess import Preprocess
from milanx.images.probe import ProbeImages, open_images
from milanx.images.sources import is_named
from milanx.progress import Reporter, Silent
from milanx.runs import Run
from milanx.scoring.features import image_features
from milanx.scoring.simulator import BUILTIN, Simulator
from milanx.targets.generated import images_again, is_generated

MIN_ASIDE = 150  # kept-aside images that a source needs to be reported without a warning
MIN_SOURCE = 20  # a source with fewer says nothing and is left out
SEARCHED = 2000  # images of the 80 % on which the best texts of the vocabulary are found


@dataclass(frozen=True)
class ImageSet:
    """Some of a run's images.

    Attributes:
        indices: int64 [n].
        sources: number of each image's source, int [n].
        features: the simulator's [n, c].
    """

    indices: np.ndarray
    sources: np.ndarray
    features: np.ndarray


@dataclass(frozen=True)
class Probe:
    """Images kept aside and images searched, under one simulator.

    Attributes:
        simulator: what tells how well a text fits an image.
        aside: what is scored on.
        search: a part of the 80 %, for whatever is fitted or found.
        names: the sources.
        notes: what a reader should know of them.
    """

    simulator: Simulator
    aside: ImageSet
    search: ImageSet
    names: tuple[str, ...]
    notes: tuple[str, ...]


def read_probe(
    run: Run,
    simulator: Simulator | str | Path = BUILTIN,
    images: Sequence[str] = (),
    seed: int = 0,
    progress: Reporter | None = None,
) -> Probe:
    """Encode the images that a run's descriptions are scored on.

    Args:
        run: the run.
        simulator: one, or what `Simulator.load` takes.
        images: where the sources lie now; where the run says when empty.
        seed: of the choice among the 80 % where they are more than 2,000.
        progress: told about encoding.

    Raises:
        InputError: a demonstration, too few images kept aside, images not found again, or a
            simulator that is the target.
    """
    if run.demonstration:
        raise InputError(
            "no protocol is run on the built-in images",
            "they are a demonstration and hold few concepts",
            "probe with photos of your own",
        )
    simulator = simulator if isinstance(simulator, Simulator) else Simulator.load(simulator)
    if simulator.tower is not None and simulator.tower == run.target:
        raise InputError(
            f"{simulator.name} cannot simulate {run.target}",
            "its image tower is the target itself",
            "name another with --simulator",
        )
    aside, search, names, notes = _split(run, seed)
    codes = {name: i for i, name in enumerate(names)}
    table = run.store.image_table()
    with (progress or Silent()).stage("encode images", len(aside) + len(search)) as bar:
        sets = [
            ImageSet(np.array(indices), np.array([codes[table[i]["source"]] for i in indices]),
                     run_features(simulator, run, indices, images, bar.advance))
            for indices in (aside, search)
        ]  # fmt: skip
    return Probe(simulator, sets[0], sets[1], names, notes)


def _split(run: Run, seed: int) -> tuple[list[int], list[int], tuple[str, ...], tuple[str, ...]]:
    """Return images kept aside, images searched, the sources that are used, and notes."""
    kept: dict[str, list[int]] = {}
    others: dict[str, list[int]] = {}
    for row in run.store.image_table():
        side = kept if row["split"] == "aside" else others
        side.setdefault(row["source"], []).append(int(row["index"]))
    names = tuple(n for n in kept if len(kept[n]) >= MIN_SOURCE and n in others)
    if not names:
        counts = ", ".join(f"{len(v)} of {k}" for k, v in kept.items()) or "none"
        raise InputError(
            "too few images were kept aside to score descriptions",
            f"there are {counts}; a source needs {MIN_ASIDE}",
            "probe with more images",
        )
    notes = []
    for name, found in kept.items():
        if name not in names:
            notes.append(f"{name} is left out: {len(found)} images kept aside")
        elif len(found) < MIN_ASIDE:
            notes.append(f"only {len(found)} images of {name} were kept aside; "
                         f"the protocol asks for {MIN_ASIDE}")  # fmt: skip
    search = np.array([i for n in names for i in others[n]])
    if len(search) > SEARCHED:
        search = np.sort(np.random.default_rng(seed).permutation(search)[:SEARCHED])
    return [i for n in names for i in kept[n]], search.tolist(), names, tuple(notes)


def run_features(
    simulator: Simulator,
    run: Run,
    indices: Sequence[int],
    images: Sequence[str] = (),
    advance: Callable[[int], None] = lambda n: None,
) -> np.ndarray:
    """Encode some of a run's probe images, as its target saw them, float16 [n, c].

    Args:
        simulator: what encodes.
        run: whose images; they are read again from their sources.
        indices: of the images.
        images: where the sources lie now; where the run says when empty.
        advance: told how many more are done.

    Raises:
        InputError: images that are not found again.
    """
    values = run.settings["target"]["preprocess"]
    resize = values["resize"]
    preprocess = Preprocess(
        tuple(values["size"]), tuple(resize) if isinstance(resize, list) else resize,
        values["interpolation"], tuple(values["mean"]), tuple(values["std"]),
        bool(values.get("rounds_down", False)),
    )  # fmt: skip
    table = run.store.image_table()
    wanted = [table[i]["fingerprint"] for i in indices]

    def find() -> tuple[ProbeImages, list[int]]:
        probe = _reopen(run, images)
        return probe, _places(run, probe, wanted)

    return image_features(simulator, preprocess, wanted, find, advance)


def _reopen(run: Run, images: Sequence[str]) -> ProbeImages:
    """Open a run's sources again; a generator makes its images anew."""
    if is_generated(run.settings) and not images:
        return images_again(run.settings)
    specs = list(images) or [
        str(place) for s in run.sources if (place := s.get("path") or s.get("spec"))
    ]
    names = ", ".join(str(s["name"]) for s in run.sources)
    if len(specs) < len(run.sources):
        raise InputError(
            "P3 reads the images that were kept aside again",
            f"the run does not say where its sources lie ({names})",
            "name all of them: --images FILE.parquet",
        )
    gone = [s for s in specs if not (Path(s).exists() or is_named(s))]
    if gone:
        raise InputError(
            f"no images at {gone[0]}",
            f"the run's images ({names}) have moved",
            "say where they lie now: --images FILE.parquet",
        )
    return open_images(specs)


def _places(run: Run, probe: ProbeImages, wanted: Sequence[str]) -> list[int]:
    """Find images by the fingerprint of their bytes."""
    known = {record.fingerprint: record.index for record in probe.records}
    missing = sum(w not in known for w in wanted)
    if missing:
        names = ", ".join(str(s["name"]) for s in run.sources)
        raise InputError(
            f"{missing} of {len(wanted)} images of the run are not among these",
            "their bytes are not those that the target was shown",
            f"give the very sources of the run ({names}): --images FILE.parquet",
        )
    return [known[w] for w in wanted]
