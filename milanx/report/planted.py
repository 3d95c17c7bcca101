"""What was planted and found again, as tables in the terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

WIDTH = 150


def share_text(found: dict[str, Any]) -> str:
    """Return a share with its interval, such as ``.850 [.640, .948]``."""
    if found["share"] is None:
        return "-"
    low, high = found["interval"]
    values = [f"{v:.3f}".removeprefix("0") for v in (found["share"], low, high)]
    return f"{values[0]} [{values[1]}, {values[2]}]"


def _console() -> Console:
    return Console(width=max(Console().width, WIDTH), highlight=False)


def print_text(report: dict[str, Any]) -> None:
    """Print what `milanx bench planted text` found."""
    console = _console()
    planted, photos, before = report["planted"], report["photos"], report["before_planting"]
    now, asked = report["planted_model"], report["asked"]
    aurocs = [d["auroc"] for d in planted["detectors"]]
    console.print(
        f"{len(aurocs)} text detectors in {asked['model']} {asked['norm']}, seed {asked['seed']}: "
        f"AUROC of cells {min(aurocs):.3f} to {max(aurocs):.3f}; they vote for "
        f"{report['votes_for']!r} with {planted['strength']:.2f} logits each"
    )
    console.print(
        f"accuracy on {photos['reported']} photos: clean {before['clean']:.3f}, lying text "
        f"{before['lying']:.3f} before planting; {now['clean']:.3f} and {now['lying']:.3f} planted "
        f"({now['follows']:.3f} of the lettered photos are taken for that class)"
    )
    table = Table(title=f"found among {len(aurocs) + report['others']} described units",
                  title_justify="left")  # fmt: skip
    for name in ("described on built-in and", "looked for", "recall", "precision", "gone",
                 "lying text", "random (most)", "beaten", "clean"):  # fmt: skip
        table.add_column(name)
    for row in report["rows"]:
        cells = [row["probe"], row["way"], share_text(row["recall"]), share_text(row["precision"])]
        if "lying" in row:
            lying = row["lying"]
            cells += [f"{row['gone']} ({row['gone_planted']} planted)", f"{lying['pruned']:.3f}",
                      f"{max(lying['random']):.3f}", f"{row['beaten']} of {row['draws']}",
                      f"{row['clean']['pruned']:.3f}"]  # fmt: skip
        table.add_row(*cells)
    console.print(table)


def print_audit(report: dict[str, Any]) -> None:
    """Print what `milanx bench planted audit` found."""
    console = _console()
    how = ", impure" if report["asked"]["impure"] else ""
    table = Table(title=f"{report['n']} planted units{how}, {report['describer']}, "
                        f"seed {report['asked']['seed']}", title_justify="left")  # fmt: skip
    for name in ("rule", "mean it", "do not", "recall", "precision", "recall, true texts",
                 "precision, true texts"):  # fmt: skip
        table.add_column(name)
    for row in report["rows"]:
        if not row["must"]:
            continue
        table.add_row(
            row["rule"], str(row["must"]), str(row["must_not"]),
            *(share_text(row[kind][figure]) for kind in ("described", "true")
              for figure in ("recall", "precision")),
        )  # fmt: skip
    console.print(table)
    for row in report["rows"]:
        if not row["must"]:
            wrong = row["described"]["wrong"]
            why = row["absent"] or "no unit of it was drawn"
            console.print(f"{row['rule']}: {why}; found wrongly {wrong} times")
