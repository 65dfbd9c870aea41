"""What half precision costs: error of a network's output against float32, beside its plain twin's.

python benchmarks/precision.py [--networks ffc_resnet18 resnet18] [--size 64 96] [--seeds 3]

Random weights, norms as after some steps of training, evaluation mode. The error is the root mean square of
the difference over the root mean square of the float32 output, the median over the seeds. The last column is
what rounding the images alone does to the float32 network: how much the network enlarges any error.
"""

from __future__ import annotations

import argparse
import copy
import statistics

import timm
import torch
from torch import Tensor, nn

import ffconv  # noqa: F401  enters the ffc_* networks in timm's registry

DTYPES = (torch.bfloat16, torch.float16)


def trained_a_little(name: str, images: Tensor) -> nn.Module:
    """A network whose norms have seen the images."""
    network = timm.create_model(name, num_classes=100)
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = None  # the mean of all batches
    with torch.no_grad():
        for batch in images.split(8):
            network(batch)
    return network.eval()


@torch.no_grad()
def errors(network: nn.Module, images: Tensor, dtype: torch.dtype) -> tuple[float, float, float]:
    """Relative: of autocast, of the whole network in the type, of float32 for images rounded to the type."""
    expected = network(images)
    with torch.autocast("cpu", dtype):
        by_autocast = network(images)
    whole = copy.deepcopy(network).to(dtype)(images.to(dtype))
    rounded = network(images.to(dtype).float())
    size = expected.square().mean().sqrt()
    by_autocast, whole, rounded = (
        float((y.float() - expected).square().mean().sqrt() / size) for y in (by_autocast, whole, rounded)
    )
    return by_autocast, whole, rounded


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=["ffc_resnet18", "resnet18"])
    parser.add_argument("--size", nargs="+", type=int, default=[64, 96])
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    print(f"{'network':16}{'size':>6}{'type':>12}{'autocast':>12}{'whole':>12}{'rounded input':>16}")
    for name in options.networks:
        for size in options.size:
            found: dict[torch.dtype, list[tuple[float, ...]]] = {dtype: [] for dtype in DTYPES}
            for seed in range(options.seeds):
                torch.manual_seed(seed)
                images = torch.randn(16, 3, size, size)
                network = trained_a_little(name, images)
                for dtype in DTYPES:
                    found[dtype].append(errors(network, images[:4], dtype))
            for dtype, by_seed in found.items():
                autocast, whole, rounded = (statistics.median(kind) for kind in zip(*by_seed, strict=True))
                kind = str(dtype).removeprefix("torch.")
                print(f"{name:16}{size:>6}{kind:>12}{autocast:>12.2%}{whole:>12.2%}{rounded:>16.2%}")


if __name__ == "__main__":
    main()
