"""``ffconv predict`` with a checkpoint of image classification: what is in these images?"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Literal

from ffconv.cli.checkpoints import add_device, checkpoint_file, load_checkpoint
from ffconv.cli.main import INPUT_ERROR
from ffconv.cli.parser import CommandParser
from ffconv.cli.progress import shown
from ffconv.errors import require
from ffconv.wording import say


def add_arguments(parser: CommandParser, task: str) -> None:
    """The options beside the checkpoint."""
    parser.add_argument("images", type=Path, help="an image file, or a folder of images")
    parser.add_argument("--top", type=int, default=5, help="how many classes")
    parser.add_argument("--batch_size", type=int, default=32, help="images per batch")
    parser.add_argument("--workers", type=int, default=0, help="processes that read images")
    add_device(parser)
    parser.add_argument("--format", type=Literal["table", "json"], default="table", help="how to print")


def run(arguments: Any) -> int:
    """Prints the predictions; returns 2 if some image could not be read, after those of the others."""
    from ffconv.data.images import ImageFiles
    from ffconv.interop.checkpoint_info import ImageInfo
    from ffconv.tasks.class_prediction import ImagePredictor
    from ffconv.tasks.networks import choose_device

    require(arguments.top > 0, f"top={arguments.top} must be at least 1")
    trained = load_checkpoint(checkpoint_file(arguments.checkpoint), ImageInfo)
    predictor = ImagePredictor(
        trained, choose_device(arguments.device), top=arguments.top, batch_size=arguments.batch_size
    )
    files = ImageFiles(arguments.images)
    batches = predictor.batches(files, workers=arguments.workers, on_error="skip")
    records = [
        {"image": str(files.files[index]), "predictions": predictions}
        for index, predictions in predictor.predict(shown(batches, "predicting", total=len(batches)))
    ]
    _print(records, arguments.format)
    for sample in batches.skipped:
        say(f"ffconv: {sample.name}: {sample.reason}", file=sys.stderr)
    return INPUT_ERROR if batches.skipped else 0


def _print(records: list[dict[str, Any]], form: str) -> None:
    from ffconv.analysis.tables import Table, dump, print_table

    if form == "json":
        sys.stdout.write(dump(records, "json"))
        return
    rows = [
        (record["image"] if rank == 0 else "", found["name"], f"{100 * found['probability']:.2f}")
        for record in records
        for rank, found in enumerate(record["predictions"])
    ]
    print_table(Table("Predictions", ("image", "class", "probability (%)"), rows, left=2))
