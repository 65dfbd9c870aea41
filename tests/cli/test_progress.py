"""What a person sees while a command is at work."""

from __future__ import annotations

import io
import sys
import time
from pathlib import Path

import pytest

from commands import QUICK_TRAIN
from ffconv.cli import main
from ffconv.cli.progress import announced, shown


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def at_terminal(monkeypatch: pytest.MonkeyPatch) -> _Terminal:
    """In the test itself: pytest puts its own stderr in place between a fixture and the test."""
    terminal = _Terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", terminal)
    return terminal


def test_on_a_terminal_there_is_a_bar(monkeypatch: pytest.MonkeyPatch):
    terminal = at_terminal(monkeypatch)
    assert list(shown(iter("abc"), "counting", total=3)) == ["a", "b", "c"]
    assert "counting" in terminal.getvalue()


def test_a_single_item_has_none(monkeypatch: pytest.MonkeyPatch):
    terminal = at_terminal(monkeypatch)
    assert list(shown("a", "counting", total=1)) == ["a"]
    assert not terminal.getvalue()


def test_elsewhere_short_work_is_silent(capsys: pytest.CaptureFixture[str]):
    assert list(shown("abc", "counting", total=3)) == ["a", "b", "c"]
    assert capsys.readouterr() == ("", "")


def test_elsewhere_work_of_more_than_two_seconds_has_lines(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    monkeypatch.setattr("ffconv.cli.progress._SILENT_SECONDS", 2.0)
    for _ in shown(range(30), "counting", total=30):
        now[0] += 1.0
    assert capsys.readouterr().err.splitlines() == ["counting: 3 of 30", "counting: 19 of 30"]


def test_a_block_of_more_than_two_seconds_has_a_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("ffconv.cli.progress._SILENT_SECONDS", 0.01)
    with announced("waiting"):
        time.sleep(0.3)
    monkeypatch.setattr("ffconv.cli.progress._SILENT_SECONDS", 60.0)
    with announced("not waiting"):
        pass
    assert capsys.readouterr().err == "waiting ...\n"


def test_an_evaluation_shows_how_far_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    terminal = at_terminal(monkeypatch)
    run = str(tmp_path / "run")
    assert main([*QUICK_TRAIN, "--limit", "40", "--loop.epochs", "1", "--output", run]) == 0
    words = ["--config", "small/digits", "--limit", "40", "--batch_size", "8", "--data.workers", "0"]
    assert main(["evaluate", run, *words]) == 0
    assert "evaluating" in terminal.getvalue()
