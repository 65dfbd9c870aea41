"""What filling holes without learning gives, beside trained networks, on the same images and holes.

python benchmarks/trivial_fillers.py RUN ... [--path DIR] [--limit 1920]

Images are the embedded textures or those of --path, prepared and with holes as in the first run's training.
Mean colour: that of an image's known pixels. Smooth continuation: inside the hole each pixel becomes the mean
of its four neighbours, again and again, from the mean colour on (Laplace's equation).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ffconv.analysis.tables import Table, print_table
from ffconv.cli.checkpoints import checkpoint_file
from ffconv.data.config import DataConfig
from ffconv.interop.checkpoint_info import InpaintingInfo
from ffconv.tasks.inpainting import Inpainting, InpaintingConfig
from ffconv.tasks.networks import load_trained
from ffconv.training.task import Share


class MeanColour(nn.Module):
    """(N, 4, H, W), image with its hole at 0 and mask -> (N, 3, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        known, mask = x[:, :3], x[:, 3:]
        mean = known.sum((2, 3), keepdim=True) / (1 - mask).sum((2, 3), keepdim=True)
        return known + mask * mean


class SmoothContinuation(nn.Module):
    """The same shapes as :class:`MeanColour`.

    Args:
        steps: how often neighbours are averaged; a hole's width squared is enough.
    """

    def __init__(self, steps: int = 2000) -> None:
        super().__init__()
        self.steps = steps
        self.start = MeanColour()

    def forward(self, x: Tensor) -> Tensor:
        hole = x[:, 3:] > 0
        filled = self.start(x)
        for _ in range(self.steps):
            around = F.pad(filled, (1, 1, 1, 1), mode="replicate")
            mean = (
                around[..., :-2, 1:-1]
                + around[..., 2:, 1:-1]
                + around[..., 1:-1, :-2]
                + around[..., 1:-1, 2:]
            ) / 4
            filled = torch.where(hole, mean, filled)
        return filled


def main() -> None:
    """Prints a line for each filler."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="run folders or checkpoints")
    parser.add_argument("--path", help="folder of images, with val/ (default: the embedded textures)")
    parser.add_argument("--limit", type=int, help="images of the split, spread over it (default: all)")
    options = parser.parse_args()
    trained = {str(run): load_trained(checkpoint_file(run), InpaintingInfo) for run in options.runs}
    first = next(iter(trained.values()))
    where = {"format": "textures"} if options.path is None else {"path": options.path}
    data, masks = DataConfig(transform=first.info.transform, **where), first.info.masks
    task = Inpainting(InpaintingConfig(data=data, masks=masks, limit=options.limit), Share(batch_size=32))
    fillers = {"mean colour": MeanColour(), "smooth continuation": SmoothContinuation()}
    fillers |= {name: run.network for name, run in trained.items()}
    with torch.no_grad():
        scores = {name: task.scores(filler, "val") for name, filler in fillers.items()}
    rows = [
        (
            name,
            *(f"{score.hole_psnr:.2f}" for score in (found.all, *found.by_kind.values())),
            f"{found.all.hole_ssim:.3f}",
            f"{found.all.hole_l1:.2f}",
        )
        for name, found in scores.items()
    ]
    columns = ("filler", "PSNR (dB)", *(f"{kind} (dB)" for kind in masks.kinds), "SSIM", "L1 (%)")
    print_table(Table("Inside the holes", columns, rows))


if __name__ == "__main__":
    main()
