"""How an image becomes a view, the RGB picture that a target really sees, and its input."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from PIL import Image


RARE = "rounds_down"


@dataclass(frozen=True)
class Preprocess:
    """How an image becomes a view, and a view the target's input.

    Attributes:
        size: (H, W) of the view.
        resize: short side in pixels before the centre crop; (H, W) squashes; None keeps the size.
        interpolation: nearest, bilinear, bicubic or lanczos.
        mean: subtracted from values in 0..1.
        std: divided by.
        rounds_down: where the centre crop begins when an odd number of pixels is cut off: half of
            it rounded down, as transformers does it, and not to an even number, as torchvision.
    """

    size: tuple[int, int] = (224, 224)
    resize: int | tuple[int, int] | None = 256
    interpolation: str = "bilinear"
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    rounds_down: bool = False

    def view(self, image: Image.Image) -> np.ndarray:
        """Resize and centre-crop an image as torchvision does; uint8 [H, W, 3].

        Of a picture that would be far larger than the view only the part that is seen is made: to
        a level or two what torchvision gives.
        """
        from torchvision.transforms import functional as T

        from milanx.images.resizing import resized, resized_size

        if image.mode != "RGB":
            image = image.convert("RGB")
        if self.resize is not None:
            mode = T.pil_modes_mapping[getattr(T.InterpolationMode, self.interpolation.upper())]
            if isinstance(self.resize, int):
                wanted = resized_size(image.size, self.resize)
            else:
                wanted = self.resize[1], self.resize[0]
            crop = self.size[1], self.size[0]
            image = resized(image, wanted, crop, mode, rounds_down=self.rounds_down)
        height, width = self.size
        top, left = (image.height - height) // 2, (image.width - width) // 2
        if self.rounds_down and min(top, left) >= 0:
            return np.asarray(image.crop((left, top, left + width, top + height)))
        return np.asarray(T.center_crop(image, list(self.size)))

    def normalise(self, views: torch.Tensor) -> torch.Tensor:
        """Turn views uint8 [b, 3, H, W] into inputs float32 [b, 3, H, W]."""
        mean = torch.tensor(self.mean, device=views.device)[:, None, None]
        std = torch.tensor(self.std, device=views.device)[:, None, None]
        return (views.float() / 255 - mean) / std

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as json can write them; what few have is left out of the others."""
        values = asdict(self)
        return values if self.rounds_down else {k: v for k, v in values.items() if k != RARE}
