"""``ffconv inpaint``: fill the holes of images."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ffconv.cli.checkpoints import add_device, checkpoint_file
from ffconv.cli.main import INPUT_ERROR
from ffconv.cli.progress import shown
from ffconv.errors import InputError, require
from ffconv.files import make_folder, write_atomically
from ffconv.wording import counted, say

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from ffconv.cli.parser import CommandParser
    from ffconv.data.image_masks import MaskedImage
    from ffconv.tasks.hole_pictures import ContactSheet
    from ffconv.tasks.inpaint import InpaintConfig

HELP = "Fill the holes of an image, or of each image of a folder; the other pixels stay as they are."


def add_arguments(parser: CommandParser) -> None:
    """Add the options of the command."""
    from ffconv.data.image_masks import MaskMeaning
    from ffconv.tasks.filling import Refinement
    from ffconv.tasks.inpaint import InpaintConfig

    parser.add_argument("image", type=Path, help="an image file, or a folder of images")
    parser.add_argument(
        "mask",
        type=Path,
        nargs="?",
        help="white where the image is to be filled: a file, or a folder with a.png or a_mask*.png for a.jpg",
    )
    parser.add_argument("-o", "--output", type=Path, required=True, help="file to write, or folder")
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
        "--box",
        nargs=4,
        action="append",
        default=[],
        metavar=("X0", "Y0", "X1", "Y1"),
        help="fill this rectangle of pixels, x1 and y1 one past the last; may be repeated",
    )
    parser.add_argument(
        "--polygon",
        nargs="+",
        action="append",
        default=[],
        metavar="X0 Y0 X1 Y1 X2 Y2",
        help="fill this polygon; may be repeated",
    )
    parser.add_argument(
        "--mask_is",
        type=MaskMeaning,
        default="white",
        help="which pixels of a mask are the hole: white ones, or, of a mask with transparency, the opaque"
        " (painted) or the transparent (erased) ones",
    )
    parser.add_class_arguments(InpaintConfig, None, skip={"refinement"})
    parser.add_argument(
        "--refine", action="store_true", help="refine over an image pyramid: better large holes, much slower"
    )
    parser.add_class_arguments(Refinement, "refinement")
    parser.add_argument("--resume", action="store_true", help="skip images whose output is there already")
    parser.add_argument(
        "--sheet", type=Path, default=None, help="write a contact sheet: photograph, hole and result in a row"
    )
    add_device(parser)


def run(arguments: Any) -> int:
    """Write the filled images; return 2 if some could not be read, after the others."""
    from ffconv.data.image_masks import masked_images
    from ffconv.tasks.filling import Refinement, load_filler
    from ffconv.tasks.hole_pictures import ContactSheet
    from ffconv.tasks.inpaint import InpaintConfig
    from ffconv.training.config import LoopConfig
    from ffconv.training.processes import start_accelerator

    names = ("strategy", "max_pixels", "margin", "dilate", "feather")
    config = InpaintConfig(
        **{name: getattr(arguments, name) for name in names},
        refinement=Refinement(**vars(arguments.refinement)) if arguments.refine else None,
    )
    holes = _Holes(arguments)
    pairs = masked_images(arguments.image, arguments.mask)
    targets = _targets(pairs, arguments)
    sheet = ContactSheet(arguments.sheet) if arguments.sheet else None
    done = {target for target in targets if arguments.resume and target.exists()}
    network: Any = None
    if len(done) < len(targets):
        device = start_accelerator(LoopConfig(device=arguments.device)).device
        network = load_filler(checkpoint_file(arguments.checkpoint), arguments.arguments).to(device)
    failures = []
    for pair, target in shown(zip(pairs, targets, strict=True), "filling", total=len(pairs)):
        try:
            if target not in done:
                _fill_file(network, pair, target, holes, config)
            if sheet is not None:
                _add_row(sheet, pair, target, holes, config)
        except InputError as error:
            failures.append(str(error))
    if sheet is not None:
        sheet.finish()
    for failure in failures:
        say(f"ffconv: {failure}", file=sys.stderr)
    if done:
        say(f"{counted(len(done), 'image')} skipped: the filled ones are there")
    if written := len(pairs) - len(done) - len(failures):
        say(f"{counted(written, 'filled image')} in {arguments.output}")
    return INPUT_ERROR if failures else 0


class _Holes:
    """Masks, boxes and polygons of the command line."""

    def __init__(self, arguments: Any) -> None:
        self._boxes = [_numbers("--box", words) for words in arguments.box]
        self._polygons = [_numbers("--polygon", words) for words in arguments.polygon]
        self._mask_is = arguments.mask_is
        given = arguments.mask is not None or self._boxes or self._polygons
        require(bool(given), "there is no hole to fill: give a mask, --box or --polygon")

    def read(self, pair: MaskedImage, size: tuple[int, int]) -> np.ndarray:
        """Return the hole of an image of this width and height."""
        from ffconv.tasks.inpaint import read_hole

        return read_hole(
            pair.read_mask(),
            size,
            boxes=self._boxes,
            polygons=self._polygons,
            mask_is=self._mask_is,
            name=str(pair.mask),
        )


def _numbers(option: str, words: Sequence[str]) -> list[float]:
    try:
        return [float(word) for word in words]
    except ValueError:
        raise InputError(f"{option} {' '.join(words)} must be numbers of pixels") from None


def _targets(pairs: list[MaskedImage], arguments: Any) -> list[Path]:
    """Return the file each filled image goes to; their folders are made."""
    from ffconv.data.photos import FORMATS, extension_of_copy

    single = arguments.image.is_file() and not arguments.output.is_dir() and arguments.output.suffix
    if single:
        known = arguments.output.suffix.lower() in FORMATS
        require(known, f"{arguments.output}: images are written as {' '.join(FORMATS)}")
        targets = [arguments.output]
    else:
        targets = [arguments.output / f"{pair.name}{extension_of_copy(pair.image)}" for pair in pairs]
    inputs = {path.resolve() for pair in pairs for path in (pair.image, pair.mask) if path is not None}
    for target in targets:
        require(target.resolve() not in inputs, f"{target} would be overwritten: choose another --output")
    twice = [target for target, number in Counter(targets).items() if number > 1]
    require(not twice, f"several images would be written to {twice[:1]}: give them different names")
    for folder in {target.parent for target in targets}:
        make_folder(folder)
    return targets


def _fill_file(
    network: nn.Module, pair: MaskedImage, target: Path, holes: _Holes, config: InpaintConfig
) -> None:
    from ffconv.data.photos import read_photo
    from ffconv.tasks.inpaint import inpaint_image

    photo = read_photo(pair.image)
    hole = holes.read(pair, photo.image.size)
    if rule := config.describe(config.grow(hole)[0]):
        say(f"{pair.image}: {rule}")
    filled = inpaint_image(network, photo.image, hole, config)
    write_atomically(target, photo.encode(filled, target.suffix))


def _add_row(
    sheet: ContactSheet, pair: MaskedImage, target: Path, holes: _Holes, config: InpaintConfig
) -> None:
    from ffconv.data.decoding import read_image

    image = read_image(pair.image)
    hole, _ = config.grow(holes.read(pair, image.size))
    sheet.add(pair.name, image, hole, read_image(target))
