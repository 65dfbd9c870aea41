"""Where something ran: what a run folder or a table of timings says of its machine."""

from __future__ import annotations

import os
import platform
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from ffconv.errors import InputError, require

_PACKAGES = ("ffconv", "torch", "torchvision", "timm", "accelerate", "numpy")


def describe_environment(device: torch.device) -> dict[str, Any]:
    """Time, command line, versions, processor, device and threads, as JSON can hold them."""
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": [_program(), *sys.argv[1:]],
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "processor": _processor(),
        "cores": os.cpu_count(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "cuda": torch.version.cuda,
        "threads": torch.get_num_threads(),
        "processes": launched_processes(),
    }


# What launchers say of the number of processes: torchrun and accelerate, then those of MPI.
_WORLD_SIZES = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
_PROCESS_GROUP = ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


def launched_processes() -> int:
    """Return how many processes a launcher started for this run, 1 without a launcher.

    Raises:
        InputError: If the environment lacks what they need to find each other.
    """
    name = next((name for name in _WORLD_SIZES if os.environ.get(name)), None)
    if name is None:
        return 1
    text = os.environ[name]
    require(text.isdecimal() and int(text) > 0, f"{name}={text!r} must be a number of processes")
    missing = [wanted for wanted in _PROCESS_GROUP if not os.environ.get(wanted)]
    if int(text) > 1 and missing:
        raise InputError(
            f"{name}={text}, but {', '.join(missing)} is not set: launch by torchrun or accelerate launch,"
            f" or unset {name} for a single process"
        )
    return int(text)


def _program() -> str:
    """The program's name without where it lies: ``python -m ffconv`` is ``ffconv``."""
    path = Path(sys.argv[0])
    return path.parent.name if path.name == "__main__.py" else path.name


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    """The processor's name; Linux keeps it in a file of its own."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())
