"""The compiled library: built once for a machine, kept in the user's cache."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

_SOURCE = Path(__file__).with_name("library.cpp")  # includes the headers beside it
_FLAGS = ("-O3", "-march=native", "-std=c++17", "-fopenmp", "-shared", "-fPIC")
_SECONDS = 120

_logger = logging.getLogger(__name__)


@functools.cache
def library(real: str = "float") -> ctypes.CDLL | None:
    """The library of transforms of "float" or "double", or None where it cannot be had; the reason is logged
    once.

    The compiler is ``$CXX``, or the first of c++, g++ and clang++ that is found. The library is kept in
    ``$FFCONV_CACHE``, by default ``~/.cache/ffconv``. ``FFCONV_NATIVE=0`` leaves it out.
    """
    if os.environ.get("FFCONV_NATIVE", "1") == "0":
        return None
    try:
        return ctypes.CDLL(str(_built(real)))
    except (OSError, subprocess.SubprocessError) as error:
        reason = _first_error(error)
        _logger.warning("no native Fourier transforms on this CPU, torch.fft takes their place: %s", reason)
        return None


def _first_error(error: Exception) -> str:
    """The line in which a compiler says what is wrong; where it said nothing, the exception's own words."""
    said = getattr(error, "stderr", None)
    lines = [line.strip() for line in said.splitlines()] if isinstance(said, str) else []
    lines = [line for line in lines if line and not line.startswith("collect2")]  # which names no cause
    return next((line for line in lines if "error:" in line), lines[0] if lines else str(error))


def _built(real: str) -> Path:
    """The library's file, compiled if it is not there."""
    if sys.platform != "linux":
        raise OSError(f"they are built on Linux only, not on {sys.platform}")
    names = (os.environ.get("CXX", ""), "c++", "g++", "clang++")
    compiler = next(filter(None, (shutil.which(name) for name in names if name)), None)
    if compiler is None:
        raise OSError("no C++ compiler was found: set CXX, or install g++")
    folder = Path(os.environ.get("FFCONV_CACHE", "~/.cache/ffconv")).expanduser()
    path = folder / f"{real}-{_fingerprint(compiler)}.so"
    if path.exists():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    # Several processes may build at once: each its own file, the last one stays.
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        fresh = Path(scratch) / path.name
        command = [compiler, *_FLAGS, f"-DREAL={real}", str(_SOURCE), "-o", str(fresh)]
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=_SECONDS)
        fresh.replace(path)
    return path


def _fingerprint(compiler: str) -> str:
    """Of all the library depends on: a home folder may be shared by machines of different kinds."""
    version = subprocess.run(
        [compiler, "--version"], check=True, capture_output=True, timeout=_SECONDS
    ).stdout
    processor = platform.processor() + platform.machine()
    described = Path("/proc/cpuinfo")
    if described.exists():
        lines = described.read_text().splitlines()
        processor += next((line for line in lines if line.startswith(("flags", "Features"))), "")
    headers = sorted(_SOURCE.parent.glob("*.hpp"))
    code = b"".join(path.read_bytes() for path in (_SOURCE, *headers))
    parts = (code, " ".join(_FLAGS).encode(), version, processor.encode())
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]
