"""How the time of one FFC grows with the image: powers of two, and odd and prime sides beside them.

python benchmarks/growth.py [--channels 32] [--sizes 64 127 128 ...] [--rounds 5] [--device cpu]
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Mapping

import torch

import ffconv

SIZES = (64, 127, 128, 251, 256, 509, 512, 1021, 1024, 1155, 2048)


def seconds(layer: ffconv.FFC2d, size: int, rounds: int) -> float:
    """Median time of a step in inference, of one image."""
    device = next(layer.parameters()).device
    x = torch.randn(1, layer.in_channels, size, size, device=device)
    x = x.contiguous(memory_format=torch.channels_last)
    times = []
    with torch.inference_mode():
        for _ in range(rounds + 1):
            start = time.perf_counter()
            layer(x)
            if x.is_cuda:
                torch.cuda.synchronize(device)
            times.append(time.perf_counter() - start)
    return statistics.median(times[1:])  # the first step makes ready


def ffc_layer(channels: int, device: str) -> ffconv.FFC2d:
    """The layer that is timed."""
    layer = ffconv.FFC2d(channels, channels, 3, padding=1).eval().to(device)
    return layer.to(memory_format=torch.channels_last)


def exponent(measured: Mapping[int, float]) -> float | None:
    """p in time ~ (H W log(H W))^p from the first to the last power of two; None if there are not two."""
    smooth = [size for size in measured if size & (size - 1) == 0]
    if len(smooth) < 2:
        return None
    first, last = smooth[0], smooth[-1]
    work = math.log(last**2 * math.log(last**2)) - math.log(first**2 * math.log(first**2))
    return math.log(measured[last] / measured[first]) / work


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--channels", type=int, default=32)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    layer = ffc_layer(options.channels, options.device)
    print(f"{'side (px)':>10}{'median (ms)':>14}{'ns / (H W log2(H W))':>24}")
    measured = {size: seconds(layer, size, options.rounds) for size in options.sizes}
    for size, took in measured.items():
        work = size**2 * math.log2(size**2)
        print(f"{size:10}{1e3 * took:14.2f}{1e9 * took / work:24.3f}")
    power = exponent(measured)
    if power is not None:
        print(f"time ~ (H W log(H W))^{power:.3f} between powers of two")


if __name__ == "__main__":
    main()
