"""A whole FFC in inference on the CPU, by one call of the compiled library."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from operator import attrgetter, eq, is_
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.hooks import RemovableHandle

from ffconv.ops import fused, layer_operator, native
from ffconv.ops.frames import clips_of, frames_of
from ffconv.ops.geometry import Geometry, Padding, aligned_avg_pool
from ffconv.ops.native import Paths
from ffconv.ops.spectral_transform import SpectralTransform

# Bytes of weights and pixels of a map beyond which torch's own convolutions are faster: the library's read
# one or the other from beyond a core's cache, again and again (docs/performance.md). Not by tiles, where they
# multiply less than half as much.
_LARGEST, _MANY = 3 << 20, 1024


class _Layer(Protocol):
    """An FFC, or what computes one."""

    in_channels: int
    out_channels: int
    geometry: Geometry
    pad: Padding
    spectral: SpectralTransform | None

    def paths(self) -> Paths:
        """Its ordinary convolutions, of which at least one exists."""
        ...


class OneCall:
    """What a layer needs for it.

    What is made ready for a call is kept for the next one as long as neither the size of the maps nor the
    layer changes. Copies of a layer make their own.

    Args:
        layer: the module it belongs to, as described by :class:`_Layer`.
        keep_packed: whether the packed weights are kept as well, in as much memory as the weights have, or
            16/9 of it for 3x3 kernels of stride 1. They follow all changes of values that torch counts, which
            those by ``tensor.data`` are not. When a module or a tensor takes another's place, :meth:`forget`
            is to be called.
    """

    def __init__(self, layer: nn.Module, *, keep_packed: bool = False) -> None:
        self.layer = weakref.ref(layer)
        self.name = layer_operator.register(self)
        self.keep_packed = keep_packed
        self.known: Sequence[Tensor] = ()
        self._ready: _Ready | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return _fresh, (self.layer(), self.keep_packed)

    def forget(self) -> None:
        """Keep nothing."""
        self._ready = None

    def __call__(self, layer: Any, x: Tensor, onto: Tensor | None = None) -> Tensor | None:
        """What the layer makes of x, with a map added to it.

        Args:
            layer: the module it belongs to.
            x: (N, C_in, H, W), channels last in memory; of a layer of clips that leaves time alone also
                (N, C_in, T, H, W), of which a copy is made if it lies otherwise.
            onto: (N, C_out, H_out, W_out), or None, or so with time; added before the layer's ReLU, if it has
                one.
        Returns:
            (N, C_out, H_out, W_out), or None where the parts of the layer are to be called.
        """
        of_clips, compiling = len(layer.geometry.stride) == 3, torch.compiler.is_compiling()
        if of_clips:
            return None if compiling else self._of_clips(layer, x, onto)
        return layer_operator.call(self, layer, x, onto) if compiling else self._of_images(layer, x, onto)

    def _of_clips(self, layer: Any, x: Tensor, onto: Tensor | None) -> Tensor | None:
        if type(x) is not Tensor or not x.is_cpu or x.dim() != 5 or not _wants_values(layer, x):
            return None  # before a copy is made
        frames_onto = None
        if onto is not None:
            if type(onto) is not Tensor or onto.dim() != 5:
                return None
            if len(onto) != len(x) or onto.shape[2] != x.shape[2]:
                return None
            frames_onto = frames_of(onto)
        y = self._of_images(layer, frames_of(x), frames_onto)
        return None if y is None else clips_of(y, like=x)

    def _of_images(self, layer: Any, x: Tensor, onto: Tensor | None) -> Tensor | None:
        if not _is_map(x):
            self._ready = None  # on another device its memory would lie idle
            return None
        ready = self._ready
        if ready is None or not ready.suits(x):
            ready = self._made_ready(layer, x)
        if ready is None or not (onto is None or ready.takes(onto, len(x))):
            return None
        with fused.recorded("ffconv::convolution"):
            return ready.run(x, onto)

    def _made_ready(self, layer: Any, x: Tensor) -> _Ready | None:
        if not _wants_values(layer, x):
            return None
        paths, size = layer.paths().of_frames(), layer.geometry.along(2).output_size(x.shape[2:])
        if x.shape[1] != layer.in_channels or min(size) < 1:  # of which the convolution tells
            return None
        if not native.takes(x) or _is_for_torch(paths, size):
            return None
        global_in = x.shape[1] - paths.local_in
        spectral = _Spectral.of(layer.spectral, x, global_in, size)
        if spectral is None or not paths.fit(global_in, spectral.weight):
            return None
        parts = _Parts(layer)
        if not fused.are_alike(x, *parts.tensors) or _want_gradient(parts.tensors):
            return None
        keep = self.keep_packed and parts.count_changes_only()
        layer.pad.along(2)(x[:, :1])  # which tells of a map too small for it
        convolution = native.Convolution(x, size, paths, *spectral, keep_packed=keep)
        ready = _Ready(x, layer, parts, convolution)
        if keep or not convolution.copies:  # which would not follow the weights
            self._ready = ready
        return ready


class _Spectral(NamedTuple):
    """What of a Spectral Transform the call is given, see :class:`native.Convolution`."""

    layers: Sequence[Tensor] = ()
    eps: Sequence[float] = ()
    weight: Tensor | None = None

    @classmethod
    def of(
        cls, spectral: SpectralTransform | None, x: Tensor, channels: int, size: Sequence[int]
    ) -> _Spectral | None:
        """None if one is there that the library does not compute for x and a result of such a size."""
        if spectral is None:
            return cls()
        if type(spectral) is not SpectralTransform or fused.has_hooks(spectral):
            return None  # another one may compute something else
        if not fused.suits_sizes(x, size, local=spectral.lfu is not None):
            return None
        layers = spectral.layers_as_built()
        tensors = None if layers is None else fused.tensors_by_statistics(layers)
        weight: Any = spectral._modules["conv2"]._parameters["weight"]  # pyright: ignore
        if layers is None or tensors is None or not fused.sizes_fit(channels, layers, weight):
            return None
        return cls(tensors, [norm.eps for _, norm in layers], weight)


class _Ready:
    """What was made ready for maps such as x."""

    def __init__(self, x: Tensor, layer: _Layer, parts: _Parts, convolution: native.Convolution) -> None:
        self.size, self.dtype = x.shape[1:], x.dtype
        self.geometry = layer.geometry.along(2)
        self.parts, self.convolution = parts, convolution
        self.pools = layer.spectral is not None and not self.geometry.covers_map

    def suits(self, x: Tensor) -> bool:
        """Whether it is ready for x, too, and the layer is as it was."""
        return (
            x.shape[1:] == self.size
            and x.dtype == self.dtype
            and fused.may_be_used()
            and self.parts.are_unchanged()
            and not (torch.is_grad_enabled() and _want_gradient([x, *self.parts.tensors]))
        )

    def takes(self, onto: Tensor, images: int) -> bool:
        """Whether such a map is added in the call."""
        size = (images, *self.convolution.size)
        return (
            _is_map(onto) and onto.shape == size and onto.dtype == self.dtype and not _want_gradient([onto])
        )

    def run(self, x: Tensor, onto: Tensor | None) -> Tensor:
        pooled = None
        if self.pools:  # the library does it where windows begin at the map's first pixel
            pooled = native.rows_adjacent(aligned_avg_pool(x[:, self.convolution.local_in :], self.geometry))
        return self.convolution(x, pooled, onto)


class _Parts:
    """The modules and tensors of a layer, and how they were.

    The layer itself is not kept, for it keeps them.
    """

    def __init__(self, layer: nn.Module) -> None:
        modules = list(layer.modules())
        self.norms = [module for module in modules if isinstance(module, _BatchNorm)]
        self.hooks = [hooks for module in modules[1:] for hooks in fused.hooks_of(module)]
        self.hooks_known = RemovableHandle.next_id
        of_modules = ((module._parameters, module._buffers, module._modules) for module in modules)
        self.members: list[dict[str, Any]] = [members for members in chain(*of_modules) if members]
        self.present = [*_values(self.members)]
        self.tensors = [one for one in self.present if isinstance(one, Tensor) and one.is_floating_point()]
        self.addresses = [*map(Tensor.data_ptr, self.tensors)]
        self.kernels = [one for one in self.tensors if one.dim() > 1]
        self.strides = [*map(Tensor.stride, self.kernels)]
        self.versions: list[int] | None = None

    def count_changes_only(self) -> bool:
        """From now on look at the values alone, if torch counts the changes of them all."""
        if any(tensor.is_inference() for tensor in self.tensors):
            return False
        self.versions = [*map(_version, self.tensors)]
        return True

    def are_unchanged(self) -> bool:
        """Whether nobody looks between the modules, and they and the memory of the tensors are as they were,
        or where changes are counted the values."""
        # Little memory is read and none taken: in a network all of it has left the cache from call to call.
        if self.versions is not None:
            same = all(map(eq, map(_version, self.tensors), self.versions))
        else:
            same = (
                all(map(is_, _values(self.members), self.present))
                and all(map(eq, map(Tensor.data_ptr, self.tensors), self.addresses))
                and all(map(eq, map(Tensor.stride, self.kernels), self.strides))
                and not any(map(_training, self.norms))
            )
        return same and not self._have_hooks()

    def _have_hooks(self) -> bool:
        count = RemovableHandle.next_id  # of hooks there ever were
        if count != self.hooks_known and any(self.hooks):
            return True
        self.hooks_known = count
        return False


_END = object()
_version, _training = attrgetter("_version"), attrgetter("training")


def _values(members: Sequence[dict[str, Any]]) -> Iterator[Any]:
    """What is in dictionaries, and an end that shows when there is less or more of it."""
    return chain(chain.from_iterable(map(dict.values, members)), (_END,))


def _is_map(x: Tensor) -> bool:
    return type(x) is Tensor and x.is_cpu and x.dim() == 4 and native.are_rows_adjacent(x)


def _is_for_torch(paths: Paths, size: Sequence[int]) -> bool:
    if paths.suit_tiles:
        return False
    weights = sum(tensor.nbytes for tensor in paths[:3] if tensor is not None)
    return weights > _LARGEST and size[0] * size[1] >= _MANY


def _wants_values(layer: nn.Module, x: Tensor) -> bool:
    """Whether a result is wanted, and nobody who follows operations or asks for gradients is near."""
    return fused.may_be_used() and not _want_gradient([x, *layer._parameters.values()])


def _want_gradient(tensors: Iterable[Tensor | None]) -> bool:
    if not torch.is_grad_enabled():
        return False
    return any(tensor is not None and tensor.requires_grad for tensor in tensors)


def _fresh(layer: nn.Module, keep_packed: bool) -> OneCall:
    return OneCall(layer, keep_packed=keep_packed)
