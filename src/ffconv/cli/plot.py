"""``ffconv plot``: receptive fields, spectra and training curves as PNG files."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ffconv.cli.checkpoints import checkpoint_file
from ffconv.cli.parser import CommandParser
from ffconv.cli.progress import announced
from ffconv.errors import InputError, require
from ffconv.wording import say

if TYPE_CHECKING:
    from torch import Tensor, nn

HELP = "Receptive fields, spectra and training curves."

_NETWORK = "name[,argument=value,...] of a network, a checkpoint, or a run folder (its best)"


def add_arguments(parser: CommandParser) -> None:
    """The pictures, a subcommand each."""
    pictures = parser.add_subcommands(dest="picture", required=True)
    pictures.add_subcommand("receptive-field", _receptive_field_parser(), help="gradient of centre units")
    pictures.add_subcommand("spectrum", _spectrum_parser(), help="what Fourier Units have learned")
    pictures.add_subcommand("curves", _curves_parser(), help="losses and metrics of runs")


def run(arguments: Any) -> None:
    """Draw the picture and say where it is."""
    from ffconv.files import write_atomically

    draw = {"receptive-field": _receptive_field, "spectrum": _spectrum, "curves": _curves}[arguments.picture]
    options = arguments[arguments.picture]
    with announced(f"computing the {arguments.picture}"):
        picture = draw(options)
    write_atomically(options.output, picture)
    say(str(options.output))


def _receptive_field_parser() -> CommandParser:
    parser = CommandParser(
        description="How strongly each input pixel moves the centre of a layer's map: mean absolute "
        "gradient, log scale. An untrained network's norms first take the statistics of the inputs."
    )
    parser.add_argument(
        "networks",
        nargs="*",
        type=str,
        metavar="MODEL",
        # timm starts residual branches at zero, which would leave the shortcuts alone.
        default=["resnet18,zero_init_last=false", "ffc_resnet18"],
        help=_NETWORK,
    )
    parser.add_argument("--layers", nargs="+", type=str, help="names of layers (default: the stages)")
    _add_input_options(parser, "noise")
    parser.add_argument("--output", type=Path, default=Path("receptive_field.png"), help="PNG file")
    return parser


def _spectrum_parser() -> CommandParser:
    parser = CommandParser(
        description="The spectral weights of Fourier Units, or the frequencies that FFC layers put out."
    )
    parser.add_argument("network", type=str, metavar="MODEL", help=_NETWORK)
    parser.add_argument(
        "--features", action="store_true", help="spectra of local and global channels instead of weights"
    )
    parser.add_argument(
        "--layers", nargs="+", type=str, help="FFC layers for --features (default: one of each map size)"
    )
    _add_input_options(parser, "two photographs that come with scikit-learn")
    parser.add_argument("--output", type=Path, default=Path("spectrum.png"), help="PNG file")
    return parser


def _curves_parser() -> CommandParser:
    parser = CommandParser(description="Losses, learning rate and metrics of runs over their epochs.")
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run folders")
    parser.add_argument("--output", type=Path, default=Path("curves.png"), help="PNG file")
    return parser


def _add_input_options(parser: CommandParser, default: str) -> None:
    parser.add_argument("--images", nargs="+", type=Path, help=f"image files (default: {default})")
    parser.add_argument("--size", type=int, default=224, help="side of the input in pixels")
    parser.add_argument("--seed", type=int, default=0, help="of random weights and of noise")


def _receptive_field(options: Any) -> bytes:
    import torch

    from ffconv.analysis.plots import draw_receptive_fields
    from ffconv.analysis.receptive_field import effective_receptive_field
    from ffconv.analysis.watching import stages

    size = _side(options)
    noise = torch.Generator().manual_seed(options.seed)
    images = _photographs(options) if options.images else torch.randn(8, 3, size, size, generator=noise)
    fields = {}
    for text in options.networks:
        name, network = _network(text, images, options.seed)
        fields[name] = effective_receptive_field(network, images, options.layers or stages(network))
    return draw_receptive_fields(fields)


def _spectrum(options: Any) -> bytes:
    from ffconv.analysis.plots import draw_feature_spectra, draw_spectral_weights
    from ffconv.analysis.spectrum import feature_spectra, spectral_weights

    require(options.features or not options.layers, "--layers chooses among the layers of --features")
    images = _photographs(options)
    name, network = _network(options.network, images, options.seed)
    if options.features:
        return draw_feature_spectra(name, feature_spectra(network, images, options.layers))
    return draw_spectral_weights(name, spectral_weights(network))


def _curves(options: Any) -> bytes:
    from ffconv.training.curves import draw_curves

    return draw_curves({str(run): _metrics(run) for run in options.runs})


def _metrics(run: Path) -> list[dict[str, float]]:
    """The rows of a run's metrics.csv."""
    from ffconv.files import read_text
    from ffconv.training.folder import METRICS

    require((run / METRICS).exists(), f"{run} is no run folder with a finished epoch: it has no {METRICS}")
    lines = read_text(run / METRICS).splitlines()
    try:
        rows = [
            {column: float(text) for column, text in row.items() if text} for row in csv.DictReader(lines)
        ]
    except (ValueError, TypeError, csv.Error) as error:
        raise InputError(f"{run / METRICS} is damaged: {error}") from error
    require(bool(rows), f"{run / METRICS} has no row yet")
    return rows


def _network(text: str, images: Tensor, seed: int) -> tuple[str, nn.Module]:
    """A trained network from a file or a run folder, or an untrained one by name."""
    import torch

    from ffconv.analysis.networks import NetworkSpec, takes_clips
    from ffconv.analysis.watching import calibrate_norms
    from ffconv.interop.checkpoint_info import ImageInfo
    from ffconv.tasks.networks import load_trained

    path = Path(text)
    if path.exists():
        return path.stem, load_trained(checkpoint_file(path), ImageInfo).network
    spec = NetworkSpec.parse(text)
    torch.manual_seed(seed)
    network = spec.build()
    require(not takes_clips(network), f"{spec} takes clips: these plots are of networks of images")
    calibrate_norms(network, images)
    return str(spec), network


def _photographs(options: Any) -> Tensor:
    """The given images, or two that come with scikit-learn, as ImageNet networks take them."""
    import torch
    from PIL import Image

    from ffconv.data.decoding import read_image
    from ffconv.data.transforms import ImageTransformConfig, eval_transform

    size = _side(options)
    if options.images:
        pictures = [read_image(path) for path in options.images]
    else:
        from sklearn.datasets import load_sample_images

        pictures = [Image.fromarray(pixels) for pixels in load_sample_images().images]
    prepare = eval_transform(ImageTransformConfig(eval_short_side=size, eval_size=size))
    return torch.stack([prepare(picture) for picture in pictures])


def _side(options: Any) -> int:
    require(options.size > 0, f"size={options.size} must be positive")
    return options.size
