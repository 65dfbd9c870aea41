"""Time and memory of networks and operators, compared in one run.

All subjects of a comparison take turns, a block of steps each, so that what slows the machine down slows all
of them. Figures are medians over the rounds with their quartiles; a ratio is the median over the rounds of
the ratio to the peer in the same round. Every subject runs in the memory format, contiguous or channels last,
in which it is faster in a trial of its own, where the two take turns as well.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from ffconv.analysis.memory import MIB, peak_during
from ffconv.analysis.work import Setting, Subject, Work
from ffconv.errors import require

_TRIAL_ROUNDS = 7  # of the two memory formats: a single slow block must not decide


@dataclass(frozen=True)
class Effort:
    """How long to measure.

    Args:
        rounds: blocks timed of every subject.
        warmup: steps before the first of them.
        block: seconds that a block lasts at least.
        threads: of torch on the CPU; None leaves them as they are.
    """

    rounds: int = 15
    warmup: int = 3
    block: float = 0.05
    threads: int | None = None

    def __post_init__(self) -> None:
        require(self.rounds > 0, f"rounds={self.rounds} must be at least 1")
        require(self.warmup >= 0, f"warmup={self.warmup} must not be negative")
        require(self.block >= 0, f"block={self.block} must not be negative")
        require(self.threads is None or self.threads > 0, f"threads={self.threads} must be at least 1")


@dataclass(frozen=True)
class Measurement:
    """One subject under one setting.

    Args:
        subject: its name.
        peer: the name of the subject that ratios refer to.
        setting: what it ran under.
        memory_format: in which it was faster, or which was asked for.
        milliseconds: of a step, by round.
        peak_mib: peak memory of a step in MiB, see :data:`ffconv.analysis.memory.METHOD`.
        time_ratio: time over the peer's, the median of the rounds.
        memory_ratio: peak memory over the peer's.
    """

    subject: str
    peer: str
    setting: Setting
    memory_format: str
    milliseconds: tuple[float, ...]
    peak_mib: float
    time_ratio: float
    memory_ratio: float

    @property
    def median(self) -> float:
        """Milliseconds a step."""
        return statistics.median(self.milliseconds)

    @property
    def quartiles(self) -> tuple[float, float]:
        """The first and the third quartile of the milliseconds."""
        if len(self.milliseconds) == 1:
            return self.median, self.median
        first, _, third = statistics.quantiles(self.milliseconds, n=4, method="inclusive")
        return first, third


def compare(
    subjects: Sequence[Subject], setting: Setting, effort: Effort | None = None, *, peer: str
) -> list[Measurement]:
    """Measure subjects side by side.

    Args:
        subjects: with different names.
        setting: the same for all.
        effort: how long to measure.
        peer: name of the subject that ratios refer to.
    Raises:
        InputError: if no subject has the peer's name, or two have the same.
    """
    effort = effort or Effort()
    names = [subject.name for subject in subjects]
    require(peer in names, f"peer={peer!r} is none of {', '.join(names)}")
    require(len(set(names)) == len(names), f"{', '.join(names)}: each subject once")
    with _machine_set_up(effort.threads):
        prepared = [_prepare(subject, setting, effort) for subject in subjects]
        peaks = [_peak_mib(ready.work) for ready in prepared]
        rounds = [_round(prepared, turn) for turn in range(effort.rounds)]
    times = list(zip(*rounds, strict=True))
    beside = names.index(peer)
    return [
        Measurement(
            subject=ready.work.name,
            peer=peer,
            setting=setting,
            memory_format=ready.work.memory_format,
            milliseconds=own,
            peak_mib=peak,
            time_ratio=statistics.median(a / b for a, b in zip(own, times[beside], strict=True)),
            memory_ratio=peak / peaks[beside],
        )
        for ready, own, peak in zip(prepared, times, peaks, strict=True)
    ]


@dataclass(frozen=True)
class _Timed:
    """A subject in one memory format, warmed up, and the steps of a block."""

    work: Work
    repeats: int


def _prepare(subject: Subject, setting: Setting, effort: Effort) -> _Timed:
    """The subject in the memory format that is to be timed."""
    tried = []
    for memory_format in setting.memory_formats:
        work = Work(subject, setting, memory_format)
        for _ in range(effort.warmup):
            work()
        seconds = min(_seconds(work, 1) for _ in range(3))
        tried.append(_Timed(work, max(1, math.ceil(effort.block / seconds))))
    if len(tried) == 1:
        return tried[0]
    rounds = [_round(tried, turn) for turn in range(_TRIAL_ROUNDS)]
    medians = [statistics.median(times) for times in zip(*rounds, strict=True)]
    return tried[medians.index(min(medians))]


def _peak_mib(work: Work) -> float:
    """Peak memory of a step in MiB, with what stays between steps."""
    return (work.resident_bytes + peak_during(work, work.device)) / MIB


def _round(prepared: Sequence[_Timed], turn: int) -> list[float]:
    """Milliseconds a step of every subject; another one begins in every round."""
    times = [0.0] * len(prepared)
    for index in range(len(prepared)):
        place = (turn + index) % len(prepared)
        ready = prepared[place]
        times[place] = 1e3 * _seconds(ready.work, ready.repeats)
    return times


def _seconds(work: Work, repeats: int) -> float:
    """Seconds a step takes, over a block of steps."""
    _wait_for(work.device)
    start = time.perf_counter()
    for _ in range(repeats):
        work()
    _wait_for(work.device)
    return (time.perf_counter() - start) / repeats


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextmanager
def _machine_set_up(threads: int | None) -> Iterator[None]:
    """The number of threads, and room in torch.compile's cache for every subject in every memory format."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    torch.compiler.reset()
    try:
        with torch._dynamo.config.patch(recompile_limit=64, fail_on_recompile_limit_hit=True):
            yield
    finally:
        torch.set_num_threads(before)
