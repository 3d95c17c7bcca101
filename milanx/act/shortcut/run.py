"""The experiment from images to table: train, describe, prune, for each share and seed.

Each result is one file, written when it is complete; a run that was stopped goes on with the next.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from milanx.act.select import WITHIN
from milanx.act.shortcut.fit import FitSettings, fit, predict
from milanx.act.shortcut.folder import LYING, PLAIN, Experiment, open_experiment, text_version
from milanx.act.shortcut.network import LAYER
from milanx.act.shortcut.prune import DRAWS, MATCH, Pruned, matched, prune_layer
from milanx.act.shortcut.summary import FORMAT, VERSION, summarise
from milanx.environment import pick_device, versions
from milanx.errors import FormatError, InputError
from milanx.exemplars.job import ExtractSettings
from milanx.files import atomic_path, fingerprint, read_json, write_json
from milanx.pipeline import describe
from milanx.progress import Reporter, Silent
from milanx.targets.zoo import load_target

if TYPE_CHECKING:
    from milanx.act.shortcut.network import SmallResNet
    from milanx.describing.describer import Describer

SEED_FORMAT, SEED_VERSION = "milanx-shortcut-seed", 1


@dataclass(frozen=True)
class RunSettings:
    """What is done with the images of an experiment.

    Attributes:
        shares: which of the experiment's; all when empty.
        seeds: how many networks each, of the seeds ``first``, ``first`` + 1, ...
        first: the first seed.
        match: words of a text that choose its unit.
        within: ``description``, or ``candidates``: the description and all that it won against.
        draws: random orders of units, the control.
        fit: how networks are trained; its own seed is not looked at.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
    """

    shares: tuple[int, ...] = ()
    seeds: int = 10
    first: int = 0
    match: tuple[str, ...] = MATCH
    within: str = "candidates"
    draws: int = DRAWS
    fit: FitSettings = field(default_factory=FitSettings)
    device: str = "auto"

    def __post_init__(self) -> None:
        if self.seeds < 1 or self.draws < 1:
            raise InputError(f"no experiment of {self.seeds} seeds and {self.draws} draws",
                             "each is 1 or more", "--seeds 10 --draws 20")  # fmt: skip
        if self.first < 0:
            raise InputError(f"no seed {self.first}", "a seed is 0 or more", "--first-seed 0")
        if self.within not in WITHIN:
            raise InputError(f"cannot look in {self.within!r}", f"there are {', '.join(WITHIN)}",
                             "--in candidates")  # fmt: skip
        if not self.match or not all(w.strip() for w in self.match):
            raise InputError("no words choose units", "a word is empty, or there is none",
                             "--match text --match word")  # fmt: skip


class Runner:
    """Runs an experiment.

    Args:
        experiment: the images.
        out: folder of what is trained, described and found.
        settings: how.
        describer: of the units.
        progress: told about the stages.
    """

    def __init__(
        self, experiment: Experiment, out: Path, settings: RunSettings, describer: Describer,
        progress: Reporter,
    ) -> None:  # fmt: skip
        self.experiment, self.out, self.settings = experiment, out, settings
        self.describer, self.progress = describer, progress
        self.device = pick_device(settings.device)
        self.shares = settings.shares or experiment.shares
        for share in self.shares:
            experiment.path("train", text_version(share))  # says which there are

    def digest(self) -> str:
        """Return what stands for all that a seed's result depends on, but share and seed."""
        return fingerprint(self.experiment.fingerprint, asdict(self.settings.fit),
                           self.settings.match, self.settings.within, self.settings.draws, LAYER,
                           self.describer.fingerprint, asdict(self.describer.settings))  # fmt: skip

    def one(self, share: int, seed: int) -> None:
        """Do what is not done yet for a share and seed."""
        name = f"{text_version(share)}-{seed}"
        path = self.out / "seeds" / f"{name}.json"
        if path.exists() and read_json(path, SEED_FORMAT, SEED_VERSION)["digest"] == self.digest():
            return
        self.progress.say(f"{share} % of the training images with their name, seed {seed}")
        network = self.network(text_version(share), seed)
        pruned = self.prune(network, share, seed, name)
        pruned.right.update(self.ceiling(share, seed))
        path.unlink(missing_ok=True)  # of other settings, to which the next file does not belong
        _write_right(path.with_suffix(".safetensors"), pruned.right)
        write_json(path, SEED_FORMAT, SEED_VERSION, {
            "digest": self.digest(), "share": share, "seed": seed, **pruned.figures,
        })  # fmt: skip

    def network(self, version: str, seed: int) -> SmallResNet:
        """Train, or read, the network of a version and seed."""
        from dataclasses import replace

        return fit(
            self.experiment.load("train", version), len(self.experiment.classes),
            replace(self.settings.fit, seed=seed),
            self.out / "networks" / f"{version}-{seed}.safetensors",
            device=self.device, progress=self.progress,
        )  # fmt: skip

    def prune(self, network: SmallResNet, share: int, seed: int, name: str) -> Pruned:
        """Describe the late layer on images held out of training, and prune it."""
        run = describe(
            network, layers=[LAYER],
            images=[self.experiment.path("describe", text_version(share))],
            out=self.out / "runs" / name, describer=self.describer,
            settings=ExtractSettings(aside=0.0), device=self.device,
            score=False, progress=self.progress,
        )  # fmt: skip
        target = load_target(network, device=self.device)
        units = matched(run, LAYER, self.settings.match, self.settings.within)
        pruned = prune_layer(target, LAYER, list(units), self.experiment, share, seed,
                             self.settings.draws)  # fmt: skip
        texts = {row["unit"]: row["description"] for row in run.rows}
        pruned.figures["texts"] = [texts[unit] for unit in units]
        pruned.figures["because"] = list(units.values())
        return pruned

    def ceiling(self, share: int, seed: int) -> dict[str, np.ndarray]:
        """Return whether the network trained without text is right, on every test."""
        network = self.network(PLAIN, seed)
        found = {}
        for row, version in (("ceiling", LYING), ("ceiling, plain", PLAIN),
                             ("ceiling, alike", text_version(share))):  # fmt: skip
            images = self.experiment.load("test", version)
            found[row] = (predict(network, images.views) == images.labels).numpy()
        return found

    def seeds(self) -> Iterator[dict[str, Any]]:
        """Yield what is there, with ``right`` of each row."""
        from safetensors.numpy import load_file

        for path in sorted((self.out / "seeds").glob("*.json")):
            found = read_json(path, SEED_FORMAT, SEED_VERSION)
            if found["digest"] == self.digest() and found["share"] in self.shares:
                yield {**found, "right": load_file(path.with_suffix(".safetensors"))}


def _write_right(path: Path, right: dict[str, np.ndarray]) -> None:
    from safetensors.numpy import save_file

    with atomic_path(path) as temporary:
        save_file({k: np.ascontiguousarray(v, np.float32) for k, v in right.items()}, temporary)


def run(
    root: Path | str,
    out: Path | str | None = None,
    *,
    settings: RunSettings | None = None,
    describer: str | Path | Describer = "builtin",
    progress: Reporter | None = None,
) -> dict[str, Any]:
    """Run the experiment in a folder that `milanx.act.shortcut.make.make` wrote.

    Args:
        root: that folder.
        out: folder of the results; ``ROOT-results`` when None. What is done there stays done.
        settings: how; the defaults when None.
        describer: ``builtin``, a describer's folder, or one that is loaded.
        progress: told about the stages.

    Returns:
        What ``results.json`` holds.

    Raises:
        InputError: folders or settings that cannot be used.
        FormatError: something damaged, or results of another experiment.
    """
    from milanx.describing.describer import Describer

    settings, progress = settings or RunSettings(), progress or Silent()
    experiment, folder = open_experiment(root), results_folder(root, out)
    _check_results(folder, experiment)
    loaded = describer if isinstance(describer, Describer) else Describer.load(
        describer, pick_device(settings.device))  # fmt: skip
    runner = Runner(experiment, folder, settings, loaded, progress)
    for seed in range(settings.first, settings.first + settings.seeds):
        for share in runner.shares:
            runner.one(share, seed)
            results = collect(runner)
    return results


def results_folder(root: Path | str, out: Path | str | None = None) -> Path:
    """Return where results go: ``out``, or ``ROOT-results``."""
    return Path(out) if out else Path(root).with_name(f"{Path(root).name}-results")


def _check_results(folder: Path, experiment: Experiment) -> None:
    path = folder / "results.json"
    if path.exists():
        found = read_json(path, FORMAT, VERSION)
        if found.get("experiment") != experiment.fingerprint:
            raise FormatError(f"{folder} holds results of another experiment",
                              f"of images {found.get('experiment')}, not "
                              f"{experiment.fingerprint}", "choose another folder with --out"
                              )  # fmt: skip
    elif folder.exists() and any(folder.iterdir()):
        others = {p.name for p in folder.iterdir()} - {"networks", "runs", "seeds"}
        if others:
            raise InputError(f"{folder} holds {min(others)!r}", "results get a folder of their own",
                             "choose another folder with --out")  # fmt: skip


def collect(runner: Runner) -> dict[str, Any]:
    """Write ``results.json`` from all seeds that are done."""
    content = {
        "experiment": runner.experiment.fingerprint,
        "digest": runner.digest(),
        "describer": runner.describer.fingerprint,
        "images": runner.experiment.settings,
        "settings": asdict(runner.settings),
        "threads": torch.get_num_threads(),
        "versions": versions(),
        "shares": summarise(list(runner.seeds())),
    }
    write_json(runner.out / "results.json", FORMAT, VERSION, content)
    return content
