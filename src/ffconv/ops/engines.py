"""Which implementation computes the Fourier transforms: a user's choice, or the table's.

Every engine computes the same function, see :mod:`ffconv.ops.fourier`.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal, NamedTuple, get_args

import torch

Engine = Literal["auto", "fft", "native", "matrix", "triton"]
ENGINES: tuple[Engine, ...] = get_args(Engine)


class _Row(NamedTuple):
    device: str
    dtypes: tuple[torch.dtype, ...]
    channels: range
    side: range  # the longest that is transformed
    factor: range  # the largest prime factor of a side
    engine: Engine


_ANY = range(sys.maxsize)
_FULL = (torch.float32, torch.float64)
_SMALL = range(32)  # prime factors that the native engine has

# The first row that fits is taken; what none fits goes to torch.fft, as does what the native engine cannot
# take for want of a compiler. The rows are measured in float32, by `python benchmarks/transform_engines.py`.
# CUDA and MPS have none, for no measurement on a GPU has been made.
_TABLE = (
    _Row("cpu", _FULL, channels=range(8, sys.maxsize), side=_ANY, factor=_SMALL, engine="native"),
    _Row("cpu", _FULL, channels=_ANY, side=range(33), factor=_SMALL, engine="native"),
    _Row("cpu", _FULL, channels=_ANY, side=range(129), factor=range(32, 129), engine="matrix"),
)

_lasting: Engine = "auto"
_in_context: ContextVar[Engine | None] = ContextVar("ffconv_transform_engine", default=None)
# The engine set last, in any thread, for those who cannot read the context variable: torch.compile (as torch
# from 2.11 on does not always), and autograd's own threads. What another thread runs may so run by it, and
# computes the same.
_set_last: Engine = "auto"


def current_engine() -> Engine:
    """The engine that is set, "auto" by default."""
    if torch.compiler.is_dynamo_compiling():
        return _set_last
    chosen = _in_context.get()
    if chosen is None and _is_autograds_thread():
        return _set_last
    return chosen or _lasting


@contextmanager
def transform_engine(name: Engine) -> Iterator[None]:
    """Computes Fourier transforms by this engine, in this thread or task alone.

    Around a function of ``torch.compile``, not inside it.

    Args:
        name: "auto", "fft" (``torch.fft``), "native" (compiled for this CPU), "matrix" (real matrix
            products), or "triton" (kernels for CUDA). Maps that an engine does not take get ``torch.fft``.
    Raises:
        ValueError: for another name, or an engine that cannot run on this machine.
    Example:
        >>> with transform_engine("matrix"):
        ...     current_engine()
        'matrix'
    """
    token = _in_context.set(_checked(name))
    _tell_others()
    try:
        yield
    finally:
        _in_context.reset(token)
        _tell_others()


def set_transform_engine(name: Engine) -> None:
    """As :func:`transform_engine`, from now on and for all threads; a context takes precedence."""
    global _lasting
    _lasting = _checked(name)
    _tell_others()


def _tell_others() -> None:
    global _set_last
    _set_last = current_engine()


def _is_autograds_thread() -> bool:
    """Whether this is a thread in which autograd computes gradients of a GPU, and where what is checkpointed
    runs again: it was not started by Python, and has no context of its own."""
    if torch._C._current_graph_task_id() == -1:
        return False
    return isinstance(threading.current_thread(), threading._DummyThread)


def table_engine(device: torch.device, dtype: torch.dtype, channels: int, sides: Sequence[int]) -> Engine:
    """What "auto" stands for.

    Args:
        device: of the map.
        dtype: of the map.
        channels: of the map, not of its spectrum.
        sides: its sizes along the transformed axes.
    """
    factor = max(_largest_prime_factor(side) for side in sides)
    for row in _TABLE:
        fits = channels in row.channels and max(sides) in row.side and factor in row.factor
        if row.device == device.type and dtype in row.dtypes and fits:
            return row.engine
    return "fft"


@functools.cache
def _largest_prime_factor(n: int) -> int:
    """1 for n = 1."""
    largest, factor = 1, 2
    while n > 1:
        while n % factor == 0:
            largest, n = factor, n // factor
        factor = factor + 1 if factor * factor <= n else max(n, factor + 1)
    return largest


def _checked(name: Engine) -> Engine:
    if name not in ENGINES:
        raise ValueError(f"engine={name!r} must be one of {', '.join(ENGINES)}")
    if name == "native":
        from ffconv.ops import native

        if not native.available():
            raise ValueError("engine='native' needs Linux and a C++ compiler (CXX, or g++)")
    if name == "triton":
        if importlib.util.find_spec("triton") is None:
            raise ValueError("engine='triton' needs the package triton")
        if not torch.cuda.is_available() and os.environ.get("TRITON_INTERPRET") != "1":
            raise ValueError("engine='triton' needs a CUDA device, or TRITON_INTERPRET=1 set from the start")
    return name
