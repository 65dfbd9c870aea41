"""What the table of transform backends rests on: a transform and back by each backend, taking turns.

python benchmarks/fft_backends.py [--device cpu] [--threads 2]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence

import torch
from torch import Tensor

from ffconv.dispatch import FFTBackend, fft_backend
from ffconv.dispatch import irfftn, rfftn

AXES = (2, 3)
_AT_ONCE = 10  # steps that a GPU is given before it is waited for


def milliseconds(x: Tensor, backend: FFTBackend, seconds: float) -> float:
    """Of a transform of x and back, on average over so many seconds."""
    steps, start = 0, time.perf_counter()
    with fft_backend(backend), torch.inference_mode():
        while (passed := time.perf_counter() - start) < seconds:
            for _ in range(_AT_ONCE if x.is_cuda else 1):
                irfftn(rfftn(x, AXES), AXES, x.shape[-1])
                steps += 1
            if x.is_cuda:
                torch.cuda.synchronize(x.device)
    return 1e3 * passed / steps


def backends_of(device: str) -> list[FFTBackend]:
    """Those that run there."""
    return ["torch", "dft_matmul", "triton"] if device.startswith("cuda") else ["torch", "cpu", "dft_matmul"]


def medians(x: Tensor, backends: Sequence[FFTBackend], *, rounds: int, seconds: float) -> list[float]:
    """Of each backend, over rounds in which all take turns; the first round warms up."""
    times = [[milliseconds(x, backend, seconds) for backend in backends] for _ in range(rounds + 1)]
    return [statistics.median(column) for column in zip(*times[1:], strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--backends", nargs="+", help="by default all of the device")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--channels", nargs="+", type=int, default=[2, 16, 64])
    parser.add_argument("--sides", nargs="+", type=int, default=[7, 14, 28, 31, 37, 56, 128, 256])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.05)
    options = parser.parse_args()
    options.backends = options.backends or backends_of(options.device)
    torch.set_num_threads(options.threads)
    print(f"ms a transform and back, float32, batch {options.batch}, {options.threads} threads")
    print(f"{'channels':>8}{'side':>6}" + "".join(f"{backend:>10}" for backend in options.backends))
    for channels in options.channels:
        for side in options.sides:
            x = torch.randn(options.batch, channels, side, side, device=options.device)
            x = x.contiguous(memory_format=torch.channels_last)
            figures = medians(x, options.backends, rounds=options.rounds, seconds=options.seconds)
            print(f"{channels:8}{side:6}" + "".join(f"{figure:10.3f}" for figure in figures))


if __name__ == "__main__":
    main()
