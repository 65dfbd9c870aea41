"""Stopping in good order: a signal asks, the loop finishes its step, saves and leaves."""

from __future__ import annotations

import os
import signal
from types import FrameType, TracebackType


class StopSignals:
    """Notes SIGTERM and SIGINT instead of dying of them; a second one of them does kill.

    Enter it before data workers are started: they inherit the handler, so that a signal to the whole process
    group leaves them at work for the step that is to be finished.
    """

    def __init__(self) -> None:
        self.received: int | None = None

    def __enter__(self) -> StopSignals:
        self._earlier = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
        for number in self._earlier:
            signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._earlier.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self.received = number
