"""A whole FFC as one operator of a compiled network, in inference on the CPU.

Of its parts a compiler would join the convolutions' weights anew for each call.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from operator import is_
from typing import Any, Protocol
from weakref import WeakValueDictionary

import torch
from torch import Tensor, nn

from ffconv.ops import fused


class Caller(Protocol):
    """What a layer has for being called as an operator: its name, whether its weights stay packed, and the
    tensors that it had when it was last asked."""

    name: str
    keep_packed: bool
    known: Sequence[Tensor]

    def layer(self) -> Any:
        """The layer."""
        ...


# A graph holds tensors and numbers; it names the layer.
_callers: WeakValueDictionary[str, Caller] = WeakValueDictionary()
_numbers = itertools.count()


def register(caller: Caller) -> str:
    """The name by which graphs call a layer."""
    name = f"ffc-{next(_numbers)}"
    _callers[name] = caller
    return name


def call(caller: Caller, layer: Any, x: Tensor, onto: Tensor | None) -> Tensor | None:
    """What the layer makes of x, in a graph that is being made.

    Args:
        caller: the layer's own.
        layer: an FFC of images, or what computes one.
        x: (N, C_in, H, W).
        onto: (N, C_out, H_out, W_out), or None, which the layer is given besides.
    Returns:
        (N, C_out, H_out, W_out), channels last; None where the layer's parts are to be in the graph.
    """
    if not fused.suits(x, local=False) or layer.training or fused.has_hooks(layer):
        return None
    size = layer.geometry.output_size(x.shape[2:])
    if x.shape[1] != layer.in_channels or any(side < 1 for side in size):  # of which the convolution tells
        return None
    if onto is not None and not _is_map(onto, (x.shape[0], layer.out_channels, *size), x.dtype):
        return None
    # A graph looks at what is looked at here before each call. Lists of tensors take long; of layers whose
    # weights stay packed, no tensor may take another's place.
    given = [] if caller.keep_packed else _tensors_of(layer)
    if torch.is_grad_enabled() and _want_gradient(x, onto, *(given or _tensors_of(layer))):
        return None
    return torch.ops.ffconv.layer(x, onto, given, caller.name)


def _is_map(onto: Any, shape: Sequence[int], dtype: torch.dtype) -> bool:
    return type(onto) is Tensor and onto.is_cpu and onto.shape == shape and onto.dtype == dtype


def _want_gradient(*tensors: Tensor | None) -> bool:
    return any(tensor is not None and tensor.requires_grad for tensor in tensors)


def _tensors_of(layer: nn.Module) -> list[Tensor]:
    return [*layer.parameters(), *layer.buffers()]


# The tensors are given, though the layer has them: others may stand in for its own, as where a call of
# torch.func.functional_call was compiled. An operator of torch.library.custom_op takes longer to call.
torch.library.define("ffconv::layer", "(Tensor x, Tensor? onto, Tensor[] tensors, str name) -> Tensor")


@torch.library.impl("ffconv::layer", "CPU")
def _layer(x: Tensor, onto: Tensor | None, tensors: Sequence[Tensor], name: str) -> Tensor:
    caller = _callers[name]
    layer = caller.layer()
    inputs = [one.contiguous(memory_format=torch.channels_last) for one in (x, onto) if one is not None]
    if _are_own(caller, layer, tensors):
        y = layer.forward(*inputs)
    else:
        names = [name for name, _ in (*layer.named_parameters(), *layer.named_buffers())]
        y = torch.func.functional_call(layer, dict(zip(names, tensors, strict=True)), tuple(inputs))
    return y.contiguous(memory_format=torch.channels_last)


def _are_own(caller: Caller, layer: nn.Module, tensors: Sequence[Tensor]) -> bool:
    """Whether these are the layer's tensors, which are remembered, since asking the layer takes long."""
    if len(tensors) == len(caller.known) and all(map(is_, tensors, caller.known)):
        return True
    caller.known = _tensors_of(layer) if tensors else ()
    return all(map(is_, tensors, caller.known))


@torch.library.register_fake("ffconv::layer")
def _(x: Tensor, onto: Tensor | None, tensors: Sequence[Tensor], name: str) -> Tensor:
    layer = _callers[name].layer()
    height, width = layer.geometry.output_size(x.shape[2:])
    return x.new_empty(x.shape[0], height, width, layer.out_channels).permute(0, 3, 1, 2)
