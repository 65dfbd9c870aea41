"""What a trial forward shows: a network's operations in order, and where channels go in them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd

from ffconv.nn import FFC1d, FFC2d, FFC3d, FFCNd
from ffconv.surgery.channels import Flow

# The convolutions that have a Fourier form.
FFC_OF: dict[type[nn.Module], type[FFCNd]] = {nn.Conv1d: FFC1d, nn.Conv2d: FFC2d, nn.Conv3d: FFC3d}
Convolution = _ConvNd | FFCNd


@dataclass(frozen=True)
class Node:
    """One tensor of the trial forward and the operation that gave it.

    Args:
        operation: ATen's name; "input" for the network's inputs, "convolution" for a convolution module.
        flow: what the operation does to channels.
        sources: indices of the nodes it is computed from.
        kept: those of the sources whose channels it keeps in order.
        shape: the tensor's shape.
        module: name of the convolution module, if it is one's output.
    """

    operation: str
    flow: Flow
    sources: tuple[int, ...]
    kept: tuple[int, ...]
    shape: torch.Size
    module: str | None = None


@dataclass(frozen=True)
class Trace:
    """What a trial forward shows.

    Args:
        nodes: in order of execution.
        outputs: indices of those that the network returns.
        opened: names of the convolutions whose ``weight`` the network itself reads.
    """

    nodes: tuple[Node, ...]
    outputs: tuple[int, ...]
    opened: frozenset[str]

    def calls(self) -> Iterator[tuple[int, str]]:
        """(index, module name) of each call of a convolution module, in order of execution."""
        for index, node in enumerate(self.nodes):
            if node.module is not None:
                yield index, node.module

    def sizes(self, index: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Map sizes, without batch and channels, before and after the convolution at ``index``."""
        node = self.nodes[index]
        before = self.nodes[node.sources[0]].shape if node.sources else node.shape
        return tuple(before[2:]), tuple(node.shape[2:])


def convolutions(model: nn.Module) -> dict[str, Convolution]:
    """The convolution modules by name, each once; what is inside of one (an FFC's own) is part of it."""
    found: dict[str, Convolution] = {}
    outer = None
    for name, module in model.named_modules():
        inside = outer is not None and (outer == "" or name.startswith(f"{outer}."))
        if isinstance(module, Convolution) and not inside:
            found[name] = module
            outer = name
    return found
