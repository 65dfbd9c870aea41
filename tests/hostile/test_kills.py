"""A run that is killed at random moments, again and again, ends in the bits of one that never was.

FFCONV_KILLS sets how many kills there are (default 10).
"""

from __future__ import annotations

import multiprocessing
import os
import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import toy_task
from commands import assert_same_run

pytestmark = pytest.mark.slow

KILLS = int(os.environ.get("FFCONV_KILLS", "10"))
BATCHES, EPOCHS = 25, 2


def train(output: Path) -> None:
    """A run that saves after every step, so that many kills hit a file that is being written."""
    config = toy_task.config(
        output,
        resume="auto",
        loop={"epochs": EPOCHS, "ema_decay": 0.9},
        checkpoint={"every": 1},
    )
    toy_task.run(config, batches=BATCHES)


def test_a_run_that_is_killed_at_random_moments_ends_in_the_same_bits(tmp_path: Path):
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["toy_task", "commands"])

    def start(name: str, work: Callable[[Path], None] = train) -> multiprocessing.context.ForkServerProcess:
        process = context.Process(target=work, args=(tmp_path / name,))
        process.start()
        return process

    start("imports", Path.mkdir).join()
    began = time.perf_counter()
    whole = start("whole")
    whole.join()
    assert whole.exitcode == 0
    seconds = time.perf_counter() - began
    chance, kills, ends = random.Random(20), 0, 0
    while kills < KILLS:
        process = start("run")
        process.join(chance.uniform(0, seconds / 2))
        if process.exitcode is None:
            process.kill()
            kills += 1
        process.join()
        assert process.exitcode in (0, -9)
        if process.exitcode == 0:  # complete: the next kills hit another run
            assert_same_run(tmp_path / "run", tmp_path / "whole")
            (tmp_path / "run").rename(tmp_path / f"run{ends}")
            ends += 1
    last = start("run")
    last.join()
    assert last.exitcode == 0
    assert_same_run(tmp_path / "run", tmp_path / "whole")
