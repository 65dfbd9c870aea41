"""``ffconv evaluate`` for networks that fill holes."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ffconv.cli.checkpoints import checkpoint_file
from ffconv.cli.parser import CommandParser, from_plain
from ffconv.cli.recipes import merged

if TYPE_CHECKING:
    from ffconv.metrics.inpainting import InpaintingScores


def add_arguments(parser: CommandParser, task: str) -> None:
    """The options of the images and their holes."""
    from ffconv.data.config import DataConfig
    from ffconv.data.masks import MaskConfig

    parser.add_class_arguments(DataConfig, "data")
    parser.add_class_arguments(MaskConfig, "masks")


def run(arguments: Any) -> int:
    """Prints the scores, writes them and a picture of the first images."""
    import torch

    from ffconv.data.config import DataConfig
    from ffconv.data.masks import MaskConfig
    from ffconv.tasks.inpainting import Inpainting, InpaintingConfig, load_inpainter
    from ffconv.training.config import LoopConfig
    from ffconv.training.processes import share_of, start_accelerator

    path = checkpoint_file(arguments.checkpoint, arguments.weights)
    trained, given = load_inpainter(path), arguments.given
    data = from_plain(DataConfig, merged(trained.data, given.get("data", {})), section="data")
    masks = from_plain(MaskConfig, merged(trained.masks, given.get("masks", {})), section="masks")
    accelerator = start_accelerator(LoopConfig(precision=arguments.precision, device=arguments.device))
    task = Inpainting(
        InpaintingConfig(data=data, masks=masks, limit=arguments.limit),
        share_of(accelerator, arguments.batch_size),
    )
    network = trained.network.to(accelerator.device)
    with torch.no_grad(), accelerator.autocast():
        scores = task.scores(network, arguments.split)
        pictures = task.pictures(network, arguments.split) if accelerator.is_main_process else {}
    if accelerator.is_main_process:
        output = arguments.output or path.parent / f"{path.stem}-{arguments.split}"
        _report(scores, output, dict(task.skipped()), pictures)
    return 0


def _report(
    scores: InpaintingScores, output: Path, skipped: dict[str, str], pictures: Mapping[str, bytes]
) -> None:
    from ffconv.analysis.tables import Table, print_table
    from ffconv.training.checkpoint import write_atomically

    output.mkdir(parents=True, exist_ok=True)
    kinds = {kind: dataclasses.asdict(score) for kind, score in scores.by_kind.items()}
    summary = {"all": dataclasses.asdict(scores.all), **kinds, "skipped": skipped}
    write_atomically(output / "scores.json", json.dumps(summary, indent=2).encode())
    for name, picture in pictures.items():
        write_atomically(output / name, picture)
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
    left_out = f", {len(skipped)} unreadable images left out" if skipped else ""
    print(f"scores.json and samples.png are in {output}{left_out}")
