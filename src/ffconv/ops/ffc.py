"""Fast Fourier Convolution as a drop-in for ``torch.nn.Conv2d``."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.utils import _pair

from ffconv.ops.engine import add_to_global, regroup, ungroup
from ffconv.ops.fourier_unit import check_groups
from ffconv.ops.geometry import Geometry
from ffconv.ops.spectral_transform import SpectralTransform

_PADDING_MODES = ("zeros", "reflect", "replicate", "circular")

torch.fx.wrap("add_to_global")


def split_channels(channels: int, ratio: float) -> tuple[int, int]:
    """Numbers of local and global channels: the last ``int(channels * ratio)`` are global.

    Raises:
        ValueError: if ratio is outside [0, 1].
    Example:
        >>> split_channels(64, 0.25)
        (48, 16)
    """
    if not 0 <= ratio <= 1:
        raise ValueError(f"ratio={ratio} must lie in [0, 1]")
    global_channels = int(channels * ratio)
    return channels - global_channels, global_channels


class FFC2d(nn.Module):
    """Fast Fourier Convolution: a convolution one part of whose channels sees the whole map.

    Of C channels the last ``int(C * ratio)`` are global, the others local:

        y_l = W_l2l * x_l + W_g2l * x_g
        y_g = W_l2g * x_l + SpectralTransform(x_g)

    Takes and returns one tensor and has the arguments and the geometry attributes of ``torch.nn.Conv2d``, but
    no ``weight``: initialisers that write to it would change nothing. :meth:`dense_weight` gives the three
    convolutions as one. Each part is initialised by itself, kaiming normal with fan out; the bias, one for
    all channels, with zeros.

    Reference: Chi et al., NeurIPS 2020, Sec. 3.1, Fig. 1; defaults of the authors' code.
    Deviation: one tensor instead of a pair; any size, ratio and geometry.

    Args:
        in_channels: C_in, positive.
        out_channels: C_out, positive.
        kernel_size: as for ``nn.Conv2d``; so are stride, padding (a word, too), dilation, bias, padding_mode.
        groups: blocks of each of the three convolutions; the Spectral Transform has ``max(1, groups // 2)``.
        ratio: share of global channels on both sides, in [0, 1].
        ratio_in: the same for the input alone.
        ratio_out: the same for the output alone.
        lfu: whether the Spectral Transform has a Local Fourier Unit.
        local_to_global: whether W_l2g exists.
        global_to_local: whether W_g2l exists.
    Shape:
        x (N, C_in, H, W) -> (N, C_out, H_out, W_out), sizes as for ``nn.Conv2d``.
    Raises:
        ValueError: if a ratio is outside [0, 1], groups does not divide a part, a switch leaves a part of the
            output without a source or a part of the input without use, or the geometry is none of a
            convolution's.
    Example:
        >>> FFC2d(64, 128, 3, stride=2, padding=1)(torch.zeros(1, 64, 15, 9)).shape
        torch.Size([1, 128, 8, 5])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: str | int | tuple[int, int] = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        *,
        ratio: float = 0.25,
        ratio_in: float | None = None,
        ratio_out: float | None = None,
        lfu: bool = True,
        local_to_global: bool = True,
        global_to_local: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = _pair(kernel_size)
        self.stride = _pair(stride)
        self.padding = padding if isinstance(padding, str) else _pair(padding)
        self.dilation = _pair(dilation)
        self.groups = groups
        self.padding_mode = padding_mode
        self.ratio_in = ratio if ratio_in is None else ratio_in
        self.ratio_out = ratio if ratio_out is None else ratio_out
        self.lfu = lfu
        self.local_to_global = local_to_global
        self.global_to_local = global_to_local
        self.in_local, self.in_global = split_channels(in_channels, self.ratio_in)
        self.out_local, self.out_global = split_channels(out_channels, self.ratio_out)
        self.geometry = self._geometry()
        # F.pad counts axes from the last one.
        self._pads_for_pad = [pad for pads in reversed(self.geometry.pads) for pad in pads]
        self._check()
        self._build(bias, {"device": device, "dtype": dtype})
        self.reset_parameters()

    def _geometry(self) -> Geometry:
        spans = tuple(d * (k - 1) for k, d in zip(self.kernel_size, self.dilation, strict=True))
        if self.padding == "same":
            pads = tuple((span // 2, span - span // 2) for span in spans)
        elif self.padding == "valid":
            pads = tuple((0, 0) for _ in spans)
        elif isinstance(self.padding, str):
            raise ValueError(f"padding={self.padding!r} must be 'same', 'valid' or numbers")
        else:
            pads = tuple((p, p) for p in self.padding)
        return Geometry(self.kernel_size, self.stride, pads, self.dilation)

    def _check(self) -> None:
        for name in ("kernel_size", "stride", "dilation"):
            if min(getattr(self, name)) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be positive")
        if min(map(min, self.geometry.pads)) < 0:
            raise ValueError(f"padding={self.padding} must not be negative")
        if self.padding == "same" and any(s > 1 for s in self.stride):
            raise ValueError(f"padding='same' needs stride 1, not {self.stride}")
        if self.padding_mode not in _PADDING_MODES:
            raise ValueError(f"padding_mode={self.padding_mode!r} must be one of {_PADDING_MODES}")
        for side, ratio, parts in (
            ("in", self.ratio_in, (self.in_local, self.in_global)),
            ("out", self.ratio_out, (self.out_local, self.out_global)),
        ):
            channels = sum(parts)
            if channels < 1:
                raise ValueError(f"{side}_channels={channels} must be positive")
            for share, count in zip((1 - ratio, ratio), parts, strict=True):
                if self.groups < 1 or count % self.groups:
                    part = f"{side}_channels={channels} x ratio {share:g} = {count}"
                    raise ValueError(f"groups={self.groups} must divide {part}")
        only_path = {
            "local_to_global": (self.in_local and not self.out_local)
            or (self.out_global and not self.in_global),
            "global_to_local": (self.in_global and not self.out_global)
            or (self.out_local and not self.in_local),
        }
        for name, is_only_path in only_path.items():
            if not getattr(self, name) and is_only_path:
                raise ValueError(
                    f"{name}=False would cut off a part: with ratio_in={self.ratio_in} and "
                    f"ratio_out={self.ratio_out} it is the part's only path"
                )

    def _build(self, bias: bool, factory: dict) -> None:
        def part(exists: bool, outputs: int, inputs: int) -> nn.Parameter | None:
            if not (exists and outputs and inputs):
                return None
            return nn.Parameter(torch.empty(outputs, inputs // self.groups, *self.kernel_size, **factory))

        self.weight_l2l = part(True, self.out_local, self.in_local)
        self.weight_l2g = part(self.local_to_global, self.out_global, self.in_local)
        self.weight_g2l = part(self.global_to_local, self.out_local, self.in_global)
        self.bias = nn.Parameter(torch.empty(self.out_channels, **factory)) if bias else None
        self.spectral = None
        if self.in_global and self.out_global:
            self.spectral = SpectralTransform(
                self.in_global,
                self.out_global,
                groups=max(1, self.groups // 2),
                lfu=self.lfu,
                geometry=self.geometry,
                **factory,
            )

    def reset_parameters(self) -> None:
        """Kaiming normal (fan out) for each part by itself, as in the paper; zeros for the bias."""
        for weight in (self.weight_l2l, self.weight_l2g, self.weight_g2l):
            if weight is not None:
                nn.init.kaiming_normal_(weight, mode="fan_out", nonlinearity="relu")
        if self.bias is not None:
            nn.init.zeros_(self.bias)
        if self.spectral is not None:
            self.spectral.reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        z = None if self.spectral is None else self.spectral(x[:, self.in_local :])
        if z is not None and self.in_local + self.out_local == 0:
            return self._add_bias(z)
        if self.padding_mode != "zeros":
            x = F.pad(x, self._pads_for_pad, mode=self.padding_mode)
        if self.groups > 1:
            return self._add_bias(self._convolve_by_path(x, z))
        y = self._convolve(x, self.dense_weight(), self.bias)
        return y if z is None else add_to_global(y, z)

    def _convolve_by_path(self, x: Tensor, z: Tensor | None) -> Tensor:
        x_local, x_global = x[:, : self.in_local], x[:, self.in_local :]
        to_local = [
            self._convolve(part, weight)
            for part, weight in ((x_local, self.weight_l2l), (x_global, self.weight_g2l))
            if weight is not None
        ]
        to_global = [] if self.weight_l2g is None else [self._convolve(x_local, self.weight_l2g)]
        if z is not None:
            to_global.append(z)
        return torch.cat([sum(terms[1:], terms[0]) for terms in (to_local, to_global) if terms], dim=1)

    def _convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        padding = self.padding if self.padding_mode == "zeros" else 0
        return F.conv2d(x, weight, bias, self.stride, padding, self.dilation, self.groups)

    def _add_bias(self, y: Tensor) -> Tensor:
        return y if self.bias is None else y + self.bias.reshape(-1, 1, 1)

    def dense_weight(self) -> Tensor:
        """The convolutions as the weight of one ordinary convolution, without groups; zeros where there is no
        path.

        Shape:
            (C_out, C_in, *kernel_size), differentiable in the parts.
        """
        # Missing blocks are padded: zeros joined by cat would come in another memory format than the parts.
        rows = []
        for row in ((self.weight_l2l, self.weight_g2l), (self.weight_l2g, None)):
            parts = [ungroup(weight, self.groups) for weight in row if weight is not None]
            if parts:
                sides = zip(row, (self.in_local, self.in_global), strict=True)
                missing = [inputs if weight is None else 0 for weight, inputs in sides]
                joined = torch.cat(parts, dim=1)
                rows.append(F.pad(joined, (0, 0, 0, 0, *missing)) if any(missing) else joined)
        if not rows:
            like = next(self.parameters())
            return like.new_zeros(self.out_channels, self.in_channels, *self.kernel_size)
        dense = torch.cat(rows, dim=0)
        if self.weight_l2g is None and self.out_global:
            dense = F.pad(dense, (0, 0, 0, 0, 0, 0, 0, self.out_global))
        return dense

    @torch.no_grad()
    def load_dense_weight(self, weight: Tensor, bias: Tensor | None = None) -> None:
        """Carry the weights of an ordinary convolution into the parts that correspond.

        What the ordinary convolution has no weight for keeps its value: the Spectral Transform, and, since
        the groups of a part are not those of the whole, some of the blocks of a grouped part.

        Args:
            weight: (C_out, C_in / g, *kernel_size), g the ordinary convolution's groups.
            bias: (C_out,), or None to keep the present one.
        Raises:
            ValueError: if the shapes do not fit.
        """
        groups = max(1, self.in_channels // max(1, weight.shape[1]))
        expected = (self.out_channels, self.in_channels // groups, *self.kernel_size)
        if tuple(weight.shape) != expected:
            raise ValueError(f"weight has shape {tuple(weight.shape)}, must have {expected}")
        check_groups(groups, in_channels=self.in_channels, out_channels=self.out_channels)
        if bias is not None and self.bias is None:
            raise ValueError(f"bias of shape {tuple(bias.shape)} must be None: the layer has bias=False")
        if bias is not None and self.bias is not None and bias.shape != self.bias.shape:
            raise ValueError(f"bias has shape {tuple(bias.shape)}, must have {tuple(self.bias.shape)}")
        dense, known = ungroup(weight, groups), ungroup(torch.ones_like(weight), groups) > 0
        local_in, local_out = slice(None, self.in_local), slice(None, self.out_local)
        global_in, global_out = slice(self.in_local, None), slice(self.out_local, None)
        for part, outputs, inputs in (
            (self.weight_l2l, local_out, local_in),
            (self.weight_l2g, global_out, local_in),
            (self.weight_g2l, local_out, global_in),
        ):
            if part is not None:
                mask = regroup(known[outputs, inputs], self.groups)
                part.copy_(torch.where(mask, regroup(dense[outputs, inputs], self.groups), part))
        if bias is not None and self.bias is not None:
            self.bias.copy_(bias)

    def extra_repr(self) -> str:
        text = (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}, "
            f"ratio_in={self.ratio_in:g}, ratio_out={self.ratio_out:g}, lfu={self.lfu}"
        )
        defaults = {
            "padding": (0, 0),
            "dilation": (1, 1),
            "groups": 1,
            "padding_mode": "zeros",
            "local_to_global": True,
            "global_to_local": True,
        }
        changed = {
            name: getattr(self, name) for name, value in defaults.items() if getattr(self, name) != value
        }
        text += "".join(f", {name}={value!r}" for name, value in changed.items())
        return text if self.bias is not None else f"{text}, bias=False"
