"""Json as its standard has it (RFC 8259): numbers that are none of its own become null."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from numbers import Integral, Real
from typing import Any


def json_text(
    value: Any,
    *,
    indent: int | None = None,
    compact: bool = False,
    ascii_only: bool = False,
    default: Callable[[Any], Any] | None = None,
) -> str:
    """Write ``value`` as json.

    NaN and infinities, for which json has no words and at which other readers give up, become null.

    Args:
        value: anything that json can write, and NumPy's numbers.
        indent: of what lies inside of something, in blanks; all in one line when None.
        compact: no blanks at all.
        ascii_only: everything else is escaped.
        default: makes something of what json cannot write.
    """
    return json.dumps(
        finite(value), indent=indent, ensure_ascii=ascii_only, default=default, allow_nan=False,
        separators=(",", ":") if compact else None,
    )  # fmt: skip


def finite(value: Any) -> Any:
    """Return ``value`` with None for each number in it that is not finite."""
    if isinstance(value, Mapping):
        return {key: finite(inside) for key, inside in value.items()}
    if isinstance(value, list | tuple):
        return [finite(inside) for inside in value]
    if isinstance(value, bool | int | str) or value is None:
        return value
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        number = float(value)
        return number if math.isfinite(number) else None
    return value
