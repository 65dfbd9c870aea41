"""An equivalent network for inference: norms, additions and ReLUs folded into the convolutions before them."""

from __future__ import annotations

import copy
import operator
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import parametrize, prune, remove_spectral_norm, remove_weight_norm
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ffconv.dispatch import irfftn, layers, rfftn
from ffconv.errors import InputError
from ffconv.functional import ffc as apply_ffc
from ffconv.nn import FFC1d, FFC2d, FFC3d, FFCNd
from ffconv.nn.fourier_unit import LOW_PRECISION
from ffconv.surgery.clip_layers import PaddedConv3d

_CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_FFCS = (FFC1d, FFC2d, FFC3d)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_ADDITIONS = (operator.add, torch.add)


def fuse(model: nn.Module) -> fx.GraphModule:
    """Return an equivalent network for inference; the given one stays as it is.

    Batch norms are folded into the convolution or FFC whose output they alone read. An FFC of images, or of the frames
    of clips, without groups becomes one operator, which takes in a shortcut's addition and the ReLU behind it, and on
    the CPU keeps its weights packed: as much memory again, or 16/9 of it for 3x3 kernels of stride 1. Computed weights
    (pruning, weight norm, spectral norm, parametrizations) become plain ones. Values change by rounding only.

    Args:
        model: Any network that ``torch.fx`` can trace. ``x += y`` is taken for ``x = x + y``: another name of that x
            keeps its former value.
    Returns:
        The network in evaluation mode. It has no parts to train or to convert back.
    Raises:
        InputError: If the network cannot be traced, with torch's reason.
    Example:
        >>> net = nn.Sequential(FFC2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        >>> [type(module).__name__ for module in fuse(net).children()]
        ['FusedFFC']
    """
    fused = copy.deepcopy(model).eval()
    _bake_weights(fused)
    try:
        graph = _Tracer().trace(fused)
    except Exception as error:  # whatever the network's own code does with a traced value
        raise InputError(
            f"{type(model).__name__} cannot be traced: {' '.join(str(error).split())}"
        ) from error
    network = fx.GraphModule(fused, graph, type(model).__name__)
    _remove_identities(network)
    _fold_norms(network)
    for name, module in list(network.named_modules()):
        # A subclass has paths of its own, such as gates.
        if type(module) in _FFCS and not layers.is_watched(module):
            parts = layers.image_parts(module)
            # A norm without running statistics needs its batch in inference, too.
            if not isinstance(parts, str) and not any(parts.batch_stats):
                network.set_submodule(name, FusedFFC(module, parts))  # pyright: ignore[reportArgumentType]
    _fold_additions(network)
    _fold_relus(network)
    network.graph.lint()
    network.recompile()
    return network.eval().requires_grad_(False)


class FusedFFC(nn.Module):
    """An FFC of images, or of the frames of clips, as one operator with flat tensors.

    The packed weights are made for the first map of each size. They are dropped when a tensor of the module is
    changed in place, replaced, moved or loaded; changes by ``tensor.data`` are not seen.

    Args:
        ffc: The layer that it computes, without groups.
        parts: Its Spectral Transform, by ``dispatch.layers.image_parts``.
    Shape:
        x as for the layer; residual as its output, added before the ReLU.
    """

    is_ffc = True

    def __init__(self, ffc: FFCNd, parts: layers.SpectralParts) -> None:
        super().__init__()
        self.dims, self.in_channels, self.out_channels = ffc.dims, ffc.in_channels, ffc.out_channels
        self.geometry = ffc.geometry
        self.relu = False
        for name in ("weight_l2l", "weight_l2g", "weight_g2l", "bias"):
            tensor = getattr(ffc, name)
            self.register_buffer(name, None if tensor is None else tensor.detach().clone())
        self.eps = parts.eps
        for i, tensor in enumerate(parts.tensors):
            self.register_buffer(f"spectral_{i}", tensor.detach().clone())
        self.count = len(parts.tensors)
        self.register_buffer("packed", None, persistent=False)
        self.packed_key: Any = None

    @property
    def spectral_tensors(self) -> list[Tensor]:
        """Tensors of the Spectral Transform, as ``functional.spectral_transform`` takes them."""
        buffers: Any = self._buffers
        return [buffers[f"spectral_{i}"] for i in range(self.count)]

    @layers.fused("fused_ffc")
    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        images = layers.fold_time(x) if self.dims == 3 else x
        own: Any = self._buffers
        weights = [own["weight_l2l"], own["weight_l2g"], own["weight_g2l"]]
        if self.dims == 3:
            weights = [weight if weight is None else weight.squeeze(2) for weight in weights]
        options: dict[str, Any] = {
            "batch_stats": [False] * len(self.eps),
            "eps": self.eps,
            "fft": (rfftn, irfftn),
        }
        geometry = self.geometry.last_axes(2)
        y = apply_ffc(images, weights, own["bias"], self.spectral_tensors, geometry, **options)
        y = layers.unfold_time(y, x) if self.dims == 3 else y
        y = y if residual is None else y + residual
        return F.relu(y) if self.relu else y

    def drop_packed(self) -> None:
        """Forget the packed weights."""
        self._buffers["packed"], self.__dict__["packed_key"] = None, None

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name in self.__dict__.get("_buffers", ()) and name != "packed":
            self.drop_packed()

    def _apply(self, fn: Any, recurse: bool = True) -> FusedFFC:
        self.drop_packed()
        # Fourier Units keep float32, as in the layer itself.
        units = {f"spectral_{i}" for i in range(5, self.count - 1)}
        before = {name: self._buffers[name] for name in units}
        super()._apply(fn, recurse)
        for name in units:
            moved: Any = self._buffers[name]
            if moved.dtype in LOW_PRECISION:
                self._buffers[name] = before[name].to(moved.device)  # pyright: ignore[reportOptionalMemberAccess]
        return self


def _bake_weights(network: nn.Module) -> None:
    """Replace computed weights by plain ones of the same values."""
    for module in list(network.modules()):
        if parametrize.is_parametrized(module):
            for name in list(module.parametrizations):  # pyright: ignore[reportArgumentType, reportCallIssue]
                parametrize.remove_parametrizations(module, name, leave_parametrized=True)
        for hook in list(module._forward_pre_hooks.values()):
            name = getattr(hook, "_tensor_name", None) or getattr(hook, "name", None)
            kind = type(hook).__name__
            if isinstance(hook, prune.BasePruningMethod):
                prune.remove(module, str(name))
            elif kind == "WeightNorm":
                remove_weight_norm(module, str(name))
            elif kind == "SpectralNorm":
                remove_spectral_norm(module, str(name))


def _along_outputs(values: Tensor, weight: Tensor) -> Tensor:
    """Reshape values (C,) to broadcast along the first axis of a weight."""
    return values.reshape(-1, *[1] * (weight.dim() - 1))


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, (FFCNd, PaddedConv3d)) or super().is_leaf_module(m, module_qualified_name)


def _remove_identities(network: fx.GraphModule) -> None:
    for node in list(network.graph.nodes):
        if node.op == "call_module" and type(network.get_submodule(str(node.target))) is nn.Identity:
            node.replace_all_uses_with(node.args[0])
            network.graph.erase_node(node)


def _fold_norms(network: fx.GraphModule) -> None:
    """Fold each norm that alone reads the output of a convolution that runs once; watched modules stay."""
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
        if any(map(layers.is_watched, (*conv.modules(), norm))):
            continue
        if isinstance(conv, FFCNd):
            _fold_into_ffc(conv, norm)
        elif isinstance(conv, _CONVS):
            network.set_submodule(name, fuse_conv_bn_eval(conv, norm))
        else:
            continue
        node.replace_all_uses_with(before)
        network.graph.erase_node(node)
    network.delete_all_unused_submodules()


def _fold_additions(network: fx.GraphModule) -> None:
    """Fold each addition that alone reads the output of an FFC into the FFC."""
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
    """Return True if no node between two nodes can write to earlier results."""
    node = start.next
    while node is not end:
        module = network.get_submodule(str(node.target)) if node.op == "call_module" else None
        if not isinstance(module, (FusedFFC, FFCNd, *_CONVS, *_NORMS)):
            return False
        node = node.next
    return True


def _fold_relus(network: fx.GraphModule) -> None:
    """Fold each ReLU that alone reads the output of an FFC into the FFC."""
    modules, ffcs = dict(network.named_modules()), dict(_ffcs_that_run_once(network))
    for node in list(network.graph.nodes):
        before: Any = node.args[0] if node.args else None
        of_module = node.op == "call_module" and type(modules[str(node.target)]) is nn.ReLU
        if (of_module or node.target is F.relu) and before in ffcs and len(before.users) == 1:
            ffcs[before].relu = True
            node.replace_all_uses_with(before)
            network.graph.erase_node(node)
    network.delete_all_unused_submodules()


def _ffcs_that_run_once(network: fx.GraphModule) -> Iterator[tuple[Any, FusedFFC]]:
    """Yield the fused FFCs that the graph calls once, each with its node."""
    nodes = [node for node in network.graph.nodes if node.op == "call_module"]
    targets = [node.target for node in nodes]
    for node in nodes:
        module = network.get_submodule(str(node.target))
        if isinstance(module, FusedFFC) and targets.count(node.target) == 1:
            yield node, module


def _scale_and_shift(norm: _BatchNorm) -> tuple[Tensor, Tensor]:
    """Return scale and shift (C,) with norm(x) = scale * x + shift."""
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
            weight.mul_(_along_outputs(rows, weight))
    if ffc.spectral is not None:
        last = ffc.spectral.conv2.weight
        last.mul_(_along_outputs(all_global, last))
    ffc.bias = nn.Parameter(shift if ffc.bias is None else scale * ffc.bias + shift)
