"""Networks by name, from the configuration or from a checkpoint."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import timm
from torch import Tensor, nn

import ffconv.models  # noqa: F401  registers the ffc_* networks with timm
from ffconv.errors import InputError


@dataclass(frozen=True)
class ModelConfig:
    """Network.

    Args:
        name: Any image network timm knows, the ffc_* ones among them.
        arguments: What it takes beside the number of classes, as in `--model.arguments.ratio 0.25`.
        weights: File of weights to start from: ours, the authors', torchvision's or timm's.
        new_classifier: Leave a classifier of another size at its initialisation, for fine-tuning.
    """

    name: str = "ffc_resnet50"
    arguments: dict[str, Any] = field(default_factory=dict)
    weights: str | None = None
    new_classifier: bool = False

    def __post_init__(self) -> None:
        if not timm.is_model(self.name):
            near = difflib.get_close_matches(self.name, timm.list_models(), n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise InputError(f"model.name={self.name!r} is no network timm knows{hint}")


def build_network(config: ModelConfig, classes: int) -> nn.Module:
    """The configured network with a head for the given number of classes.

    Raises:
        InputError: if the network refuses an argument, or the weights do not fit.
    """
    network = _create(config.name, classes, config.arguments)
    if config.weights is not None:
        from ffconv.interop.weights import load_weights

        load_weights(network, Path(config.weights), allow_new_classifier=config.new_classifier)
    return network


def restore_network(
    name: str, classes: int, arguments: Mapping[str, Any], weights: Mapping[str, Tensor], *, source: Path
) -> nn.Module:
    """The network of a checkpoint, in evaluation mode.

    Raises:
        InputError: if the weights do not belong to the network the checkpoint names.
    """
    network = _create(name, classes, {**arguments, "pretrained": False})
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        lines = str(error).splitlines()
        raise InputError(f"{source}: the weights do not fit {name}: {' '.join(lines[1:3])}") from error
    return network.eval()


def _create(name: str, classes: int, arguments: Mapping[str, Any]) -> nn.Module:
    try:
        return timm.create_model(name, num_classes=classes, **arguments)
    except (ValueError, TypeError, RuntimeError, AssertionError) as error:
        raise InputError(f"model {name} with {dict(arguments)}: {error}") from error
