"""Clips as batches of images: their frames."""

from __future__ import annotations

import torch
from torch import Tensor


def frames_of(clips: Tensor) -> Tensor:
    """(N, C, T, H, W) -> (N T, C, H, W), channels last in memory, the same memory where those of the clips
    are."""
    return clips.contiguous(memory_format=torch.channels_last_3d).transpose(1, 2).flatten(0, 1)


def clips_of(frames: Tensor, like: Tensor) -> Tensor:
    """(N T, C, H, W), channels last in memory -> (N, C, T, H, W), with N and T those of the clips ``like``,
    and channels last or contiguous as they are."""
    clips = frames.unflatten(0, (like.shape[0], like.shape[2])).transpose(1, 2)
    return clips if like.stride(1) == 1 else clips.contiguous()
