from __future__ import annotations

from typing import Any

import pytest

from ffconv.errors import InputError
from ffconv.training.config import (
    CheckpointConfig,
    LoopConfig,
    OptimConfig,
    ScheduleConfig,
    TrainingConfig,
    plain,
)


@pytest.mark.parametrize(
    ("kind", "field", "value", "name"),
    [
        (OptimConfig, "lr", 0.0, "optim.lr=0.0"),
        (OptimConfig, "reference_batch", 0, "optim.reference_batch=0"),
        (OptimConfig, "momentum", 1.0, "optim.momentum=1.0"),
        (OptimConfig, "betas", (0.9, 1.0), "optim.betas"),
        (OptimConfig, "weight_decay", -1.0, "optim.weight_decay=-1.0"),
        (ScheduleConfig, "warmup_epochs", -1.0, "schedule.warmup_epochs=-1.0"),
        (ScheduleConfig, "milestones", (60, 30), r"schedule.milestones=\[60, 30\]"),
        (ScheduleConfig, "milestones", (0, 30), r"schedule.milestones=\[0, 30\]"),
        (ScheduleConfig, "factor", 0.0, "schedule.factor=0.0"),
        (ScheduleConfig, "final", 1.5, "schedule.final=1.5"),
        (LoopConfig, "epochs", 0, "loop.epochs=0"),
        (LoopConfig, "batch_size", 0, "loop.batch_size=0"),
        (LoopConfig, "accumulate", 0, "loop.accumulate=0"),
        (LoopConfig, "log_every", 0, "loop.log_every=0"),
        (LoopConfig, "clip_norm", 0.0, "loop.clip_norm=0.0"),
        (LoopConfig, "ema_decay", 1.0, "loop.ema_decay=1.0"),
        (LoopConfig, "precise_bn_samples", -1, "loop.precise_bn_samples=-1"),
        (CheckpointConfig, "every", -1, "checkpoint.every=-1"),
        (TrainingConfig, "seed", -1, "seed=-1"),
    ],
)
def test_refuses_a_value_out_of_range_by_its_full_name(kind: Any, field: str, value: Any, name: str):
    with pytest.raises(InputError, match=name):
        kind(**{field: value})


def test_nesterov_needs_momentum():
    with pytest.raises(InputError, match="nesterov"):
        OptimConfig(momentum=0.0, nesterov=True)


def test_defaults_are_the_papers_protocol():
    config = TrainingConfig()
    assert (config.optim.lr, config.optim.reference_batch, config.loop.batch_size) == (0.1, 256, 256)
    assert (config.schedule.warmup_epochs, config.schedule.milestones) == (5, (30, 60, 80))
    assert (config.optim.momentum, config.optim.weight_decay, config.loop.epochs) == (0.9, 1e-4, 90)


def test_plain_holds_lists_and_nested_dicts_only():
    values = plain(TrainingConfig(output="runs/x"))
    assert values["output"] == "runs/x"
    assert values["schedule"]["milestones"] == [30, 60, 80]
