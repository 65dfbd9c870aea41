"""Progress of a run: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import statistics
import sys
import time
from collections import deque
from collections.abc import Collection, Iterator
from types import TracebackType
from typing import TypeVar

from rich.progress import BarColumn, Progress, TextColumn

from ffconv.wording import printable, say

_PLAIN_SECONDS = 15.0  # between two plain lines
_SILENT_SECONDS = 2.0  # without a line
_WIDTH = 100  # characters of a line
_STEADY_STEPS = 50
_STALL = 5.0  # times the median: a step that compiles, or waits for a checkpoint

Item = TypeVar("Item")


class Reporter:
    """Show epoch, loss, samples/s and time left; silent on all but the main process.

    Speed and time left come from steady steps: the first one, which starts workers and compiles, and single
    steps that take far longer than the others do not count.

    Args:
        total_steps: Steps of the whole run.
        steps_per_epoch: Steps of an epoch.
        active: True on the process that shows anything.
        unit: Name of the samples: images, clips, ...
        later_runs: Runs of the same length that follow this one.
    """

    def __init__(
        self,
        *,
        total_steps: int,
        steps_per_epoch: int,
        active: bool,
        unit: str = "images",
        later_runs: int = 0,
    ):
        self._total, self._per_epoch, self._active = total_steps, steps_per_epoch, active
        self._unit, self._later_runs = unit, later_runs
        self._bar: Progress | None = None
        self._last_line = time.perf_counter()
        self._first, self._title = True, ""
        self._steps: deque[tuple[float, int]] = deque(maxlen=_STEADY_STEPS)  # seconds and samples
        self._epoch_end = 0.0  # seconds from an epoch's last step to the next epoch

    def __enter__(self) -> Reporter:
        if self._active and sys.stdout.isatty():
            columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[status]}"))
            self._bar = Progress(*columns)
            self._bar.start()
            self._row = self._bar.add_task("", total=self._per_epoch, status="first step")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def step(self, step: int, *, samples: int, seconds: float, loss: float) -> None:
        """Show that a number of steps of the run are done.

        Args:
            step: Steps done.
            samples: Samples this step took, over all processes.
            seconds: Time this step took, waiting for data included.
            loss: The running loss.
        """
        if not self._active:
            return
        epoch, inside = divmod(step - 1, self._per_epoch)
        self._title = f"epoch {epoch + 1}/{self._total // self._per_epoch}"
        if self._first:
            status = f"loss {loss:.4f}  first step {seconds:.1f} s"
        else:
            self._steps.append((seconds, samples))
            status = f"loss {loss:.4f}  {self._speed(step)}"
        if self._bar is not None:
            self._bar.update(
                self._row,
                description=self._title,
                completed=inside + 1,
                total=self._per_epoch,
                status=status,
            )
        elif self._first or self._is_due(_PLAIN_SECONDS):
            self.say(f"{self._title}  step {inside + 1}/{self._per_epoch}  {status}")
        self._first = False

    def evaluation(self, batches: Collection[Item]) -> Iterator[Item]:
        """Yield the batches of an evaluation, and show how many are done."""
        self._last_line = time.perf_counter()
        wait = _SILENT_SECONDS
        for number, batch in enumerate(batches):
            yield batch
            status = f"evaluating {number + 1}/{len(batches)}"
            if self._bar is not None:
                self._bar.update(
                    self._row,
                    description=self._title,
                    completed=number + 1,
                    total=len(batches),
                    status=status,
                )
            elif self._is_due(wait):
                wait = _PLAIN_SECONDS
                self.say(f"{self._title}  {status}")

    def epoch_ended(self, seconds: float) -> None:
        """Note how long evaluating and saving took after an epoch's last step."""
        self._epoch_end = seconds

    def say(self, line: str) -> None:
        """Print a line or several, above the bar where there is one."""
        if not self._active:
            return
        self._last_line = time.perf_counter()
        for part in line.split("\n"):
            if self._bar is not None:
                self._bar.console.print(printable(part), highlight=False, markup=False, soft_wrap=True)
            else:
                say(part)

    def _is_due(self, seconds: float) -> bool:
        return self._active and time.perf_counter() - self._last_line > seconds

    def _speed(self, step: int) -> str:
        """Return samples/s, and the time that is left for the run and for all runs."""
        usual = statistics.median(seconds for seconds, _ in self._steps)
        steady = [one for one in self._steps if one[0] <= _STALL * usual]
        seconds = statistics.fmean(one[0] for one in steady)
        rate = sum(one[1] for one in steady) / max(1e-9, sum(one[0] for one in steady))
        epochs = self._total // self._per_epoch
        left = (self._total - step) * seconds + (epochs - step // self._per_epoch) * self._epoch_end
        whole = self._total * seconds + epochs * self._epoch_end
        text = f"{rate:.{0 if rate >= 10 else 1}f} {self._unit}/s  {clock(left)} left"
        if self._later_runs:
            text += f"  {clock(left + self._later_runs * whole)} for all runs"
        return text


def clock(seconds: float) -> str:
    """Return hours, minutes and seconds.

    Example:
        >>> clock(3725.4)
        '1:02:05'
    """
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"


def folded(start: str, parts: Collection[str]) -> str:
    """Return parts of a line, in lines of at most 100 characters.

    Example:
        >>> print(folded("epoch 1", ["train_loss 1.234"] * 6))
        epoch 1  train_loss 1.234  train_loss 1.234  train_loss 1.234  train_loss 1.234  train_loss 1.234
                 train_loss 1.234
    """
    lines = [start]
    for part in parts:
        if len(lines[-1]) + 2 + len(part) > _WIDTH:
            lines.append(" " * len(start))
        lines[-1] += f"  {part}"
    return "\n".join(lines)
