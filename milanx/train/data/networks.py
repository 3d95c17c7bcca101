"""Which networks and units of MILANNOTATIONS train, and which measure."""

from __future__ import annotations

from dataclasses import dataclass

from milanx.images.splits import held_out

HELD_OUT = 0.1  # share of a network's units that are for measuring
CLASSIFIERS = ("alexnet/imagenet", "alexnet/places365", "resnet152/imagenet", "resnet152/places365")
GENERATORS = ("biggan/imagenet", "biggan/places365")
BASE = CLASSIFIERS + GENERATORS
DINO = "dino_vits8/imagenet"


def _having(part: str) -> tuple[str, ...]:
    return tuple(network for network in BASE if part in network.split("/"))


GROUPS: dict[str, tuple[str, ...]] = {
    "base": BASE,
    "cls": CLASSIFIERS,
    "gen": GENERATORS,
    **{part: _having(part) for part in ("imagenet", "places365", "alexnet", "resnet152", "biggan")},
    **{f"not-{n.replace('/', '-')}": tuple(m for m in BASE if m != n) for n in BASE},
    **{network: (network,) for network in (*BASE, DINO)},
}


@dataclass(frozen=True)
class Split:
    """Which units train and which measure.

    As published, units of both sides may share photos: a network's units were shown one set.

    Attributes:
        train: networks that are trained on.
        test: networks that are measured on.
        within: both are the same networks, split by unit.
    """

    train: tuple[str, ...]
    test: tuple[str, ...]
    within: bool = False


def _splits() -> dict[str, Split]:
    def across(kind: str, *pairs: tuple[str, str]) -> dict[str, Split]:
        return {f"{kind}/{a}-{b}": Split(GROUPS[a], GROUPS[b]) for a, b in pairs}

    def both(a: str, b: str) -> tuple[tuple[str, str], tuple[str, str]]:
        return (a, b), (b, a)

    return {
        **{name: Split(networks, networks, True) for name, networks in GROUPS.items()},
        **{f"within-network/{n.replace('/', '-')}": Split((n,), (n,), True) for n in BASE},
        **across("across-network", *both("alexnet", "resnet152")),
        **across("across-dataset", *both("imagenet", "places365")),
        **across("across-task", *both("cls", "gen")),
        "across-arch/base-dino": Split(BASE, (DINO,)),
        **{
            f"leave-one-out/{n.replace('/', '-')}": Split(
                GROUPS[f"not-{n.replace('/', '-')}"], (n,)
            )
            for n in BASE
        },
    }


SPLITS: dict[str, Split] = _splits()


def held_out_unit(network: str, layer: str, unit: int, seed: int = 0) -> bool:
    """Whether a unit is for measuring; by rule, so nothing needs to be stored.

    With seed 0 the units of ResNet-152 on ImageNet are held out here and in the text alone
    (`milanx.train.units.pretraining`) alike.
    """
    key = f"{network.removesuffix('/imagenet')} {layer} {unit}"
    return held_out(f"{seed} {key}" if seed else key, HELD_OUT)
