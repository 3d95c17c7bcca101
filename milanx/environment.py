"""Where milanx runs: the device, the versions of its libraries, what a bug report needs."""

from __future__ import annotations

import contextlib
import importlib.metadata
from typing import Any

from milanx.errors import InputError

LIBRARIES = ("torch", "timm", "transformers", "open_clip_torch", "peft", "numpy", "pillow")
TRIM_THRESHOLD, MMAP_MAX = -1, -4  # options of glibc's mallopt(3)


def pick_device(device: str) -> str:
    """Resolve ``auto``; anything else is taken at its word.

    Raises:
        InputError: a device that is not there.
    """
    import torch

    if device == "auto":
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(
            f"the device {device!r} cannot be used",
            str(error).splitlines()[0],
            "--device auto takes what is there",
        ) from error
    return device


def keep_memory() -> None:
    """Let glibc keep the memory that is freed, for the next tensor of its size.

    By default it asks the kernel for every large block and hands it back at once; on two CPU cores
    the clearing of those pages took a third of the time of encoding. Does nothing elsewhere.
    """
    import ctypes

    with contextlib.suppress(OSError, AttributeError, TypeError):
        adjust = ctypes.CDLL(None).mallopt
        for option, value in ((MMAP_MAX, 0), (TRIM_THRESHOLD, 2**31 - 1)):
            adjust(option, value)


def versions() -> dict[str, str]:
    """Return the versions of milanx and of its main libraries."""
    from milanx import __version__

    found = {"milanx": __version__}
    for name in LIBRARIES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def environment() -> dict[str, Any]:
    """Return what a bug report needs: versions, device, optional parts, caches."""
    import os
    import platform

    import torch

    from milanx.files import cache_dir

    optional = {}
    for name in ("bitsandbytes", "datasets", "tensorboard", "sentence_transformers"):
        try:
            optional[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            optional[name] = "not installed"
    return {
        **versions(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": pick_device("auto"),
        "threads": torch.get_num_threads(),
        **optional,
        "cache": str(cache_dir()),
        "HF_HOME": os.environ.get("HF_HOME", "not set"),
        "HF_HUB_OFFLINE": os.environ.get("HF_HUB_OFFLINE", "not set"),
    }
