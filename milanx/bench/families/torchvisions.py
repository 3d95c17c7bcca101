"""A small member of each family of torchvision's classifiers."""

from __future__ import annotations

from milanx.bench.families.member import Member, shown_at
from milanx.targets.zoo import Target, load_target

PREFIX = "torchvision:"
# By the file of torchvision's in which the family stands.
FAMILIES = {
    family: Member(PREFIX + name, side)
    for family, (name, side) in {
        "alexnet": ("alexnet", 128), "convnext": ("convnext_tiny", 96),
        "densenet": ("densenet121", 160), "efficientnet": ("efficientnet_b0", 160),
        "googlenet": ("googlenet", 160), "inception": ("inception_v3", 149),
        "maxvit": ("maxvit_t", None), "mnasnet": ("mnasnet0_5", 160),
        "mobilenetv2": ("mobilenet_v2", 160), "mobilenetv3": ("mobilenet_v3_small", 160),
        "regnet": ("regnet_y_400mf", 160), "resnet": ("resnet18", 160),
        "shufflenetv2": ("shufflenet_v2_x0_5", 160), "squeezenet": ("squeezenet1_1", 160),
        "swin_transformer": ("swin_t", 112), "vgg": ("vgg11", 96),
        "vision_transformer": ("vit_b_16", None),
    }.items()
}  # fmt: skip


def load(member: Member) -> Target:
    """Build a member with random weights.

    Raises:
        MilanxError: it cannot be built.
    """
    return load_target(member.name, random_weights=True, preprocess=shown_at(member.side))
