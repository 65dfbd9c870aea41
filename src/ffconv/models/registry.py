"""Networks by their names in timm's registry: entered, and refused in one line where they cannot be had."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from textwrap import shorten
from typing import Any

import timm
from safetensors import SafetensorError, safe_open
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import build_model_with_cfg, register_model
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_buffer_registration_hook,
    register_module_module_registration_hook,
    register_module_parameter_registration_hook,
)

from ffconv.errors import InputError, first_line, require
from ffconv.files import require_regular

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


def create_network(name: str, arguments: Mapping[str, Any], *, weights: Path | None = None) -> nn.Module:
    """``timm.create_model`` with errors of one line.

    Args:
        name: of the network.
        arguments: of timm.create_model and the network.
        weights: file of its weights; a network that is far larger is refused before it fills the memory.
    Raises:
        InputError: if the network refuses an argument, or is far larger than the file.
    """
    with nullcontext() if weights is None else _bounded(weights):
        try:
            return timm.create_model(name, **arguments)
        except Exception as error:  # constructors check little: wrong arguments end in any of them
            given = {key: value for key, value in arguments.items() if key != "pretrained_cfg_overlay"}
            told = shorten(", ".join(f"{key}={value}" for key, value in given.items()), 300)
            raise InputError(f"model {name} with {told or 'no arguments'}: {first_line(error)}") from error


# Networks are built in several steps, each of which enters modules anew.
_MODULES_A_TENSOR, _SPARE_MODULES = 10, 1000
_SPARE_VALUES = 2**24


@contextmanager
def _bounded(weights: Path) -> Iterator[None]:
    """Refuse to build a network of far more values or modules than a safetensors file has weights for."""
    try:
        require_regular(weights)
        with safe_open(weights, framework="pt") as file:
            most_modules = _MODULES_A_TENSOR * len(file.keys()) + _SPARE_MODULES
    except (SafetensorError, OSError, MemoryError) as error:
        raise InputError(f"{weights}: truncated or not a safetensors file ({error})") from error
    most_values = 4 * weights.stat().st_size + _SPARE_VALUES
    values = modules = 0

    def count_values(module: nn.Module, name: str, tensor: Tensor | None) -> None:
        nonlocal values
        values += 0 if tensor is None else tensor.numel()
        require(values <= most_values, f"far larger than {weights}")

    def count_modules(module: nn.Module, name: str, submodule: nn.Module | None) -> None:
        nonlocal modules
        modules += 1
        require(modules <= most_modules, f"far larger than {weights}")

    hooks = [
        register_module_parameter_registration_hook(count_values),
        register_module_buffer_registration_hook(count_values),
        register_module_module_registration_hook(count_modules),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


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
        told = shorten(" ".join(lines[1:3]), 300)
        raise InputError(f"{source}: the weights do not fit {name}: {told}") from error
    return network.eval()
