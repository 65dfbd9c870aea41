"""``ffconv evaluate`` for networks that fill holes."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import TYPE_CHECKING, Any

from ffconv.cli.checkpoints import checkpoint_file, load_checkpoint
from ffconv.cli.evaluation import Evaluated, evaluate, section_of
from ffconv.cli.parser import CommandParser
from ffconv.files import write_atomically
from ffconv.wording import say

if TYPE_CHECKING:
    from torch import nn


def add_arguments(parser: CommandParser, task: str) -> None:
    """The options of the images and their holes."""
    from ffconv.data.config import DataConfig
    from ffconv.data.masks import MaskConfig

    parser.add_class_arguments(DataConfig, "data")
    parser.add_class_arguments(MaskConfig, "masks")


def run(arguments: Any) -> int:
    """Prints the scores, writes them and a picture of the first images."""
    from ffconv.data.config import DataConfig
    from ffconv.data.masks import MaskConfig
    from ffconv.interop.checkpoint_info import InpaintingInfo
    from ffconv.tasks.inpainting import Inpainting, InpaintingConfig
    from ffconv.training.config import plain

    path = checkpoint_file(arguments.checkpoint, arguments.weights)
    trained, info = load_checkpoint(path, InpaintingInfo)
    prepared = {"transform": plain(info.transform)}
    config = InpaintingConfig(
        data=section_of(arguments, DataConfig, prepared, section="data"),
        masks=section_of(arguments, MaskConfig, plain(info.masks), section="masks"),
        limit=arguments.limit,
    )

    def score(task: Inpainting, network: nn.Module) -> Any:
        return task.scores(network, arguments.split), task.pictures(network, arguments.split)

    make_task = partial(Inpainting, config)
    return evaluate(arguments, trained, config, make_task, score, report=_report)


def _report(found: Evaluated) -> None:
    from ffconv.analysis.tables import Table, print_table

    scores, pictures = found.scores
    kinds = {kind: dataclasses.asdict(score) for kind, score in scores.by_kind.items()}
    found.write_scores({"all": dataclasses.asdict(scores.all), **kinds})
    for name, picture in pictures.items():
        write_atomically(found.output / name, picture)
    columns = ("holes", "images", "PSNR in the hole (dB)", "PSNR (dB)", "SSIM in the hole", "SSIM", "L1 (%)")
    rows = [
        (
            name,
            str(score.samples),
            f"{score.hole_psnr:.2f}",
            f"{score.psnr:.2f}",
            f"{score.hole_ssim:.4f}",
            f"{score.ssim:.4f}",
            f"{score.hole_l1:.2f}",
        )
        for name, score in {"all": scores.all, **scores.by_kind}.items()
    ]
    print_table(Table("Filled holes", columns, rows, left=1))
    say(f"scores.json and samples.png are in {found.output}{found.left_out('image')}")
