"""How far transforms and networks on a device are off, against float64 on the CPU."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ffconv.analysis.networks import NetworkSpec
from ffconv.analysis.watching import calibrate_norms
from ffconv.analysis.work import Engine
from ffconv.dispatch import FFTBackend, fft_backend, irfftn, rfftn

AXES = (2, 3)


def _off(ours: Tensor, expected: Tensor) -> float:
    """Largest error over the largest value."""
    return float((ours.double().cpu() - expected).abs().max() / expected.abs().max())


def _there_and_back(x: Tensor, spectrum: Tensor) -> list[Tensor]:
    """The spectrum of x, the map of a spectrum that is not Hermitian, and a gradient of each."""
    x, spectrum = x.requires_grad_(), spectrum.requires_grad_()
    there, back = rfftn(x, AXES), irfftn(spectrum, AXES, x.shape[-1])
    (of_x,) = torch.autograd.grad(there.square().sum(), x)
    (of_spectrum,) = torch.autograd.grad(back.square().sum(), spectrum)
    return [there, back, of_x, of_spectrum]


def transform_errors(
    engine: FFTBackend, size: tuple[int, int], dtype: torch.dtype, device: str
) -> list[float]:
    """Of forward, inverse and their gradients, the map channels last in memory."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, *size, dtype=torch.float64, generator=generator)
    spectrum = torch.randn(2, 6, size[0], size[1] // 2 + 1, dtype=torch.float64, generator=generator)
    with fft_backend("torch"):
        expected = _there_and_back(x.clone(), spectrum.clone())
    on_device = (
        given.to(device, dtype, memory_format=torch.channels_last, copy=True) for given in (x, spectrum)
    )
    with fft_backend(engine):
        ours = _there_and_back(*on_device)
    return [_off(got.detach(), wanted.detach()) for got, wanted in zip(ours, expected, strict=True)]


class Way(NamedTuple):
    """How a network runs."""

    dtype: torch.dtype
    fft_backend: FFTBackend = "auto"
    engine: Engine = "eager"


def network_errors(
    name: str, images: Tensor, ways: Sequence[Way], device: str
) -> dict[Way, tuple[float, float]]:
    """Of a network's output in evaluation mode, and of all gradients of a training step: root mean squares.

    Args:
        name: as the commands take it; random weights, norms as after some steps of training.
        images: (N, 3, H, W) in float64.
    """
    torch.manual_seed(0)
    network = NetworkSpec.parse(name).build()
    calibrate_norms(network, images.float())
    expected = _output_and_gradients(copy.deepcopy(network).double(), images, Way(torch.float64))
    found = {}
    for way in ways:
        ours = copy.deepcopy(network).to(device, memory_format=torch.channels_last)
        kept = torch.float64 if way.dtype == torch.float64 else torch.float32
        x = images.to(device, kept, memory_format=torch.channels_last)
        got = _output_and_gradients(ours.to(kept), x, way)
        found[way] = tuple(
            float((one - wanted).norm() / wanted.norm()) for one, wanted in zip(got, expected, strict=True)
        )
    return found  # pyright: ignore[reportReturnType]


def _output_and_gradients(network: nn.Module, x: Tensor, way: Way) -> tuple[Tensor, Tensor]:
    device = x.device.type
    mode = "reduce-overhead" if "graphs" in way.engine else None
    torch.compiler.reset()
    run = torch.compile(network, mode=mode) if "compile" in way.engine else network
    low = way.dtype in (torch.bfloat16, torch.float16)
    scale = 2.0**10 if way.dtype == torch.float16 else 1.0  # of the loss, as a GradScaler's
    steps = 3 if mode else 1  # a CUDA graph runs as it is, is recorded, is replayed
    with fft_backend(way.fft_backend), torch.autocast(device, way.dtype if low else None, enabled=low):
        network.eval()
        with torch.no_grad():
            for _ in range(steps):
                y = run(x).double().cpu()
        for module in network.modules():  # so that each step is the same
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.train()
        for _ in range(steps):
            network.zero_grad()
            loss = run(x).float().square().mean() if low else run(x).square().mean()
            (loss * scale).backward()
    gradients = [p.grad.double().cpu().flatten() / scale for p in network.parameters() if p.grad is not None]
    return y, torch.cat(gradients)
