"""What the Hub refuses, or cannot answer, in the three lines of every other error.

huggingface_hub tries again by itself, at most five times, where the Hub is busy or the network
breaks in the middle of a file; what it raises then arrives here. No error holds a token.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from milanx.errors import InputError, MilanxError, one_line

TRANSPORT = ("httpx", "httpx2", "httpcore", "httpcore2", "requests", "urllib3")  # of its releases
AGAIN = "run the same command again: what has arrived is not sent again"
LOGIN = "log in: hf auth login, or set HF_TOKEN"


class Unreachable(MilanxError):
    """The Hub does not answer, or answers that it cannot now."""


class Silence(ConnectionError):
    """A server does not answer; the message names it and says why."""


class NotThere(InputError):
    """There is no such repository, for this user."""


@contextlib.contextmanager
def in_words(what: str, token: str | bool | None = None) -> Iterator[None]:
    """Turn whatever huggingface_hub raises into a `MilanxError`.

    Args:
        what: could not be done, with the repository: the first line.
        token: that was given, if one was; it is taken out of whatever a server says.

    Raises:
        InputError: the Hub refuses: not logged in, not permitted, no such repository or revision.
        Unreachable: there is no network, or the Hub is busy or at fault.
        MilanxError: anything else.
    """
    try:
        yield
    except MilanxError:
        raise
    except Exception as error:
        found = _refusal(what, error, token)
        if found is None:
            raise
        raise found from error


def _refusal(what: str, error: Exception, token: str | bool | None) -> MilanxError | None:
    """Return what to say of an error; None for one that is not the Hub's."""
    from huggingface_hub import constants
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    links, said = chain(error), without_token(str(error), token)
    if "Invalid metadata in README.md" in said:
        return InputError(what, f"the Hub does not take the head of the card: {said}",
                          "mend the lines between --- at the top of README.md")  # fmt: skip
    for link in links:
        if isinstance(link, Silence):
            return _silence(what, str(link))
    for link in links:
        if isinstance(link, OfflineModeIsEnabled):
            return offline(what)
    for link in links:
        if isinstance(link, HfHubHTTPError):
            return _answer(what, link, token)
    for link in links:
        if is_transport(link):
            told = without_token(str(link), token) or type(link).__name__
            return _silence(what, f"the Hub at {constants.ENDPOINT} does not answer ({told})")
    if isinstance(error, HFValidationError):
        return InputError(what, said, "OWNER/NAME, with letters, digits, '-', '_' and '.'")
    if "Consistency check failed" in said:
        return Unreachable(what, "a file arrived shorter than it is: the connection broke",
                           "run the same command again: whole files are kept")  # fmt: skip
    if type(error).__module__.partition(".")[0] == "huggingface_hub":
        return MilanxError(what, said, AGAIN)
    return None


def offline(what: str) -> NotThere:
    """Return what is said where nothing may be asked of the network."""
    return NotThere(
        what, "HF_HUB_OFFLINE is set, or local files alone were asked for, and no copy of it is in "
        "the cache", ["unset HF_HUB_OFFLINE once to pull it", "name a local folder"],
    )  # fmt: skip


def chain(error: BaseException) -> list[BaseException]:
    """Return an error and those that it came of."""
    found: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in found:
        found.append(link)
        link = link.__cause__ or link.__context__
    return found


def is_transport(error: BaseException) -> bool:
    """Whether an error is one of the network's."""
    if isinstance(error, ConnectionError | TimeoutError):
        return True
    names = {kind.__module__.partition(".")[0] for kind in type(error).__mro__}
    return bool(names & set(TRANSPORT))


def _silence(what: str, why: str) -> Unreachable:
    """The Hub was not reached."""
    return Unreachable(what, why, ["look at your connection and at HF_ENDPOINT", AGAIN])


def _answer(what: str, error: Any, token: str | bool | None) -> MilanxError:
    """The Hub answered with a fault."""
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError
    from huggingface_hub.errors import RevisionNotFoundError as NoRevision

    status = int(error.response.status_code)
    said = without_token(error.server_message or "", token)
    more = f": {said}" if said else ""
    if isinstance(error, GatedRepoError):
        return InputError(what, f"its owner lets people in one by one ({status})",
                          ["ask for access on its page", LOGIN])  # fmt: skip
    if isinstance(error, NoRevision):
        return InputError(what, f"it has no such revision ({status})",
                          "name a branch, a tag or a commit that is there")  # fmt: skip
    if isinstance(error, RepositoryNotFoundError) or status == 404:
        return NotThere(
            what, f"there is no such repository for you ({status}): it is spelled otherwise, or "
            "private and you are not logged in as one who may see it",
            ["look at OWNER/NAME", LOGIN],
        )  # fmt: skip
    if status == 401:
        why = f"the Hub does not know you (401){more}"
        return InputError(what, why, [LOGIN, "your token may have run out: hf auth whoami"])
    if status == 403:
        return InputError(
            what, f"your token may not do that (403){more}",
            ["take one that may write: hf auth login, https://huggingface.co/settings/tokens",
             "name a repository of your own: YOU/NAME"],
        )  # fmt: skip
    if status == 429:
        return Unreachable(what, f"the Hub is asked too often (429){_wait(error.response)}",
                           ["wait, then " + AGAIN, LOGIN])  # fmt: skip
    if status >= 500:
        return Unreachable(what, f"the Hub is at fault ({status}){more}", ["wait, then " + AGAIN])
    if status in (409, 412):
        return MilanxError(what, f"somebody has just changed it ({status}){more}", AGAIN)
    return MilanxError(what, f"the Hub says {status}{more}", "look at what it says")


def _wait(response: Any) -> str:
    """Return how long the Hub asks to wait, where it says so."""
    headers = response.headers
    if (after := str(headers.get("Retry-After") or "")).isdigit():
        return f", and asks to wait {after} seconds"
    try:
        from huggingface_hub.utils import parse_ratelimit_headers
    except ImportError:  # releases before 1.2
        return ""
    found = parse_ratelimit_headers(headers)
    return f", and asks to wait {found.reset_in_seconds} seconds" if found else ""


def without_token(text: str, token: str | bool | None = None) -> str:
    """Return a text in one line, without any token that may stand in it."""
    from huggingface_hub import get_token

    for secret in (token, get_token()):
        if isinstance(secret, str) and secret:
            text = text.replace(secret, "***")
    return one_line(" ".join(text.split()))
