"""Looking at the inside of a network while it runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from ffconv.errors import InputError, first_line
from ffconv.surgery.modes import modes_kept

T = TypeVar("T")


def watch(
    model: nn.Module, images: Tensor, layers: Sequence[str], look: Callable[[str, Tensor], T]
) -> dict[str, T]:
    """Run a network and keep what ``look`` makes of the maps that some of its layers put out.

    Args:
        model: run in evaluation mode; the modes of its modules are put back.
        images: (N, C, H, W).
        layers: names of modules that put out a map (N, C', H', W') and run once.
        look: takes the layer and its map, at once, for what follows in the network may write into the map.
    Returns:
        By layer, in the order of ``layers``.
    Raises:
        InputError: if a layer does not exist, does not run, or puts out something else.
    """
    modules = dict(model.named_modules())
    seen: dict[str, T] = {}
    with modes_kept(model), ExitStack() as stack:
        for layer in layers:
            if layer not in modules:
                raise InputError(f"{type(model).__name__} has no layer {layer!r}")

            def hook(module: nn.Module, inputs: Any, output: Any, layer: str = layer) -> None:
                if not isinstance(output, Tensor) or output.dim() != 4:
                    raise InputError(f"layer {layer!r} puts out no map (N, C, H, W)")
                seen[layer] = look(layer, output)

            stack.callback(modules[layer].register_forward_hook(hook).remove)
        model.eval()
        model(images)
    for layer in layers:
        if layer not in seen:
            raise InputError(f"layer {layer!r} does not run in {type(model).__name__}")
    return {layer: seen[layer] for layer in layers}


def stages(model: nn.Module) -> list[str]:
    """Names of the modules after which a timm network's maps become smaller, its stem left out.

    Raises:
        InputError: if the network does not tell, as torchvision's do not.
    """
    info = getattr(model, "feature_info", None)
    if not info:
        raise InputError(f"{type(model).__name__} does not tell its stages: name layers")
    return [entry["module"] for entry in info if entry["reduction"] > 2]


@torch.no_grad()
def calibrate_norms(model: nn.Module, images: Tensor) -> None:
    """Give every batch norm the statistics of the given images, as training would have.

    Without it the maps of an untrained network grow from block to block.

    Args:
        model: the modes of its modules are put back.
        images: (N, C, H, W).
    Raises:
        InputError: if a norm meets one value a channel only.
    """
    norms = [
        module for module in model.modules() if isinstance(module, _NormBase) and module.track_running_stats
    ]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all batches since the reset
    try:
        with modes_kept(model):
            model.train()(images)
    except ValueError as error:
        shape = tuple(images.shape)
        raise InputError(f"{shape} images are too few or too small: {first_line(error)}") from error
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
