"""Networks by name, from the configuration or from a checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, NamedTuple

import torch
from torch import nn

from ffconv.errors import InputError, first_line, require
from ffconv.files import checkpoint_file
from ffconv.interop.checkpoint_info import CheckpointInfo, Info, is_bare, read_info
from ffconv.interop.hub import from_pretrained
from ffconv.models.registry import create_network, put_weights, require_known
from ffconv.training.checkpoint import read_safetensors


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
        network: is left in the mode it has.
        name: what it is called in the message.
        input_size: of one sample, (C, H, W) or (C, T, H, W).
        output_size: what must become of it, without the batch.
        advice: what to do about it.
    Raises:
        InputError: with both sizes.
    """
    was_training = network.training
    try:
        with torch.no_grad():
            found = tuple(network.eval()(torch.zeros(1, *input_size)).shape[1:])
    except Exception as error:  # networks check little: a wrong input ends in any of them
        size = "x".join(map(str, input_size))
        raise InputError(f"model {name} takes no input of {size}: {first_line(error)}") from error
    finally:
        network.train(was_training)
    wanted = tuple(output_size)
    message = f"model {name} makes {found} of an input of {tuple(input_size)}, not {wanted}: {advice}"
    require(found == wanted, message)


def choose_device(device: str | torch.device = "auto") -> torch.device:
    """Return a device; for "auto" the accelerator, if there is one, else the CPU.

    Raises:
        InputError: If there is no such device on this machine.
    """
    if device == "auto":
        return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise InputError(f"device={str(device)!r} cannot be used: {first_line(error)}") from error
    return found


class Trained(NamedTuple, Generic[Info]):
    """A network in evaluation mode, on the CPU, and what its checkpoint says of it."""

    network: nn.Module
    info: Info


def load_trained(path: Path, kind: type[Info] = CheckpointInfo) -> Trained[Info]:
    """A trained network from its checkpoint or package alone.

    Args:
        path: The checkpoint, or the weights in a package.
        kind: What it must say, and so what it must have been trained for; by default anything.

    Raises:
        InputError: if the file is missing, truncated, or of another task or architecture.
    """
    info = read_info(path, kind)
    if is_bare(path):
        network = from_pretrained(path.parent)
    else:
        weights = read_safetensors(path)
        outputs = len(info.names) or info.output_size[0]
        arguments = {"num_classes": outputs, **info.arguments}
        network = create_network(info.name, arguments, weights=path)
        put_weights(network, weights, name=info.name, source=path)
    advice = f"{path} does not fit itself"
    size = {"input_size": info.input_size, "output_size": info.output_size}
    require_output(network, info.name, **size, advice=advice)
    return Trained(network, info)
