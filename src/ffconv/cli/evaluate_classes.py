"""``ffconv evaluate`` for networks that name a class: of an image, or of a video."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

from ffconv.cli.checkpoints import checkpoint_file
from ffconv.cli.parser import CommandParser, from_plain
from ffconv.cli.recipes import merged

if TYPE_CHECKING:
    from ffconv.metrics.classification import ClassificationScores

#: What each task counts.
_SAMPLES = {"classification": "images", "action": "videos"}


def add_arguments(parser: CommandParser, task: str) -> None:
    """The data options of the task."""
    parser.add_class_arguments(_data_config(task), "data")


def run(arguments: Any) -> int:
    """Prints the scores and writes their tables."""
    import torch

    from ffconv.tasks import task_kind
    from ffconv.tasks.classification import load_classifier
    from ffconv.training.config import LoopConfig
    from ffconv.training.processes import share_of, start_accelerator

    path = checkpoint_file(arguments.checkpoint, arguments.weights)
    classifier = load_classifier(path, task=arguments.task)
    values = merged(classifier.data, arguments.given.get("data", {}))
    data = from_plain(_data_config(arguments.task), values, section="data")
    accelerator = start_accelerator(LoopConfig(precision=arguments.precision, device=arguments.device))
    kind = task_kind(arguments.task)
    task = kind.task(
        kind.config(data=data, limit=arguments.limit),
        share_of(accelerator, arguments.batch_size),
        classes=classifier.classes,
    )
    with torch.no_grad(), accelerator.autocast():
        scores = task.scores(classifier.network.to(accelerator.device), arguments.split)
    if accelerator.is_main_process:
        output = arguments.output or path.parent / f"{path.stem}-{arguments.split}"
        _report(scores, output, dict(task.skipped()), _SAMPLES[arguments.task])
    return 0


def _data_config(task: str) -> Any:
    from ffconv.tasks import task_kind

    return get_type_hints(task_kind(task).config)["data"]


def _report(scores: ClassificationScores, output: Path, skipped: dict[str, str], samples: str) -> None:
    from ffconv.metrics.classification import write_per_class
    from ffconv.tasks.confusion import draw_confusion
    from ffconv.training.checkpoint import write_atomically

    output.mkdir(parents=True, exist_ok=True)
    write_per_class(scores, output / "per_class.csv")
    write_atomically(output / "confusion.png", draw_confusion(scores))
    summary = {samples: scores.samples, **scores.as_dict(), "skipped": skipped}
    write_atomically(output / "scores.json", json.dumps(summary, indent=2).encode())
    print(
        f"top-1 {scores.top1:.3f} %  top-5 {scores.top5:.3f} %  loss {scores.loss:.4f}"
        f"  over {scores.samples} {samples}"
        + (f", {len(skipped)} unreadable ones left out" if skipped else "")
    )
    print(f"per_class.csv, confusion.png and scores.json are in {output}")
