from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from ffconv.training.signals import StopSignals


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_noted_and_kills_nothing(number: signal.Signals):
    with StopSignals() as signals:
        os.kill(os.getpid(), number)
    assert signals.received == number


def test_a_second_signal_kills():
    program = """
import os, signal
from ffconv.training.signals import StopSignals
with StopSignals():
    os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGTERM)
"""
    ended = subprocess.run([sys.executable, "-c", program], check=False)
    assert ended.returncode == -signal.SIGTERM


def test_the_handlers_before_come_back():
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with StopSignals():
        pass
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
