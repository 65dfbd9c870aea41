"""The user's choice of an implementation of the Fourier transforms."""

from __future__ import annotations

import importlib.util
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal, get_args

import torch

FFTBackend = Literal["auto", "torch", "cpu", "dft_matmul", "triton"]
FFT_BACKENDS: tuple[FFTBackend, ...] = get_args(FFTBackend)

_default: FFTBackend = "auto"
_in_context: ContextVar[FFTBackend | None] = ContextVar("ffconv_fft_backend", default=None)
# Fallback for torch.compile and autograd threads, which cannot read the ContextVar: the backend set last.
_set_last: FFTBackend = "auto"


def current_fft_backend() -> FFTBackend:
    """Return the backend in force, "auto" by default."""
    if torch.compiler.is_dynamo_compiling():
        return _set_last
    chosen = _in_context.get()
    if chosen is None and _is_autograd_thread():
        return _set_last
    return chosen or _default


@contextmanager
def fft_backend(name: FFTBackend) -> Iterator[None]:
    """Compute Fourier transforms by one backend, in this thread or task alone.

    Use it around a function of ``torch.compile``, not inside it. Maps that a backend does not support fall back
    to ``torch.fft``.

    Args:
        name: "auto", "torch" (``torch.fft``), "cpu" (compiled kernels), "dft_matmul" (real matrix products) or
            "triton" (CUDA kernels).
    Raises:
        ValueError: For another name, or a backend that cannot run on this machine.
    Example:
        >>> with fft_backend("dft_matmul"):
        ...     current_fft_backend()
        'dft_matmul'
    """
    token = _in_context.set(_checked(name))
    _remember_last()
    try:
        yield
    finally:
        _in_context.reset(token)
        _remember_last()


def set_fft_backend(name: FFTBackend) -> None:
    """Set the backend of all threads from now on, as :func:`fft_backend`; a context takes precedence."""
    global _default
    _default = _checked(name)
    _remember_last()


def _remember_last() -> None:
    global _set_last
    _set_last = current_fft_backend()


def _is_autograd_thread() -> bool:
    """Return True in a thread that autograd started, which has no Python context of its own."""
    if torch._C._current_graph_task_id() == -1:
        return False
    return isinstance(threading.current_thread(), threading._DummyThread)


def _checked(name: FFTBackend) -> FFTBackend:
    if name not in FFT_BACKENDS:
        raise ValueError(f"fft_backend={name!r} must be one of {', '.join(FFT_BACKENDS)}")
    if name == "cpu":
        from ffconv.backends.cpu import kernels

        if not kernels.available():
            raise ValueError("fft_backend='cpu' needs the compiled kernels: reinstall ffconv with a C++ compiler")
    if name == "triton":
        if importlib.util.find_spec("triton") is None:
            raise ValueError("fft_backend='triton' needs the package triton")
        if not torch.cuda.is_available() and os.environ.get("TRITON_INTERPRET") != "1":
            raise ValueError("fft_backend='triton' needs a CUDA device, or TRITON_INTERPRET=1 set from the start")
    return name
