"""The trial forward: a network is run on fake tensors (shapes without data) to see what it does.

A copy is run: the network stays as it is. It needs no memory and takes tenths of a second.
"""

from __future__ import annotations

import copy
import logging
import random
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
)
from torch.utils._pytree import tree_map_only

from ffconv.errors import InputError, first_line
from ffconv.surgery.recorder import Recorder, tensors_in
from ffconv.surgery.trace import Trace, convolutions

# Two, since a batch norm in training mode refuses a single value per channel (pooled branches).
_BATCH = 2
_SIDE = 224
_FRAMES = 8
# What only a run with data can go through, such as a detector's selection of boxes.
_NEEDS_VALUES = (DataDependentOutputException, DynamicOutputShapeException)
# It prints the stack of an operation that fails, before the exception says the same.
_FAKE_LOG = logging.getLogger(FakeTensorMode.__module__)


def trial_forward(model: nn.Module, example_input: Any = None) -> Trace:
    """Run a copy of a network on fake tensors and follow its channels.

    It is tried in training mode, in which auxiliary heads take part, then in evaluation mode, and, if what it
    does depends on values, with data (zeros by default).

    Args:
        model: any network; it is not changed.
        example_input: a tensor, or a tuple of the network's arguments. By default two images: timm's
            ``pretrained_cfg["input_size"]``, or 224 pixels a side and as many channels as the first
            convolution takes.
    Raises:
        InputError: if the network has no convolution or does not run on that input.
    """
    if not convolutions(model):
        raise InputError(f"{type(model).__name__} has no convolution")
    if example_input is None:
        candidates = default_inputs(model)
    else:
        candidates = [example_input if isinstance(example_input, tuple) else (example_input,)]
    failures: list[str] = []
    for arguments in candidates:
        outcome = _attempt(model, arguments)
        if isinstance(outcome, Trace):
            return outcome
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in tensors_in(arguments))
        reason = f"{type(outcome).__name__}: {first_line(outcome)}"
        failures.append(f"for an input of shape {shapes or None} ({reason})")
    raise InputError(
        f"the trial forward of {type(model).__name__} failed {failures[0]}: "
        "pass as example_input what the network takes"
    )


def _attempt(model: nn.Module, arguments: tuple[Any, ...]) -> Trace | Exception:
    failure = Exception()
    # In training mode a network may want targets, or larger maps.
    for training, fake in ((True, True), (False, True), (False, False)):
        if fake or isinstance(failure, _NEEDS_VALUES):
            try:
                return _run(model, arguments, training=training, fake=fake)
            except Exception as error:
                failure = error
    return failure


def default_inputs(model: nn.Module) -> list[tuple[Tensor]]:
    """What a network may take, on the meta device, the likeliest first: see :func:`trial_forward`."""
    first = next(iter(convolutions(model).values()))
    configured = tuple((getattr(model, "pretrained_cfg", None) or {}).get("input_size", ()))
    dims = len(first.kernel_size)
    # An image network that was inflated still has the size of an image.
    fits = len(configured) == 1 + dims
    size = configured[1:] if fits else ((_FRAMES, _SIDE, _SIDE) if dims == 3 else (_SIDE,) * dims)
    # Some networks rearrange the image before the first convolution.
    channels = dict.fromkeys((first.in_channels, *configured[:1], 3))
    dtype = next(first.parameters()).dtype
    return [(torch.empty(_BATCH, count, *size, dtype=dtype, device="meta"),) for count in channels]


def _run(model: nn.Module, arguments: tuple[Any, ...], *, training: bool, fake: bool) -> Trace:
    device = next(model.parameters()).device
    mode = FakeTensorMode(allow_non_fake_inputs=True) if fake else None
    double = copy.deepcopy(model, _without_data(model, mode) if mode else None).train(training)
    recorder = Recorder()
    for name, module in convolutions(double).items():
        recorder.watch(name, module)
    with _undisturbed(device), mode or nullcontext(), torch.no_grad():
        arguments = tree_map_only(Tensor, lambda tensor: _stand_in(tensor, device, fake), arguments)
        recorder.begin(arguments)
        with recorder:
            returned = double(*arguments)
    return recorder.trace(returned)


def _without_data(model: nn.Module, mode: FakeTensorMode) -> dict[int, Any]:
    """What ``copy.deepcopy`` is to put in place of the network's tensors, by their ids."""
    memo: dict[int, Any] = {}
    for module in model.modules():
        for tensor in (*module._parameters.values(), *module._buffers.values(), *vars(module).values()):
            if isinstance(tensor, Tensor):
                memo[id(tensor)] = mode.from_tensor(tensor if tensor.is_leaf else tensor.detach())
    return memo


def _stand_in(tensor: Tensor, device: torch.device, fake: bool) -> Tensor:
    if fake or tensor.is_meta:
        return torch.zeros(tensor.shape, dtype=tensor.dtype, device=device)
    return tensor.detach().to(device, copy=True)


@contextmanager
def _undisturbed(device: torch.device) -> Iterator[None]:
    """Keep the state of the random generators, and silence what is said of a run that is none."""
    state, muted = random.getstate(), _FAKE_LOG.disabled
    devices = [device] if device.type == "cuda" else []
    _FAKE_LOG.disabled = True
    with torch.random.fork_rng(devices), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            random.setstate(state)
            _FAKE_LOG.disabled = muted
