"""Top-1 of a trained network after conversion: at once, recalibrated, fine-tuned, and beside training anew.

python benchmarks/converted_networks.py [--data FOLDER --size 64 --per_class 200] [--ratios 0.25 0.5]

Without a folder the embedded digits are used. A folder holds train/ and val/ with one folder a class.
"""

from __future__ import annotations

import argparse
import copy
from pathlib import Path
from typing import Any

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

import ffconv
from ffconv.analysis.tables import Table, print_table
from ffconv.data.embedded import Digits

_BATCH = 64
_CALIBRATION_IMAGES = 256


def load(folder: Path | None, split: Any, size: int, per_class: int) -> tuple[Tensor, Tensor]:
    """Images (N, 3, size, size) in [-1, 1] and labels of a split, at most so many of each class."""
    samples = Digits(split, size) if folder is None else ImageFolder(folder / split)
    labels = torch.as_tensor(samples.labels if isinstance(samples, Digits) else samples.targets)
    chosen = torch.cat([(labels == label).nonzero()[:per_class, 0] for label in labels.unique()])
    prepare = v2.Compose([v2.PILToTensor(), v2.Resize(size), v2.CenterCrop(size)])
    images = torch.stack([prepare(samples[index][0]) for index in chosen.tolist()])
    return images.float() / 127.5 - 1, labels[chosen]


def train(network: nn.Module, images: Tensor, labels: Tensor, *, epochs: int, peak: float) -> None:
    """SGD with momentum .9, one cycle of the learning rate; shifts by up to an eighth of the side."""
    torch.manual_seed(0)
    optimizer = torch.optim.SGD(network.parameters(), peak, momentum=0.9, weight_decay=5e-4, nesterov=True)
    steps = epochs * -(-len(images) // _BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, peak, total_steps=steps, pct_start=0.2)
    reach = images.shape[-1] // 8
    network.train()
    for _ in range(epochs):
        for chosen in torch.randperm(len(images)).split(_BATCH):
            shift = torch.randint(-reach, reach + 1, (2,)).tolist()
            loss = F.cross_entropy(network(images[chosen].roll(shift, (2, 3))), labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()


def top1(network: nn.Module, images: Tensor, labels: Tensor) -> str:
    """Accuracy in evaluation mode, in per cent."""
    network.eval()
    with torch.no_grad():
        scores = torch.cat([network(batch) for batch in images.split(256)])
    return f"{100 * float((scores.argmax(1) == labels).float().mean()):.1f}"


def main() -> None:
    """Trains the plain network, then prints a row for each ratio and start."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder; by default the embedded digits")
    parser.add_argument("--size", type=int, default=32, help="side of the images")
    parser.add_argument("--per_class", type=int, default=10**6, help="images of a class, at most")
    parser.add_argument("--ratios", type=float, nargs="+", default=[0.125, 0.25, 0.5])
    parser.add_argument("--epochs", type=int, default=8, help="of the plain network")
    parser.add_argument("--tune", type=int, default=1, help="epochs of fine-tuning, and of training anew")
    options = parser.parse_args()
    data = (options.data, "train", options.size, options.per_class)
    images, labels = load(*data)
    val = load(options.data, "val", options.size, options.per_class)
    calibration = images[torch.randperm(len(images), generator=torch.Generator().manual_seed(0))]
    calibration = calibration[:_CALIBRATION_IMAGES]

    def build() -> nn.Module:
        torch.manual_seed(0)
        classes = len(labels.unique())
        return timm.create_model("resnet18", num_classes=classes, channels=(32, 64, 128, 256))

    def tuned(network: nn.Module, peak: float) -> str:
        train(network, images, labels, epochs=options.tune, peak=peak)
        return top1(ffconv.recalibrate(network, calibration), *val)

    plain = build()
    train(plain, images, labels, epochs=options.epochs, peak=0.1)
    print(f"plain, {options.epochs} epochs: top-1 {top1(plain, *val)} %", flush=True)
    rows = []
    for ratio in options.ratios:
        for zero in (False, True):
            torch.manual_seed(0)
            network = copy.deepcopy(plain)
            ffconv.convert(network, ratio, zero_init_spectral=zero, example_input=images[:1])
            figures = [top1(network, *val), top1(ffconv.recalibrate(network, calibration), *val)]
            figures.append(tuned(network, 0.02))
            rows.append((f"{ratio:g}", "zero" if zero else "random", *figures))
            print(*rows[-1], flush=True)
        anew = ffconv.convert(build(), ratio, example_input=images[:1])
        rows.append((f"{ratio:g}", "all anew", "", "", tuned(anew, 0.1)))
        print(*rows[-1], flush=True)
    columns = ("ratio", "start", "converted", "recalibrated", f"{options.tune} epoch(s) of training")
    print_table(Table("Top-1 (%) of FFC networks", columns, rows, left=2))


if __name__ == "__main__":
    main()
