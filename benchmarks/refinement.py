"""Compare plain, enlarged and refined fillings on images larger than a network was trained at.

python benchmarks/refinement.py RUN --size 256 [--path DIR] [--limit 24] [--steps 15] [--lr 0.002]

Images are the embedded textures of the validation split, or those below a folder, cut to a square. Each gets
the same thick hole in every run. Enlarged: filled at the training size, and the filling enlarged.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2.functional import center_crop, pil_to_tensor, resize

from ffconv.analysis.tables import Table, print_table
from ffconv.cli.progress import shown
from ffconv.data.images import ImageFiles
from ffconv.data.masks import draw_mask
from ffconv.data.seeding import derive_seed
from ffconv.data.textures import Textures
from ffconv.files import checkpoint_file
from ffconv.interop.checkpoint_info import InpaintingInfo
from ffconv.metrics.similarity import psnr
from ffconv.tasks.filling import Refinement, fill
from ffconv.tasks.networks import load_trained


def square(image: Tensor, size: int) -> Tensor:
    """Scale (3, H, W) of 8 bits to the size by its short side, and cut the middle, in [0, 1]."""
    return center_crop(resize(image, [size], antialias=True), [size, size]).float() / 255


def main() -> None:
    """Print the mean PSNR inside the holes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("run", type=Path, help="run folder or checkpoint of inpainting")
    parser.add_argument("--size", type=int, default=256, help="side of the images")
    parser.add_argument("--path", type=Path, help="folder of images (default: embedded textures)")
    parser.add_argument("--limit", type=int, default=24, help="images")
    parser.add_argument("--steps", type=int, default=Refinement.steps)
    parser.add_argument("--lr", type=float, default=Refinement.lr)
    options = parser.parse_args()
    trained = load_trained(checkpoint_file(options.run), InpaintingInfo)
    side = trained.info.transform.train_size
    refinement = Refinement(options.steps, options.lr, min_side=side)
    samples = Textures("val", options.size) if options.path is None else ImageFiles(options.path)
    count = min(options.limit, len(samples))
    ways = {
        f"plain, at {options.size} px": {},
        f"enlarged from {side} px": {"max_pixels": side**2},
        "refined": {"refinement": refinement},
    }
    scores: dict[str, list[float]] = {way: [] for way in ways}
    for index in shown(range(count), "filling", total=count):
        image = square(pil_to_tensor(samples[index][0]), options.size)
        random = np.random.default_rng(derive_seed("refined hole", index))
        hole = torch.from_numpy(draw_mask(options.size, options.size, "thick", random))
        for way, keywords in ways.items():
            filled = fill(trained.network, image, hole, **keywords)
            scores[way].append(psnr(filled[None], image[None], hole[None, None]).item())
    plain = next(iter(scores.values()))
    rows = []
    for way, values in scores.items():
        gain = np.subtract(values, plain)
        error = gain.std() / count**0.5
        rows.append((way, f"{np.mean(values):.2f}", f"{gain.mean():+.2f} +- {error:.2f}"))
    title = f"Inside the holes of {count} images of {options.size} px"
    print_table(Table(title, ("filling", "PSNR (dB)", "difference (dB)"), rows))


if __name__ == "__main__":
    main()
