"""A Fourier Unit in inference: two kernels around a matrix product."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from ffconv.ops import fused
from ffconv.ops.axes import IMAGE
from ffconv.ops.fourier_unit import FourierUnit, LocalFourierUnit
from ffconv.ops.onlookers import need_operations
from ffconv.ops.triton.transforms import fourier_unit, suits


def takes_unit(unit: FourierUnit, x: Tensor) -> bool:
    """Whether :func:`run_unit` computes a Fourier Unit of x.

    It does of images, of a unit as it was built, by running statistics and without gradients; under float16
    autocast the spectrum would leave that type's range.
    """
    conv, bn = unit.conv, unit.bn
    if type(unit) not in (FourierUnit, LocalFourierUnit) or unit.axes != IMAGE:
        return False
    if type(x) is not Tensor or need_operations():
        return False
    if not fused.is_layer(conv, bn) or bn.training or bn.running_mean is None:
        return False
    tensors = (x, conv.weight, bn.weight, bn.bias)
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
        return False
    return suits(x, x.shape[2], x.shape[3]) and _mixing_dtype(conv.weight, x) != torch.float16


def run_unit(unit: FourierUnit, x: Tensor) -> Tensor:
    """(N, C_in, H, W) -> (N, C_out, H, W), contiguous."""
    bn = unit.bn
    mean, var = cast(Tensor, bn.running_mean), cast(Tensor, bn.running_var)
    scale = bn.weight * torch.rsqrt(var + bn.eps)
    weight = unit.conv.weight.flatten(1)
    return fourier_unit(x, weight.to(_mixing_dtype(weight, x)), scale, bn.bias - mean * scale)


def _mixing_dtype(weight: Tensor, x: Tensor) -> torch.dtype:
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype
