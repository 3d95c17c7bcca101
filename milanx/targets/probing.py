"""What every module gives for pictures that differ, and for one that differs in one part.

Three questions have answers in numbers: which rows of an output belong to which image (two
pictures, then the same two in the other order), whether it depends on the image at all, and where
a change of one part of the picture shows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from milanx.targets.generator import Generator
from milanx.targets.given import running
from milanx.targets.units import first_tensor, tensors_of
from milanx.targets.watch import Watch
from milanx.targets.zoo import Target

PARTS = 4  # of the picture that are changed in turn: top left, top right, bottom left, bottom right
SAME = 0.1  # rows are one image's where they differ by less than this share of two images' distance
MOST_DIMS = 4  # of an output that can be a map of units
SKIPPED = ("Identity", "Dropout")  # give what they are given


@dataclass
class Seen:
    """A module's output in the probing passes.

    Attributes:
        name: of the module.
        module: itself.
        number: of its output in the first pass (`Watch.number`).
        given: number of its first input.
        spot: what stands for the output's places (`Watch.spot`).
        shape: of the output for two images.
        value: of the first pass [2 * groups, ...].
        source: shape of its first input.
        calls: how often it ran in the first pass.
        groups: rows of the first axis that belong to one image.
        constant: it gave the same for both images.
        apart: how far each place lies between the two images, by the axis taken for the units.
        changes: how far each place moved when a part of the picture changed, likewise.
        changed: whether something wrote into the output afterwards.
        refused: why it can be no map of units.
    """

    name: str
    module: nn.Module
    number: int
    given: int | None
    spot: int
    shape: tuple[int, ...]
    value: torch.Tensor
    source: tuple[int, ...] | None
    calls: int = 1
    groups: int = 1
    constant: bool = False
    apart: dict[int, torch.Tensor] = field(default_factory=dict)
    changes: dict[int, list[torch.Tensor]] = field(default_factory=dict)
    changed: bool = False
    refused: str | None = None

    @property
    def places(self) -> tuple[int, ...]:
        """Shape of what belongs to one image."""
        return (self.groups, *self.shape[1:]) if self.groups > 1 else self.shape[1:]

    def of_image(self, value: torch.Tensor, image: int) -> torch.Tensor:
        """Return what belongs to one image, of the shape `places`."""
        rows = value[image * self.groups : (image + 1) * self.groups]
        return rows if self.groups > 1 else rows[0]


@dataclass
class Probed:
    """What the probing passes showed.

    Attributes:
        seen: every module that ran and gave a tensor, in the order in which they ended.
        watch: the operations of the first pass, settled.
        output: shape of the model's own first tensor, for two images.
        inputs: what those two images are to the model.
    """

    seen: dict[str, Seen]
    watch: Watch
    output: tuple[int, ...]
    inputs: torch.Tensor


def pictures(size: tuple[int, int]) -> torch.Tensor:
    """Return the pictures that are shown, uint8 [2 + PARTS, 3, H, W].

    The first is noise of little contrast; the second is another; each of the others is the first
    with strong noise in the middle half of one quarter.
    """
    generator = torch.Generator().manual_seed(0)
    height, width = size

    def noise(low: int, high: int, h: int, w: int) -> torch.Tensor:
        return torch.randint(low, high, (3, h, w), generator=generator, dtype=torch.uint8)

    first = noise(100, 156, height, width)
    shown = [first, noise(0, 256, height, width)]
    for part in range(PARTS):
        picture, (top, left, h, w) = first.clone(), part_of(size, part)
        picture[:, top : top + h, left : left + w] = noise(0, 256, h, w)
        shown.append(picture)
    return torch.stack(shown)


def part_of(size: tuple[int, int], part: int) -> tuple[int, int, int, int]:
    """Return (top, left, height, width) of what is changed in one part, in pixels."""
    height, width = size
    return (
        part // 2 * height // 2 + height // 8, part % 2 * width // 2 + width // 8,
        max(1, height // 4), max(1, width // 4),
    )  # fmt: skip


def probe(target: Target) -> Probed:
    """Run a target on the pictures, without gradients; a generator on two of its latents.

    Raises:
        InputError: the target cannot run.
    """
    model, first = target.model, _First(Watch())
    made = isinstance(model, Generator)
    inputs = model.numbers([0, 1]) if isinstance(model, Generator) else target.inputs(
        pictures(target.preprocess.size))  # fmt: skip
    both = inputs[:2]
    with torch.no_grad(), torch.random.fork_rng(_devices(inputs)):
        hooks = _hooked(model, first.after, first.before)
        with hooks, running(target.name, model, both), first.watch:
            output = first_tensor(model(both.clone()))
        first.look_for_changes()
        first.watch.settle()
        passes = [(_second(first.seen), both.flip(0))]
        passes += [(_third(first.seen), inputs[2 + p : 4 + p])
                   for p in range(0, 0 if made else PARTS, 2)]  # fmt: skip
        for look, pair in passes:
            with _hooked(model, look), running(target.name, model, pair):
                model(pair.clone())
    shape = () if output is None else tuple(output.shape)
    return Probed(first.seen, first.watch, shape, both)


def _devices(inputs: torch.Tensor) -> list[torch.device]:
    return [inputs.device] if inputs.device.type == "cuda" else []


Before = Callable[[str, Any, Any], None]
After = Callable[[str, nn.Module, Any], None]


@contextmanager
def _hooked(model: nn.Module, after: After, before: Before | None = None) -> Iterator[None]:
    """Let two functions see what every module is given and gives; looking is no reading."""
    with ExitStack() as stack:
        torch.manual_seed(0)  # a model that draws numbers draws the same ones in each pass
        for name, module in model.named_modules():
            if not name:
                continue

            def enters(module: nn.Module, args: Any, kwargs: Any, name: str = name) -> None:
                with torch._C.DisableTorchFunction():
                    assert before is not None
                    before(name, args, kwargs)

            def leaves(module: nn.Module, args: Any, output: Any, name: str = name) -> None:
                with torch._C.DisableTorchFunction():
                    after(name, module, output)

            if before is not None:
                handle = module.register_forward_pre_hook(enters, with_kwargs=True)
                stack.callback(handle.remove)
            stack.callback(module.register_forward_hook(leaves).remove)
        yield


class _First:
    """Notes every module's input and output, as they are at that moment."""

    def __init__(self, watch: Watch) -> None:
        self.watch = watch
        self.seen: dict[str, Seen] = {}
        # By number and layout: many modules give one tensor.
        self.copies: dict[tuple[int, tuple[int, ...], tuple[int, ...]], torch.Tensor] = {}
        self.given: dict[str, tuple[int, tuple[int, ...], torch.Tensor]] = {}
        self.outputs: dict[str, torch.Tensor] = {}

    def copy(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return a tensor's values as they are now."""
        key = (self.watch.number(tensor), tuple(tensor.shape), tensor.stride())
        if key not in self.copies:
            self.copies[key] = finite(tensor.detach().clone())
        return self.copies[key]

    def before(self, name: str, args: Any, kwargs: Any) -> None:
        """Note what a module is given."""
        source = next(tensors_of((args, kwargs)), None)
        if source is not None:
            self.given[name] = (self.watch.number(source), tuple(source.shape), source)

    def after(self, name: str, module: nn.Module, output: Any) -> None:
        """Note what it gives."""
        tensor = first_tensor(output)
        if tensor is None:
            return
        if name in self.seen:
            self.seen[name].calls += 1
            return
        source, watch = self.given.get(name), self.watch
        computes = next(module.parameters(), None) is None and not list(module.children())
        if computes and source is not None:
            watch.pass_through(source[2], source[0], tensor)
        self.seen[name] = Seen(
            name, module, watch.number(tensor), None if source is None else source[0],
            watch.spot(tensor), tuple(tensor.shape), self.copy(tensor),
            None if source is None else source[1], refused=_unfit(tensor),
        )  # fmt: skip
        self.outputs[name] = tensor

    def look_for_changes(self) -> None:
        """Note which outputs are no longer what their modules gave."""
        for name, tensor in self.outputs.items():
            record = self.seen[name]
            same = tensor.shape == record.value.shape and torch.equal(finite(tensor), record.value)
            record.changed = not same


def _unfit(tensor: torch.Tensor) -> str | None:
    """Say why a tensor can be no map of units, whatever its values."""
    if not tensor.is_floating_point():
        return f"its output holds {str(tensor.dtype).removeprefix('torch.')}, no activations"
    if not 2 <= tensor.ndim <= MOST_DIMS:
        return f"its output has {tensor.ndim} dimensions: {list(tensor.shape)}"
    if tensor.numel() and not bool(torch.isfinite(tensor).any()):
        return "its output holds values that are no numbers"
    return None


def finite(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor with zeros for what is no number or infinite, which says nothing of places.

    A unit that gives such values on some images has a layout all the same.
    """
    if not tensor.is_floating_point():
        return tensor
    return torch.nan_to_num(tensor, nan=0.0, posinf=0.0, neginf=0.0)


def _second(seen: dict[str, Seen]) -> After:
    """Tell from the same two images in the other order which rows belong to which."""

    def look(name: str, module: nn.Module, output: Any) -> None:
        record, tensor = seen.get(name), first_tensor(output)
        if record is None or tensor is None or record.refused or record.apart:
            return
        record.refused = _find_rows(record, finite(tensor))
        if not record.refused:
            first, other = (record.of_image(record.value, i) for i in (0, 1))
            record.apart = _distances(first, other, record.groups)

    return look


def _find_rows(record: Seen, swapped: torch.Tensor) -> str | None:
    """Settle how many rows belong to an image; say why where they cannot be told."""
    value, count = record.value, record.shape[0]
    if swapped.shape != value.shape:
        return "its output has another shape each time"
    halves = swapped.roll(count // 2, 0) if count % 2 == 0 else swapped
    far = float((value - value.roll(count // 2, 0)).double().norm())
    record.constant = far == 0 and count % 2 == 0
    near = float((value - halves).double().norm())
    record.groups = max(count // 2, 1)
    if count % 2 == 0 and near <= SAME * far:
        return None
    for axis in range(1, value.ndim):
        size = value.shape[axis]
        if size % 2:
            continue
        here = float((value - swapped.roll(size // 2, axis)).double().norm())
        if here < SAME * float((value - value.roll(size // 2, axis)).double().norm()):
            return f"its output {list(value.shape)} has the images of a batch on axis {axis}"
    whole = f"its output {list(value.shape)} for two images"
    if count % 2:
        return f"{whole} has no row, or no equal number of rows, for each image"
    return f"{whole} has rows that do not follow the images one after another"


def _distances(one: torch.Tensor, other: torch.Tensor, groups: int) -> dict[int, torch.Tensor]:
    """Return how far each place lies apart, by each axis that may hold the units."""
    apart = (one.double() - other.double()).abs()
    return {axis: apart.mean(axis) for axis in unit_axes(one.ndim, groups)}


def unit_axes(ndim: int, groups: int) -> tuple[int, ...]:
    """Return which axes of what belongs to one image may hold the units.

    They come first or last; those of rows that belong to an image each come last.
    """
    spatial = ndim - (groups > 1)
    return (ndim - 1,) if spatial == 1 else (ndim - spatial, ndim - 1)


def _third(seen: dict[str, Seen]) -> After:
    """Note how far each place moved when a part of the first picture changed."""
    counted: dict[str, int] = {}

    def look(name: str, module: nn.Module, output: Any) -> None:
        record, tensor = seen.get(name), first_tensor(output)
        if record is None or tensor is None or record.refused or counted.get(name):
            return
        counted[name] = 1
        if tensor.shape != record.value.shape:
            record.refused = "its output has another shape each time"
            return
        first = record.of_image(record.value, 0)
        for image in (0, 1):
            moved = _distances(record.of_image(finite(tensor), image), first, record.groups)
            for axis, distance in moved.items():
                record.changes.setdefault(axis, []).append(distance)

    return look
