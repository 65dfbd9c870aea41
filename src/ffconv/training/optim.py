"""The optimizer and the learning rate of every step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ffconv.training.config import OptimConfig, ScheduleConfig


def build_optimizer(model: nn.Module, config: OptimConfig) -> torch.optim.Optimizer:
    """The configured optimizer over the model's trainable parameters.

    Its learning rate is the configuration's; `Schedule` sets each step's.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups: list[dict[str, Any]]
    if config.decay_all:
        groups = [{"params": parameters, "weight_decay": config.weight_decay}]
    else:
        # Biases, norm scales and shifts are the parameters of one axis.
        groups = [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": config.weight_decay},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ]
    if config.name == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, nesterov=config.nesterov)
    adam = torch.optim.AdamW if config.name == "adamw" else torch.optim.Adam
    return adam(groups, lr=config.lr, betas=config.betas)


def peak_learning_rate(config: OptimConfig, batch_size: int) -> float:
    """`config.lr` carried linearly from its reference batch to the given total batch (Goyal et al., 2017)."""
    return config.lr * batch_size / (config.reference_batch or batch_size)


@dataclass(frozen=True)
class Schedule:
    """The learning rate as a function of the step alone: nothing to save, nothing to restore.

    Args:
        config: Shape of the curve.
        peak: Learning rate after the warm-up.
        epochs: Length of the run.
        steps_per_epoch: Optimizer steps in an epoch.

    Example:
        >>> schedule = Schedule(ScheduleConfig(), peak=0.1, epochs=90, steps_per_epoch=10)
        >>> [round(schedule(step), 6) for step in (0, 25, 50, 299, 300, 899)]
        [0.0, 0.05, 0.1, 0.1, 0.01, 0.0001]
    """

    config: ScheduleConfig
    peak: float
    epochs: int
    steps_per_epoch: int

    def __call__(self, step: int) -> float:
        """Learning rate of the optimizer step with this number, counted from 0."""
        warmup_steps = self.config.warmup_epochs * self.steps_per_epoch
        if step < warmup_steps:
            return self.peak * step / warmup_steps
        if self.config.name == "constant":
            return self.peak
        if self.config.name == "steps":
            passed = sum(step >= epoch * self.steps_per_epoch for epoch in self.config.milestones)
            return self.peak * self.config.factor**passed
        progress = (step - warmup_steps) / max(1, self.epochs * self.steps_per_epoch - warmup_steps)
        share = self.config.final + (1 - self.config.final) * 0.5 * (1 + math.cos(math.pi * progress))
        return self.peak * share
