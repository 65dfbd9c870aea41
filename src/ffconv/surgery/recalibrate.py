"""Recalibrate a converted network: its batch norms get the statistics of the maps they now read."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from torch import Tensor, nn

from ffconv.batch_norms import batch_norms, reestimate_statistics
from ffconv.errors import InputError, first_line, require
from ffconv.surgery.report import mark_recalibrated

_BATCH = 64

Network = TypeVar("Network", bound=nn.Module)


def recalibrate(
    model: Network,
    images: Tensor | Iterable[Any],
    *,
    max_batches: int | None = None,
    forward: Callable[[Network, Any], Any] | None = None,
    progress: bool = True,
) -> Network:
    """Re-estimate the running statistics of all batch norms, in place, from images without labels.

    After :func:`ffconv.convert` the norms of a trained network still hold the statistics of its former maps,
    and accuracy is lost. One pass over a few hundred images brings back what it can; fine-tuning does the
    rest. Each statistic is the plain average over the batches, as :func:`torch.optim.swa_utils.update_bn`
    computes it, but dropout is off, norms that are frozen stay so, norms that no batch reaches keep their
    statistics, and a failure changes nothing.

    Args:
        model: Any network with batch norms, on any device.
        images: Training images, prepared as in training: a tensor (N, C, H, W), which is cut into batches of
            64 at most, or a data loader or list of batches. Clips and sequences work alike. A batch is a
            tensor; a tuple, a list or a dict of which the first floating-point tensor is the network's input;
            or anything that ``forward`` takes. 256 images in batches of 16 or more are enough.
        max_batches: Stop after this number of batches. By default all are used.
        forward: Called with the model and a batch, which it must also move to the model's device, where
            ``model(images)`` is not the call.
        progress: Show a bar if the standard error stream is a terminal.
    Returns:
        The model.
    Raises:
        InputError: If the network has no batch norm with running statistics, there is no batch, a batch holds
            no image, the network does not run on one, or a statistic is not finite. The model is unchanged
            then.
    Example:
        >>> import torch
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))
        >>> net = recalibrate(net, torch.randn(32, 3, 16, 16))
        >>> bool(net[1].running_var.ne(1).all())
        True
    """
    norms = batch_norms(model)
    require(
        bool(norms),
        f"{type(model).__name__} has no batch norm with running statistics: nothing to recalibrate",
    )
    require(max_batches is None or max_batches >= 1, f"max_batches={max_batches} must be at least 1, or None")
    batches = _cut(images) if isinstance(images, Tensor) else images
    total = min((n for n in (max_batches, _length(batches)) if n is not None), default=None)
    call = forward or _call
    count = 0
    with reestimate_statistics(model):
        for batch in _with_bar(itertools.islice(batches, max_batches), total, visible=progress):
            try:
                call(model, batch)
            except InputError:
                raise
            except Exception as error:  # the network's own code, or forward
                raise InputError(
                    f"{type(model).__name__} does not run on batch {count} ({_shapes(batch)}): "
                    f"{first_line(error)}; pass batches of at least 2 images as it takes them, or forward"
                ) from error
            count += 1
        require(count > 0, "images holds no batch")
        for name, norm in norms.items():
            require(
                all(bool(statistic.isfinite().all()) for statistic in norm.buffers()),
                f"the statistics of {name} are not finite: check images and weights for inf and NaN",
            )
    mark_recalibrated(model)
    return model


def _cut(images: Tensor) -> Sequence[Tensor]:
    """Cut images into equal batches; a small last one would count as much as the others."""
    require(images.dim() > 0 and len(images) > 0, f"images of shape {tuple(images.shape)} holds no image")
    return images.tensor_split(math.ceil(len(images) / _BATCH))


def _call(model: nn.Module, batch: Any) -> Any:
    images = _first_tensor(batch)
    if images is None:
        raise InputError(
            f"a batch of type {type(batch).__name__} ({_shapes(batch)}) has no floating-point tensor: "
            "prepare images as in training, or pass forward"
        )
    return model(images.to(next(model.parameters()).device))


def _first_tensor(batch: Any) -> Tensor | None:
    if isinstance(batch, Tensor):
        return batch if batch.is_floating_point() else None
    parts = (
        batch.values() if isinstance(batch, Mapping) else batch if isinstance(batch, (tuple, list)) else ()
    )
    return next((found for part in parts if (found := _first_tensor(part)) is not None), None)


def _parts(batch: Any) -> Iterable[Any]:
    if isinstance(batch, Mapping):
        return batch.values()
    return batch if isinstance(batch, (tuple, list)) else ()


def _shapes(batch: Any) -> str:
    parts = (
        batch.values()
        if isinstance(batch, Mapping)
        else batch
        if isinstance(batch, (tuple, list))
        else (batch,)
    )
    shapes = [f"{str(part.dtype)[6:]} {tuple(part.shape)}" for part in parts if isinstance(part, Tensor)]
    return ", ".join(shapes) or "no tensor"


def _length(batches: Any) -> int | None:
    try:
        return len(batches)
    except TypeError:  # a generator, or a loader of an iterable data set
        return None


def _with_bar(batches: Iterable[Any], total: int | None, *, visible: bool) -> Iterator[Any]:
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    unseen = not (visible and console.is_terminal)
    yield from track(batches, "recalibrating", total=total, console=console, transient=True, disable=unseen)
