"""What of every family of models of timm's can be described, each answer checked."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from milanx.bench.checks import Checked, check_model
from milanx.errors import InputError, MilanxError
from milanx.files import fingerprint, fingerprint_file
from milanx.images.preprocess import Preprocess
from milanx.progress import Reporter, Silent
from milanx.targets.zoo import load_target


# What is counted of each model, and kept.
LISTS = ("units", "rows", "placed", "shifted", "bent", "untold")


def bench_models(
    models: Sequence[str] | None = None,
    *,
    keep: Path | None = None,
    progress: Reporter | None = None,
) -> list[dict[str, Any]]:
    """Check the layers of models with random weights.

    Args:
        models: of timm's; the small member of each family when None.
        keep: a file to which each model's row is added as a line of json. Rows that are there, of
            the same code, are not measured again.
        progress: told about each model.

    Returns:
        A row a model, with the counts of `Checked`; one that cannot be read at all says why.

    Raises:
        InputError: the file holds something else.
    """
    progress, code, rows = progress or Silent(), code_key(), []
    members = {member.name: member for member in FAMILIES.values()}
    chosen = list(members.values()) if models is None else [
        members.get(name, Member(name)) for name in models]  # fmt: skip
    known = _kept(keep, code) if keep else {}
    for member in chosen:
        if member.name not in known:
            with progress.stage(member.name, None):
                row = _measured(member) | {"code": code}
            if keep:
                with keep.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")
            known[member.name] = row
        rows.append(known[member.name])
    return rows


def code_key() -> str:
    """Return what stands for the code that the rows depend on."""
    root = Path(__file__).parents[1]
    files = [*sorted((root / "targets").glob("*.py")),
             *(root / "bench" / name for name in ("checks.py", "places.py"))]  # fmt: skip
    return fingerprint([fingerprint_file(f) for f in files], version("timm"), version("torch"))


def _kept(path: Path, code: str) -> dict[str, dict[str, Any]]:
    """Read the rows of the same code from a file, by model."""
    if not path.exists():
        return {}
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        return {row["model"]: row for row in rows if row["code"] == code}
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise InputError(f"{path} is not overwritten", "it holds no rows of bench models",
                         "name another file") from error  # fmt: skip


def _measured(member: Member) -> dict[str, Any]:
    """Build a model and check it."""
    started = time.monotonic()
    row: dict[str, Any] = {"model": member.name, "options": member.options}
    try:
        small = Preprocess((member.side,) * 2, member.side) if member.side else None
        target = load_target(
            _built(member) if member.options else member.name, random_weights=True, preprocess=small
        )
        row |= {"side": target.preprocess.size[0], **_row(check_model(target))}
    except MilanxError as error:
        row["error"] = f"{error.what}: {error.why}"
    return row | {"seconds": round(time.monotonic() - started, 1)}


def _built(member: Member) -> Any:
    import timm
    import torch

    torch.manual_seed(0)
    return timm.create_model(member.name, **member.options)


def _row(found: Checked) -> dict[str, Any]:
    return {
        "described": found.described, "refused": sum(found.refused.values()), "maps": found.maps,
        "wrong": found.wrong, **{name: getattr(found, name) for name in LISTS},
        "reasons": dict(found.refused.most_common()),
    }  # fmt: skip


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """Return a table of `bench_models`, and below it what is wrong, and why layers are left out."""
    lines = ["| model | picture | described | maps | wrong | untold | left out |",
             "|---|---:|---:|---:|---:|---:|---:|"]  # fmt: skip
    reasons: Counter[str] = Counter()
    for row in rows:
        options = ", ".join(f"{k}={v}" for k, v in row["options"].items())
        name = f"`{row['model']}`" + (f" ({options})" if options else "")
        if "error" in row:
            lines.append(f"| {name} | - | - | - | - | - | {row['error']} |")
            continue
        reasons.update(row["reasons"])
        cells = (row["side"], row["described"], row["maps"], row["wrong"], len(row["untold"]),
                 row["refused"])  # fmt: skip
        lines.append(f"| {name} | " + " | ".join(str(c) for c in cells) + " |")
    wrong = [f"- `{row['model']}`: {kind}: {', '.join(row[kind])}" for row in rows
             for kind in LISTS[:-1] if row.get(kind)]  # fmt: skip
    if wrong:
        lines += ["", "Wrong:", "", *wrong]
    if reasons:
        lines += ["", "Why layers are left out, and how many:", ""]
        lines += [f"- {count}: {why}" for why, count in reasons.most_common()]
    return "\n".join(lines)
