"""Where one inference step's time goes, a plain network beside its FFC twin: by operation, or by layer.

python benchmarks/profile_inference.py [--by operation|layer] [--batch 8] [--size 224] [--rounds 9]

By operation it is the self time in one profiled step. By layer both networks take turns, and layers of one
stage and name are taken together.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from statistics import median

import timm
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from ffconv import FFC2d

NAMES = ("resnet50", "ffc_resnet50")
Times = dict[str, float]  # milliseconds


def by_operation(networks: list[nn.Module], x: torch.Tensor) -> list[Times]:
    found = []
    for network in networks:
        for _ in range(2):
            network(x)
        with profile(activities=[ProfilerActivity.CPU]) as trace:
            network(x)
        found.append({event.key: event.self_cpu_time_total / 1e3 for event in trace.key_averages()})
    return found


def by_layer(networks: list[nn.Module], x: torch.Tensor, rounds: int) -> list[Times]:
    times = [watched(network) for network in networks]
    for _ in range(rounds):
        for network in networks:
            network(x)
    found: list[Times] = []
    for of_network in times:
        sums: Times = defaultdict(float)
        for name, seconds in of_network.items():
            sums[group_of(name)] += median(seconds) * 1e3
        found.append(sums)
    return found


def watched(network: nn.Module) -> dict[str, list[float]]:
    """Seconds of each layer's calls, as they are made."""
    times: dict[str, list[float]] = defaultdict(list)
    outermost: list[str] = []
    for name, module in network.named_modules():
        inner = any(name.startswith(f"{outer}.") for outer in outermost)
        if inner or not isinstance(module, (FFC2d, nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.MaxPool2d)):
            continue
        outermost.append(name)
        module.register_forward_pre_hook(lambda *_, name=name: times[name].append(-time.perf_counter()))
        module.register_forward_hook(lambda *_, name=name: _stop(times[name]))
    return times


def _stop(seconds: list[float]) -> None:
    seconds[-1] += time.perf_counter()


def group_of(name: str) -> str:
    """layer2.1.bn3 -> layer2 bn."""
    if not name.startswith("layer"):
        return "stem"
    stage, *_, last = name.split(".")
    if "downsample" in name:
        return f"{stage} shortcut" if last == "0" else f"{stage} bn"
    return f"{stage} {last if last.startswith('conv') else last.rstrip('0123456789')}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--by", choices=("operation", "layer"), default="operation")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=9, help="turns of each network, by layer")
    options = parser.parse_args()
    x = torch.randn(options.batch, 3, options.size, options.size).to(memory_format=torch.channels_last)
    networks = [timm.create_model(name).eval().to(memory_format=torch.channels_last) for name in NAMES]
    with torch.inference_mode():
        layers = options.by == "layer"
        plain, ffc = by_layer(networks, x, options.rounds) if layers else by_operation(networks, x)
    print(f"{'time (ms)':32}{NAMES[0]:>12}{NAMES[1]:>14}{'difference':>12}")
    names = sorted(plain.keys() | ffc.keys(), key=lambda name: plain.get(name, 0) - ffc.get(name, 0))
    rows = [(name, plain.get(name, 0.0), ffc.get(name, 0.0)) for name in names[:14]]
    for name, before, after in [*rows, ("all", sum(plain.values()), sum(ffc.values()))]:
        print(f"{name:32}{before:12.1f}{after:14.1f}{after - before:12.1f}")


if __name__ == "__main__":
    main()
