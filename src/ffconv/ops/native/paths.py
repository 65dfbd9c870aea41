"""The ordinary convolutions of an FFC, as the compiled library takes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor


class Paths(NamedTuple):
    """The ordinary convolutions of an FFC without groups, and what comes behind.

    Shape:
        l2l (C_out_l, C_in_l, *kernel), l2g (C_out_g, C_in_l, *kernel), g2l (C_out_l, C_in_g, *kernel), each
        None where there is none, but not all three; bias (C_out,) or None.
    """

    l2l: Tensor | None
    l2g: Tensor | None
    g2l: Tensor | None
    bias: Tensor | None
    stride: Sequence[int]
    padding: Sequence[int]  # above and to the left
    dilation: Sequence[int]
    padding_modes: Sequence[str] = ("zeros", "zeros")
    relu: bool = False
    turned: bool = False  # whether a kernel's taps are in reverse order, from the last row and column on

    def of_frames(self) -> Paths:
        """Those of the frames of clips, if kernels are 1 in time; of images they themselves."""
        if len(self.stride) == 2:
            return self
        l2l, l2g, g2l = (None if weight is None else weight.squeeze(2) for weight in self[:3])
        stride, padding, dilation = self.stride[1:], self.padding[1:], self.dilation[1:]
        of_frames = self._replace(padding_modes=self.padding_modes[1:], stride=stride, dilation=dilation)
        return of_frames._replace(l2l=l2l, l2g=l2g, g2l=g2l, padding=padding)

    @property
    def kernel(self) -> Sequence[int]:
        """Height and width."""
        return next(weight.shape[2:] for weight in self[:3] if weight is not None)

    def fit(self, global_in: int, last: Tensor | None) -> bool:
        """Whether the sizes of all go together, and with a Spectral Transform's last weight."""
        local_in, local_out = self.local_in, self.local_out
        to_global = self.l2g if last is None else last
        global_out = 0 if to_global is None else to_global.shape[0]
        sizes = ((local_out, local_in), (global_out, local_in), (local_out, global_in))
        paths = zip(self[:3], sizes, strict=True)
        fit = all(path is None or path.shape == (*size, *self.kernel) for path, size in paths)
        return fit and (self.bias is None or len(self.bias) == local_out + global_out)

    def back(self) -> Paths:
        """Those that make the gradient of x of that of the result, if the stride is 1, padded by zeros."""
        l2l, l2g, g2l = (None if weight is None else weight.transpose(0, 1) for weight in self[:3])
        spans = zip(self.kernel, self.dilation, self.padding, strict=True)
        padding = [d * (k - 1) - before for k, d, before in spans]
        return Paths(l2l, g2l, l2g, None, self.stride, padding, self.dilation, turned=not self.turned)

    def make_all(self, inputs: int, outputs: int) -> bool:
        """Whether they read all of so many channels, and make all of so many, by sizes that go together."""
        reads_all = self.g2l is not None or inputs == self.local_in
        makes_all = outputs == self.local_out + (0 if self.l2g is None else len(self.l2g))
        return reads_all and makes_all and self.fit(inputs - self.local_in, None)

    @property
    def suit_tiles(self) -> bool:
        """Whether they are of the kind that the library makes by tiles where maps are large enough."""
        geometry = (self.kernel, self.stride, self.dilation)
        return all(tuple(numbers) == (side, side) for numbers, side in zip(geometry, (3, 1, 1), strict=True))

    @property
    def local_in(self) -> int:
        """Local channels of the map."""
        return next((weight.shape[1] for weight in (self.l2l, self.l2g) if weight is not None), 0)

    @property
    def local_out(self) -> int:
        """Local channels of the result."""
        return next((weight.shape[0] for weight in (self.l2l, self.g2l) if weight is not None), 0)
