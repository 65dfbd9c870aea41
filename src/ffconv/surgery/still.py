"""Checks that a network of clips gives for each frame of a still clip what the image network gives."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ffconv.errors import InputError, require
from ffconv.surgery.modes import modes_kept
from ffconv.surgery.trace import convolutions
from ffconv.surgery.trial import default_inputs

# Enough for an axis that is taken for another to change the values.
_FRAMES = 2
_TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-3}


def check_still_clip(images: nn.Module, clips: nn.Module, example_input: Tensor | None = None) -> None:
    """Compare what all modules of the two networks read and give, in evaluation mode.

    Args:
        images: the network of images; its state is put back.
        clips: that of clips, whose modules have the same names.
        example_input: (N, C, H, W); by default noise of the network's usual size.
    Raises:
        InputError: that names the innermost module which fails, or gives other values, though it read the
            same; or that gives the reason why the network of images does not run.
    """
    image = _image(images) if example_input is None else example_input
    require(bool(image.isfinite().all()), "example_input holds values that are not finite")
    seen = _Images()
    try:
        with _watched(images, seen):
            images(image)
    except Exception as error:  # whatever the network's own code says to this input
        raise InputError(
            f"{type(images).__name__} does not run on an input of {tuple(image.shape)}: {_line(error)}; "
            "pass images that it takes as example_input"
        ) from error
    comparison = _Clips(clips, seen.calls)
    with _watched(clips, comparison):
        try:
            clips(image.unsqueeze(2).expand(-1, -1, _FRAMES, -1, -1))
        except InputError:
            raise
        except Exception as error:
            raise InputError(f"{comparison.culprit} does not take clips: {_line(error)}") from error


class _Images:
    """What each module read and gave in its first call."""

    def __init__(self) -> None:
        self.calls: dict[str, tuple[Any, Any]] = {}
        self._read: list[Any] = []

    def enter(self, name: str, read: Any) -> None:
        self._read.append(read)

    def leave(self, name: str, given: Any) -> None:
        self.calls.setdefault(name, (self._read.pop(), given))


class _Clips:
    """The comparison of another network's calls with those."""

    def __init__(self, model: nn.Module, calls: dict[str, tuple[Any, Any]]) -> None:
        self._model = model
        self._calls = calls
        self._open: list[tuple[str, Any, bool]] = []

    def enter(self, name: str, read: Any) -> None:
        expected_read, expected = self._calls.pop(name, (None, None))
        self._open.append((name, expected, _same(read, expected_read)))

    def leave(self, name: str, given: Any) -> None:
        _, expected, read_same = self._open[-1]
        if read_same and not _same(given, expected):
            raise InputError(f"{self.culprit} gives other values for a clip than for its frames")
        self._open.pop()

    @property
    def culprit(self) -> str:
        """The innermost running module that read what it should."""
        name = next(name for name, _, read_same in reversed(self._open) if read_same)
        kind = type(self._model.get_submodule(name)).__name__
        return f"{name} ({kind})" if name else kind


def _image(model: nn.Module) -> Tensor:
    require(bool(convolutions(model)), f"{type(model).__name__} has no convolution: pass an example_input")
    like = next(model.parameters())
    (stand_in,) = default_inputs(model)[0]
    noise = torch.randn(1, *stand_in.shape[1:], generator=torch.Generator().manual_seed(0))
    return noise.to(like.device, like.dtype)


@contextmanager
def _watched(model: nn.Module, watcher: _Images | _Clips) -> Iterator[None]:
    """Evaluation mode without gradients; the watcher hears of each call's first tensor and of its result."""
    handles = []
    for name, module in model.named_modules():

        def enter(module: nn.Module, inputs: Any, name: str = name) -> None:
            watcher.enter(name, _kept(inputs[0] if inputs else None))

        def leave(module: nn.Module, inputs: Any, output: Any, name: str = name) -> None:
            watcher.leave(name, _kept(output))

        handles += [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]
    try:
        with modes_kept(model), torch.no_grad():
            model.eval()
            yield
    finally:
        for handle in handles:
            handle.remove()


def _kept(value: Any) -> Any:
    # Activations in place write over what came before them.
    return value.clone() if isinstance(value, Tensor) else None


def _same(value: Any, expected: Any) -> bool:
    """Return True if each frame of a tensor equals the output for images, or if it is no tensor."""
    if not isinstance(value, Tensor) or not isinstance(expected, Tensor):
        return True
    if (value.dim(), expected.dim()) == (5, 4):
        expected = expected.unsqueeze(2).expand(-1, -1, value.shape[2], -1, -1)
    if value.shape != expected.shape:
        return False
    tolerance = _TOLERANCE.get(value.dtype, 5e-2)
    finite = expected[expected.isfinite()]
    scale = float(finite.abs().max()) if finite.numel() else 0.0
    return torch.allclose(value, expected, rtol=tolerance, atol=tolerance * scale, equal_nan=True)


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
