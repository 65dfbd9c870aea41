"""Re-estimate the running statistics of batch norms."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def batch_norms(network: nn.Module) -> dict[str, _BatchNorm]:
    """Return the batch norms of a network that keep running statistics, by name."""
    return {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, _BatchNorm) and module.running_mean is not None
    }


@contextmanager
def reestimate_statistics(network: nn.Module) -> Iterator[None]:
    """Replace running statistics by those of the batches that the network is called with inside the block.

    Each statistic becomes the plain average over the batches (``momentum=None``). Inside the block the norms
    normalise by the batch itself, so each one reads what recalibrated norms before it would give, and one
    pass is enough; everything else is in evaluation mode. A norm that no batch reaches keeps its statistics.
    Modes and momenta are restored at the end; after an exception, so are the statistics.
    """
    norms = batch_norms(network).values()
    modes = {module: module.training for module in network.modules()}
    momenta = {norm: norm.momentum for norm in norms}
    statistics = {norm: [buffer.clone() for buffer in norm.buffers()] for norm in norms}

    def restore(norm: _BatchNorm) -> None:
        for buffer, value in zip(norm.buffers(), statistics[norm], strict=True):
            buffer.copy_(value)

    network.eval()
    for norm in norms:
        norm.training = True
        norm.momentum = None  # the first batch has the weight 1, the old statistics 0
        norm.num_batches_tracked.zero_()  # pyright: ignore[reportOptionalMemberAccess]
    try:
        # Compilers fix the momentum, or break the graph at it.
        with torch.no_grad(), torch.compiler.set_stance("force_eager"):
            yield
    except BaseException:
        for norm in norms:
            restore(norm)
        raise
    finally:
        for module, mode in modes.items():
            module.training = mode
        for norm, momentum in momenta.items():
            norm.momentum = momentum
    for norm in norms:
        if not norm.num_batches_tracked:
            restore(norm)
