"""Effective receptive fields: how much each input pixel moves the centre of a feature map."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ffconv.analysis.watching import watch


def effective_receptive_field(model: nn.Module, images: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
    """The mean absolute gradient of a layer's centre unit, summed over its channels, to the input.

        field[y, x] = mean over images and colours of |d sum_c feature[c, H' // 2, W' // 2] / d image[y, x]|

    Reference: Luo, Li, Urtasun, Zemel: Understanding the effective receptive field, NeurIPS 2016.
    Deviation: absolute values, for the signed gradients of several images cancel.

    Args:
        model: run in evaluation mode; its mode is put back.
        images: (N, C, H, W).
        layers: names of modules that put out a map (N, C', H', W').
    Returns:
        The field (H, W) of each layer.
    Raises:
        InputError: if a layer does not exist, does not run, or puts out no map.
    Example:
        >>> model = nn.Sequential(nn.Conv2d(1, 1, 3))
        >>> int((effective_receptive_field(model, torch.ones(1, 1, 7, 7), ["0"])["0"] > 0).sum())
        9
    """
    images = images.detach().requires_grad_()
    fields = {}
    for layer, centre in watch(model, images, layers, _centre).items():
        (gradient,) = torch.autograd.grad(centre, images, retain_graph=True)
        fields[layer] = gradient.abs().mean(dim=(0, 1))
    return fields


def _centre(layer: str, feature: Tensor) -> Tensor:
    # Images do not mix in evaluation mode, so that one sum gives the gradient of each.
    return feature[:, :, feature.shape[2] // 2, feature.shape[3] // 2].sum()


def half_radius(field: Tensor) -> float:
    """The distance in pixels from the centre of a field (H, W) within which half of its sum lies."""
    field = field.double().cpu()
    height, width = field.shape
    rows = torch.arange(height, dtype=torch.float64) - height // 2
    columns = torch.arange(width, dtype=torch.float64) - width // 2
    distance, order = torch.hypot(rows[:, None], columns[None]).flatten().sort()
    inside = field.flatten()[order].cumsum(0)
    return float(distance[torch.searchsorted(inside, inside[-1] / 2)])
