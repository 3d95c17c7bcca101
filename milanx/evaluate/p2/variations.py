"""P2 under other settings of the search: what each term and each source of texts is worth.

The same planted units are described again with one setting changed, and the difference is taken
unit by unit. Nothing is trained or weighed anew, so what the others would make up for shows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from milanx.describing.settings import SearchSettings
from milanx.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from milanx.describing.describer import Describer


@dataclass(frozen=True)
class Variation:
    """One setting, and the value that it takes in place of the describer's own."""

    name: str
    value: Any

    def __str__(self) -> str:
        """As it was given."""
        return f"{self.name}={self.value}"

    def of(self, describer: Describer) -> SearchSettings:
        """Return the describer's settings, with this one changed.

        Raises:
            InputError: a value without meaning.
        """
        return describer.search_defaults(**{self.name: self.value})


def read_variations(texts: Sequence[str]) -> tuple[Variation, ...]:
    """Read ``response=0``: a setting of the search, and a value.

    Raises:
        InputError: no such setting, or what is no value of it.
    """
    kinds: dict[str, Any] = {f.name: type(f.default) for f in fields(SearchSettings)}
    found = []
    for text in texts:
        name, given, value = text.partition("=")
        if name not in kinds:
            hint = did_you_mean(name, kinds)
            raise InputError(f"no setting {name!r} of the search", f"there are {', '.join(kinds)}",
                             hint or "--vary response=0")  # fmt: skip
        try:
            found.append(Variation(name, kinds[name](value)))
        except ValueError as error:
            why = str(error) if given else "it has no value"
            raise InputError(f"{name} cannot be {value!r}", why, f"--vary {name}=VALUE") from error
    return tuple(found)
