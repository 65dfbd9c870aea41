"""Networks by their names in timm's registry, refused in one line where they cannot be had."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
from torch import Tensor, nn

from ffconv.errors import InputError


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
        raise InputError(f"model {name} with {dict(arguments)}: {error}") from error


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
