"""Frozen batch norms: no new statistics, no new scales."""

from __future__ import annotations

import torch
from torch import nn

from ffconv.tasks.norms import freeze_norms, keep_frozen


def network() -> nn.Sequential:
    return nn.Sequential(nn.Conv3d(3, 4, 1), nn.BatchNorm3d(4), nn.BatchNorm3d(4))


def test_frozen_norms_keep_statistics_and_scales():
    frozen = network()
    freeze_norms(frozen)
    before = {name: value.clone() for name, value in frozen[1:].state_dict().items()}
    frozen.train()
    keep_frozen(frozen)
    frozen(torch.randn(2, 3, 2, 4, 4)).sum().backward()
    assert all(torch.equal(before[name], value) for name, value in frozen[1:].state_dict().items())
    assert [parameter.grad is None for parameter in frozen.parameters()] == [False] * 2 + [True] * 4


def test_a_norm_that_closes_its_branch_is_trained():
    frozen = network()
    nn.init.zeros_(frozen[2].weight)
    freeze_norms(frozen)
    frozen.train()
    keep_frozen(frozen)
    assert [norm.training for norm in frozen[1:]] == [False, True]
    assert [norm.weight.requires_grad for norm in frozen[1:]] == [False, True]


def test_norms_that_are_not_frozen_learn():
    free = network().train()
    keep_frozen(free)
    assert all(module.training for module in free)
