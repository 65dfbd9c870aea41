"""Networks by their names in timm's registry: entered, and refused in one line where they cannot be had."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import build_model_with_cfg, register_model
from torch import Tensor, nn

from ffconv.errors import InputError, first_line

#: What timm is to know of the paper's networks, whatever they do.
PAPER_CFG: Mapping[str, Any] = {
    "mean": IMAGENET_DEFAULT_MEAN,
    "std": IMAGENET_DEFAULT_STD,
    "license": "apache-2.0",
    "paper_name": "Fast Fourier Convolution",
}


def enter(name: str, kind: type[nn.Module], defaults: Mapping[str, Any], *, module: str) -> None:
    """Enters a network in timm's registry.

    Args:
        name: in the registry.
        kind: the network's class.
        defaults: its arguments, unless told otherwise.
        module: name of the module whose ``default_cfgs`` has the name: timm looks there.
    """

    def entry_point(pretrained: bool = False, **arguments: Any) -> nn.Module:
        return build_model_with_cfg(kind, name, pretrained, **{**defaults, **arguments})

    entry_point.__name__ = entry_point.__qualname__ = name
    entry_point.__module__ = module
    register_model(entry_point)


def require_known(name: str, what: str) -> None:
    """Refuses a name that timm's registry does not have.

    Args:
        name: of the network.
        what: what the name is called in the message, such as ``model.name``.
    Raises:
        InputError: with the nearest name.
    """
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise InputError(f"{what}={name!r} is no network timm knows{hint}")


def create_network(name: str, arguments: Mapping[str, Any]) -> nn.Module:
    """``timm.create_model`` with errors of one line.

    Raises:
        InputError: if the network refuses an argument.
    """
    try:
        return timm.create_model(name, **arguments)
    except (ValueError, TypeError, RuntimeError, AssertionError) as error:
        raise InputError(f"model {name} with {dict(arguments)}: {first_line(error)}") from error


def put_weights(network: nn.Module, weights: Mapping[str, Tensor], *, name: str, source: Path) -> nn.Module:
    """The network with exactly these weights, in evaluation mode.

    Args:
        network: takes them.
        weights: its whole state.
        name: what the network is called in the message.
        source: file the weights are from.
    Raises:
        InputError: if they do not belong to it.
    """
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        lines = str(error).splitlines()
        raise InputError(f"{source}: the weights do not fit {name}: {' '.join(lines[1:3])}") from error
    return network.eval()
