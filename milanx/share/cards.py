"""What a repository's page says: what was done, how to use it, what was measured, ten units."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from milanx.evaluate.protocols import VERSION
from milanx.files import read_json
from milanx.files.kinds import EVALUATION
from milanx.files.replacing import format_of
from milanx.hub.address import Address
from milanx.hub.card import Card, cell
from milanx.hub.send import Item
from milanx.share.sheets import Sheets

if TYPE_CHECKING:
    from milanx.runs import Run

TEN = 10  # units that a card shows
SCORE = ("score: rank correlation of what the text foretells with the unit's maxima on images kept "
         "aside, with its 95 % interval")  # fmt: skip
LIMITS = """## Limits

A description is what ranks first among texts that a small language model found; it is said with
confidence also where a unit's exemplars share nothing. Its rank is no probability of being right.
A score near 0 says that the text foretells nothing of the unit on images kept aside. What the probe
images do not show, no description names."""


def chosen_rows(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return ten rows of a table, drawn evenly over those that have a text: not the best ones."""
    told = [row for row in rows if row["description"]]
    count = min(TEN, len(told))
    return [told[i * len(told) // count] for i in range(count)]


def ten_units(rows: Sequence[dict[str, Any]], run: Run | None) -> tuple[str, tuple[Item, ...]]:
    """Return a section that shows ten units, and the pictures that it needs.

    Args:
        rows: of a table.
        run: that holds their exemplars; None for a table alone, which has no pictures.
    """
    lines, pictures, chosen = [], [], chosen_rows(rows)
    sheets = Sheets(run.store).draw(chosen) if run is not None else [None] * len(chosen)
    for number, (row, sheet) in enumerate(zip(chosen, sheets, strict=True)):
        shown = ""
        if sheet is not None:
            name = f"sheets/{number:02d}.jpg"
            pictures.append(Item(name, sheet))
            shown = f'<img src="{name}" alt="exemplars" width="420">'
        sign = "-" if row["sign"] == "-" else ""
        unit = cell(f"{row['layer']}:{sign}{row['unit']}")
        lines.append(f"| {unit} | {cell(row['description'])} | {_score(row)} | {shown} |")
    text = "\n".join(
        [
            "## Ten units",
            "",
            "Drawn evenly over the table, not the best ones. Each "
            "picture shows the views that excite a unit most, dimmed where it looks "
            f"least.\n{SCORE[0].upper()}{SCORE[1:]}.",
            "",
            "| unit | description | score | exemplars |",
            "|---|---|---|---|",
            *lines,
        ]
    )
    return (text if lines else ""), tuple(pictures)


def _score(row: dict[str, Any]) -> str:
    if row.get("score") is None:
        return ""
    interval = row.get("score_interval")
    ends = f" ({interval[0]:.2f} to {interval[1]:.2f})" if interval else ""
    return f"{row['score']:.2f}{ends}"


def run_card(run: Run, address: Address, licence: str, units: str) -> Card:
    """Return the card of a run.

    Args:
        run: the run.
        address: where it goes.
        licence: of the images and texts.
        units: the section of `ten_units`.
    """
    head = {
        "license": licence,
        "pretty_name": f"What units of {run.target} detect",
        "size_categories": [_size(len(run))],
        "configs": [
            {"config_name": "default", "data_files": "data/*.parquet"},
            {"config_name": "table", "data_files": "units.parquet"},
        ],
    }
    body = "\n\n".join([f"# What units of {run.target} detect", _what(run), _use(address), units,
                        _measured(run, address), _procedure(run), _data(run), LIMITS])  # fmt: skip
    return Card(head, body).tagged()


def table_card(rows: Sequence[dict[str, Any]], address: Address, licence: str, units: str) -> Card:
    """Return the card of a table alone."""
    layers = ", ".join(dict.fromkeys(f"`{row['layer']}`" for row in rows))
    head = {"license": licence, "pretty_name": "Descriptions of units",
            "size_categories": [_size(len(rows))],
            "configs": [{"config_name": "default", "data_files": "units.parquet"}]}  # fmt: skip
    use = f"""## Use

    datasets.load_dataset("{address.repo_id}", split="train")"""
    body = "\n\n".join(["# Descriptions of units", f"{len(rows)} rows, a unit and sign each, of "
                        f"{layers}; milanx described them.", use, units, LIMITS])  # fmt: skip
    return Card(head, body).tagged()


def _size(rows: int) -> str:
    """Return how many rows there are, as the Hub sorts data sets."""
    bounds = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"))
    return next((name for most, name in bounds if rows < most), "100K<n<1M")


def _what(run: Run) -> str:
    layers = run.settings.get("layers") or []
    counts: dict[str, int] = {}
    for row in run.rows:
        counts[row["status"]] = counts.get(row["status"], 0) + 1
    names = ", ".join(f"`{layer['name']}`" + (f" ({layer['read']})" if "read" in layer else "")
                      for layer in layers)  # fmt: skip
    told = ", ".join(f"{n} {status}" for status, n in counts.items())
    return (
        f"Plain-language descriptions of {len(run)} units of `{run.target}`: {told}. Layers: "
        f"{names or 'see the table'}.\n\nA unit is one channel, ViT neuron or logit; its "
        "exemplars are the probe images that excite it most, with masks of where."
    )


def _use(address: Address) -> str:
    return f"""## Use

    datasets.load_dataset("{address.repo_id}", split="train")            # sheets and texts
    datasets.load_dataset("{address.repo_id}", "table", split="train")   # candidates and figures

The repository is a milanx run: `milanx show {address}`, `milanx prune {address} --match text`,
`milanx.open_run("{address}")`. `page/index.html` opens from disk: search, filter, exemplars, why a
text won."""


def _measured(run: Run, address: Address) -> str:
    scores = [row["score"] for row in run.rows if row["score"] is not None]
    lines = []
    if scores:
        mean = sum(scores) / len(scores)
        lines.append(f"- {SCORE}: mean {mean:.3f} over {len(scores)} units (written by `milanx "
                     "describe`, see Procedure)")  # fmt: skip
    for path in sorted(run.root.glob("evaluation-*.json")):
        lines += _report(path, address)
    return "\n".join(["## Measured", "", *(lines or ["Nothing: the run has no scores."])])


def _report(path: Path, address: Address) -> list[str]:
    """Return a report's row of descriptions with its intervals, and the command that makes it."""
    if format_of(path) != EVALUATION:
        return []
    content = read_json(path, EVALUATION, VERSION)
    row: dict[str, Any] = next(iter(content["rows"].values()), {})
    cells = [f"{name} {value['estimate']:.3f} ({value['interval'][0]:.3f} to "
             f"{value['interval'][1]:.3f})" if isinstance(value, dict) else f"{name} {value}"
             for name, value in row.items()]  # fmt: skip
    protocol = path.stem.removeprefix("evaluation-")
    return [
        f"- {content['protocol']}, n = {content['n']}: {', '.join(cells)}; rows beside it in "
        f"`{path.name}` (`milanx evaluate {address} --protocol {protocol} --images ...`)"
    ]


def _procedure(run: Run) -> str:
    if imported := run.settings.get("imported"):
        left_out = "; ".join(imported.get("left_out") or ()) or "nothing"
        return (
            f"## Procedure\n\nIt was imported from the format `{imported.get('format')}` with "
            f"`milanx import`: texts and exemplars are another tool's. Left out: {left_out}."
        )
    settings, described = run.settings.get("settings") or {}, run.settings.get("describer") or {}
    words = [f"-l {layer}" for layer in settings.get("layers") or ()]
    words += [f"--units {settings['units']}"] if settings.get("units") else []
    words += ["--images ...", f"-k {settings.get('k')}", f"--seed {settings.get('seed')}"]
    versions = ", ".join(f"{n} {v}" for n, v in (run.settings.get("versions") or {}).items())
    seconds = sum((run.settings.get("seconds") or {}).values())
    return f"""## Procedure

    milanx describe {run.target} {" ".join(words)}

Described by `{described.get("name")}` (fingerprint `{described.get("fingerprint")}`), exemplars
`{run.settings.get("exemplars")}`, target `{run.settings["target"].get("fingerprint")}`, on
{settings.get("device")} in {seconds:.0f} s. {versions}."""


def _data(run: Run) -> str:
    images = run.settings.get("images") or {}
    sources = ", ".join(f"`{s.get('name')}` ({s.get('count')})" for s in run.sources)
    owners = ("They are the built-in ones, under free licences: `CREDITS.md`." if _only_builtin(run)
              else "Their terms are those of their owners.")  # fmt: skip
    aside = "A fifth of them, by group, was kept aside and became no exemplar."
    if run.settings.get("imported"):
        aside = "Which were kept aside is not known."
    return f"""## Data and its terms

{images.get("count")} probe images: {sources}. {owners} {aside} Views that are
exemplars lie in `views.parquet` and in the sheets."""


def _only_builtin(run: Run) -> bool:
    return bool(run.sources) and all(s.get("kind") == "builtin" for s in run.sources)
