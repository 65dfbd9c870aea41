from __future__ import annotations

import pytest
import torch
from torch import nn

from ffconv.training.config import OptimConfig, ScheduleConfig
from ffconv.training.optim import Schedule, build_optimizer, peak_learning_rate


def paper_schedule() -> Schedule:
    return Schedule(ScheduleConfig(), peak=0.1, epochs=90, steps_per_epoch=10)


def test_warm_up_rises_step_by_step_from_zero():
    rates = [paper_schedule()(step) for step in range(51)]
    assert rates == pytest.approx([0.1 * step / 50 for step in range(51)])


@pytest.mark.parametrize(
    ("epoch", "rate"), [(5, 0.1), (30, 0.01), (60, 1e-3), (80, 1e-4)], ids=["warm", "30", "60", "80"]
)
def test_steps_change_exactly_at_the_end_of_an_epoch(epoch: int, rate: float):
    before, at = paper_schedule()(epoch * 10 - 1), paper_schedule()(epoch * 10)
    assert at == pytest.approx(rate)
    assert before == pytest.approx(0.098 if epoch == 5 else 10 * rate)


def test_cosine_falls_from_the_peak_to_the_final_share():
    config = ScheduleConfig(name="cosine", warmup_epochs=2, final=0.1)
    schedule = Schedule(config, peak=1.0, epochs=10, steps_per_epoch=5)
    assert schedule(10) == pytest.approx(1.0)
    assert schedule(30) == pytest.approx(0.55)
    assert schedule(50) == pytest.approx(0.1)


def test_constant_keeps_the_peak_after_the_warm_up():
    schedule = Schedule(
        ScheduleConfig(name="constant", warmup_epochs=1), peak=0.3, epochs=9, steps_per_epoch=4
    )
    assert {schedule(step) for step in range(4, 36)} == {0.3}


@pytest.mark.parametrize(("batch", "rate"), [(256, 0.1), (64, 0.025), (1024, 0.4)])
def test_learning_rate_follows_the_total_batch_linearly(batch: int, rate: float):
    assert peak_learning_rate(OptimConfig(), batch) == pytest.approx(rate)


def test_learning_rate_without_a_reference_batch_stays():
    assert peak_learning_rate(OptimConfig(reference_batch=None), 1024) == 0.1


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))


def test_papers_optimizer_decays_every_parameter():
    optimizer = build_optimizer(network(), OptimConfig())
    assert isinstance(optimizer, torch.optim.SGD)
    (group,) = optimizer.param_groups
    assert (len(group["params"]), group["weight_decay"], group["momentum"]) == (4, 1e-4, 0.9)


def test_biases_and_norms_can_be_spared_of_decay():
    model = nn.Sequential(network(), nn.Linear(4, 2))
    decayed, spared = build_optimizer(model, OptimConfig(decay_all=False)).param_groups
    assert [tuple(p.shape) for p in decayed["params"]] == [(4, 3, 3, 3), (2, 4)]
    assert [tuple(p.shape) for p in spared["params"]] == [(4,), (4,), (4,), (2,)]
    assert (decayed["weight_decay"], spared["weight_decay"]) == (1e-4, 0.0)


@pytest.mark.parametrize(("name", "kind"), [("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)])
def test_adam_takes_its_betas(name: str, kind: type):
    optimizer = build_optimizer(network(), OptimConfig(name=name, betas=(0.8, 0.95)))  # pyright: ignore
    assert type(optimizer) is kind
    assert optimizer.param_groups[0]["betas"] == (0.8, 0.95)


def test_frozen_parameters_are_left_out():
    model = network()
    model[0].requires_grad_(False)  # pyright: ignore
    assert len(build_optimizer(model, OptimConfig()).param_groups[0]["params"]) == 2
