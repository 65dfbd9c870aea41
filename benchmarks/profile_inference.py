"""Where one inference step's time goes: self time by operation, a plain network beside its FFC twin.

python benchmarks/profile_inference.py [--batch 8] [--size 224]
"""

from __future__ import annotations

import argparse

import timm
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

import ffconv  # noqa: F401  enters the ffc_* networks in timm's registry


def self_times(network: nn.Module, x: torch.Tensor) -> dict[str, float]:
    """Milliseconds by operation, of the third step."""
    network = network.eval().to(memory_format=torch.channels_last)
    with torch.inference_mode():
        for _ in range(2):
            network(x)
        with profile(activities=[ProfilerActivity.CPU]) as trace:
            network(x)
    return {event.key: event.self_cpu_time_total / 1e3 for event in trace.key_averages()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--size", type=int, default=224)
    options = parser.parse_args()
    x = torch.randn(options.batch, 3, options.size, options.size).to(memory_format=torch.channels_last)
    plain, ffc = (self_times(timm.create_model(name), x) for name in ("resnet50", "ffc_resnet50"))
    print(f"{'self time (ms)':32}{'resnet50':>12}{'ffc_resnet50':>14}{'difference':>12}")
    names = sorted(plain.keys() | ffc.keys(), key=lambda name: plain.get(name, 0) - ffc.get(name, 0))
    rows = [(name, plain.get(name, 0.0), ffc.get(name, 0.0)) for name in names[:14]]
    for name, before, after in [*rows, ("all", sum(plain.values()), sum(ffc.values()))]:
        print(f"{name:32}{before:12.1f}{after:14.1f}{after - before:12.1f}")


if __name__ == "__main__":
    main()
