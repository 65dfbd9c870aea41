"""``ffconv inpaint``: fills the holes of images."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ffconv.cli.checkpoints import add_device, checkpoint_file
from ffconv.cli.main import INPUT_ERROR
from ffconv.cli.progress import shown
from ffconv.errors import InputError, require
from ffconv.files import make_folder, write_atomically
from ffconv.pictures import encoded
from ffconv.wording import counted

if TYPE_CHECKING:
    import torch
    from torch import nn

    from ffconv.cli.parser import CommandParser
    from ffconv.data.image_masks import MaskedImage

HELP = "Fills the holes of an image, or of each image of a folder; the other pixels stay as they are."

MAX_PIXELS = 2**21


def add_arguments(parser: CommandParser) -> None:
    """The options of the command."""
    parser.add_argument("image", type=Path, help="an image file, or a folder of images")
    parser.add_argument(
        "mask",
        type=Path,
        help="white where the image is to be filled: a file, or a folder with a.png or a_mask*.png for a.jpg",
    )
    parser.add_argument(
        "-o", "--output", type=Path, required=True, help="PNG file to write, or folder of such"
    )
    parser.add_argument(
        "--checkpoint",
        type=Path,
        required=True,
        help="a .safetensors checkpoint of ours, a run folder (its best), a package, or LaMa's best.ckpt,"
        " its folder, safetensors of it or its TorchScript file",
    )
    parser.add_argument(
        "--arguments",
        type=dict[str, Any],
        default={},
        help="of LaMa's network where its weights do not tell, as in {fft_norm: forward}",
    )
    parser.add_argument(
        "--max_pixels",
        type=int,
        default=MAX_PIXELS,
        help="larger images are filled at this size and the filling enlarged: bounds memory",
    )
    add_device(parser)


def run(arguments: Any) -> int:
    """Writes the filled images; returns 2 if some could not be read, after the others."""
    from ffconv.data.image_masks import masked_images
    from ffconv.tasks.filling import load_filler
    from ffconv.training.config import LoopConfig
    from ffconv.training.processes import start_accelerator

    require(arguments.max_pixels > 0, f"max_pixels={arguments.max_pixels} must be at least 1")
    pairs = masked_images(arguments.image, arguments.mask)
    targets = _targets(pairs, arguments)
    device = start_accelerator(LoopConfig(device=arguments.device)).device
    network = load_filler(checkpoint_file(arguments.checkpoint), arguments.arguments).to(device)
    failures = []
    for pair, target in shown(zip(pairs, targets, strict=True), "filling", total=len(pairs)):
        try:
            _fill_file(network, pair, target, max_pixels=arguments.max_pixels, device=device)
        except InputError as error:
            failures.append(str(error))
    for failure in failures:
        print(f"ffconv: {failure}", file=sys.stderr)
    written = len(pairs) - len(failures)
    if written:
        print(f"{counted(written, 'filled image')} in {arguments.output}")
    return INPUT_ERROR if failures else 0


def _targets(pairs: list[MaskedImage], arguments: Any) -> list[Path]:
    """The file each filled image goes to; their folders are made."""
    single = arguments.image.is_file() and not arguments.output.is_dir() and arguments.output.suffix
    if single:
        require(
            arguments.output.suffix.lower() == ".png",
            f"{arguments.output} must be a .png file, which keeps the known pixels exactly",
        )
        targets = [arguments.output]
    else:
        targets = [arguments.output / f"{pair.name}.png" for pair in pairs]
    for target, pair in zip(targets, pairs, strict=True):
        taken = target.resolve() in (pair.image.resolve(), pair.mask.resolve())
        require(not taken, f"{target} would be overwritten: choose another --output")
    twice = [target for target in targets if targets.count(target) > 1]
    require(not twice, f"several images would be written to {twice[:1]}: give them different names")
    for folder in {target.parent for target in targets}:
        make_folder(folder)
    return targets


def _fill_file(
    network: nn.Module, pair: MaskedImage, target: Path, *, max_pixels: int, device: torch.device
) -> None:
    import numpy as np
    import torch
    from PIL import Image
    from torchvision.transforms.v2.functional import pil_to_tensor

    from ffconv.tasks.filling import fill

    image, hole = pair.read()
    if image.width * image.height > max_pixels:
        print(
            f"{pair.image}: {image.width}x{image.height} px is above --max_pixels {max_pixels}:"
            " filled at that size and enlarged"
        )
    pixels = pil_to_tensor(image).to(device).float() / 255
    filled = fill(network, pixels, torch.from_numpy(hole).to(device), max_pixels=max_pixels)
    drawn = (filled * 255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
    result = np.where(hole[..., None], drawn, np.asarray(image))
    write_atomically(target, encoded(Image.fromarray(result)))
