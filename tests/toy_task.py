"""A task of a few numbers, to try the loop on: vectors, a linear layer with dropout and a batch norm."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ffconv.data.seeding import derive_seed
from ffconv.errors import require
from ffconv.training.config import TrainingConfig, plain
from ffconv.training.loop import Outcome, Trainer
from ffconv.training.run import train_run
from ffconv.training.task import Batch, Share


class ToyTask:
    """Fits a fixed linear function of 4 numbers; the scores of its evaluations can be dictated.

    Args:
        share: This process's part.
        batches: Batches in an epoch.
        parts: Into how many batches each of them is cut.
        simple: Only a linear layer: no dropout, no batch norm.
        at_step: Called with the step's number before each loss, and its result is a factor of the loss.
        scores: What the evaluations give, one after the other, instead of what is so.
    """

    main_metric = "score"
    unit = "vectors"

    def __init__(
        self,
        share: Share,
        *,
        batches: int = 6,
        parts: int = 1,
        simple: bool = False,
        at_step: Callable[[int], float] = lambda step: 1.0,
        scores: tuple[float, ...] = (),
    ) -> None:
        self.share, self.batches, self.parts = share, batches, parts
        self.simple, self.at_step = simple, at_step
        self.scores = list(scores)
        self.asked: list[tuple[int, int]] = []

    def check(self) -> None:
        """Nothing can be wrong."""

    def describe(self) -> str:
        return "toy"

    def watch_evaluation(self, watch: Callable[[Any], Iterator[Batch]]) -> None:
        """The evaluation has no batches."""

    def build_model(self) -> nn.Module:
        if self.simple:
            return nn.Linear(4, 1)
        return nn.Sequential(nn.Dropout(0.2), nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 1))

    def batches_per_epoch(self) -> int:
        return self.batches * self.parts

    def train_batches(self, epoch: int, start: int) -> Iterator[Batch]:
        self.asked.append((epoch, start))
        require(start <= self.batches_per_epoch(), f"start={start} lies behind the epoch")
        pieces = self.parts * self.share.world_size
        for number in range(start, self.batches * self.parts):
            whole, part = divmod(number, self.parts)
            generator = torch.Generator().manual_seed(derive_seed(self.share.seed, epoch, whole))
            drawn = torch.randn(self.share.batch_size * pieces, 4, generator=generator)
            x = drawn.chunk(pieces)[part * self.share.world_size + self.share.rank]
            yield {"x": x, "y": x.sum(1, keepdim=True)}

    def loss(self, model: nn.Module, batch: Batch, step: int) -> Tensor:
        return F.mse_loss(model(batch["x"]), batch["y"]) * self.at_step(step)

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        if self.scores:
            return {"score": self.scores.pop(0)}
        x = torch.linspace(-1, 1, 40, device=self.share.device).reshape(10, 4)
        return {"score": -F.mse_loss(model(x), x.sum(1, keepdim=True)).item()}

    def metadata(self) -> dict[str, Any]:
        return {"task": "toy"}

    def skipped(self) -> list[tuple[str, str]]:
        return []


def config(output: Path, **fields: Any) -> TrainingConfig:
    """A short run's configuration: two epochs on the CPU without warm-up; sections given as plain dicts."""
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(TrainingConfig, None)
    short = {
        "output": str(output),
        "loop": {"epochs": 2, "batch_size": 8, "device": "cpu", **fields.pop("loop", {})},
        "schedule": {"name": "constant", "warmup_epochs": 0, **fields.pop("schedule", {})},
        "optim": {"lr": 0.05, "reference_batch": None, **fields.pop("optim", {})},
    }
    parsed = parser.instantiate(parser.parse_object(short | fields))
    return TrainingConfig(**vars(parsed))


def run(training: TrainingConfig, **options: Any) -> Outcome:
    """A run of the toy task through the whole of `train_run`."""
    return train_run(lambda share: ToyTask(share, **options), training, record=plain(training))


def trainer(training: TrainingConfig, **options: Any) -> Trainer:
    """A trainer of the toy task, not yet run."""
    from ffconv.training.folder import RunFolder
    from ffconv.training.processes import batch_per_process, share_of, start_accelerator

    accelerator = start_accelerator(training.loop)
    share = share_of(accelerator, batch_per_process(accelerator, training.loop), seed=training.seed)
    task = ToyTask(share, **options)
    folder = RunFolder(Path(str(training.output)), plain(training))
    return Trainer(task, training, accelerator=accelerator, folder=folder)
