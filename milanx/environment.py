"""Where milanx runs: the device, versions, what a bug report needs, and what is downloaded.

Nothing is downloaded without a line on stderr that says what and how big.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from milanx.errors import InputError, one_line, plain
from milanx.workers import processors

if TYPE_CHECKING:
    from accelerate import PartialState

WAIT = timedelta(hours=1)  # for the other processes, before giving up
# Beginnings of the variables by which launchers tell a process of others.
LAUNCHERS = ("WORLD_SIZE", "RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "PMI_", "PMIX_",
             "OMPI_COMM_WORLD_", "MV2_COMM_WORLD_", "MPI_LOCAL")  # fmt: skip
LIBRARIES = ("torch", "timm", "transformers", "open_clip_torch", "peft", "numpy", "pillow")
TIMEOUT = 10  # seconds to wait for a size
TRIM_THRESHOLD, MMAP_MAX = -1, -4  # options of glibc's mallopt(3)


def join_processes(cpu: bool = False) -> PartialState:
    """Return what is known of the processes that work together; this one alone unless launched so.

    ``accelerate launch`` and ``torchrun`` start several. What other launchers leave in the
    environment (MPI, Slurm, a notebook inside a job) joins nothing, unless ``MILANX_DISTRIBUTED=1``
    says that all of torch's variables are set: a process that waits for others that do not come
    helps nobody.

    Args:
        cpu: whether no accelerator is used; of the first call.
    """
    from accelerate import PartialState

    if PartialState._shared_state:
        return PartialState()
    launched = "TORCHELASTIC_RUN_ID" in os.environ or os.environ.get("MILANX_DISTRIBUTED") == "1"
    hidden = {name: os.environ.pop(name) for name in list(os.environ)
              if not launched and name.startswith(LAUNCHERS)}  # fmt: skip
    try:
        return PartialState(cpu=cpu, timeout=WAIT)
    finally:
        os.environ |= hidden


def pick_device(device: str) -> str:
    """Resolve ``auto`` and ``cuda``, in each of several processes to a GPU of its own.

    Raises:
        InputError: a device that is not there.
    """
    import torch

    if device in ("auto", "cuda") and torch.cuda.is_available():
        state = join_processes()
        return f"cuda:{state.local_process_index}" if state.num_processes > 1 else "cuda"
    if device == "auto":
        return "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        float(torch.ones(1, device=device).cpu())  # on meta there is nothing to bring back
    except (RuntimeError, AssertionError, TypeError, ValueError) as error:
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


def give_back_memory() -> None:
    """Hand freed memory that glibc keeps (`keep_memory`) back to the system.

    The next stage of a run needs tensors of other sizes: what fitted those of the last one lies
    beside them, and a run would take the sum of its stages. Does nothing elsewhere.
    """
    import ctypes

    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def calm_threads() -> None:
    """Let OpenMP's threads sleep while they wait, and be no more than there are processors.

    By default they spin until the last one is done, which takes the processor from whoever would
    let that one be done; and they are as many as the machine has processors, though a container may
    be given the time of a few. For before torch is loaded; what the environment says is left.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if processors() < len(getattr(os, "sched_getaffinity", lambda _: ())(0)):
        os.environ.setdefault("OMP_NUM_THREADS", str(processors()))


def peak_memory() -> int:
    """Return the most memory that this process has had, in bytes; 0 where that is not told."""
    try:
        import resource
    except ImportError:  # Windows
        return 0
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


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
    import platform

    import torch

    from milanx.files import cache_dir
    from milanx.files.room import LIMIT, limit, sizes

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
        **{f"cache {name}": f"{size / 1e6:.1f} MB" for name, size in sizes().items()},
        LIMIT: f"{limit() / 1e9:g}",
        "HF_HOME": os.environ.get("HF_HOME", "not set"),
        "HF_HUB_OFFLINE": os.environ.get("HF_HUB_OFFLINE", "not set"),
    }


def announce_hub(repository: str, files: Sequence[str], what: str) -> None:
    """Say that a file of the Hugging Face Hub will be downloaded, unless it is here.

    Nothing is said offline either: then the download will be refused.

    Args:
        repository: ``owner/name``.
        files: names that it may have; the first that the Hub has is the one.
        what: it is, for the line.
    """
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url, try_to_load_from_cache

    if constants.HF_HUB_OFFLINE:
        return
    if any(isinstance(try_to_load_from_cache(repository, name), str) for name in files):
        return
    size = None
    for name in files:
        try:
            size = get_hf_file_metadata(hf_hub_url(repository, name), timeout=TIMEOUT).size
            break
        except Exception:  # no network, no such file: the download itself will say so
            continue
    announce(what, f"{repository} on the Hugging Face Hub", size)


def announce_url(url: str, target: Path, what: str) -> None:
    """Say that ``url`` will be downloaded to ``target``, unless that is here."""
    from urllib.request import Request, urlopen

    if target.is_file():
        return
    size = None
    try:
        with urlopen(Request(url, method="HEAD"), timeout=TIMEOUT) as answer:
            size = int(answer.headers.get("Content-Length") or 0)
    except (OSError, ValueError):  # the download itself will say so
        pass
    announce(what, url, size)


def announce_clip(model: str, tag: str) -> None:
    """Say that open_clip will download weights, unless they are here.

    Args:
        model: ``hf-hub:owner/name``, or a name of open_clip's.
        tag: of the weights, for a name of open_clip's.
    """
    import open_clip
    from open_clip.constants import HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME

    usual = (HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME)
    if model.startswith("hf-hub:"):
        announce_hub(model.removeprefix("hf-hub:").partition("@")[0], usual, "the encoder")
        return
    config = open_clip.get_pretrained_cfg(model, tag)
    what = f"the encoder {model} ({tag})"
    if place := config.get("hf_hub"):
        repository, _, file = place.rpartition("/")
        safe = file.rpartition(".")[0] + ".safetensors"  # is looked for first
        announce_hub(repository, (safe, file) if file else usual, what)
    elif url := config.get("url"):
        announce_url(url, Path("~/.cache/clip").expanduser() / url.rpartition("/")[2], what)


def announce(what: str, place: str, size: int | None) -> None:
    """Say what is downloaded, and how big it is.

    Args:
        what: in words.
        place: that it comes from.
        size: in bytes, where it is known.
    """
    told = f"{size / 1e6:.{int(size < 1e7)}f} MB" if size else "its size is not known"
    note(f"downloading {what} from {place}: {told}")


def note(line: str) -> None:
    """Write a line to stderr."""
    sys.stderr.write(f"{one_line(plain(line))}\n")


@contextlib.contextmanager
def hushed() -> Iterator[None]:
    """Let transformers say nothing while it loads models that milanx chose.

    Neither bars, nor advice about tensors of a file that are known not to be needed, nor what peft
    will have to call otherwise one day.
    """
    from transformers.utils import logging

    before, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        logging.set_verbosity(before)
        if bars:
            logging.enable_progress_bar()


@contextlib.contextmanager
def no_code_of_others() -> Iterator[None]:
    """Let transformers run no code that a model's folder or repository brings.

    Where it is loaded through other libraries it would ask on the terminal: with no time to answer
    it refuses, as ``trust_remote_code=False`` does.
    """
    from transformers import dynamic_module_utils

    before = dynamic_module_utils.TIME_OUT_REMOTE_CODE
    dynamic_module_utils.TIME_OUT_REMOTE_CODE = 0
    try:
        yield
    finally:
        dynamic_module_utils.TIME_OUT_REMOTE_CODE = before
