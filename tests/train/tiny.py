"""Tiny models with random weights, in folders, as their libraries write them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from milanx.language.gpt2 import build_gpt2, train_tokenizer
from milanx.progress import Silent, SilentStage
from milanx.train.recipe import Recipe
from milanx.train.stages.desk import Course, Desk, Watch
from tests.features.test_openclip import VIT, write_clip

SENTENCES = [f"{a} {b} {c}" for a in ("red round things", "a grey wall", "some leaves")
             for b in ("and", "or", "on") for c in ("an apple", "the lake", "animals")]  # fmt: skip


def tiny_clip(folder: Path) -> Path:
    """Write an open_clip model: a ViT of three blocks, 4 x 4 patches of 8 pixels."""
    return write_clip(folder, VIT)


def tiny_gpt2(folder: Path, positions: int = 64) -> Path:
    """Write a GPT-2 of two layers, 32 wide, and its tokenizer."""
    tokenizer = train_tokenizer(SENTENCES, 300)
    torch.manual_seed(0)
    build_gpt2(len(tokenizer), 2, 32, 4, positions).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def desk_for(root: Path, recipe: Recipe, encoder: Any, units: Any = None) -> Desk:
    """Make a desk on the CPU that writes to ``root/made``."""
    (root / "made").mkdir(parents=True)
    watch = Watch(Silent(), None, root)
    course = Course(recipe, Accelerator(cpu=True), encoder, units, watch)
    return Desk(course, "stage", root / "made", root / "made", SilentStage())


def launch(worker: Path, folder: Path) -> None:
    """Run a worker as two processes of accelerate's launcher; it is told ``folder``."""
    # --multi_gpu is the launcher's way to start several processes at all: with --cpu it starts
    # one, whatever --num_processes says. That they use the CPU stands in the environment.
    command = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu",
               "--num_processes", "2", "--num_machines", "1", "--mixed_precision", "no",
               "--dynamo_backend", "no", "--main_process_port", "0",
               str(worker), str(folder)]  # fmt: skip
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1",
                   "PYTHONPATH": str(worker.parents[2])}  # fmt: skip
    launched = subprocess.Popen(
        command, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        _, errors = launched.communicate(timeout=600)
    finally:
        with contextlib.suppress(ProcessLookupError):  # the launcher's children with it
            os.killpg(launched.pid, signal.SIGKILL)
    assert launched.returncode == 0, errors
