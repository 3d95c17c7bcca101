"""The terminal as milanx writes to it: text is shown, never obeyed."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.text import Text

from milanx.errors import plain


class Screen(Console):
    r"""A console on which names and descriptions are text, whatever they hold.

    Brackets are no markup and colons no emoji; escape characters are shown as ``\x1b``. What is
    meant to stand out is a `rich.text.Text` (`styled`).
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **settings)

    def render_str(self, text: str, **settings: Any) -> Text:  # type: ignore[override]
        """Make what is printed of a text, in cells and titles of tables too."""
        return super().render_str(plain(text), **settings)


def styled(text: str, style: str) -> Text:
    """Return a text in a style of rich's, shown as text."""
    return Text(plain(text), style)
