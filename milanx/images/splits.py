"""How photos are held out: by group, by a rule that anybody can repeat."""

from __future__ import annotations

import hashlib
import re

_COCO = re.compile(r"(?:^|_)(\d{12})\.")
_CAMVID = re.compile(r"^camvid_([^_]+)_")


def held_out(group: str, share: float) -> bool:
    """Whether a group of photos is held out, for a share between 0 and 1."""
    digest = hashlib.sha256(group.encode()).hexdigest()
    return int(digest[:8], 16) / 2**32 < share


def photo_group(path: str, fingerprint: str) -> str:
    """Return the group of a training photo: one photograph in several files, one video's frames.

    Args:
        path: the file's name in its source.
        fingerprint: of the file's bytes, for sources whose names say nothing.
    """
    name = path.rsplit("/", 1)[-1]
    if match := _COCO.search(name):
        return f"coco:{match[1]}"
    if match := _CAMVID.match(name):
        return f"camvid:{match[1]}"
    return fingerprint
