"""What a person sees while a run goes on: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from rich.progress import BarColumn, Progress, TextColumn

_PLAIN_SECONDS = 15.0


class Reporter:
    """Shows epoch, loss, images/s and time left; silent on all but the main process.

    Args:
        total_steps: Steps of the whole run.
        steps_per_epoch: Steps of an epoch.
        active: Whether this process shows anything.
    """

    def __init__(self, *, total_steps: int, steps_per_epoch: int, active: bool):
        self._total, self._per_epoch, self._active = total_steps, steps_per_epoch, active
        self._bar: Progress | None = None
        self._last_line = time.perf_counter()
        self._rate = 0.0  # images/s, smoothed

    def __enter__(self) -> Reporter:
        if self._active and sys.stdout.isatty():
            columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[status]}"))
            self._bar = Progress(*columns)
            self._bar.start()
            self._row = self._bar.add_task("", total=self._per_epoch, status="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def step(self, step: int, *, images: int, seconds: float, loss: float | None) -> None:
        """Show that a number of steps of the run are done.

        Args:
            step: Steps done.
            images: Images this step took, over all processes.
            seconds: Time this step took, waiting for data included.
            loss: The running loss, None before the first look at it.
        """
        if not self._active:
            return
        speed = images / max(seconds, 1e-9)
        self._rate = speed if not self._rate else 0.95 * self._rate + 0.05 * speed
        left = (self._total - step) * images / max(self._rate, 1e-9)
        status = (
            f"loss {'-' if loss is None else f'{loss:.4f}'}  {self._rate:.0f} images/s  {_clock(left)} left"
        )
        epoch, inside = divmod(step - 1, self._per_epoch)
        title = f"epoch {epoch + 1}/{self._total // self._per_epoch}"
        if self._bar is not None:
            self._bar.update(self._row, description=title, completed=inside + 1, status=status)
        elif time.perf_counter() - self._last_line > _PLAIN_SECONDS:
            self._last_line = time.perf_counter()
            self.say(f"{title}  step {inside + 1}/{self._per_epoch}  {status}")

    def say(self, line: str) -> None:
        """Print a line, above the bar where there is one."""
        if not self._active:
            return
        if self._bar is not None:
            self._bar.console.print(line, highlight=False, markup=False)
        else:
            print(line, flush=True)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
