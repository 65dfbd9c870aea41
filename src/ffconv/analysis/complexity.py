"""Parameters and multiply-adds of a network, in total or by layer.

A multiply-add is one multiplication with its addition; 1 G is 10^9 of them. Counted are convolutions,
linear layers and matrix products, those of attention included, by the formulas of
``torch.utils.flop_counter``; norms, activations, pooling and sums are not. The Fourier layers are counted as
:mod:`ffconv.analysis.definition` says.
"""

from __future__ import annotations

import copy
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvTransposeNd
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from ffconv.analysis.definition import DEFINED, Part, Size, parts_by_definition
from ffconv.errors import InputError, first_line, require

_NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm)


@dataclass(frozen=True)
class Complexity:
    """The parts of a network in order of execution, those that did not run last."""

    parts: tuple[Part, ...]

    def total(self, name: str = "", kind: str = "") -> Part:
        """The sum of all parts."""
        return Part(
            name,
            kind,
            parameters=sum(part.parameters for part in self.parts),
            multiply_adds=sum(part.multiply_adds for part in self.parts),
            fft=sum(part.fft for part in self.parts),
            zero_block=sum(part.zero_block for part in self.parts),
            normalised=sum(part.normalised for part in self.parts),
            transposed=sum(part.transposed for part in self.parts),
        )

    def grouped(self, depth: int) -> Complexity:
        """The parts summed over the first ``depth`` components of their names.

        Raises:
            InputError: if depth is not positive.
        """
        require(depth >= 1, f"depth={depth} must be at least 1")
        groups: dict[str, list[Part]] = {}
        for part in self.parts:
            groups.setdefault(".".join(part.name.split(".")[:depth]), []).append(part)
        return Complexity(
            tuple(
                group[0] if len(group) == 1 else Complexity(tuple(group)).total(name)
                for name, group in groups.items()
            )
        )


def count_complexity(model: nn.Module, input_size: Sequence[int] = (3, 224, 224)) -> Complexity:
    """Count a network's parameters and multiply-adds for one input.

    Args:
        model: takes one tensor. A weightless copy runs, on the meta device; the model itself is left alone.
        input_size: (C, H, W), or (C, T, H, W) for video.
    Raises:
        InputError: if the network does not take an input of that size.
    Example:
        >>> count_complexity(nn.Conv2d(3, 8, 3, padding=1), (3, 10, 10)).total().multiply_adds
        21600
    """
    model = _meta_copy(model).eval()
    modules = dict(model.named_modules())
    run = _Run(modules)
    try:
        with torch.no_grad(), run:
            model(torch.empty(1, *input_size, device="meta"))
    except (RuntimeError, ValueError, IndexError, AssertionError) as error:
        size = "x".join(map(str, input_size))
        reason = first_line(error)
        raise InputError(f"{type(model).__name__} does not take an input of {size}: {reason}") from error
    return Complexity(tuple(_parts(modules, run)))


class _Run(TorchDispatchMode):
    """One forward pass: the sizes (N, C, ...) each module ran on, and the multiply-adds directly under it."""

    def __init__(self, modules: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.stack = [""]
        self.inputs: defaultdict[str, list[Size]] = defaultdict(list)
        self.outputs: defaultdict[str, list[Size]] = defaultdict(list)
        self.multiply_adds: defaultdict[str, int] = defaultdict(int)
        for name, module in modules.items():
            module.register_forward_pre_hook(partial(self._enter, name), with_kwargs=True)
            module.register_forward_hook(partial(self._leave, name))

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        formula = flop_registry.get(func._overloadpacket)
        if formula is not None:  # these formulas count the addition as an operation of its own
            self.multiply_adds[self.stack[-1]] += formula(*args, **kwargs, out_val=out) // 2
        return out

    def _enter(self, name: str, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.stack.append(name)
        first = next(iter((*args, *kwargs.values())), None)
        self.inputs[name].append(_size(first))

    def _leave(self, name: str, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        self.stack.pop()
        self.outputs[name].append(_size(output))


def _size(value: Any) -> Size:
    """The size of a tensor; () for anything else."""
    return tuple(value.shape) if isinstance(value, torch.Tensor) else ()


def _meta_copy(model: nn.Module) -> nn.Module:
    """A deep copy whose parameters and buffers lie on the meta device: no weight is copied."""
    memo: dict[int, Any] = {}
    for tensor in (*model.parameters(), *model.buffers()):
        meta = tensor.detach().to("meta")
        memo[id(tensor)] = nn.Parameter(meta, False) if isinstance(tensor, nn.Parameter) else meta
    return copy.deepcopy(model, memo)


def _parts(modules: Mapping[str, nn.Module], run: _Run) -> Iterator[Part]:
    within_defined: tuple[str, ...] = ()
    counted: set[nn.Parameter] = set()
    for name in dict.fromkeys((*run.inputs, *modules)):
        if name.startswith(within_defined):
            continue
        module = modules[name]
        if isinstance(module, DEFINED):
            within_defined = (*within_defined, f"{name}." if name else "")
            yield from parts_by_definition(name, module, run.inputs[name], run.outputs[name])
            continue
        own = set(module.parameters(recurse=False)) - counted
        counted |= own
        part = _part(name, module, own, run)
        if part.parameters or part.multiply_adds:
            yield part


def _part(name: str, module: nn.Module, own: set[nn.Parameter], run: _Run) -> Part:
    outputs = run.outputs[name]
    return Part(
        name,
        type(module).__name__,
        outputs[0][1:] if outputs else (),
        parameters=sum(parameter.numel() for parameter in own),
        multiply_adds=run.multiply_adds[name],
        normalised=sum(map(math.prod, outputs)) if isinstance(module, _NORMS) else 0,
        transposed=_transposed(module, run.inputs[name], outputs),
    )


def _transposed(module: nn.Module, inputs: Sequence[Size], outputs: Sequence[Size]) -> int:
    """What the weight of a transposed convolution would cost at the positions its output has more."""
    if not isinstance(module, _ConvTransposeNd):
        return 0
    positions = sum(
        size[0] * sign * math.prod(size[2:]) for sizes, sign in ((outputs, 1), (inputs, -1)) for size in sizes
    )
    return module.weight.numel() * positions
