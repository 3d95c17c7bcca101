"""Cards: what is read of their heads, and what milanx puts into them."""

from __future__ import annotations

import pytest
import yaml

from milanx.errors import InputError
from milanx.hub.card import Card, cell

TEXT = "---\nlicense: mit\ntags: [mine]\nextra: 1\n---\n\n# Name\n\nFirst.\n\n## Data\n\nMine.\n"


def test_a_card_keeps_what_somebody_wrote() -> None:
    card = Card.read(TEXT, "here").licensed(None, "here").tagged().with_part("## Use\n\nLike this.")
    again = Card.read(str(card), "here").tagged().with_part("## Use\n\nOtherwise.")
    head = yaml.safe_load(str(again).split("---")[1])
    assert head == {"license": "mit", "tags": ["milanx", "interpretability", "mine"], "extra": 1,
                    "library_name": "milanx"}  # fmt: skip
    places = [str(again).index(part) for part in ("# Name", "First.", "Otherwise.", "## Data")]
    assert places == sorted(places)
    assert "Like this" not in str(again) and str(again).count("## Use") == 1
    assert str(Card.read(str(again), "here").with_part("## Use\n\nOtherwise.")) == str(again)


def test_a_card_of_nothing_but_a_line() -> None:
    card = Card.read("# Name", "here").licensed("cc0-1.0", "here").with_part("Part.")
    assert str(card).startswith("---\nlicense: cc0-1.0\n---\n\n# Name\n\n")
    assert str(card).rstrip().endswith("-->")


@pytest.mark.parametrize("text", ["# Name", "---\ntags: []\n---\n", "---\nlicense:\n---\n",
                                  "---\nlicense: [mit]\n---\n"])  # fmt: skip
def test_a_card_without_a_licence(text: str) -> None:
    with pytest.raises(InputError, match="names no licence"):
        Card.read(text, "here").licensed(None, "here")


@pytest.mark.parametrize("head", ["a: [", "- a\n- b", "just words"])
def test_a_head_that_is_no_yaml(head: str) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        Card.read(f"---\n{head}\n---\ntext", "here")


def test_a_text_cannot_break_a_table() -> None:
    shown = cell("a | b\n<script>`x`</script> [y](z) **w** &lt; $q$ !")
    assert not set("|<>`[]*$!\n") & set(shown)
    assert cell("dogs, (cats) or 3 birds") == "dogs, (cats) or 3 birds"
