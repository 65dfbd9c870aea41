"""What the loop asks of a task, and what it tells the task: the only things they know of each other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

Batch = dict[str, Tensor]


@dataclass(frozen=True)
class Share:
    """This process's part of the work.

    Args:
        batch_size: Samples in one of its batches.
        seed: Seed of the run.
        rank: Number of this process, from 0.
        world_size: Number of processes.
        device: Where its network runs.
        channels_last: Move images in channels-last order.
    """

    batch_size: int
    seed: int = 0
    rank: int = 0
    world_size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    channels_last: bool = False

    def move(self, batch: Batch) -> Batch:
        """The batch on this process's device, images and clips in the memory format of the network."""
        return {
            name: tensor.to(
                self.device,
                non_blocking=True,
                memory_format=channels_last(tensor) if self.channels_last else torch.preserve_format,
            )
            for name, tensor in batch.items()
        }


def channels_last(tensor: Tensor) -> torch.memory_format:
    """The format with channels last of what has as many axes; that of images (4) and of clips (5) differ."""
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    return formats.get(tensor.ndim, torch.preserve_format)


class Task(Protocol):
    """Image classification, action recognition, pose: what a batch, a loss and an evaluation are."""

    @property
    def share(self) -> Share:
        """The part of the work of this process."""
        ...

    @property
    def main_metric(self) -> str:
        """The value of `evaluate` that chooses the best checkpoint; more is better."""
        ...

    @property
    def unit(self) -> str:
        """Name of the samples, in the plural: images, clips, ..."""
        ...

    def describe(self) -> str:
        """Return network and data in words, once `check` has opened the data."""
        ...

    def watch_evaluation(self, watch: Callable[[Any], Iterator[Batch]]) -> None:
        """Have the batches of evaluations go through a function that shows how many are done."""
        ...

    def check(self) -> None:
        """Raise `InputError` for data that would fail later; called before the run folder is made."""
        ...

    def build_model(self) -> nn.Module:
        """The network on the CPU, its weights drawn from torch's generator, which the loop has seeded."""
        ...

    def batches_per_epoch(self) -> int:
        """How many batches each process sees in an epoch, the same on all."""
        ...

    def train_batches(self, epoch: int, start: int) -> Iterable[Batch]:
        """The epoch's batches from number `start` on, a function of (seed, epoch) alone."""
        ...

    def loss(self, model: nn.Module, batch: Batch, step: int) -> Tensor:
        """Mean loss of one batch, a scalar.

        Args:
            model: Network to call.
            batch: One of `train_batches`, moved to the device.
            step: Number of the optimizer step; mixing is a function of (seed, step). What the network
                draws itself, dropout say, comes from torch's generator, seeded before each batch.
        """
        ...

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Metrics over exactly the samples of the evaluation set, the same on all processes.

        Processes may have unequally many batches, so nothing collective may happen in a batch.
        """
        ...

    def metadata(self) -> dict[str, Any]:
        """What, beside the weights, a checkpoint needs to be used by itself; JSON can hold it."""
        ...

    def skipped(self) -> Iterable[tuple[str, str]]:
        """(name, reason) of each unreadable sample this process has left out so far."""
        ...


@runtime_checkable
class DrawsPictures(Protocol):
    """A task that also shows what its network does."""

    def pictures(self, model: nn.Module) -> Mapping[str, bytes]:
        """PNG files for the run folder, by name; asked for after each epoch, on the main process alone."""
        ...
