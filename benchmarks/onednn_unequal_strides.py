"""Backward passes of 1x1 convolutions with unequal strides, which oneDNN has been seen to answer with a damaged heap.

python benchmarks/onednn_unequal_strides.py [--trials 400] [--seeds 3]

Seen with torch 2.15.0 on two threads: "corrupted size vs. prev_size" in the backward pass of a convolution with a 1x1
kernel and stride (2, 1). Each seed runs in a process of its own, with glibc's checks of the heap. Prints how each
process ended.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys


def run_trials(seed: int, trials: int) -> None:
    """Run backward passes of random shapes."""
    import torch
    from torch import nn

    torch.set_num_threads(2)
    chance = random.Random(seed)
    for _ in range(trials):
        channels, outputs = chance.choice([3, 8, 16, 24, 64, 100]), chance.choice([4, 8, 16, 33, 64])
        conv = nn.Conv2d(channels, outputs, 1, stride=chance.choice([(2, 1), (1, 2), (3, 1)]))
        x = torch.randn(chance.choice([1, 2, 3, 8]), channels, chance.randint(1, 40), chance.randint(1, 40))
        if chance.random() < 0.5:
            conv, x = conv.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)
        conv(x.requires_grad_()).sum().backward()


def main() -> None:
    """Start a process for each seed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=400)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--seed", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.seed is not None:
        run_trials(options.seed, options.trials)
        return
    checks = {**os.environ, "MALLOC_CHECK_": "3", "MALLOC_PERTURB_": "165"}
    for seed in range(options.seeds):
        command = [sys.executable, __file__, "--seed", str(seed), "--trials", str(options.trials)]
        ended = subprocess.run(command, env=checks, capture_output=True, text=True)
        reason = (
            "fine" if ended.returncode == 0 else f"exit {ended.returncode}: {ended.stderr.strip()[-200:]}"
        )
        print(f"seed {seed}: {reason}")


if __name__ == "__main__":
    main()
