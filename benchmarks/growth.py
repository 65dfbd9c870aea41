"""How the time of one FFC grows with the image: powers of two, and odd and prime sides beside them.

python benchmarks/growth.py [--channels 32] [--sizes 64 127 128 ...] [--rounds 5]
"""

from __future__ import annotations

import argparse
import math
import statistics
import time

import torch

import ffconv

SIZES = (64, 127, 128, 251, 256, 509, 512, 1021, 1024, 1155, 2048)


def seconds(layer: torch.nn.Module, size: int, rounds: int) -> float:
    """Median time of a step in inference, of one image."""
    x = torch.randn(1, layer.in_channels, size, size).contiguous(memory_format=torch.channels_last)
    times = []
    with torch.inference_mode():
        layer(x)
        for _ in range(rounds):
            start = time.perf_counter()
            layer(x)
            times.append(time.perf_counter() - start)
    return statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--channels", type=int, default=32)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    layer = ffconv.FFC2d(options.channels, options.channels, 3, padding=1).eval()
    layer = layer.to(memory_format=torch.channels_last)
    print(f"{'side (px)':>10}{'median (ms)':>14}{'ns / (H W log2(H W))':>24}")
    measured = {size: seconds(layer, size, options.rounds) for size in options.sizes}
    for size, took in measured.items():
        work = size**2 * math.log2(size**2)
        print(f"{size:10}{1e3 * took:14.2f}{1e9 * took / work:24.3f}")
    smooth = [size for size in options.sizes if size & (size - 1) == 0]
    if len(smooth) > 1:
        first, last = smooth[0], smooth[-1]
        work = math.log(last**2 * math.log(last**2)) - math.log(first**2 * math.log(first**2))
        exponent = math.log(measured[last] / measured[first]) / work
        print(f"time ~ (H W log(H W))^{exponent:.3f} from {first} to {last} px")


if __name__ == "__main__":
    main()
