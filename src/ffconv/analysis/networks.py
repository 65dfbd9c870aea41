"""Networks by name: what the analysis commands accept wherever they ask for a MODEL.

A network is written ``name[,argument=value,...]``, for instance ``ffc_resnet50,ratio=0.5,lfu=false``. The
name is one of timm's registry, in which ffconv's own networks are entered, or else one of torchvision's;
``torchvision/resnet50`` means torchvision's where both have the name.
"""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import timm
import torch
import torchvision
import yaml
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

import ffconv.models  # noqa: F401  (enters the ffc_* networks in timm's registry)
from ffconv.errors import InputError, first_line
from ffconv.surgery.trace import convolutions

_TORCHVISION = "torchvision/"


@dataclass(frozen=True)
class NetworkSpec:
    """A network's name and the arguments it is built with.

    Args:
        name: a timm or torchvision name.
        arguments: keyword arguments of its constructor.
    """

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str, defaults: Mapping[str, Any] | None = None) -> NetworkSpec:
        """Read ``name[,argument=value,...]``; values are YAML, ``defaults`` give way to what the text says.

        Raises:
            InputError: if a value is no YAML.
        Example:
            >>> NetworkSpec.parse("ffc_resnet50,ratio=0.5,lfu=false").arguments
            {'ratio': 0.5, 'lfu': False}
        """
        # A comma may also stand inside a value, as in out_indices=[1,2].
        name, *settings = re.split(r",\s*(?=\w+=)", text)
        arguments = dict(defaults or {})
        for setting in settings:
            key, _, value = setting.partition("=")
            try:
                arguments[key] = yaml.safe_load(value)
            except yaml.YAMLError as error:
                raise InputError(f"{text}: {key}={value} is no YAML value") from error
        return cls(name, arguments)

    def __str__(self) -> str:
        return ",".join([self.name, *(f"{key}={_plain(value)}" for key, value in self.arguments.items())])

    @property
    def available(self) -> bool:
        """Return True if timm's or torchvision's registry knows the name."""
        return self._in_timm or self._torchvision_name in torchvision.models.list_models()

    def build(self, device: str | torch.device = "cpu") -> nn.Module:
        """Build the network with random weights; on the meta device this costs no memory.

        Raises:
            InputError: if no registry knows the name (the nearest one is named), or the network refuses
                its arguments.
        """
        if not self.available:
            known = [*timm.list_models(), *torchvision.models.list_models()]
            nearest = difflib.get_close_matches(self.name, known, n=1)
            hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
            raise InputError(f"no network is called {self.name!r}{hint}")
        try:
            with torch.device(device), _WithoutInitialisation(torch.device(device)):
                return self._create()
        except (TypeError, ValueError) as error:
            raise InputError(f"{self} cannot be built: {first_line(error)}") from error

    @property
    def _in_timm(self) -> bool:
        return timm.is_model(self.name)

    @property
    def _torchvision_name(self) -> str:
        return self.name.removeprefix(_TORCHVISION)

    def _create(self) -> nn.Module:
        if self._in_timm:
            return timm.create_model(self.name, **self.arguments)
        builder = torchvision.models.get_model_builder(self._torchvision_name)
        # torchvision's segmentation and detection networks fetch backbone weights unless told not to.
        without_weights = {"weights": None, "weights_backbone": None}
        accepted = inspect.signature(builder).parameters
        return builder(**{k: v for k, v in without_weights.items() if k in accepted}, **self.arguments)


def takes_clips(model: nn.Module) -> bool:
    """Return True if a network's first convolution is one of clips (N, C, T, H, W)."""
    first = next(iter(convolutions(model).values()), None)
    return first is not None and len(first.kernel_size) == 3


class _WithoutInitialisation(TorchFunctionMode):
    """On the meta device, where random numbers take time and go nowhere, draws none."""

    _DRAWS = (Tensor.normal_, Tensor.uniform_)

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self._skipped = self._DRAWS if device.type == "meta" else ()

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in self._skipped:
            return args[0]
        return func(*args, **(kwargs or {}))


def _plain(value: Any) -> str:
    """A value as :meth:`NetworkSpec.parse` reads it."""
    return yaml.safe_dump(value, default_flow_style=True).removesuffix("\n").removesuffix("\n...")
