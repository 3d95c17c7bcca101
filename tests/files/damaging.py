"""What damage does to a file that is read: truncations and flipped bits, by seed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from milanx.errors import MilanxError

EACH = 20  # truncations, and as many flips


def damages(content: bytes, seed: int) -> Iterator[bytes]:
    """Yield truncations of a file, and copies in which one bit is another."""
    rng = np.random.default_rng(seed)
    for end in rng.integers(0, len(content), EACH):
        yield content[:end]
    for place, bit in zip(rng.integers(0, len(content), EACH), rng.integers(0, 8, EACH),
                          strict=True):  # fmt: skip
        changed = bytearray(content)
        changed[place] ^= 1 << int(bit)
        yield bytes(changed)


def outcomes(path: Path, result: Callable[[], object]) -> list[str]:
    """Say of each damage of a file what came: ``error``, ``same`` or ``other``."""
    whole, content, found = result(), path.read_bytes(), []
    for changed in damages(content, len(content)):
        path.write_bytes(changed)
        try:
            found.append("same" if result() == whole else "other")
        except MilanxError as error:
            assert error.what and error.why
            found.append("error")
    path.write_bytes(content)
    return found
