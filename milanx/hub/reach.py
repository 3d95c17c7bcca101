"""Whether a server answers: asked once, before libraries ask it many times over.

huggingface_hub tries again and again where nobody answers, each file anew, and who builds on it
tries several files. What loads from the Hub does so `within_reach`: where the Hub does not answer,
its own offline mode holds meanwhile, so what is in the cache serves at once, and what is not is
refused at once.
"""

from __future__ import annotations

import contextlib
import math
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from milanx.environment import announce_clip
from milanx.hub.refusals import Silence, chain, is_transport, without_token

# Seconds for which silence is believed: a network may come back in a long session.
FORGOTTEN = 60.0
SETTINGS = ("huggingface_hub.constants", "datasets.config")  # modules that hold HF_HUB_OFFLINE
_known: dict[str, tuple[float, str]] = {}  # server -> when it was asked, and why it is silent
_asking = threading.Lock()


def silence(url: str | None = None) -> str:
    """Return why a server does not answer, "" where it does or nothing may be asked.

    Any answer will do, a refusal too. It is given the seconds that huggingface_hub gives its own
    first question (``HF_HUB_ETAG_TIMEOUT``, 10), finding its address included; the answer is
    remembered for the process, silence for a minute.

    Args:
        url: of a file on it; the Hub (``HF_ENDPOINT``) when None, which is asked as huggingface_hub
            asks, through the same proxies. Others are asked as torch.hub and open_clip ask.
    """
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return ""
    patience = float(constants.HF_HUB_ETAG_TIMEOUT)
    place = constants.ENDPOINT if url is None else "{0.scheme}://{0.netloc}".format(urlsplit(url))
    with _asking:
        when, why = _known.get(place, (-math.inf, "never asked"))
        if why and time.monotonic() - when >= FORGOTTEN:
            ask = partial(_ask_hub if url is None else _ask_other, url or place, patience)
            why = _why(ask, patience)
            _known[place] = time.monotonic(), why
    return f"{place} does not answer ({why})" if why else ""


def check_answers() -> None:
    """Refuse to go on where the Hub does not answer.

    Raises:
        Silence: it does not.
    """
    if why := silence():
        raise Silence(why)


@contextlib.contextmanager
def within_reach(source: str | Path = "") -> Iterator[None]:
    """Let libraries ask the Hub where it answers, and look in its cache alone where it does not.

    Args:
        source: what they load; of a folder nobody is asked.

    Raises:
        Silence: the Hub does not answer, and its cache lacks what was asked for.
    """
    why = "" if source and Path(source).is_dir() else silence()
    if not why:
        yield
        return
    loaded: list[Any] = [sys.modules[name] for name in SETTINGS if name in sys.modules]
    before = [settings.HF_HUB_OFFLINE for settings in loaded]
    for settings in loaded:
        settings.HF_HUB_OFFLINE = True
    try:
        yield
    except Exception as error:
        if _lacks(error):
            raise Silence(why) from error
        raise
    finally:
        for settings, value in zip(loaded, before, strict=True):
            settings.HF_HUB_OFFLINE = value


@contextlib.contextmanager
def clip_within_reach(model: str, tag: str) -> Iterator[None]:
    """Say that open_clip will download weights, unless they are here, and let it if it can.

    Args:
        model: ``hf-hub:owner/name``, or a name of open_clip's.
        tag: of the weights, for a name of open_clip's.

    Raises:
        Silence: they are not here, and their server does not answer.
    """
    from open_clip import get_pretrained_cfg

    told = {} if model.startswith("hf-hub:") else get_pretrained_cfg(model, tag)
    if (url := told.get("url")) and not told.get("hf_hub"):
        kept = Path("~/.cache/clip").expanduser() / url.rpartition("/")[2]
        if not kept.is_file() and (why := silence(url)):
            raise Silence(why)
        announce_clip(model, tag)
        yield
        return
    with within_reach():
        announce_clip(model, tag)
        yield


def _lacks(error: Exception) -> bool:
    """Whether an error came of something that is not in the cache; some say so in words alone."""
    from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled

    kinds = LocalEntryNotFoundError, OfflineModeIsEnabled
    return any(isinstance(e, kinds) or any(k.__name__ in str(e) for k in kinds)
               for e in chain(error))  # fmt: skip


def _ask_hub(url: str, patience: float) -> None:
    from huggingface_hub import get_session

    get_session().head(url, timeout=patience)


def _ask_other(url: str, patience: float) -> None:
    request = urllib.request.Request(url, method="HEAD")
    with contextlib.suppress(urllib.error.HTTPError):  # it answers
        urllib.request.urlopen(request, timeout=patience).close()


def _why(ask: Callable[[], None], patience: float) -> str:
    """Return why a question has no answer, "" where it has one.

    It is put in a thread, for nothing bounds the time that finding a server's address takes.
    """
    said: list[str] = []

    def put() -> None:
        try:
            ask()
        except Exception as error:  # what has nothing to do with the network, a library will say
            found = is_transport(error) or isinstance(error, urllib.error.URLError)
            said.append((without_token(str(error)) or type(error).__name__) if found else "")
        else:
            said.append("")

    thread = threading.Thread(target=put, daemon=True, name="milanx-reach")
    thread.start()
    thread.join(patience)
    return said[0] if said else f"nothing in {patience:g} seconds"
