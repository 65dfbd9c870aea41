"""Fast Fourier Convolutions of sequences, images and clips."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ffconv.ops.ffc import FFCNd
from ffconv.ops.frames import clips_of, frames_of
from ffconv.ops.onlookers import need_operations


class FFC1d(FFCNd):
    """Fast Fourier Convolution of sequences; all else is :class:`FFCNd`'s.

    Shape:
        x (N, C_in, L) -> (N, C_out, L_out), sizes as for ``nn.Conv1d``.
    Example:
        >>> FFC1d(64, 128, 3, stride=2, padding=1)(torch.zeros(1, 64, 15)).shape
        torch.Size([1, 128, 8])
    """

    dims = 1


class FFC2d(FFCNd):
    """Fast Fourier Convolution of images; all else is :class:`FFCNd`'s.

    Shape:
        x (N, C_in, H, W) -> (N, C_out, H_out, W_out), sizes as for ``nn.Conv2d``.
    Example:
        >>> FFC2d(64, 128, 3, stride=2, padding=1)(torch.zeros(1, 64, 15, 9)).shape
        torch.Size([1, 128, 8, 5])
    """

    dims = 2


class FFC3d(FFCNd):
    """Fast Fourier Convolution of videos, by default with the transform of each frame; all else is
    :class:`FFCNd`'s.

    Shape:
        x (N, C_in, T, H, W) -> (N, C_out, T_out, H_out, W_out), sizes as for ``nn.Conv3d``.
    Example:
        >>> FFC3d(16, 32, (3, 1, 1), (1, 2, 2), (1, 0, 0))(torch.zeros(1, 16, 4, 15, 9)).shape
        torch.Size([1, 32, 4, 8, 5])
    """

    dims = 3

    def _by_parts(self, x: Tensor) -> Tensor:
        if _are_frames(x):
            raise ValueError(f"x has shape {tuple(x.shape)}, must have (N, C, T, H, W)")
        if not self._takes_frames_of(x):
            return super()._by_parts(x)
        return clips_of(super()._by_parts(frames_of(x)), like=x)

    def _takes_frames_of(self, x: Tensor) -> bool:
        """Whether the frames of clips are computed as images, for which the compiled library is, and nobody
        sees the difference.

        Contiguous clips are copied to channels last and back, which pays (docs/performance.md).
        """
        if self._one_call is None or torch.compiler.is_compiling() or need_operations():
            return False
        if not (type(x) is Tensor and x.is_cpu and x.dim() == 5):
            return False
        return self.spectral is None or self.spectral.is_as_built

    def _pad(self, x: Tensor) -> Tensor:
        return self.pad.along(2)(x) if _are_frames(x) else super()._pad(x)

    def _convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        if not _are_frames(x):
            return super()._convolve(x, weight, bias)
        return F.conv2d(
            x, weight.squeeze(2), bias, self.stride[1:], self.pad.along(2).rest, self.dilation[1:]
        )


def _are_frames(x: Tensor) -> bool:
    return type(x) is Tensor and x.dim() == 4
