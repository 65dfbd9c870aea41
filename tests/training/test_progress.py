from __future__ import annotations

import io
import sys
import time

import pytest

from ffconv.training.progress import Reporter


def reporter(*, active: bool = True) -> Reporter:
    """Two epochs of 100 steps."""
    return Reporter(total_steps=200, steps_per_epoch=100, active=active)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, to be set."""
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    return now


def test_plain_lines_tell_place_loss_speed_and_time_left(
    clock: list[float], capsys: pytest.CaptureFixture[str]
):
    with reporter() as shown:
        clock[0] = 20.0
        shown.step(140, images=256, seconds=2.0, loss=1.25)
    # 60 steps of 2 s are left.
    assert capsys.readouterr().out == "epoch 2/2  step 40/100  loss 1.2500  128 images/s  0:02:00 left\n"


def test_plain_lines_keep_their_distance(clock: list[float], capsys: pytest.CaptureFixture[str]):
    with reporter() as shown:
        for second in range(40):
            clock[0] = float(second)
            shown.step(second + 1, images=8, seconds=1.0, loss=None)
    assert [line.split("step ")[1].split("/")[0] for line in capsys.readouterr().out.splitlines()] == [
        "17",
        "33",
    ]


def test_other_processes_are_silent(clock: list[float], capsys: pytest.CaptureFixture[str]):
    with reporter(active=False) as shown:
        clock[0] = 20.0
        shown.step(1, images=8, seconds=1.0, loss=2.0)
        shown.say("done")
    assert capsys.readouterr().out == ""


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_a_bar_and_lines_above_it(monkeypatch: pytest.MonkeyPatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with reporter() as shown:
        shown.step(150, images=64, seconds=0.5, loss=0.75)
        shown.say("epoch 1/2 done")
    printed = terminal.getvalue()
    assert "epoch 1/2 done\n" in printed
    assert "loss 0.7500  128 images/s  0:00:25 left" in printed
