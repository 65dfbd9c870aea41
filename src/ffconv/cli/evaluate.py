"""``ffconv evaluate``: what a checkpoint is worth on exactly the images of a set."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ffconv.cli.parser import CommandParser, from_plain
from ffconv.cli.recipes import merged
from ffconv.errors import require

if TYPE_CHECKING:
    from ffconv.metrics.classification import ClassificationScores

HELP = "Top-1 and top-5 of a checkpoint, its accuracy per class and its confusion matrix."


def parse(parser: CommandParser, argv: Sequence[str]) -> Any:
    """Keeps of the data options only those given: the others are the checkpoint's."""
    from ffconv.data.config import DataConfig

    parser.add_argument("checkpoint", type=Path, help="a .safetensors checkpoint, or a run folder (its best)")
    parser.add_argument(
        "--weights", type=Literal["best", "last"], default="best", help="which of a run folder"
    )
    parser.add_argument("--split", type=Literal["train", "val"], default="val", help="which images")
    parser.add_argument("--batch_size", type=int, default=64, help="images per batch and process")
    parser.add_argument(
        "--precision", type=Literal["no", "bf16", "fp16"], default="no", help="mixed precision"
    )
    parser.add_argument(
        "--device", type=Literal["auto", "cpu"], default="auto", help="where the network runs"
    )
    parser.add_argument("--limit", type=int | None, default=None, help="no more than this many images")
    parser.add_argument(
        "--output", type=Path | None, default=None, help="folder of the tables and the picture"
    )
    parser.add_class_arguments(DataConfig, "data")
    arguments = parser.parse_args(argv)
    arguments.given_data = parser.parse_args(argv, defaults=False).as_dict().get("data", {})
    return arguments


def run(arguments: Any) -> int:
    """Evaluates; under torchrun or accelerate launch the processes share the images."""
    import torch

    from ffconv.data.config import DataConfig
    from ffconv.tasks.classification import Classification, ClassificationConfig, load_classifier
    from ffconv.training.config import LoopConfig
    from ffconv.training.processes import share_of, start_accelerator

    require(arguments.batch_size > 0, f"batch_size={arguments.batch_size} must be at least 1")
    path = checkpoint_file(arguments.checkpoint, arguments.weights)
    classifier = load_classifier(path)
    data = from_plain(DataConfig, merged(classifier.data, arguments.given_data), section="data")
    accelerator = start_accelerator(LoopConfig(precision=arguments.precision, device=arguments.device))
    task = Classification(
        ClassificationConfig(data=data, limit=arguments.limit),
        share_of(accelerator, arguments.batch_size),
        classes=classifier.classes,
    )
    with torch.no_grad(), accelerator.autocast():
        scores = task.scores(classifier.network.to(accelerator.device), arguments.split)
    skipped = dict(task.skipped())
    if accelerator.is_main_process:
        output = arguments.output or path.parent / f"{path.stem}-{arguments.split}"
        _report(scores, output, skipped)
    return 0


def checkpoint_file(path: Path, weights: str = "best") -> Path:
    """The checkpoint itself, or that of a run folder."""
    return path / f"{weights}.safetensors" if path.is_dir() else path


def _report(scores: ClassificationScores, output: Path, skipped: dict[str, str]) -> None:
    from ffconv.metrics.classification import write_per_class
    from ffconv.tasks.confusion import draw_confusion
    from ffconv.training.checkpoint import write_atomically

    output.mkdir(parents=True, exist_ok=True)
    write_per_class(scores, output / "per_class.csv")
    write_atomically(output / "confusion.png", draw_confusion(scores))
    summary = {"images": scores.samples, **scores.as_dict(), "skipped": skipped}
    write_atomically(output / "scores.json", json.dumps(summary, indent=2).encode())
    print(
        f"top-1 {scores.top1:.3f} %  top-5 {scores.top5:.3f} %  loss {scores.loss:.4f}"
        f"  over {scores.samples} images" + (f", {len(skipped)} unreadable ones left out" if skipped else "")
    )
    print(f"per_class.csv, confusion.png and scores.json are in {output}")
