"""An equivalent network for inference: norms folded into the convolutions before them."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ffconv.errors import InputError
from ffconv.ops import FFC1d, FFC2d, FFC3d, FFCNd
from ffconv.ops.engine import add_to_local
from ffconv.surgery.clip_layers import PaddedConv3d

_CONVOLUTION_OF: dict[type[nn.Module], Any] = {FFC1d: nn.Conv1d, FFC2d: nn.Conv2d, FFC3d: nn.Conv3d}
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def fuse(model: nn.Module) -> fx.GraphModule:
    """An equivalent network for inference; the given one is left alone.

    Batch norms are folded into the convolution or FFC whose output they alone read; the paths of an FFC
    without groups become one convolution. Norms inside Spectral Transforms stay: on the CPU the transforms
    apply them while they load a spectrum, and a compiler makes them part of the ReLU. Values change by
    rounding only.

    Args:
        model: any network that ``torch.fx`` can trace.
    Returns:
        The network in evaluation mode. It has no parts to train or to convert back.
    Raises:
        InputError: if the network cannot be traced, with torch's reason.
    Example:
        >>> net = nn.Sequential(FFC2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        >>> [type(module).__name__ for module in fuse(net).children()]
        ['InferenceFFC', 'ReLU']
    """
    fused = copy.deepcopy(model).eval()
    try:
        graph = _Tracer().trace(fused)
    except Exception as error:  # whatever the network's own code does with a traced value
        raise InputError(
            f"{type(model).__name__} cannot be traced: {' '.join(str(error).split())}"
        ) from error
    network = fx.GraphModule(fused, graph, type(model).__name__)
    _fold_norms(network)
    for name, module in list(network.named_modules()):
        # A subclass has paths of its own, such as gates.
        if not isinstance(module, FFCNd) or type(module) not in _CONVOLUTION_OF:
            continue
        if module.groups == 1 and module.in_local + module.out_local:
            network.set_submodule(name, InferenceFFC(module))
    network.graph.lint()
    network.recompile()
    return network.requires_grad_(False)


class InferenceFFC(nn.Module):
    """An FFC without groups whose convolutions are one, with a zero block, or two where that block is large.

    Args:
        ffc: the layer it computes.
    Shape:
        As for the layer.
    """

    def __init__(self, ffc: FFCNd) -> None:
        super().__init__()
        self.in_local = ffc.in_local
        self.pad = ffc.pad
        weight = ffc.dense_weight()
        if ffc.convolves_from_sides:
            self.conv = _convolution(ffc, weight[:, : ffc.in_local], ffc.bias)
            self.conv_global = _convolution(ffc, weight[: ffc.out_local, ffc.in_local :])
        else:
            self.conv = _convolution(ffc, weight, ffc.bias)
            self.conv_global = None
        self.spectral = ffc.spectral

    def forward(self, x: Tensor) -> Tensor:
        if self.conv_global is None:
            y = self.conv(self.pad(x))
        else:
            y = self.conv(self.pad(x[:, : self.in_local]))
            y = add_to_local(y, self.conv_global(self.pad(x[:, self.in_local :])))
        return y if self.spectral is None else self.spectral(x[:, self.in_local :], y)


def _convolution(ffc: FFCNd, weight: Tensor, bias: Tensor | None = None) -> nn.Module:
    geometry: dict[str, Any] = {name: getattr(ffc, name) for name in ("kernel_size", "stride", "dilation")}
    outputs, inputs = weight.shape[:2]
    conv = _CONVOLUTION_OF[type(ffc)](inputs, outputs, **geometry, padding=ffc.pad.rest, device="meta")
    conv.weight, conv.bias = nn.Parameter(weight.detach().clone()), bias
    return conv


def _lying_first(values: Tensor, weight: Tensor) -> Tensor:
    """Values (C,), shaped to lie along the first axis of a weight."""
    return values.reshape(-1, *[1] * (weight.dim() - 1))


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, (FFCNd, PaddedConv3d)) or super().is_leaf_module(m, module_qualified_name)


def _fold_norms(network: fx.GraphModule) -> None:
    """Fold each norm that alone reads the output of a convolution that runs once."""
    modules = dict(network.named_modules())
    calls: dict[nn.Module, int] = {}
    for node in network.graph.nodes:
        if node.op == "call_module":
            module = modules[str(node.target)]
            calls[module] = calls.get(module, 0) + 1
    for node in list(network.graph.nodes):
        before = node.args[0] if node.op == "call_module" and node.args else None
        if not isinstance(before, fx.Node) or before.op != "call_module" or len(before.users) > 1:
            continue
        name, conv = str(before.target), modules[str(before.target)]
        norm: Any = modules[str(node.target)]
        if type(norm) not in _NORMS or norm.running_var is None or calls[conv] > 1:
            continue
        if isinstance(conv, FFCNd):
            _fold_into_ffc(conv, norm)
        elif isinstance(conv, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
            network.set_submodule(name, fuse_conv_bn_eval(conv, norm))
        else:
            continue
        node.replace_all_uses_with(before)
        network.graph.erase_node(node)
    network.delete_all_unused_submodules()


def _scale_and_shift(norm: _BatchNorm) -> tuple[Tensor, Tensor]:
    """norm(x) = scale * x + shift, both (C,)."""
    mean, var = norm.get_buffer("running_mean"), norm.get_buffer("running_var")
    scale = torch.rsqrt(var + norm.eps)
    if norm.affine:
        return scale * norm.weight, norm.bias - mean * scale * norm.weight
    return scale, -mean * scale


@torch.no_grad()
def _fold_into_ffc(ffc: FFCNd, norm: _BatchNorm) -> None:
    scale, shift = _scale_and_shift(norm)
    local, all_global = scale[: ffc.out_local], scale[ffc.out_local :]
    for weight, rows in ((ffc.weight_l2l, local), (ffc.weight_l2g, all_global), (ffc.weight_g2l, local)):
        if weight is not None:
            weight.mul_(_lying_first(rows, weight))
    if ffc.spectral is not None:
        last = ffc.spectral.conv2.weight
        last.mul_(_lying_first(all_global, last))
    ffc.bias = nn.Parameter(shift if ffc.bias is None else scale * ffc.bias + shift)
