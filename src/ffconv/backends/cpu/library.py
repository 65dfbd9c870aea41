"""Loads the kernels that suit the processor.

The installation compiles ``library.cpp`` once per instruction set, into files beside this one. Which of them
runs is decided once per process, by :func:`torch.backends.cpu.get_cpu_capability` and the environment
variable ``FFCONV_CPU``: ``avx512``, ``avx2`` or ``default`` force an instruction set that the processor has,
``none`` leaves the kernels out.
"""

from __future__ import annotations

import ctypes
import functools
import logging
import os
from pathlib import Path
from typing import NamedTuple

import torch

# Each one runs where those before it do not.
INSTRUCTION_SETS = ("avx512", "avx2", "default")

_FUNCTIONS = {
    "infer": (ctypes.c_char_p, (ctypes.c_char_p,)),
    "train": (ctypes.c_char_p, (ctypes.c_char_p,)),
    "transform": (ctypes.c_char_p, (ctypes.c_char_p,)),
    "weight_gradients": (ctypes.c_char_p, (ctypes.c_char_p,)),
    "largest_factor": (ctypes.c_int64, ()),
    "saved_width": (ctypes.c_int64, (ctypes.c_int64,)),
    "winograd_pays": (ctypes.c_int64, (ctypes.c_int64,) * 5),
}

_logger = logging.getLogger(__name__)


class Library(NamedTuple):
    """The kernels of one instruction set."""

    instruction_set: str
    functions: ctypes.CDLL


@functools.cache
def library() -> Library | None:
    """Load the kernels, once; None if they are left out or were not built, which is logged once.

    Raises:
        ValueError: if ``FFCONV_CPU`` is no instruction set or one that this processor does not have.
    """
    allowed = _allowed_sets(os.environ.get("FFCONV_CPU", ""))
    reason = "they were not built when ffconv was installed"
    for name in allowed:
        path = library_path(name)
        if not path.exists():
            continue
        try:
            return Library(name, load_functions(path))
        except (OSError, AttributeError) as error:  # missing libgomp, or a file of another version
            reason = str(error)
    if allowed:
        _logger.warning(
            "ffconv runs in plain PyTorch on the CPU, its compiled kernels are missing: %s", reason
        )
    return None


def library_path(instruction_set: str) -> Path:
    """Return the file of an instruction set's kernels, whether or not it exists."""
    return Path(__file__).with_name(f"kernels_{instruction_set}.so")


def load_functions(path: Path) -> ctypes.CDLL:
    """Load one file of kernels."""
    functions = ctypes.CDLL(str(path))
    for name, (result, arguments) in _FUNCTIONS.items():
        function = getattr(functions, f"ffconv_{name}")
        function.restype, function.argtypes = result, arguments
    return functions


def _allowed_sets(forced: str) -> tuple[str, ...]:
    """Return the instruction sets that may be loaded, best first."""
    best = {"AVX512": 0, "AVX2": 1}.get(torch.backends.cpu.get_cpu_capability(), 2)
    present = INSTRUCTION_SETS[best:]
    if not forced:
        return present
    if forced == "none":
        return ()
    if forced not in present:
        choices = ", ".join((*present, "none"))
        raise ValueError(f"FFCONV_CPU={forced!r} cannot be used on this processor; choose one of {choices}")
    return (forced,)
