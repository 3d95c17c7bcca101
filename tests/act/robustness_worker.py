"""An evaluation that kills its own process in the middle: FOLDER KEEP FORWARDS."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

import milanx
from tests.act.levels import NAMES, Levels


def main(folder: str, keep: str, forwards: str) -> None:
    left = int(forwards)
    model = Levels()

    def count(*_: Any) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)

    model.register_forward_pre_hook(count)
    milanx.evaluate_robustness(
        {"whole": model}, folder, corruptions=("contrast", "fog", "pixelate"), severities=(1, 5),
        classes=NAMES, keep=keep, batch_size=5,
    )  # fmt: skip


if __name__ == "__main__":
    main(*sys.argv[1:])
