"""Networks by name, from the configuration or from a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ffconv.errors import InputError, first_line, require
from ffconv.files import checkpoint_file
from ffconv.interop.hub import from_pretrained
from ffconv.models.registry import create_network, put_weights, require_known
from ffconv.tasks.packages import describe, is_bare
from ffconv.training.checkpoint import read_weights


@dataclass(frozen=True)
class ModelConfig:
    """Network.

    Args:
        name: Any image network timm knows, the ffc_* ones among them.
        arguments: What it takes beside the number of classes, as in `--model.arguments.ratio 0.25`.
        weights: File or run folder of weights to start from: ours, the authors', torchvision's, timm's,
            LaMa's.
        new_classifier: Leave a classifier of another size at its initialisation, for fine-tuning.
    """

    name: str = "ffc_resnet50"
    arguments: dict[str, Any] = field(default_factory=dict)
    weights: str | None = None
    new_classifier: bool = False

    def __post_init__(self) -> None:
        require_known(self.name, "model.name")


def build_network(config: ModelConfig, classes: int) -> nn.Module:
    """The configured network with a head for the given number of classes.

    Raises:
        InputError: if the network refuses an argument, or the weights do not fit.
    """
    network = create_network(config.name, {"num_classes": classes, **config.arguments})
    if config.weights is not None:
        from ffconv.interop.weights import load_weights

        load_weights(
            network, checkpoint_file(Path(config.weights)), allow_new_classifier=config.new_classifier
        )
    return network


def require_output(
    network: nn.Module, name: str, *, input_size: Sequence[int], output_size: Sequence[int], advice: str
) -> None:
    """Refuses a network that makes something else of an input than its task needs.

    Args:
        network: in training mode, and left so.
        name: what it is called in the message.
        input_size: of one sample, (C, H, W).
        output_size: what must become of it, without the batch.
        advice: what to do about it.
    Raises:
        InputError: with both sizes.
    """
    try:
        with torch.no_grad():
            found = tuple(network.eval()(torch.zeros(1, *input_size)).shape[1:])
    except (RuntimeError, ValueError, AssertionError) as error:
        size = "x".join(map(str, input_size))
        raise InputError(f"model {name} takes no input of {size}: {first_line(error)}") from error
    finally:
        network.train()
    wanted = tuple(output_size)
    message = f"model {name} makes {found} of an input of {tuple(input_size)}, not {wanted}: {advice}"
    require(found == wanted, message)


def load_trained(path: Path, *, task: str | None = None) -> tuple[nn.Module, dict[str, Any]]:
    """A trained network from its checkpoint or package alone, and what that says of it.

    Args:
        path: The checkpoint, or the weights in a package.
        task: What it must have been trained for; by default anything.

    Returns:
        The network in evaluation mode, on the CPU, and the metadata that its task wrote.

    Raises:
        InputError: if the file is missing, truncated, or of another task or architecture.
    """
    metadata = describe(path)
    trained_for = metadata.get("task", "classification")
    require(task in (None, trained_for), f"{path} is a checkpoint of {trained_for}, not of {task}")
    if is_bare(path):
        return from_pretrained(path.parent), metadata
    weights, _ = read_weights(path)
    name, arguments = metadata["model"]["name"], metadata["model"]["arguments"]
    network = create_network(name, {"num_classes": outputs(metadata), **arguments, "pretrained": False})
    return put_weights(network, weights, name=name, source=path), metadata


def outputs(metadata: Mapping[str, Any]) -> int | None:
    """The number of outputs of a checkpoint's network; None where its task leaves it to the network."""
    if "keypoints" in metadata:
        return len(metadata["keypoints"]["names"])
    return len(metadata["classes"]) if "classes" in metadata else None
