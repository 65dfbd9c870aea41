"""An equivalent network for inference: norms folded into the convolutions before them."""

from __future__ import annotations

import copy
import operator
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ffconv.errors import InputError
from ffconv.ops import FFC1d, FFC2d, FFC3d, FFCNd
from ffconv.ops.joining import add_to_local
from ffconv.ops.native import Paths
from ffconv.ops.one_call import OneCall
from ffconv.surgery.clip_layers import PaddedConv3d

_CONVOLUTION_OF: dict[type[nn.Module], Any] = {FFC1d: nn.Conv1d, FFC2d: nn.Conv2d, FFC3d: nn.Conv3d}
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_ADDITIONS = (operator.add, torch.add)


def fuse(model: nn.Module) -> fx.GraphModule:
    """An equivalent network for inference; the given one is left alone.

    Batch norms are folded into the convolution or FFC whose output they alone read; the paths of an FFC
    without groups become one convolution, which takes in a shortcut's addition and the ReLU behind. Norms
    inside Spectral Transforms stay: on the CPU the transforms apply them while they load a spectrum, and a
    compiler makes them part of the ReLU. Values change by rounding only.

    Args:
        model: any network that ``torch.fx`` can trace. It takes ``x += y`` for ``x = x + y``: another name
            of that x keeps the former value.
    Returns:
        The network in evaluation mode. It has no parts to train or to convert back.
    Raises:
        InputError: if the network cannot be traced, with torch's reason.
    Example:
        >>> net = nn.Sequential(FFC2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        >>> [type(module).__name__ for module in fuse(net).children()]
        ['InferenceFFC']
    """
    fused = copy.deepcopy(model).eval()
    try:
        graph = _Tracer().trace(fused)
    except Exception as error:  # whatever the network's own code does with a traced value
        raise InputError(
            f"{type(model).__name__} cannot be traced: {' '.join(str(error).split())}"
        ) from error
    network = fx.GraphModule(fused, graph, type(model).__name__)
    _leave_identities_out(network)
    _fold_norms(network)
    for name, module in list(network.named_modules()):
        # A subclass has paths of its own, such as gates.
        if not isinstance(module, FFCNd) or type(module) not in _CONVOLUTION_OF:
            continue
        if module.groups == 1 and module.in_local + module.out_local:
            network.set_submodule(name, InferenceFFC(module))
    _fold_additions(network)
    _fold_relus(network)
    network.graph.lint()
    network.recompile()
    return network.eval().requires_grad_(False)


class InferenceFFC(nn.Module):
    """An FFC without groups whose convolutions are one, with a zero block, or two where that block is large.

    On the CPU, channels last, all of it is one call for which the weights stay packed: as much memory again,
    or 16/9 of it for 3x3 kernels of stride 1.

    Args:
        ffc: the layer it computes.
    Shape:
        x as for the layer; onto, which is added to its result before the ReLU, such as that result.
    """

    def __init__(self, ffc: FFCNd) -> None:
        super().__init__()
        self.in_channels, self.out_channels = ffc.in_channels, ffc.out_channels
        self.in_local, self.out_local = ffc.in_local, ffc.out_local
        self.geometry, self.pad = ffc.geometry, ffc.pad
        weight = ffc.dense_weight()
        if ffc.convolves_from_sides:
            self.conv = _convolution(ffc, weight[:, : ffc.in_local], ffc.bias)
            self.conv_global = _convolution(ffc, weight[: ffc.out_local, ffc.in_local :])
        else:
            self.conv = _convolution(ffc, weight, ffc.bias)
            self.conv_global = None
        self.spectral = ffc.spectral
        self._one_call = OneCall(self, keep_packed=True) if ffc.runs_in_one_call else None
        self.relu = False  # whether the result goes through one

    def forward(self, x: Tensor, onto: Tensor | None = None) -> Tensor:
        if self._one_call is not None:
            y = self._one_call(self, x, onto)
            if y is not None:
                return y
        if self.conv_global is None:
            y = self.conv(self.pad(x))
        else:
            y = self.conv(self.pad(x[:, : self.in_local]))
            y = add_to_local(y, self.conv_global(self.pad(x[:, self.in_local :])))
        if self.spectral is not None:
            y = self.spectral(x[:, self.in_local :], y)
        if onto is not None:
            y = y + onto
        return F.relu(y, inplace=True) if self.relu else y

    def train(self, mode: bool = True) -> InferenceFFC:
        self._forget()
        return super().train(mode)

    def _apply(self, *args: Any, **kwargs: Any) -> InferenceFFC:
        self._forget()
        return super()._apply(*args, **kwargs)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self._forget()
        super()._load_from_state_dict(*args, **kwargs)

    def _forget(self) -> None:
        if self._one_call is not None:
            self._one_call.forget()

    def paths(self) -> Paths:
        """The ordinary convolutions of the layer."""
        conv: Any = self.conv
        local_in, local_out = self.in_local, self.out_local
        from_local = conv.weight[:, :local_in]
        of_global: Any = self.conv_global
        g2l = conv.weight[:local_out, local_in:] if of_global is None else of_global.weight
        weights = (from_local[:local_out], from_local[local_out:], g2l)
        of = self.geometry
        return Paths(*weights, conv.bias, of.stride, of.before, of.dilation, self.pad.modes, self.relu)


def _convolution(ffc: FFCNd, weight: Tensor, bias: Tensor | None = None) -> Any:
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


def _leave_identities_out(network: fx.GraphModule) -> None:
    for node in list(network.graph.nodes):
        if node.op == "call_module" and type(network.get_submodule(str(node.target))) is nn.Identity:
            node.replace_all_uses_with(node.args[0])
            network.graph.erase_node(node)


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


def _fold_additions(network: fx.GraphModule) -> None:
    """Make each addition to the output of an FFC, which alone reads it, a part of the FFC."""
    ffcs = dict(_ffcs_that_run_once(network))
    for node in list(network.graph.nodes):
        if node.target not in _ADDITIONS or len(node.args) != 2 or node.kwargs:
            continue
        for ffc, other in (node.args, node.args[::-1]):
            if not (isinstance(other, fx.Node) and ffc in ffcs and len(ffc.users) == 1 and ffc is not other):
                continue
            if not _leave_inputs_alone(network, ffc, node):
                continue
            with network.graph.inserting_before(node):  # where the other summand is known
                sum_of_both = network.graph.call_module(ffc.target, (*ffc.args, other))
            node.replace_all_uses_with(sum_of_both)
            network.graph.erase_node(node)
            network.graph.erase_node(ffc)
            break


def _leave_inputs_alone(network: fx.GraphModule, start: fx.Node, end: fx.Node) -> bool:
    """Whether nothing between two nodes can write to what was computed before."""
    node = start.next
    while node is not end:
        module = network.get_submodule(str(node.target)) if node.op == "call_module" else None
        if not isinstance(module, (InferenceFFC, FFCNd, *_CONVOLUTION_OF.values(), *_NORMS)):
            return False
        node = node.next
    return True


def _fold_relus(network: fx.GraphModule) -> None:
    """Make each ReLU that alone reads the output of an FFC a part of it."""
    modules, ffcs = dict(network.named_modules()), dict(_ffcs_that_run_once(network))
    for node in list(network.graph.nodes):
        before: Any = node.args[0] if node.args else None
        of_module = node.op == "call_module" and type(modules[str(node.target)]) is nn.ReLU
        if (of_module or node.target is F.relu) and before in ffcs and len(before.users) == 1:
            ffcs[before].relu = True
            node.replace_all_uses_with(before)
            network.graph.erase_node(node)
    network.delete_all_unused_submodules()


def _ffcs_that_run_once(network: fx.GraphModule) -> Iterator[tuple[Any, InferenceFFC]]:
    """Each with its node."""
    nodes = [node for node in network.graph.nodes if node.op == "call_module"]
    targets = [node.target for node in nodes]
    for node in nodes:
        module = network.get_submodule(str(node.target))
        if isinstance(module, InferenceFFC) and targets.count(node.target) == 1:
            yield node, module


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
