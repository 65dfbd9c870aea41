"""Runs a function in two processes of a gloo group."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch


def results(function: Callable[[int], Any], folder: Path) -> list[Any]:
    """What ``function(rank)`` returns on ranks 0 and 1; the function lies at the top of its module."""
    torch.multiprocessing.spawn(_run, (function, str(folder)), nprocs=2)
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


def _run(rank: int, function: Callable[[int], Any], folder: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2
    )
    torch.save(function(rank), f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()
