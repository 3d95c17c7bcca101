"""Edits written into weights: what sets a unit to a value, as rows of its maker or its readers.

A unit that its maker's weights and bias set to a constant is that constant everywhere, whatever
nonlinearity lies between. Where the maker cannot (it has no bias, or several things read it before
the nonlinearity), the weights by which the unit is read are set instead, and what they would have
added goes into the bias; at the border of a padded convolution that is not the same. Whatever is
written is compared with the edit by hooks before anyone gets it.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from milanx.act.ablate import Edit, ablate
from milanx.act.graph import MAKERS, READERS, Graph, Op, draw
from milanx.targets.layers import Consumed
from milanx.targets.units import LayerInfo, first_tensor
from milanx.targets.zoo import Target

TOLERANCE = 1e-5  # of logits, relative to the largest where that is above 1
SPAN = 20.0  # in which an argument of a nonlinearity is looked for
STEPS = 8001  # of the grid over it
CLOSE = 1e-6  # how near the nonlinearity must come to the value, in float32
SCALED_WITH = {"relu", "leaky_relu"}  # f(a x) = a f(x) for a >= 0

State = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Written:
    """What became of edits as weights.

    Attributes:
        state: the whole state dict of the edited model, on the CPU; None where it cannot be had.
        changed: names of the tensors that differ from the original's.
        ways: one sentence a layer: whose weights hold the edit, or why none do.
        gap: the largest difference of logits from the edit by hooks.
        images: on how many images.
    """

    state: State | None
    changed: tuple[str, ...]
    ways: tuple[str, ...]
    gap: float
    images: int


class _Cannot(Exception):
    """These weights do not express this edit; says why."""


@dataclass
class _Way:
    """A way to write an edit: what it does to a state dict, in words and in deed."""

    text: str
    apply: Callable[[State], None]
    padded: bool = False


@dataclass
class _Trial:
    """A copy of the target that weights are tried on."""

    target: Target
    infos: Mapping[str, LayerInfo]
    batches: Sequence[torch.Tensor]
    model: Any = field(init=False)

    def __post_init__(self) -> None:
        self.model = copy.deepcopy(self.target.model)

    @torch.inference_mode()
    def gap(self, state: State, edits: Sequence[Edit]) -> tuple[float, float]:
        """Return the largest difference of logits from the edit by hooks, and what is allowed."""
        self.model.load_state_dict(state)
        worst, largest = 0.0, 1.0
        with ablate(self.target, edits, self.infos):
            expected = [_logits(self.target.model, b) for b in self.batches]
        for batch, logits in zip(self.batches, expected, strict=True):
            found = _logits(self.model, batch)
            worst = max(worst, float((found - logits).abs().max()))
            largest = max(largest, float(logits.abs().max()))
        return worst if math.isfinite(worst) else math.inf, TOLERANCE * largest


def _logits(model: Any, inputs: torch.Tensor) -> torch.Tensor:
    output = first_tensor(model(inputs))
    assert output is not None
    return output.double()


def write_weights(
    target: Target,
    edits: Sequence[Edit],
    infos: Mapping[str, LayerInfo],
    batches: Sequence[torch.Tensor],
) -> Written:
    """Write edits into a copy of a target's weights, where these express them.

    Args:
        target: the model; it is not changed.
        edits: what to write.
        infos: how the layers are read.
        batches: inputs [b, 3, H, W] on which the result is compared; noise of the same kind is
            added, so that units which are silent on them are seen too.
    """
    generator = torch.Generator().manual_seed(0)
    noise = [torch.randn(b.shape, generator=generator).to(b) for b in batches[:1]]
    trial = _Trial(target, infos, [*batches, *noise])
    count = sum(len(b) for b in trial.batches)
    original = {k: v.detach().clone() for k, v in target.model.state_dict().items()}
    state, graph = {k: v.clone() for k, v in original.items()}, draw(target)
    order = list(graph.gave)
    ways, failed = [], False
    for edit in sorted(edits, key=lambda e: order.index(infos[e.layer].module)):
        text, apply = _first_that_holds(trial, graph, original, edit)
        ways.append(f"{edit.layer}: {text}")
        failed |= apply is None
        if apply is not None:
            apply(state)
    if failed:
        return Written(None, (), tuple(ways), math.nan, count)
    gap, allowed = trial.gap(state, edits)
    if gap > allowed:
        ways.append(f"together they differ by {gap:.1g} from the edits by hooks")
        return Written(None, (), tuple(ways), gap, count)
    changed = tuple(k for k in state if not torch.equal(state[k], original[k]))
    cpu = {k: v.cpu().contiguous() for k, v in state.items()}
    return Written(cpu, changed, tuple(ways), gap, count)


def _first_that_holds(
    trial: _Trial, graph: Graph, original: State, edit: Edit
) -> tuple[str, Callable[[State], None] | None]:
    """Try the ways to write one edit; return the first that holds, or why none does."""
    info = trial.infos[edit.layer]
    reasons = []
    for make in (_by_maker, _by_readers):
        try:
            way = make(graph, trial.target.model, info, edit)
        except _Cannot as error:
            reasons.append(str(error))
            continue
        state = {k: v.clone() for k, v in original.items()}
        way.apply(state)
        gap, allowed = trial.gap(state, [edit])
        if gap <= allowed:
            return way.text, way.apply
        border = "at the border of padded convolutions " if way.padded else ""
        reasons.append(f"{way.text}: {border}logits differ by up to {gap:.1g}")
    return "; ".join(dict.fromkeys(reasons)), None


def _check(info: LayerInfo, edit: Edit) -> None:
    if edit.kind == "resample":
        raise _Cannot("values of other images are no weights")
    if info.class_token or (edit.positions != "all" and info.prefix_tokens):
        raise _Cannot("weights treat all tokens alike, and the edit does not")


def _values(edit: Edit) -> list[float]:
    return list(edit.values) if edit.kind == "mean" else [0.0] * len(edit.units)


def _by_maker(graph: Graph, model: Any, info: LayerInfo, edit: Edit) -> _Way:
    """Write an edit into the weights that make the units."""
    _check(info, edit)
    value = graph.value(info)
    op = None if value is None else graph.maker(value)
    if op is None:
        raise _Cannot("no operation is known that makes its value")
    bend = op.done
    if bend is not None:
        before = graph.maker(op.reads[0])
        others = [o for o in graph.readers(op.reads[0], set()) if o is not op]
        if before is None or others:
            raise _Cannot(f"what {bend.name} reads is read by {_named(others)} too")
        op = before
    if op.name not in MAKERS or not op.weight:
        raise _Cannot(f"it is made by {_named([op])}, whose weights are not one row a unit")
    module = model.get_submodule(op.module)
    if module.weight.shape[0] != info.units:
        raise _Cannot(f"{op.module} has {module.weight.shape[0]} rows for {info.units} units")
    rows, bias = list(edit.units), f"{op.module}.bias"
    has_bias = module.bias is not None
    if edit.kind == "scale":
        if bend is not None and not (bend.name in SCALED_WITH and edit.factor >= 0):
            raise _Cannot(f"{bend.name} of a scaled value is not its value scaled")

        def scale(state: State) -> None:
            for name in (f"{op.module}.weight", *([bias] if has_bias else [])):
                state[name][rows] *= edit.factor

        return _Way(f"rows of {op.module}, which makes them, scaled", scale)
    arguments = [_argument(bend, v) for v in _values(edit)]
    if not has_bias and any(arguments):
        raise _Cannot(f"{op.module}, which makes it, has no bias")

    def put(state: State) -> None:
        state[f"{op.module}.weight"][rows] = 0
        if has_bias:
            state[bias][rows] = torch.tensor(arguments).to(state[bias])

    return _Way(f"rows of {op.module}, which makes them", put)


def _argument(bend: Consumed | None, value: float) -> float:
    """Return what a nonlinearity turns into ``value``.

    Raises:
        _Cannot: nothing does.
    """
    if bend is None:
        return value

    def curve(x: torch.Tensor) -> torch.Tensor:
        return bend(x) - value

    if any(isinstance(a, torch.Tensor) for a in (*bend.args, *bend.kwargs.values())):
        raise _Cannot(f"{bend.name} has weights of its own")
    if float(curve(torch.zeros(1))) == 0:
        return 0.0
    from scipy.optimize import brentq

    span = max(SPAN, 2 * abs(value))
    grid = torch.linspace(-span, span, STEPS, dtype=torch.float64)
    signs = curve(grid).sign()
    crossings = (signs[:-1] * signs[1:] <= 0).nonzero().flatten().tolist()
    for i in sorted(crossings, key=lambda i: abs(float(grid[i]))):
        found = brentq(lambda x: float(curve(torch.tensor(x, dtype=torch.float64))),
                       float(grid[i]), float(grid[i + 1]), xtol=1e-14)  # fmt: skip
        if abs(float(curve(torch.tensor(found, dtype=torch.float32)))) <= CLOSE * max(
            1, abs(value)
        ):
            return float(found)
    raise _Cannot(f"{bend.name} never gives {value:.3g}")


def _by_readers(graph: Graph, model: Any, info: LayerInfo, edit: Edit) -> _Way:
    """Write an edit into the weights that read the units."""
    _check(info, edit)
    value = graph.value(info)
    readers = [] if value is None else graph.readers(value)
    others = [op for op in readers if op.name not in READERS or not op.weight]
    if not readers or others:
        raise _Cannot(f"it is read by {_named(others)}, not by weights alone")
    parts = [_reader(graph, model, op, info, edit) for op in readers]

    def apply(state: State) -> None:
        for part in parts:
            part.apply(state)

    text = "; ".join(part.text for part in parts)
    return _Way(text, apply, any(part.padded for part in parts))


def _named(ops: Sequence[Op]) -> str:
    names = [f"{op.name} in {op.module}" if op.module else op.name for op in ops]
    return ", ".join(dict.fromkeys(names)) or "nothing"


def _reader(graph: Graph, model: Any, op: Op, info: LayerInfo, edit: Edit) -> _Way:
    module = model.get_submodule(op.module)
    if op.name == "batch_norm":
        return _normed(op.module, module, info, edit)
    groups = getattr(module, "groups", 1)
    weight = f"{op.module}.weight"
    if groups == 1:
        each, rest = divmod(module.weight.shape[1], info.units)
        if rest:
            raise _Cannot(f"{op.module} has no column of its own for each unit")
        columns = torch.tensor([u * each + i for u in edit.units for i in range(each)])
        index: Any = (slice(None), columns)
    elif groups == info.units:
        each = module.weight.shape[0] // groups
        columns = torch.tensor([u * each + i for u in edit.units for i in range(each)])
        index = (columns,)
    else:
        raise _Cannot(f"{op.module} reads units in groups")
    factor = edit.factor if edit.kind == "scale" else 0.0
    values = torch.tensor(_values(edit)).repeat_interleave(each)
    sink = _sink(graph, model, op) if bool(values.any()) else None

    def apply(state: State) -> None:
        if sink is not None:
            name, sign = sink
            weights = state[weight][index].double()
            weights = weights.flatten(2).sum(2) if weights.ndim == 4 else weights
            added = torch.zeros(state[name].shape[0], dtype=torch.float64, device=weights.device)
            if groups == 1:
                added += weights @ values.to(weights)
            else:
                added[columns] = weights[:, 0] * values.to(weights)
            state[name] += (sign * added).to(state[name])
        state[weight][index] *= factor

    padded = any(getattr(module, "padding", ())) if op.name == "conv2d" else False
    what = "scaled" if edit.kind == "scale" else f"and {sink[0]}" if sink else ""
    return _Way(f"columns of {op.module}, which reads them {what}".strip(), apply, padded)


def _sink(graph: Graph, model: Any, op: Op) -> tuple[str, int]:
    """Return the vector that can hold what a constant unit adds to a reader, and its sign.

    Raises:
        _Cannot: there is none.
    """
    if model.get_submodule(op.module).bias is not None:
        return f"{op.module}.bias", 1
    after = graph.readers(op.gives, set())
    if len(after) == 1 and after[0].name == "batch_norm":
        name = f"{after[0].module}.running_mean"
        if name in dict(model.named_buffers()):
            return name, -1
    raise _Cannot(f"{op.module}, which reads it, has no bias")


def _normed(name: str, module: Any, info: LayerInfo, edit: Edit) -> _Way:
    """Write an edit into a batch norm that reads the units: y = g (x - m) / s + b."""
    if module.running_mean is None:
        raise _Cannot(f"{name}, which reads it, normalises by the batch")
    rows = list(edit.units)
    values = torch.tensor(_values(edit), dtype=torch.float64)

    def apply(state: State) -> None:
        weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
        mean = state[f"{name}.running_mean"][rows].double()
        deviation = (state[f"{name}.running_var"][rows].double() + module.eps).sqrt()
        slope = weight[rows].double() / deviation
        if edit.kind == "scale":
            bias[rows] += (slope * mean * (edit.factor - 1)).to(bias)
            weight[rows] *= edit.factor
        else:
            bias[rows] += (slope * (values.to(mean) - mean)).to(bias)
            weight[rows] = 0

    return _Way(f"{name}, which reads them", apply)
