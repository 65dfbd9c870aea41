"""What an exporter must know of a network: what goes in, what comes out, and what both mean."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from ffconv.analysis.networks import takes_clips
from ffconv.errors import require
from ffconv.models import LamaGenerator, SimpleBaseline

Task = Literal["classification", "action", "pose", "inpainting"]
DynamicAxis = Literal["batch", "size", "time"]

_OUTPUTS: dict[Task, str] = {
    "classification": "logits",
    "action": "logits",
    "pose": "heatmaps",
    "inpainting": "filled",
}
# The exporter takes an axis of one entry for one that always has one.
_SMALLEST_EXAMPLE = 2


def task_of(network: nn.Module) -> Task:
    """What a network does, by its kind."""
    if isinstance(network, SimpleBaseline):
        return "pose"
    if isinstance(network, LamaGenerator):
        return "inpainting"
    return "action" if takes_clips(network) else "classification"


@dataclass(frozen=True)
class NetworkInput:
    """The input of a network, and what a program that feeds it must know.

    Args:
        task: what the network does.
        size: of one sample, (C, H, W), or (C, T, H, W) for clips.
        multiple: H and W are multiples of it.
        mean: of the channels in [0, 1], subtracted; empty where nothing is.
        std: of the channels in [0, 1], divided by.
        classes: names of the outputs, of classes or keypoints; empty where they are not known.
    Raises:
        InputError: for a size that is no multiple.
    """

    task: Task
    size: tuple[int, ...]
    multiple: int = 1
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    classes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        require(self.task in _OUTPUTS, f"task={self.task!r} must be one of {', '.join(get_args(Task))}")
        written = "x".join(map(str, self.size))
        require(len(self.size) in (3, 4), f"size {written} must be CxHxW, or CxTxHxW for clips")
        fits = all(side > 0 and side % self.multiple == 0 for side in self.size[-2:])
        require(fits, f"size {written}: this network takes sides that are multiples of {self.multiple}")

    @property
    def is_clip(self) -> bool:
        """Return True if a sample has frames."""
        return len(self.size) == 4

    @property
    def name(self) -> str:
        """Of the input in an exported file."""
        return "clip" if self.is_clip else "image"

    @property
    def output_name(self) -> str:
        """Of the output in an exported file."""
        return _OUTPUTS[self.task]

    @property
    def axes(self) -> tuple[str, ...]:
        """Names of the input's axes, the batch's among them."""
        return ("batch", "channels", *(("time",) if self.is_clip else ()), "height", "width")

    def dynamic_axes(self, dynamic: Collection[DynamicAxis]) -> dict[int, str]:
        """Numbers and names of the input's axes whose size is left open.

        Raises:
            InputError: for an axis the input does not have.
        """
        unknown = sorted(set(dynamic) - set(get_args(DynamicAxis)))
        require(not unknown, f"dynamic={unknown} must be among {', '.join(get_args(DynamicAxis))}")
        require("time" not in dynamic or self.is_clip, "dynamic=time is for networks of clips")
        wanted = set(dynamic) | ({"height", "width"} if "size" in dynamic else set())
        return {number: name for number, name in enumerate(self.axes) if name in wanted}

    def example(self, dynamic: Collection[DynamicAxis] = ()) -> Tensor:
        """A random input to export with."""
        batch = _SMALLEST_EXAMPLE if "batch" in dynamic else 1
        return self.random(batch, self.size[1:])

    def other_examples(self, dynamic: Collection[DynamicAxis]) -> list[Tensor]:
        """Random inputs of other sizes along the axes left open: one sample, larger and unequal sides."""
        axes = self.dynamic_axes(dynamic)
        if not axes:
            return []
        size = list(self.size[1:])
        for number, name in axes.items():
            if name in ("height", "width"):  # by different steps, and to odd sides where they may be
                size[number - 2] += self.multiple * (1 if name == "height" else 3)
            elif name == "time":
                size[number - 2] += 3
        return [self.random(batch, tuple(size)) for batch in ((1, 3) if "batch" in dynamic else (1,))]

    def random(self, batch: int, size: tuple[int, ...]) -> Tensor:
        """Normal numbers, of an inpainting network an image with a hole; the same at every call.

        Shape:
            (batch, C, *size).
        """
        generator = torch.Generator().manual_seed(0)
        if self.task != "inpainting":
            return torch.randn(batch, self.size[0], *size, generator=generator)
        x = torch.rand(batch, self.size[0], *size, generator=generator)
        hole = (x[:, -1:] > 0.5).to(x.dtype)
        return torch.cat([x[:, :-1] * (1 - hole), hole], dim=1)

    def metadata(self) -> dict[str, str]:
        """What an exported file says of itself, each value in JSON."""
        known: dict[str, Any] = {
            "task": self.task,
            "input_axes": self.axes,
            "input_size": self.size,
            "mean": self.mean,
            "std": self.std,
            "classes": self.classes,
        }
        if self.multiple > 1:
            known["multiple"] = self.multiple
        return {key: json.dumps(value, ensure_ascii=False) for key, value in known.items() if value}
