"""Sums and collections over the processes of torch.distributed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")


def sum_over_processes(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Adds each tensor up over all processes; without torch.distributed gives them back.

    Every process calls it with tensors of the same shapes; the results lie on the CPU and are exact for
    integers.
    """
    if not (dist.is_available() and dist.is_initialized()):
        return list(tensors)
    device = torch.device("cpu")
    if "cpu:" not in dist.get_backend_config():  # an accelerator's backend alone
        device = torch.accelerator.current_accelerator() or device
    totals = [tensor.to(device, copy=True) for tensor in tensors]
    for total in totals:
        dist.all_reduce(total)
    return [total.cpu() for total in totals]


def gather_over_processes(part: T) -> list[T]:
    """Every process's part in the order of the processes; without torch.distributed its own alone.

    Every process calls it and gets the same. Parts are pickled; tensors among them lie on the CPU.
    """
    if not (dist.is_available() and dist.is_initialized()):
        return [part]
    parts: list[T] = [part] * dist.get_world_size()
    dist.all_gather_object(parts, part)
    return parts
