"""What is sent to the Hub, and what came of it, in the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from milanx.report.screen import Screen

if TYPE_CHECKING:
    from milanx.hub.send import Destination, Parcel, Sent


def print_parcel(parcel: Parcel, to: Destination) -> None:
    """Print the files of a parcel and their bytes: what would be sent."""
    console = Screen()
    who = "you alone see it" if to.private else "everybody sees it"
    table = Table(title=f"{parcel.kind.name} for {to.address}, a {parcel.repo_type}; {who}",
                  title_justify="left")  # fmt: skip
    table.add_column("file", overflow="fold")
    table.add_column("bytes", justify="right")
    for item in sorted(parcel.items, key=lambda item: item.name):
        table.add_row(item.name, f"{item.size:,}")
    table.add_section()
    table.add_row(f"{len(parcel.items)} files", f"{parcel.size:,}")
    console.print(table)
    for line in parcel.notes:
        console.print(line, highlight=False)
    console.print("nothing was sent", highlight=False)


def print_sent(sent: Sent) -> None:
    """Print where a parcel lies now."""
    console = Screen()
    who = "private" if sent.private else "public"
    removed = f", {sent.removed} of an earlier push removed" if sent.removed else ""
    console.print(f"{sent.files} files, {sent.bytes:,} bytes{removed}; {who}",
                  highlight=False, soft_wrap=True)  # fmt: skip
    console.print(f"commit  {sent.commit}", highlight=False, soft_wrap=True)
    if sent.pull_request:
        console.print(f"pull request  {sent.pull_request}", highlight=False, soft_wrap=True)
    console.print(sent.url, highlight=False, soft_wrap=True)
