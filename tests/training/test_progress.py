from __future__ import annotations

import io
import sys
import time
from typing import Any

import pytest

from ffconv.training.progress import Reporter


def reporter(*, active: bool = True, **options: Any) -> Reporter:
    """Two epochs of 100 steps."""
    return Reporter(total_steps=200, steps_per_epoch=100, active=active, **options)


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
        shown.step(139, samples=256, seconds=100.0, loss=2.5)
        clock[0] = 20.0
        shown.step(140, samples=256, seconds=2.0, loss=1.25)
    # 60 steps of 2 s are left: the first step, which compiles, does not count.
    assert capsys.readouterr().out.splitlines() == [
        "epoch 2/2  step 39/100  loss 2.5000  first step 100.0 s",
        "epoch 2/2  step 40/100  loss 1.2500  128 images/s  0:02:00 left",
    ]


def last_line(shown: Reporter, clock: list[float], capsys: pytest.CaptureFixture[str]) -> str:
    """What stands there after a step of 2 s more, the 100th."""
    clock[0] += 20.0
    shown.step(100, samples=64, seconds=2.0, loss=1.0)
    return capsys.readouterr().out.splitlines()[-1]


def test_a_step_that_stalls_does_not_count(clock: list[float], capsys: pytest.CaptureFixture[str]):
    with reporter() as shown:
        for step, seconds in enumerate((60.0, 30.0, 2.0, 2.0, 90.0, 2.0), start=1):
            shown.step(step, samples=64, seconds=seconds, loss=1.0)
        assert last_line(shown, clock, capsys).endswith("32 images/s  0:03:20 left")


def test_what_follows_an_epoch_counts(clock: list[float], capsys: pytest.CaptureFixture[str]):
    with reporter() as shown:
        shown.step(1, samples=64, seconds=2.0, loss=1.0)
        shown.epoch_ended(40.0)
        # 100 steps of 2 s, and after the second epoch 40 s; the first epoch's end is still to come or over.
        assert last_line(shown, clock, capsys).endswith("0:04:00 left")


def test_the_time_left_of_several_runs(clock: list[float], capsys: pytest.CaptureFixture[str]):
    with reporter(later_runs=2) as shown:
        shown.step(1, samples=64, seconds=9.0, loss=1.0)
        assert last_line(shown, clock, capsys).endswith("0:03:20 left  0:16:40 for all runs")


def test_slow_rates_and_other_samples(clock: list[float], capsys: pytest.CaptureFixture[str]):
    with reporter(unit="clips") as shown:
        for step in (1, 2):
            clock[0] += 20.0
            shown.step(step, samples=3, seconds=2.0, loss=1.0)
    assert "  1.5 clips/s  " in capsys.readouterr().out


def test_an_evaluation_of_more_than_two_seconds_has_lines(
    clock: list[float], capsys: pytest.CaptureFixture[str]
):
    with reporter() as shown:
        shown.step(100, samples=8, seconds=1.0, loss=1.0)
        capsys.readouterr()
        for number in shown.evaluation(range(20)):
            clock[0] += 1.0 if number else 0.5
    assert capsys.readouterr().out.splitlines() == [
        "epoch 1/2  evaluating 3/20",
        "epoch 1/2  evaluating 19/20",
    ]


def test_plain_lines_keep_their_distance(clock: list[float], capsys: pytest.CaptureFixture[str]):
    with reporter() as shown:
        for second in range(40):
            clock[0] = float(second)
            shown.step(second + 1, samples=8, seconds=1.0, loss=1.0)
    steps = [line.split("  step ")[1].split("/")[0] for line in capsys.readouterr().out.splitlines()]
    assert steps == ["1", "17", "33"]


def test_other_processes_are_silent(clock: list[float], capsys: pytest.CaptureFixture[str]):
    with reporter(active=False) as shown:
        clock[0] = 20.0
        shown.step(1, samples=8, seconds=1.0, loss=2.0)
        assert list(shown.evaluation([1, 2])) == [1, 2]
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
        for step in (149, 150):
            shown.step(step, samples=64, seconds=0.5, loss=0.75)
        long = "epoch 1/2 done" + 20 * " a long line"
        shown.say(long)
    printed = terminal.getvalue()
    assert f"{long}\n" in printed
    assert "loss 0.7500  128 images/s  0:00:25 left" in printed


def test_a_terminal_shows_how_far_an_evaluation_is(monkeypatch: pytest.MonkeyPatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with reporter() as shown:
        shown.step(100, samples=64, seconds=0.5, loss=0.75)
        assert list(shown.evaluation([1, 2])) == [1, 2]
    assert "evaluating 2/2" in terminal.getvalue()
