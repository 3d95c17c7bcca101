"""What happens to a tensor within one forward pass: what made it, what reads it, how.

Operations are seen as torch is called; what a layer's output becomes, step by step and element by
element, is told by the values of a sample of its places, whatever code computes them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from milanx.targets.functions import NONLINEAR, Consumed, consumed, recognise
from milanx.targets.operations import (
    ATTENDING,
    ELEMENTWISE,
    IN_PLACE,
    LIKE,
    MOVES,
    NO_READING,
    PARTS,
    PASSING,
    POOLING,
    PRODUCTS,
    SPATIAL,
    operation,
)
from milanx.targets.units import tensors_of

SAMPLE = 4096  # places of a tensor whose values tell its function


@dataclass
class _Step:
    """One operation of a chain: what gave it, and its result."""

    sources: tuple[int, ...]  # of the chain, by number of tensor
    gives: int
    values: torch.Tensor  # of the sampled places
    done: Consumed | None  # the nonlinearity, where torch has a name for it


@dataclass
class _Chain:
    """What a tensor becomes, element by element, before anything else is mixed in."""

    root: int
    values: torch.Tensor
    shape: torch.Size
    steps: dict[int, _Step] = field(default_factory=dict)
    last: int | None = None
    found: Consumed | None = None
    ended: bool = False  # something other than a computation of elements read the tensor first

    def take(self, step: _Step) -> None:
        """Go on by a step."""
        self.steps[step.gives] = step
        self.last = step.gives

    def settle(self) -> tuple[int, Consumed] | None:
        """Find the last step whose values are a known function of the tensor's own.

        From a step that is none, only what all of it was computed through is looked at: of
        x tanh(x), which has no name, tanh(x) is a part that x goes around; of pool(relu(x)) -
        relu(x) nothing is read but relu(x).
        """
        through: dict[int, tuple[int, ...]] = {self.root: ()}  # the way of all, first to last
        for step in self.steps.values():
            ways = [through[n] for n in step.sources]
            shared = [n for n in ways[0] if all(n in way for way in ways[1:])]
            through[step.gives] = (*shared, step.gives)
        for at in reversed(through.get(self.last if self.last is not None else self.root, ())):
            step = self.steps[at]
            if step.done is not None and step.sources == (self.root,):
                return at, step.done
            done = recognise(self.values, step.values)
            if done is not None:
                return at, done
        return None


@dataclass(frozen=True)
class Product:
    """A tensor that was made of two others by multiplication, by number of tensor."""

    left: int
    right: int
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Edge:
    """How the places of one tensor are those of another.

    Attributes:
        source: the one, by its spot (`Watch.spot`).
        target: the other.
        shape: of the one.
        result: of the other.
        move: gives the other for the one, for whatever elements; None where it was computed.
        axis: that the computation mixes, of the units; None where it was moved.
        pooled: the axis along which one element was made of several.
        weak: followed only where nothing else tells the places.
    """

    source: int
    target: int
    shape: tuple[int, ...]
    result: tuple[int, ...]
    move: Callable[[torch.Tensor], torch.Tensor] | None = None
    axis: int | None = None
    pooled: int | None = None
    weak: bool = False


class Watch(TorchFunctionMode):
    """Notes what reads, makes and changes tensors during one forward pass.

    Tensors have numbers; one that is changed in place has a new number from there on, and what
    merely hands a tensor on has its number. They have spots beside: what moves elements about gives
    a tensor of another spot.
    """

    def __init__(self) -> None:
        super().__init__()
        self.alive: list[torch.Tensor] = []  # so that no id is used twice
        self.numbers: dict[int, int] = {}
        self.next = 0
        self.chains: dict[int, _Chain] = {}  # by the tensor that they begin at
        self.within: dict[int, list[int]] = {}  # the chains that a tensor is in
        self.products: dict[int, Product] = {}
        self.part_of: dict[int, int] = {}
        self.made_by: dict[int, Consumed] = {}
        self.bent_from: dict[int, int] = {}  # what a nonlinearity was computed from
        self.read_as: dict[int, Consumed] = {}
        self.beside: dict[int, int] = {}  # another tensor with the same places, towards one of all
        self.edges: list[Edge] = []
        self.spots: dict[int, int] = {}

    def number(self, tensor: torch.Tensor, *, anew: bool = False) -> int:
        """Return a tensor's number; a new one for one that was changed in place."""
        if anew or id(tensor) not in self.numbers:
            self.alive.append(tensor)
            self.numbers[id(tensor)], self.next = self.next, self.next + 1
            self.spots.pop(id(tensor), None)
        return self.numbers[id(tensor)]

    def spot(self, tensor: torch.Tensor) -> int:
        """Return what stands for a tensor's places."""
        number = self.number(tensor)
        return self.spots.setdefault(id(tensor), number)

    def hand_on(self, source: torch.Tensor, result: torch.Tensor) -> None:
        """Let ``result`` be the same tensor as ``source``."""
        self.alive.append(result)
        self.numbers[id(result)] = self.number(source)
        self.spots[id(result)] = self.spot(source)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        plain = operation(func)
        given = list(tensors_of((args, kwargs))) if plain not in NO_READING else []
        if not given:
            return func(*args, **kwargs)
        if plain in LIKE and isinstance(args[0] if args else None, torch.Tensor):
            given = given[:1]
        reads, spots = [self.number(t) for t in given], [self.spot(t) for t in given]
        shapes = [tuple(t.shape) for t in given]
        if plain not in PASSING:
            self._begin(given)
        result = func(*args, **kwargs)
        first = given[0]
        if plain in PASSING:
            if isinstance(result, torch.Tensor) and result is not first:
                self.hand_on(first, result)
        elif plain in PARTS:
            for part in tensors_of(result):
                self.part_of[self.number(part, anew=True)] = reads[0]
        elif isinstance(result, torch.Tensor):
            self._compute(plain, given, reads, result, args, kwargs)
            self._place(plain, spots, shapes, result)
        elif plain == "setitem":
            self.number(first, anew=True)
        elif plain == "multi_head_attention_forward":  # and its weights
            self._place(plain, spots, shapes, result[0])
        self._end(plain, reads)
        if plain in POOLING and first is args[0]:
            self._pool(args, kwargs, spots[0], shapes[0], result)
        if plain in MOVES and args and first is args[0]:
            self._move(func, (plain, args, kwargs), spots[0], shapes[0], result)
        elif plain in ("cat", "concat", "concatenate") and isinstance(result, torch.Tensor):
            self._join_up(func, args, kwargs, spots, shapes, result)
        return result

    def _move(
        self, func: Any, call: tuple[str, Any, Any], spot: int, shape: tuple[int, ...], result: Any
    ) -> None:
        """Note how elements were moved about."""
        several, (name, args, kwargs) = not isinstance(result, torch.Tensor), call
        for place, part in enumerate(tensors_of(result)):

            def move(value: torch.Tensor, place: int = place) -> torch.Tensor:
                with torch._C.DisableTorchFunction():
                    # Which torch knows for floating point alone; numbers below 2^24 are exact.
                    given = value.float() if name == "unfold" else value
                    made = func(given, *args[1:], **kwargs)
                    found: torch.Tensor = made[place] if several else made
                    return found.to(value.dtype)

            self.number(part)
            same = spot in (self.numbers[id(part)], self.spots.get(id(part)))
            if same and tuple(part.shape) == shape and name not in ("permute", "transpose"):
                continue
            self.next += 1
            self.spots[id(part)] = self.next - 1
            self.edges.append(Edge(spot, self.spots[id(part)], shape, tuple(part.shape), move))

    def _pool(self, args: Any, kwargs: Any, spot: int, shape: tuple[int, ...], result: Any) -> None:
        """Note along which axis elements were pooled."""
        axis = kwargs.get("dim", args[1] if len(args) > 1 else None)
        made = next(tensors_of(result))  # of max and min, which say where it was beside
        if isinstance(axis, int) and made.ndim in (len(shape) - 1, len(shape)):
            self.edges.append(Edge(spot, self.spot(made), shape, tuple(made.shape),
                                   pooled=axis % len(shape)))  # fmt: skip

    def _join_up(
        self, func: Any, args: Any, kwargs: Any, spots: list[int], shapes: list[tuple[int, ...]],
        result: torch.Tensor,
    ) -> None:  # fmt: skip
        """Note where the elements of each of several tensors stand in all of them together."""
        for place, (spot, shape) in enumerate(zip(spots, shapes, strict=True)):
            if _widened(shape, tuple(result.shape)):
                axis = 1 if len(shape) == 4 and shape[1] != result.shape[1] else -1
                edge = Edge(spot, self.spot(result), shape, tuple(result.shape), axis=axis)
            else:

                def move(value: torch.Tensor, place: int = place) -> torch.Tensor:
                    others = [value if i == place else value.new_zeros(s)
                              for i, s in enumerate(shapes)]  # fmt: skip
                    with torch._C.DisableTorchFunction():
                        made: torch.Tensor = func(others, *args[1:], **kwargs)
                        return made

                edge = Edge(spot, self.spot(result), shape, tuple(result.shape), move)
            self.edges.append(edge)

    def _begin(self, given: list[torch.Tensor]) -> None:
        """Begin the chain of every tensor that is read for the first time."""
        for tensor in given:
            number = self.number(tensor)
            if number not in self.chains and tensor.is_floating_point():
                self.chains[number] = _Chain(number, sample(tensor), tensor.shape)
                self.within.setdefault(number, []).append(number)

    def _end(self, plain: str, reads: list[int]) -> None:
        """End the chain of a tensor whose first reader is no computation of its elements."""
        if plain in PASSING:
            return
        for number in reads:
            chain = self.chains.get(number)
            if chain is not None and chain.last is None:
                chain.ended = True

    def _compute(
        self, plain: str, given: list[torch.Tensor], reads: list[int], result: torch.Tensor,
        args: Any, kwargs: Any,
    ) -> None:  # fmt: skip
        """Note the result of a computation, and each chain that it goes on."""
        changed = any(result is t for t in given)
        gives = self.number(result, anew=changed)
        if plain in ("mul", "multiply") and len(reads) == 2:
            self.products[gives] = Product(reads[0], reads[1], tuple(result.shape))
        if plain == "glu":
            self.products[gives] = Product(reads[0], reads[0], tuple(result.shape))
        if plain not in ELEMENTWISE and plain not in NONLINEAR:
            return
        done = consumed(plain, tuple(args[1:]), kwargs) if plain in NONLINEAR else None
        if not isinstance(args[0] if args else None, torch.Tensor):
            done = None
        self.follow(given, reads, result, gives, done)

    def _place(
        self, plain: str, spots: list[int], shapes: list[tuple[int, ...]], result: torch.Tensor
    ) -> None:
        """Note which tensors have the same places, whatever their units are."""
        gives, shape, first = self.spot(result), tuple(result.shape), shapes[0]
        if plain in IN_PLACE or plain in NONLINEAR:
            for spot, own in zip(spots, shapes, strict=True):
                if own == shape:
                    self._join(spot, gives)
        elif plain == "linear" or plain in ATTENDING:  # a query's answer is at its place
            self.edges.append(Edge(spots[0], gives, first, shape, axis=-1))
        elif plain in PRODUCTS and len(shapes) > 1:  # its rows are the first's, or the other's
            self.edges += [Edge(spots[0], gives, first, shape, axis=-1),
                           Edge(spots[1], gives, shapes[1], shape, axis=-2, weak=True)]  # fmt: skip
        elif len(first) == len(shape) == SPATIAL.get(plain):
            self.edges.append(Edge(spots[0], gives, first, shape, axis=1))

    def places(self, number: int) -> int:
        """Return a number that stands for all tensors that have the same places."""
        while number in self.beside:
            number = self.beside[number]
        return number

    def _join(self, one: int, other: int) -> None:
        one, other = self.places(one), self.places(other)
        if one != other:
            self.beside[one] = other

    def follow(
        self, given: list[torch.Tensor], reads: list[int], result: torch.Tensor, gives: int,
        done: Consumed | None = None,
    ) -> None:  # fmt: skip
        """Go on with the chains that a result is computed from alone."""
        values = None
        for root in dict.fromkeys(c for n in reads for c in self.within.get(n, ())):
            chain = self.chains[root]
            own = [n for n in reads if n == root or n in chain.steps]
            foreign = [t for t, n in zip(given, reads, strict=True) if n not in own]
            weight = done is not None and done.name == "prelu"
            mixed = not all(is_one(t) for t in foreign) and not weight
            if chain.ended or mixed or result.shape != chain.shape or gives in chain.steps:
                continue
            values = sample(result) if values is None else values
            chain.take(_Step(tuple(dict.fromkeys(own)), gives, values, done))
            self.within.setdefault(gives, []).append(root)

    def pass_through(self, given: torch.Tensor, number: int, result: torch.Tensor) -> None:
        """Note what a module without weights made of a tensor, whatever code computed it."""
        if result is given or not result.is_floating_point() or not given.is_floating_point():
            return
        if number not in self.chains and self.number(given) == number:
            self._begin([given])
        if number in self.chains:
            self.follow([given], [number], result, self.number(result))

    def settle(self) -> None:
        """Say of every chain what function it computes."""
        for root, chain in self.chains.items():
            found = chain.settle()
            if found is not None:
                self.read_as[root] = found[1]
                self.made_by.setdefault(found[0], found[1])
                self.bent_from.setdefault(found[0], root)


def _widened(part: tuple[int, ...], whole: tuple[int, ...]) -> bool:
    """Whether a tensor was joined with others along its units: the second axis, or the last."""
    differing = [i for i, (a, b) in enumerate(zip(part, whole, strict=False)) if a != b]
    axes = ([1], [3]) if len(part) == 4 else ([len(part) - 1],)
    return len(part) == len(whole) and differing in axes


def is_one(tensor: torch.Tensor) -> bool:
    """Whether a tensor holds one value, however often it is shown."""
    return all(n == 1 or step == 0
               for n, step in zip(tensor.shape, tensor.stride(), strict=True))  # fmt: skip


def sample(tensor: torch.Tensor) -> torch.Tensor:
    """Return the values of at most `SAMPLE` places, the same ones for tensors of one shape."""
    with torch.no_grad(), torch._C.DisableTorchFunction():
        flat = tensor.detach().reshape(-1)
        step = max(1, len(flat) // SAMPLE) | 1  # odd: not the same channel each time
        return flat[::step][:SAMPLE].clone()
