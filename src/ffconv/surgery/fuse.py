"""An equivalent network for inference: norms folded into the convolutions before them."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ffconv.errors import InputError
from ffconv.ops import FFC2d, FourierUnit, SpectralTransform
from ffconv.ops.engine import add_to_global

torch.fx.wrap("add_to_global")


def fuse(model: nn.Module) -> fx.GraphModule:
    """An equivalent network for inference; the given one is left alone.

    Batch norms are folded into the convolution or FFC whose output they alone read, and into the convolutions
    inside Spectral Transforms; the paths of an FFC without groups become one convolution. Values change by
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
        ['InferenceFFC2d', 'ReLU']
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
        if isinstance(module, FFC2d):
            if module.spectral is not None:
                _fold_spectral_norms(module.spectral)
            if module.groups == 1 and module.in_local + module.out_local:
                network.set_submodule(name, InferenceFFC2d(module))
    network.graph.lint()
    network.recompile()
    return network.requires_grad_(False)


class InferenceFFC2d(nn.Module):
    """An FFC2d without groups whose convolutions are one, with a zero block.

    Args:
        ffc: the layer it computes.
    Shape:
        As for :class:`ffconv.ops.FFC2d`.
    """

    def __init__(self, ffc: FFC2d) -> None:
        super().__init__()
        self.in_local = ffc.in_local
        names = (
            "in_channels",
            "out_channels",
            "kernel_size",
            "stride",
            "padding",
            "dilation",
            "padding_mode",
        )
        self.conv = nn.Conv2d(**{name: getattr(ffc, name) for name in names}, device="meta")
        self.conv.weight = nn.Parameter(ffc.dense_weight())
        self.conv.bias = ffc.bias
        self.spectral = ffc.spectral

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return y if self.spectral is None else add_to_global(y, self.spectral(x[:, self.in_local :]))


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, FFC2d) or super().is_leaf_module(m, module_qualified_name)


class _Shift(nn.Module):
    """What is left of a norm when its scale is in the convolution before it."""

    def __init__(self, shift: Tensor) -> None:
        super().__init__()
        self.shift = nn.Parameter(shift.reshape(-1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.shift


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
        name, norm, conv = str(before.target), modules[str(node.target)], modules[str(before.target)]
        if type(norm) is not nn.BatchNorm2d or norm.running_var is None or calls[conv] > 1:
            continue
        if isinstance(conv, FFC2d):
            _fold_into_ffc(conv, norm)
        elif isinstance(conv, nn.Conv2d):
            network.set_submodule(name, fuse_conv_bn_eval(conv, norm))
        else:
            continue
        node.replace_all_uses_with(before)
        network.graph.erase_node(node)
    network.delete_all_unused_submodules()


def _scale_and_shift(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """norm(x) = scale * x + shift, both (C,)."""
    mean, var = norm.get_buffer("running_mean"), norm.get_buffer("running_var")
    scale = torch.rsqrt(var + norm.eps)
    if norm.affine:
        return scale * norm.weight, norm.bias - mean * scale * norm.weight
    return scale, -mean * scale


@torch.no_grad()
def _fold_into_ffc(ffc: FFC2d, norm: nn.BatchNorm2d) -> None:
    scale, shift = _scale_and_shift(norm)
    local, all_global = scale[: ffc.out_local], scale[ffc.out_local :]
    for weight, rows in ((ffc.weight_l2l, local), (ffc.weight_l2g, all_global), (ffc.weight_g2l, local)):
        if weight is not None:
            weight.mul_(rows.reshape(-1, 1, 1, 1))
    if ffc.spectral is not None:
        ffc.spectral.conv2.weight.mul_(all_global.reshape(-1, 1, 1, 1))
    ffc.bias = nn.Parameter(shift if ffc.bias is None else scale * ffc.bias + shift)


@torch.no_grad()
def _fold_spectral_norms(spectral: SpectralTransform) -> None:
    if isinstance(spectral.bn1, nn.BatchNorm2d):
        spectral.conv1 = fuse_conv_bn_eval(spectral.conv1, spectral.bn1)
        spectral.add_module("bn1", nn.Identity())
    for unit in spectral.children():
        if isinstance(unit, FourierUnit) and isinstance(unit.bn, nn.BatchNorm2d):
            # The shift stays apart: under float16 autocast the spectrum is scaled while it is convolved.
            scale, shift = _scale_and_shift(unit.bn)
            unit.conv.weight.mul_(scale.reshape(-1, 1, 1, 1))
            unit.add_module("bn", _Shift(shift))
