"""What a unit does to the classes: their logits when it is set to its mean.

Each unit is set to its mean on its own exemplars, where it is far from it, and so are random units
of the same layer, on theirs. What a unit changes there it causes, in this model on these images;
that it responds to a concept is only ever seen together with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from milanx.act.ablate import Edit, ablate, run_places, stored_means
from milanx.measures.intervals import bootstrap
from milanx.progress import Reporter, Silent

if TYPE_CHECKING:
    import torch

    from milanx.runs import Run
    from milanx.targets.units import LayerInfo
    from milanx.targets.zoo import Target

ABLATED = 40  # units, when nothing else is asked for: a minute or two on two cores
RANDOM_UNITS = 20  # of a layer, beside each unit of it
BOOTSTRAP_DRAWS = 1_000
OUTSTANDING = 0.95  # share of random units that change less, from which a unit stands out
IMAGENET_CLASSES = 1000

Unit = tuple[str, int, str]


@dataclass(frozen=True)
class AblationSettings:
    """How much is ablated.

    Attributes:
        units: at most so many units, the first ones; 0 for none.
        random_units: of the others of each layer, beside them.
        seed: of the choice of random units.
    """

    units: int = ABLATED
    random_units: int = RANDOM_UNITS
    seed: int = 0


@dataclass(frozen=True)
class Effect:
    """What setting a unit to its mean does to the class logits, on its exemplars.

    Attributes:
        change: root mean square over classes and images of the change of a logit.
        falls: the class whose mean logit falls most (or rises least), in words.
        fall: by how much it falls, mean over the images, with its ``interval``.
        beside: how many random units of the layer change their logits less, each on its own
            exemplars.
        random_units: of how many.
        images: on how many exemplars.
    """

    change: float
    falls: str
    fall: dict[str, Any]
    beside: int
    random_units: int
    images: int

    @property
    def stands_out(self) -> bool:
        """Whether nearly all random units of the layer change less."""
        return self.random_units > 0 and self.beside >= OUTSTANDING * self.random_units


def measure(
    run: Run,
    target: Target,
    units: Sequence[Unit],
    settings: AblationSettings = AblationSettings(),
    progress: Reporter | None = None,
) -> dict[Unit, Effect | str]:
    """Ablate units, and random ones of their layers, each on its own exemplars.

    Args:
        run: the run.
        target: its target, as `open_target` gives it.
        units: which; ``settings.units`` is not looked at. The random units are others.
        settings: of the random units.
        progress: told about units.

    Returns:
        The effect of each unit, or why there is none.
    """
    infos = run_places(run)
    found: dict[Unit, Effect | str] = {}
    runner = _Runner(run, target, infos)
    layers = list(dict.fromkeys(layer for layer, _, _ in units))
    beside = {layer: _draw(run, layer, units, settings) for layer in layers}
    total = len(units) + sum(map(len, beside.values()))
    with (progress or Silent()).stage("ablate", total) as bar:
        for layer in layers:
            sizes = []
            for unit in beside[layer]:
                change = runner.change(unit)
                bar.advance()
                if not isinstance(change, str):
                    sizes.append(_size(change))
            for unit in (u for u in units if u[0] == layer):
                change = runner.change(unit)
                bar.advance()
                found[unit] = change if isinstance(change, str) else _effect(change, sizes)
    return found


def _draw(run: Run, layer: str, found: Sequence[Unit], settings: AblationSettings) -> list[Unit]:
    """Draw living units of a layer that are not among the found."""
    status, apart = run.store.status(layer), set(found)
    units = [(layer, u, s) for (u, s), alive in zip(run.store.units(layer), status, strict=True)
             if alive == "alive"]  # fmt: skip
    living = [unit for unit in units if unit not in apart]
    order = np.random.default_rng(settings.seed).permutation(len(living))
    return [living[i] for i in sorted(order[: settings.random_units].tolist())]


def _size(change: np.ndarray) -> float:
    return float(np.sqrt(np.square(change).mean()))


def _effect(change: np.ndarray, sizes: Sequence[float]) -> Effect:
    """Make an effect of the changes [images, classes] and those of the random units."""
    size, fall = _size(change), -change
    place = int(fall.mean(0).argmax())
    return Effect(
        change=size,
        falls=class_name(place, change.shape[1]),
        fall=bootstrap(fall[:, place], draws=BOOTSTRAP_DRAWS),
        beside=sum(other < size for other in sizes),
        random_units=len(sizes),
        images=len(change),
    )


def class_name(place: int, classes: int) -> str:
    """Return what a class is called: ImageNet's names for 1,000 classes, else its number."""
    if classes != IMAGENET_CLASSES:
        return f"class {place}"
    from timm.data import ImageNetInfo

    return str(ImageNetInfo().index_to_description(place)).split(",")[0]


class _Runner:
    """Runs a target on stored views, with one unit set to its mean."""

    def __init__(self, run: Run, target: Target, infos: Mapping[str, LayerInfo]) -> None:
        self.run, self.target, self.infos = run, target, infos
        self.plain: dict[int, np.ndarray] = {}  # image -> logits [classes] of the model as it is

    def change(self, unit: Unit) -> np.ndarray | str:
        """Return the changes of the logits [images, classes], or why there are none."""
        layer, number, sign = unit
        if self.infos[layer].through:
            return f"{self.infos[layer].kind} are computed beside the model, and cannot be ablated"
        row = self.run.store.units(layer).index((number, sign))
        images = self.run.store.images(layer)[row]
        images = images[images >= 0]
        if not len(images):
            return "the unit has no exemplars"
        mean = stored_means(self.run, layer, (number,))
        edit = Edit(layer, (number,), "mean", values=mean)
        new = [int(i) for i in images if int(i) not in self.plain]
        plain = self._logits(np.array(new), ()) if new else None
        if new and plain is None:
            return "the model gives no class logits"
        if plain is not None:
            self.plain.update(zip(new, plain, strict=True))
        edited = self._logits(images, (edit,))
        assert edited is not None
        return edited - np.stack([self.plain[int(i)] for i in images])

    def _logits(self, images: np.ndarray, edits: Sequence[Edit]) -> np.ndarray | None:
        """Return the logits [images, classes]; None where the model gives something else."""
        import torch

        from milanx.targets.units import first_tensor

        views = torch.from_numpy(np.stack([self.run.store.view(int(i)) for i in images]))
        with torch.inference_mode(), ablate(self.target, edits, self.infos):
            output: torch.Tensor | None = first_tensor(self.target.model(self.target.inputs(views)))
        if output is None or output.ndim != 2:
            return None
        return output.float().cpu().numpy()
