"""A whole FFC in inference on the CPU, by one call of the compiled library."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ffconv.ops import fused, native
from ffconv.ops.geometry import Padding, aligned_avg_pool
from ffconv.ops.native import Paths
from ffconv.ops.spectral_transform import SpectralTransform

# Bytes of weights from which on torch's own convolutions are faster: the library's read them from beyond a
# core's cache (docs/performance.md).
_LARGEST = 3 << 20


class OneCall:
    """What a layer needs for it.

    What is made ready for a call is kept for the next one as long as neither the size of the maps nor the
    layer's tensors change. Copies of a layer make their own.

    Args:
        keep_packed: whether the packed weights are kept as well, in as much memory as the weights have. They
            follow all changes that torch counts, which those by ``tensor.data`` are not.
    """

    def __init__(self, *, keep_packed: bool = False) -> None:
        self.keep_packed = keep_packed
        self._is_plain: bool | None = None
        self._ready: _Ready | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return _fresh, (self.keep_packed,)

    def __call__(
        self,
        x: Tensor,
        pad: Padding,
        sources: Sequence[Tensor | None],
        paths: Callable[[], Paths],
        spectral: SpectralTransform,
    ) -> Tensor | None:
        """The FFC of x.

        Args:
            x: (N, C_in, H, W), channels last in memory.
            pad: what comes before the convolutions.
            sources: all tensors that they are made of.
            paths: gives the convolutions, of which at least one exists.
            spectral: transforms the last channels.
        Returns:
            (N, C_out, H_out, W_out), or None.
        """
        if torch.compiler.is_compiling():  # a compiler makes the convolutions' neighbours a part of them
            return None
        if type(x) is not Tensor or x.dim() != 4 or _want_gradient(x, *sources):
            return None
        if type(spectral) is not SpectralTransform:  # another one may compute something else
            return None
        if sum(tensor.nbytes for tensor in sources if tensor is not None) > _LARGEST:
            return None
        if not x.is_cpu or not native.are_rows_adjacent(x):
            self._ready = None  # on another device its memory would lie idle
            return None
        pooled = self._pooled(x, spectral)
        if (
            pooled is None
            or fused.has_hooks(spectral)
            or not fused.suits(pooled, local=spectral.lfu is not None)
        ):
            return None
        layers = spectral.layers_as_built()
        tensors = None if layers is None else fused.tensors_by_statistics(layers)
        if layers is None or tensors is None:
            return None
        weight: Any = spectral._modules["conv2"]._parameters["weight"]  # pyright: ignore
        present = [tensor for tensor in (*sources, weight, *tensors) if tensor is not None]
        if not fused.are_alike(x, *present) or _want_gradient(*present):
            return None
        eps = [norm.eps for _, norm in layers]
        x = pad(x)
        with fused.recorded("ffconv::convolution"):
            key = self._key_of(x, sources, present)
            ready = self._ready
            if ready is None or ready.key != key:
                keep = self.keep_packed and None not in key
                convolution = native.Convolution(x, pooled, paths(), tensors, eps, weight, keep_packed=keep)
                # What is kept alive has an address of its own: an equal one is that of the same memory.
                ready = _Ready(key, convolution, [tensor.detach() for tensor in present] if keep else [])
                if keep or not convolution.copies:  # which would not follow the weights
                    self._ready = ready
            return ready.convolution(x, pooled)

    def _pooled(self, x: Tensor, spectral: SpectralTransform) -> Tensor | None:
        """The global channels as they are transformed; None where the result would have no pixels."""
        x_global = x[:, x.shape[1] - spectral._modules["conv1"].in_channels :]  # pyright: ignore
        if self._is_plain is None:
            self._is_plain = spectral.geometry.covers_map and max(spectral.geometry.stride) == 1
        if self._is_plain:
            return x_global
        if min(spectral.geometry.output_size(x.shape[2:])) < 1:
            return None
        return aligned_avg_pool(x_global, spectral.geometry)

    def _key_of(self, x: Tensor, sources: Sequence[Tensor | None], tensors: Sequence[Tensor]) -> list[Any]:
        """What must be the same for the next call. None if there are tensors whose changes torch does not
        count."""
        key = [x.shape[1:], x.dtype, *[tensor.data_ptr() for tensor in tensors]]
        key += [tensor.stride() for tensor in sources if tensor is not None]
        if self.keep_packed:
            key += [None if tensor.is_inference() else tensor._version for tensor in tensors]
        return key


class _Ready(NamedTuple):
    """One value, for several threads may read and write it."""

    key: list[Any]
    convolution: native.Convolution
    alive: list[Tensor]


def _want_gradient(*tensors: Tensor | None) -> bool:
    if not torch.is_grad_enabled():
        return False
    return any(tensor is not None and tensor.requires_grad for tensor in tensors)


def _fresh(keep_packed: bool) -> OneCall:
    return OneCall(keep_packed=keep_packed)
