"""Peak memory of a step of work."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch

MIB = 2**20
METHOD = (
    "parameters, buffers, inputs and optimizer state, plus the most that torch's allocator has handed out "
    "and not got back at any time of a step (CUDA: max_memory_allocated, without what CUDA graphs hold "
    "between steps; CPU: torch.profiler's events)"
)


def peak_during(step: Callable[[], object], device: torch.device) -> int:
    """Bytes by which a step's memory rises above what is allocated when it begins.

    Args:
        step: the work; run once.
        device: a CPU or CUDA device.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        step()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    return _peak_on_cpu(step)


def _peak_on_cpu(step: Callable[[], object]) -> int:
    """The highest running sum of the allocator's events, which include oneDNN's and the FFT's work space."""
    from torch.profiler import ProfilerActivity, profile

    # Kineto writes messages of its own to standard error unless told otherwise before its first use.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        step()
    # torch.profiler's public tables sum the events by operator, which hides peaks inside one.
    profiler: Any = recorded.profiler
    events = [event for event in profiler.kineto_results.events() if event.name() == "[memory]"]
    held = highest = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        highest = max(highest, held)
    return highest
