"""What a person sees while a command is at work."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from commands import QUICK_TRAIN
from ffconv.cli import main
from ffconv.cli.progress import shown


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


def test_elsewhere_nothing_is_said(capsys: pytest.CaptureFixture[str]):
    assert list(shown("abc", "counting", total=3)) == ["a", "b", "c"]
    assert capsys.readouterr() == ("", "")


def test_an_evaluation_shows_how_far_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    terminal = at_terminal(monkeypatch)
    run = str(tmp_path / "run")
    assert main([*QUICK_TRAIN, "--limit", "40", "--loop.epochs", "1", "--output", run]) == 0
    assert main(["evaluate", run, "--limit", "40", "--batch_size", "8", "--data.workers", "0"]) == 0
    assert "evaluating" in terminal.getvalue()
