"""Devices and processes: one place that starts Accelerate and deals out the work."""

from __future__ import annotations

import os

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType, GradientAccumulationPlugin

from ffconv.environment import launched_processes
from ffconv.errors import require
from ffconv.training.config import LoopConfig
from ffconv.training.task import Share
from ffconv.wording import counted

_SUPPORTED = (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU)


def start_accelerator(config: LoopConfig) -> Accelerator:
    """Start Accelerate for one process, or join the processes that torchrun or accelerate started.

    Raises:
        InputError: If the device cannot do the precision, or the launched processes cannot work together.
    """
    require(
        config.precision != "fp16" or (config.device == "auto" and torch.cuda.is_available()),
        "loop.precision=fp16 needs a CUDA device; bf16 does not",
    )
    launched = launched_processes()
    if launched > 1 and config.device == "auto" and torch.cuda.is_available():
        local, devices = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        require(
            local < devices,
            f"LOCAL_RANK={local}, but there is {counted(devices, 'CUDA device')}: one process for each",
        )
    # Accelerate remembers a process's first device and precision; every run of ours says its own.
    AcceleratorState._reset_state(reset_partial_state=not torch.distributed.is_initialized())
    accelerator = Accelerator(
        mixed_precision=config.precision,
        # Unless it is told so, Accelerate joins no other process on a machine without accelerator.
        cpu=config.device == "cpu" or (launched > 1 and not torch.accelerator.is_available()),
        # The loop groups its batches itself; whatever the launcher's environment says of it is not meant.
        gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),
    )
    kind = accelerator.distributed_type
    require(kind in _SUPPORTED, f"{kind.value} is not supported: launch with plain DDP")
    require(
        accelerator.num_processes == launched,
        f"the launcher started {counted(launched, 'process')}, which cannot work together on"
        f" {accelerator.device.type}: set the device to cpu, or start one process",
    )
    return accelerator


def batch_per_process(accelerator: Accelerator, config: LoopConfig) -> int:
    """Samples in each batch of each process.

    Raises:
        InputError: if the total batch does not divide over the processes and accumulated batches.
    """
    parts = accelerator.num_processes * config.accumulate
    require(
        config.batch_size % parts == 0,
        f"loop.batch_size={config.batch_size} must divide by {counted(accelerator.num_processes, 'process')}"
        f" x {counted(config.accumulate, 'accumulated batch')}",
    )
    return config.batch_size // parts


def share_of(
    accelerator: Accelerator, batch_size: int, *, seed: int = 0, channels_last: bool = False
) -> Share:
    """This process's share of the work, in batches of the given size."""
    return Share(
        batch_size=batch_size,
        seed=seed,
        rank=accelerator.process_index,
        world_size=accelerator.num_processes,
        device=accelerator.device,
        channels_last=channels_last,
    )
