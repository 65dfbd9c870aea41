"""Batch norms that stay as they are during training."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def freeze_norms(network: nn.Module) -> None:
    """Take the scales and shifts of all batch norms out of training.

    A norm whose scale is zero everywhere is left alone: it closes a branch, as that of a new non-local block,
    and frozen would keep it closed.
    """
    for norm in _batch_norms(network):
        if norm.weight is None or bool(norm.weight.any()):
            for parameter in norm.parameters():
                parameter.requires_grad_(False)


def keep_frozen(network: nn.Module) -> None:
    """Let the frozen norms use their stored statistics again, after `network.train()`."""
    for norm in _batch_norms(network):
        if norm.weight is None or not norm.weight.requires_grad:
            norm.eval()


def _batch_norms(network: nn.Module) -> Iterator[_BatchNorm]:
    return (module for module in network.modules() if isinstance(module, _BatchNorm))
