"""The released networks once more, as plain functions of their state dict, on (local, global) pairs.

Written from the paper and the names and shapes of the checkpoints, without ``ffconv``; evaluation mode.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

Weights = dict[str, Tensor]
Pair = tuple[Tensor | None, Tensor | None]


def random_weights(shapes: dict[str, list[int]], dtype: torch.dtype = torch.float32) -> Weights:
    """Values for these names and shapes that keep a deep network's signal near 1."""
    weights = {}
    for name, shape in shapes.items():
        if name.endswith("num_batches_tracked"):
            weights[name] = torch.tensor(7)
        elif len(shape) > 1:
            fan_in = shape[1] * (shape[2] * shape[3] if len(shape) == 4 else 1)
            weights[name] = torch.randn(shape, dtype=dtype) * (0.5 / fan_in) ** 0.5
        elif name.endswith(("running_var", "weight")):
            weights[name] = 0.5 + torch.rand(shape, dtype=dtype)
        else:
            weights[name] = 0.2 * torch.randn(shape, dtype=dtype)
    return weights


def under(weights: Weights, prefix: str) -> Weights:
    """The part of the weights below ``prefix``."""
    return {name.removeprefix(prefix): tensor for name, tensor in weights.items() if name.startswith(prefix)}


def norm(weights: Weights, name: str, x: Tensor) -> Tensor:
    mean, variance = weights[f"{name}.running_mean"], weights[f"{name}.running_var"]
    return F.batch_norm(x, mean, variance, weights[f"{name}.weight"], weights[f"{name}.bias"])


def fourier_unit(weights: Weights, x: Tensor, *, groups: int = 1, stacked: bool = False) -> Tensor:
    spectrum = torch.fft.rfft2(x, norm="ortho")
    parts = torch.stack((spectrum.real, spectrum.imag), dim=1 if stacked else 2)
    y = F.conv2d(parts.flatten(1, 2), weights["conv_layer.weight"], groups=groups)
    y = F.relu(norm(weights, "bn", y))
    if stacked:
        real, imaginary = y.chunk(2, dim=1)
    else:
        real, imaginary = y[:, 0::2], y[:, 1::2]
    return torch.fft.irfft2(torch.complex(real, imaginary), s=x.shape[-2:], norm="ortho")


def spectral_transform(
    weights: Weights, x: Tensor, *, stride: int = 1, groups: int = 1, stacked: bool = False
) -> Tensor:
    if stride > 1:
        x = F.avg_pool2d(x, stride)
    h = F.relu(norm(weights, "conv1.1", F.conv2d(x, weights["conv1.0.weight"], groups=groups)))
    total = h + fourier_unit(under(weights, "fu."), h, groups=groups, stacked=stacked)
    if "lfu.conv_layer.weight" in weights:
        height, width = h.shape[-2] // 2, h.shape[-1] // 2
        cut = h[:, : h.shape[1] // 4]
        rows = torch.cat([cut[:, :, :height], cut[:, :, height:]], dim=1)
        quadrants = torch.cat([rows[..., :width], rows[..., width:]], dim=1)
        local = fourier_unit(under(weights, "lfu."), quadrants, groups=groups, stacked=stacked)
        total = total + local.repeat(1, 1, 2, 2)
    return F.conv2d(total, weights["conv2.weight"], groups=groups)


def ffc(
    weights: Weights, pair: Pair, *, stride: int = 1, padding: int = 0, dilation: int = 1, groups: int = 1
) -> Pair:
    def path(name: str, x: Tensor | None) -> Tensor | None:
        weight = weights.get(f"{name}.weight")
        if x is None or weight is None:
            return None
        return F.conv2d(x, weight, weights.get(f"{name}.bias"), stride, padding, dilation, groups)

    local, everywhere = pair
    spectral = None
    if "convg2g.conv1.0.weight" in weights and everywhere is not None:
        part = under(weights, "convg2g.")
        spectral = spectral_transform(part, everywhere, stride=stride, groups=max(1, groups // 2))
    return (
        add(path("convl2l", local), path("convg2l", everywhere)),
        add(path("convl2g", local), spectral),
    )


def add(*terms: Tensor | None) -> Tensor | None:
    present = [term for term in terms if term is not None]
    return sum(present[1:], present[0]) if present else None


def layer(weights: Weights, pair: Pair, **geometry: int) -> Pair:
    """Convolution and the two norms."""
    pair = ffc(under(weights, "ffc."), pair, **geometry)
    return tuple(
        None if x is None else norm(weights, f"bn_{branch}", x) for x, branch in zip(pair, "lg", strict=True)
    )


def relu(pair: Pair) -> Pair:
    return tuple(None if x is None else F.relu(x) for x in pair)


def gate(weights: Weights, pair: Pair) -> Pair:
    """Squeeze-and-excitation of both branches from one squeeze."""
    means = torch.cat([x for x in pair if x is not None], dim=1).mean((2, 3), keepdim=True)
    hidden = F.relu(F.conv2d(means, weights["conv1.weight"], weights["conv1.bias"]))
    gated = []
    for x, branch in zip(pair, "lg", strict=True):
        name = f"conv_a2{branch}"
        excite = None if x is None else F.conv2d(hidden, weights[f"{name}.weight"], weights[f"{name}.bias"])
        gated.append(None if x is None else x * torch.sigmoid(excite))
    return tuple(gated)


def block(weights: Weights, pair: Pair, *, stride: int, groups: int) -> Pair:
    bottleneck = any(name.startswith("conv3.") for name in weights)
    geometries = (
        ({}, {"stride": stride, "padding": 1, "groups": groups}, {})
        if bottleneck
        else ({"stride": stride, "padding": 1}, {"padding": 1})
    )
    y = pair
    for index, geometry in enumerate(geometries, start=1):
        y = layer(under(weights, f"conv{index}."), y, **geometry)
        if index < len(geometries):
            y = relu(y)
    if any(name.startswith("se_block.") for name in weights):
        y = gate(under(weights, "se_block."), y)
    if shortcut := under(weights, "downsample."):
        pair = layer(shortcut, pair, stride=stride)
    return relu(tuple(add(new, old) for new, old in zip(y, pair, strict=True)))


def network(weights: Weights, images: Tensor, *, groups: int = 1) -> Tensor:
    """Logits (N, classes) of (N, 3, H, W), H and W multiples of 32."""
    x = F.relu(norm(weights, "bn1", F.conv2d(images, weights["conv1.weight"], stride=2, padding=3)))
    pair: Pair = (F.max_pool2d(x, 3, 2, 1), None)
    for stage in (1, 2, 3, 4):
        blocks = {name.split(".")[1] for name in weights if name.startswith(f"layer{stage}.")}
        for index in range(len(blocks)):
            stride = 2 if stage > 1 and index == 0 else 1
            pair = block(under(weights, f"layer{stage}.{index}."), pair, stride=stride, groups=groups)
    features = torch.cat([x for x in pair if x is not None], dim=1).mean((2, 3))
    return F.linear(features, weights["fc.weight"], weights["fc.bias"])
