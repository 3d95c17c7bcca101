"""One pass over images: what is counted, checkpoints, the files."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from milanx.errors import InputError
from milanx.exemplars.masks import LayerRecord
from milanx.exemplars.numbers import Numbers
from milanx.exemplars.reading import ARRAYS, layer_path
from milanx.exemplars.request import ExtractSettings
from milanx.exemplars.statistics import LayerStatistics, Overflow, exact_statistics
from milanx.exemplars.store import write_index, write_layer
from milanx.files import atomic_path, explained, reading
from milanx.targets.units import LayerInfo

WORK = ".extract"  # folder of an unfinished pass, inside the run folder
PASS = "pass.json"  # in it: what pass it is
Maps = dict[str, torch.Tensor]


def kept_size(info: LayerInfo) -> tuple[int, int]:
    """Return (h, w) of the maps that exemplars of a layer keep."""
    return (info.shown[0], info.shown[1]) if info.shown else info.map_size


@dataclass(frozen=True, eq=False)
class Plan:
    """What a pass counts.

    Attributes:
        layers: as `find_layers` gives them.
        exemplars: bool [images], which may become exemplars.
        key: fingerprint of all that the result depends on.
        settings: how exemplars are chosen.
        signs: ``+``, ``-`` or both.
        units: the units of each layer that are kept; all where a layer is absent.
    """

    layers: Sequence[LayerInfo]
    exemplars: np.ndarray
    key: str
    settings: ExtractSettings = field(default_factory=ExtractSettings)
    signs: tuple[str, ...] = ("+",)
    units: Mapping[str, list[int]] = field(default_factory=dict)


class Pass:
    """One pass over images that are given as batches of maps.

    Args:
        plan: what it counts.
        out: the run folder.
        rank: which process this is.
        device: where the statistics are counted.
    """

    def __init__(self, plan: Plan, out: Path, rank: int = 0, device: str = "cpu") -> None:
        self.plan, self.out, self.settings, self.key = plan, out, plan.settings, plan.key
        self.rank, self.device = rank, device
        self.exemplars = torch.from_numpy(plan.exemplars)
        self.chosen = {i.name: plan.units.get(i.name, list(range(i.units))) for i in plan.layers}
        self.statistics = self._nothing_yet()
        self.work = out / WORK
        self.whole = True
        self.done = 0  # batches of this process's part that are in the statistics
        self._written = time.monotonic()
        self.arrays: dict[str, tuple[Numbers, Numbers]] = {}

    def _nothing_yet(self) -> dict[str, LayerStatistics]:
        k, signs = self.settings.k, self.plan.signs
        made = {
            i.name: LayerStatistics(
                len(self.chosen[i.name]), i.map_size, k, signs, self.device, i.rectified, i.off
            )
            for i in self.plan.layers
        }
        for info in self.plan.layers:
            if info.shown:
                made[info.name].keep(kept_size(info))
        return made

    def calibrate(self, maps: Maps) -> None:
        """Choose the scales of units from a few maps; every process is given the same."""
        for info in self.plan.layers:
            self.statistics[info.name].calibrate(self._of_units(maps[info.name], info))

    def _of_units(self, maps: torch.Tensor, info: LayerInfo) -> torch.Tensor:
        chosen = self.chosen[info.name]
        return maps if len(chosen) == info.units else maps[:, chosen]

    def open_arrays(self) -> None:
        """Open max.npy and mean.npy of every layer [images, units], making them if need be."""
        for info in self.plan.layers:
            folder = layer_path(self.work, info.name)
            folder.mkdir(parents=True, exist_ok=True)
            shape = (len(self.exemplars), len(self.chosen[info.name]))
            pair = []
            for name in ARRAYS:
                if self.rank == 0 and not (folder / name).exists():
                    Numbers.make(folder / name, shape)
                pair.append(Numbers(folder / name, shape))
            self.arrays[info.name] = (pair[0], pair[1])

    def close_arrays(self) -> None:
        """Close what `open_arrays` opened."""
        for pair in self.arrays.values():
            for array in pair:
                array.close()
        self.arrays.clear()

    def take(self, indices: torch.Tensor, maps: Maps, shown: Maps | None = None) -> None:
        """Take one batch in: image indices int64 [b] and maps [b, u, h, w] of every layer.

        Args:
            indices: of the images.
            maps: what is counted, and ranked by its largest value.
            shown: what exemplars keep instead, of layers that have it.

        Raises:
            InputError: a layer that half precision cannot hold.
        """
        eligible = self.exemplars[indices]
        self.whole = False  # until the end a part of the batch is counted and a part is not
        for info in self.plan.layers:
            here = self._of_units(maps[info.name], info)
            kept = (shown or {}).get(info.name)
            kept = None if kept is None else self._of_units(kept, info)
            try:
                maximum, mean = self.statistics[info.name].update(here, indices, eligible, kept)
            except Overflow as error:
                raise InputError(
                    f"{info.name} gives NaN or infinite values", str(error),
                    ["--dtype float32", f"leave {info.name} away"],
                ) from error  # fmt: skip
            largest, average = self.arrays[info.name]
            largest.write(indices.numpy(), maximum.numpy())
            average.write(indices.numpy(), mean.numpy())
        self.done += 1
        self.whole = True
        if time.monotonic() - self._written >= self.settings.checkpoint_seconds:
            self.checkpoint()

    @property
    def _checkpoint(self) -> Path:
        return self.work / f"state-{self.rank}.safetensors"

    def check_there(self) -> None:
        """Refuse to go on where the work folder was taken away: what is open lies nowhere then.

        Raises:
            InputError: it was.
        """
        parts = [layer_path(self.work, name) / array for name in self.arrays for array in ARRAYS]
        gone = next((p for p in (self.work / PASS, *parts) if not p.is_file()), None)
        if gone is not None:
            raise InputError(
                f"{self.out} was removed, or a part of it, while exemplars were extracted into it",
                f"{gone} is gone",
                "run the same command again, and leave the folder alone meanwhile",
            )

    def checkpoint(self) -> None:
        """Write everything that was counted, atomically.

        Raises:
            InputError: the work folder was taken away.
        """
        self.check_there()
        for pair in self.arrays.values():
            for array in pair:
                array.flush()
        state = {
            f"{name}/{key}": value.contiguous()
            for name, statistics in self.statistics.items()
            for key, value in statistics.state_dict().items()
        }
        state["done"] = torch.tensor(self.done)
        with atomic_path(self._checkpoint) as temporary, explained(self.out):
            save_file(state, temporary)
        self._written = time.monotonic()

    def resume(self) -> None:
        """Go on from this process's checkpoint, if there is one."""
        if self._checkpoint.exists():
            self.done = self._load(self._checkpoint, self.statistics)

    def _load(self, path: Path, statistics: dict[str, LayerStatistics]) -> int:
        with reading(path):
            state = load_file(path)
            done = int(state.pop("done"))
            for name, layer in statistics.items():
                prefix = f"{name}/"
                layer.load_state_dict(
                    {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
                )
        return done

    def merge_from(self, ranks: int) -> None:
        """Merge the checkpoints of the other processes into this one's statistics."""
        for rank in range(1, ranks):
            others = self._nothing_yet()
            self._load(self.work / f"state-{rank}.safetensors", others)
            for name, statistics in self.statistics.items():
                statistics.merge(others[name])

    def write(self) -> list[int]:
        """Write every layer's exemplars; returns the distinct images that are exemplars."""
        self.check_there()
        distinct: set[int] = set()
        for record in self._records():
            images = self._write_layer(record)
            distinct |= set(images[images >= 0].tolist())
        return sorted(distinct)

    def write_index(self, view_size: tuple[int, int]) -> None:
        """Write the index, which tells all files of the pass by their digests; last.

        Raises:
            InputError: some of it was taken away.
        """
        for pair in self.arrays.values():
            for array in pair:
                array.flush()
        self.check_there()
        write_index(self.work, self._records(), view_size, self.key)

    def _records(self) -> list[LayerRecord]:
        return [LayerRecord(i.name, i.kind, kept_size(i), i.rectified, i.upper, i.off,
                            bool(i.shown))
                for i in self.plan.layers]  # fmt: skip

    def _write_layer(self, record: LayerRecord) -> np.ndarray:
        statistics = self.statistics[record.name]
        state = {k: v for k, v in statistics.state_dict().items() if k != "counts"}
        stats = self._stats(record.name)
        units, images, activations, maps, scales = [], [], [], [], []
        for sign in statistics.top:
            units += [(unit, sign) for unit in self.chosen[record.name]]
            best = state[f"{sign}.values"]
            there = best > -torch.inf
            value = best if sign == "+" else stats["median"][:, None] + best
            kept, scale = state[f"{sign}.maps"], state[f"{sign}.scales"]
            if sign == "-" and record.off is not None:  # an image on which it is but off, as ever
                there &= value > 0
                kept = kept.masked_fill(~there[..., None, None], 0)
                scale = scale.masked_fill(~there, 0)
            images.append(torch.where(there, state[f"{sign}.images"], -1))
            activations.append(torch.where(there, value, torch.nan))
            maps.append(kept)
            scales.append(scale)
        together = torch.cat(images).numpy()
        repeated = {k: v.repeat(len(statistics.top)).numpy() for k, v in stats.items()}
        write_layer(
            layer_path(self.work, record.name), units, together,
            torch.cat(activations).numpy(), torch.cat(maps).numpy(), torch.cat(scales).numpy(),
            repeated,
        )  # fmt: skip
        return together

    def _stats(self, layer: str) -> dict[str, torch.Tensor]:
        """Return what is known of each unit of a layer, float32 [u] each."""
        statistics, settings = self.statistics[layer], self.settings
        histogram = statistics.histogram
        odd = {"nan_images": statistics.nan, "infinite_images": statistics.infinite}
        counted = {name: n.cpu().float() for name, n in odd.items() if bool(n.any())}
        if histogram is None:
            values, eligible = self.arrays[layer][0], self.plan.exemplars
            return exact_statistics(values, np.flatnonzero(eligible), settings.quantile) | counted
        mean, deviation = histogram.mean_and_deviation()
        largest = statistics.largest.cpu()
        return {
            "quantile": histogram.quantile(settings.quantile),
            "low_quantile": histogram.quantile(1 - settings.quantile),
            "median": histogram.quantile(0.5), "mean": mean, "deviation": deviation,
            "maximum": largest,
            "minimum": torch.where(statistics.constant(), largest, histogram.lowest()),
            **counted,
        }  # fmt: skip
