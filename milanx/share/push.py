"""Send a describer, a run or a table to the Hugging Face Hub."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from milanx.errors import InputError, MilanxError
from milanx.hub.address import read_address
from milanx.hub.send import Destination, Item, Parcel, Sent, send
from milanx.progress import Reporter, Silent

if TYPE_CHECKING:
    from milanx.runs import Run


@dataclass(frozen=True)
class Push:
    """What is pushed, and where to.

    Attributes:
        path: a describer's folder or ``builtin``, a run's, or a table: ``units.parquet``.
        to: the repository.
        licence: of the card, over its own.
        examples: a run of the describer that is pushed: ten of its units stand in the card. The
            newest one of built-in images in ``milanx-runs`` when None.
    """

    path: Path | str
    to: Destination
    licence: str | None = None
    examples: Path | str | None = None


def push(
    path: Path | str,
    repo_id: str,
    *,
    private: bool | None = None,
    revision: str | None = None,
    create_pr: bool = False,
    token: str | bool | None = None,
    commit_message: str | None = None,
    license: str | None = None,
    examples: Path | str | None = None,
    progress: Reporter | None = None,
) -> Sent:
    """Send a describer, a run or a table to the Hugging Face Hub, in one commit.

    Args:
        path: a describer's folder or ``builtin``, a run's folder, or a table (``units.parquet``).
        repo_id: ``owner/name``, made where it is not there: a model for a describer, else a data
            set.
        private: nobody else sees it: yes, unless this is False.
        revision: a branch, which is made where it is not there; the main one when None.
        create_pr: open a pull request instead.
        token: of the Hub; the one that ``hf auth login`` stored, or ``HF_TOKEN``, when None.
        commit_message: one line.
        license: of the card, over its own.
        examples: a run of the describer that is pushed: ten of its units stand in the card. The
            newest one of built-in images in ``milanx-runs`` when None.
        progress: told about it.

    Raises:
        InputError: the path is none of these, its card names no licence, or the Hub refuses.
        FormatError: a file is damaged; nothing is sent then.
        MilanxError: the Hub does not answer; the same call goes on where it stopped.
    """
    to = Destination(read_address(repo_id).at(revision), private is not False, create_pr, token,
                     commit_message)  # fmt: skip
    with packed(Push(path, to, license, examples), progress) as parcel:
        return send(parcel, to, progress)


@contextmanager
def packed(asked: Push, progress: Reporter | None = None) -> Iterator[Parcel]:
    """Yield what would be sent; what was made for it is removed afterwards.

    Raises:
        InputError: the path is nothing that is pushed, or its card names no licence.
        FormatError: a file is damaged.
    """
    from milanx.describing.folder import BUILTIN
    from milanx.runs import open_run
    from milanx.share.run import UNITS, run_parcel, table_parcel

    path, address = Path(asked.path), asked.to.address
    is_describer = str(asked.path) == BUILTIN or (path / "describer.json").is_file()
    if asked.examples is not None and not is_describer:
        raise InputError(f"{path} takes no examples", "its own units stand in its card",
                         "leave --examples out")  # fmt: skip
    if is_describer:
        yield _describer(asked, progress or Silent())
    elif (path / "run.json").is_file():
        with tempfile.TemporaryDirectory(prefix="milanx-push-") as work:
            yield run_parcel(open_run(path), address, Path(work), licence=asked.licence,
                             progress=progress or Silent())  # fmt: skip
    elif path.is_file() or (path / UNITS).is_file():
        yield table_parcel(path if path.is_file() else path / UNITS, address, asked.licence)
    else:
        raise InputError(
            f"{path} cannot be pushed",
            "it is no describer, run or table" if path.exists() else "there is no such path",
            "name a folder that milanx describe or train wrote, a units.parquet, or builtin",
        )


def _describer(asked: Push, progress: Reporter) -> Parcel:
    """Return a describer's parcel, with ten units of a run in its card where there is one."""
    from milanx.describing.folder import describer_root, read_content, stamp_of
    from milanx.describing.parcel import describer_parcel
    from milanx.runs import open_run
    from milanx.share.cards import ten_units

    root = describer_root(asked.path)
    stamp = stamp_of(root, *read_content(root))
    section, pictures = "", tuple[Item, ...]()
    if asked.examples is None:
        run = _shown(stamp)
    else:
        run = open_run(asked.examples)
        _check_made_by(run, root, stamp)
    if run is None:
        progress.say("no units stand in the card: --examples RUN adds ten of a run of its own")
    else:
        progress.say(f"ten units of {run.root} stand in the card")
        section, pictures = ten_units(run.rows, run)
    return describer_parcel(root, asked.to.address, licence=asked.licence, examples=section,
                            pictures=pictures)  # fmt: skip


def _shown(stamp: str) -> Run | None:
    """Return the newest run in its usual place that shows a describer to everybody.

    It was made by the describer, and of built-in images alone: those of one's own are shown to
    nobody who was not asked.
    """
    from milanx.runs import RUNS, open_run
    from milanx.share.cards import TEN

    found = sorted(RUNS.glob("*/*/run.json"), key=lambda path: -path.stat().st_mtime)
    for path in found:
        with contextlib.suppress(MilanxError):
            run = open_run(path.parent)
            kinds = {source.get("kind") for source in run.sources}
            if _maker(run) == stamp and kinds == {"builtin"} and len(run) >= TEN:
                return run
    return None


def _maker(run: Run) -> Any:
    described = run.settings.get("describer") or {}
    return described.get("fingerprint") if described.get("method") == "describer" else None


def _check_made_by(run: Run, root: Path, stamp: str) -> None:
    """Refuse examples that another describer made.

    Raises:
        InputError: they are another's.
    """
    made = _maker(run)
    if made != stamp:
        raise InputError(
            f"{run.root} is no example of {root}",
            f"its texts are of the describer {made}, and this one is {stamp}",
            f"milanx describe ... --describer {root}",
        )
