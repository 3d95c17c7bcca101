"""Which layers a target has, and how their units are read.

`probing` runs the model on pictures that differ, `layout` tells from that where units and places
are, `watch` which nonlinearity follows, `gates` which layers are halves of a gated MLP, and `inert`
which positions have no path to the output.
"""

from __future__ import annotations

import dataclasses

from torch import nn

from milanx.targets.cam import with_class_maps
from milanx.targets.effects import settle
from milanx.targets.flow import Layout
from milanx.targets.functions import NONLINEAR, Consumed, consumed, off_value, value_range
from milanx.targets.gates import find_gates
from milanx.targets.generator import Generator
from milanx.targets.heads import with_heads
from milanx.targets.inert import find_inert
from milanx.targets.layout import Layouts
from milanx.targets.operations import PASSING
from milanx.targets.probing import SKIPPED, Probed, Seen, probe
from milanx.targets.units import CLASS, LayerInfo
from milanx.targets.zoo import Target

__all__ = ["NONLINEAR", "PASSING", "Consumed", "consumed", "discover"]


def discover(target: Target) -> list[LayerInfo]:
    """Find every layer, by a few forward passes and, where the model has gradients, one backward.

    Returns:
        The layers in the order of the forward pass, each token layer also at its class token, and
        the heads of attention modules behind them; those that a nonlinearity follows carry it,
        and those that cannot be described say why.

    Raises:
        InputError: the target does not run.
    """
    probed = probe(target)
    layouts, gates = (
        Layouts(target.preprocess.size, probed.watch, target.tokens),
        find_gates(probed),
    )
    infos: list[LayerInfo] = []
    records = [r for r in probed.seen.values() if type(r.module).__name__ not in SKIPPED]
    for record in records:
        if record.calls > 1:
            record.refused = f"it runs {record.calls} times in one forward pass"
    if isinstance(target.model, Generator):
        return _generated(target, probed, records)
    for record, layout in zip(records, layouts.settle_all(records), strict=True):
        if isinstance(layout, str):
            infos.append(_refused(record, layout))
        else:
            infos.extend(_infos(probed, record, layout, gates.get(record.name)))
    good = [info for info in infos if info.refused is None]
    inert = dict(zip((i.name for i in good), find_inert(target, probed.inputs, good), strict=True))
    infos = [dataclasses.replace(i, inert=inert[i.name]) if i.name in inert else i for i in infos]
    return with_heads(probed, with_class_maps(probed, _with_better(target.model, infos)))


def _generated(target: Target, probed: Probed, records: list[Seen]) -> list[LayerInfo]:
    """Make the entries of a generator's modules, by what changes of each do to the image."""
    infos: list[LayerInfo] = []
    for record in records:
        found = settle(target, probed, record)
        if isinstance(found.layout, str):
            infos.append(_refused(record, found.layout))
        else:
            infos += [dataclasses.replace(info, inert=found.inert)
                      for info in _infos(probed, record, found.layout, None)]  # fmt: skip
    return _with_better(target.model, infos)


def _refused(record: Seen, why: str) -> LayerInfo:
    """Make the entry of a module that cannot be described."""
    return LayerInfo(record.name, record.name, "", 0, (0, 0), inert=None, refused=why)


def _infos(probed: Probed, record: Seen, layout: Layout, down: str | None) -> list[LayerInfo]:
    """Make the entries of one module: one, or two for tokens with a class token."""
    base = _base(probed, record, down)
    shape, ndim = record.places, len(record.shape)
    if len(shape) == 2 and record.groups == 1 and layout.axis == 0:  # [b, u, n]: units come first
        cells = layout.map_size[0] * layout.map_size[1]
        order = layout.order or tuple(range(layout.prefix, layout.prefix + cells))
        layout = dataclasses.replace(layout, order=order, prefix=0, suffix=0)
    units = shape[layout.axis]
    if down:
        projection = probed.seen[down]
        assert projection.source is not None
        units = projection.source[-1 if layout.axis == len(shape) - 1 else 1]
    made = dataclasses.replace(
        base, units=units, map_size=layout.map_size, groups=record.groups, order=layout.order,
        prefix_tokens=layout.prefix, suffix_tokens=layout.suffix,
    )  # fmt: skip
    if ndim == 2 and record.groups == 1:
        return [dataclasses.replace(
            made, kind="logits" if record.shape == probed.output else "vector")]  # fmt: skip
    last = layout.axis == len(shape) - 1
    if ndim == 4:
        return [dataclasses.replace(made, kind="conv", channels_last=last)]
    bent = not base.linear and isinstance(record.module, nn.Linear)
    if layout.map_size == (1, 1):
        return [dataclasses.replace(made, kind="vector")]
    patch = dataclasses.replace(
        made, kind="neurons" if bent else "tokens",
        channels_last=last and (bool(layout.order) or record.groups > 1),
    )  # fmt: skip
    if not layout.prefix:
        return [patch]
    at_class = dataclasses.replace(
        patch, name=record.name + CLASS, map_size=(1, 1), class_token=True
    )
    return [patch, at_class]


def _base(probed: Probed, record: Seen, down: str | None) -> LayerInfo:
    """What holds of a module's output whatever its shape."""
    watch = probed.watch
    reads = watch.read_as.get(record.number)
    done = reads or watch.made_by.get(record.number)
    low, high = value_range(done)
    own = None if down else reads
    return LayerInfo(
        record.name, record.name, "conv", 0, (1, 1),
        read="into " + down if down else f"after {done.name}" if done else "output",
        rectified=low and not down, upper=None if down else high,
        off=None if down else off_value(done),
        linear=done is None and down is None, nonlinearity=own.name if own else None,
        changed=record.changed, input_of=down, consumed=own,
    )  # fmt: skip


def _with_better(model: nn.Module, infos: list[LayerInfo]) -> list[LayerInfo]:
    """Point from each linear or inert layer to the nearest that is neither."""
    good = [
        i
        for i, info in enumerate(infos)
        if not info.refused
        and not info.linear
        and not info.inert
        and not info.class_token
        and next(model.get_submodule(info.module).parameters(), None) is not None
    ]
    made = []
    for i, info in enumerate(infos):
        if (info.linear or info.inert) and good and info.kind != "logits" and not info.refused:
            block = info.module.rpartition(".")[0] or info.module

            def distance(j: int, i: int = i, block: str = block) -> tuple[bool, int, int]:
                return not infos[j].module.startswith(block), abs(i - j), j

            info = dataclasses.replace(info, better=infos[min(good, key=distance)].name)
        made.append(info)
    return made
