"""``ffconv predict``: what is in these images?"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ffconv.cli.evaluate import checkpoint_file
from ffconv.cli.main import INPUT_ERROR
from ffconv.cli.parser import CommandParser, from_plain
from ffconv.errors import require

if TYPE_CHECKING:
    import torch

    from ffconv.tasks.classification import Classifier
    from ffconv.training.task import Batch

HELP = "The most likely classes of an image, or of each image below a folder."

_WORDNET_ID = re.compile(r"n\d{8}")


def add_arguments(parser: CommandParser) -> None:
    """The options of the command."""
    parser.add_argument("checkpoint", type=Path, help="a .safetensors checkpoint, or a run folder (its best)")
    parser.add_argument("images", type=Path, help="an image file, or a folder of images")
    parser.add_argument("--top", type=int, default=5, help="how many classes")
    parser.add_argument("--batch_size", type=int, default=32, help="images per batch")
    parser.add_argument("--workers", type=int, default=0, help="processes that read images")
    parser.add_argument(
        "--device", type=Literal["auto", "cpu"], default="auto", help="where the network runs"
    )
    parser.add_argument("--format", type=Literal["table", "json"], default="table", help="how to print")


def run(arguments: Any) -> int:
    """Prints the predictions; returns 2 if some image could not be read, after those of the others."""
    from ffconv.data.images import ImageFiles
    from ffconv.data.loading import LoaderSpec, eval_batches
    from ffconv.data.transforms import ImageTransformConfig, PrepareImage, eval_transform
    from ffconv.tasks.classification import load_classifier
    from ffconv.training.config import LoopConfig
    from ffconv.training.processes import start_accelerator

    require(arguments.top > 0, f"top={arguments.top} must be at least 1")
    classifier = load_classifier(checkpoint_file(arguments.checkpoint))
    files = ImageFiles(arguments.images)
    transform = from_plain(ImageTransformConfig, classifier.data["transform"], section="data.transform")
    spec = LoaderSpec(batch_size=arguments.batch_size, workers=arguments.workers, on_error="skip")
    batches = eval_batches(files, PrepareImage(eval_transform(transform)), spec=spec)
    device = start_accelerator(LoopConfig(device=arguments.device)).device
    records = [
        {"image": str(files.files[index]), "predictions": predictions}
        for index, predictions in _predict(classifier, batches, top=arguments.top, device=device)
    ]
    _print(records, arguments.format)
    for sample in batches.skipped:
        print(f"ffconv: {sample.name}: {sample.reason}", file=sys.stderr)
    return INPUT_ERROR if batches.skipped else 0


def _predict(
    classifier: Classifier, batches: Iterable[Batch], *, top: int, device: torch.device
) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """For each image its index and its most likely classes, the likeliest first."""
    import torch

    network = classifier.network.to(device)
    titles = class_titles(classifier.classes)
    for batch in batches:
        with torch.no_grad():
            chances = network(batch["image"].to(device)).float().softmax(1).cpu()
        values, labels = chances.topk(min(top, len(titles)))
        for index, chosen, likely in zip(batch["index"], labels, values, strict=True):
            yield (
                int(index),
                [
                    {
                        "class": classifier.classes[label],
                        "name": titles[label],
                        "probability": round(value, 6),
                    }
                    for label, value in zip(chosen.tolist(), likely.tolist(), strict=True)
                ],
            )


def class_titles(classes: Sequence[str]) -> list[str]:
    """What people call the classes: ImageNet's words where the names are WordNet ids, else the names.

    Example:
        >>> class_titles(["n01440764", "n02979186"])
        ['tench, Tinca tinca', 'cassette player']
        >>> class_titles(["cat", "dog"])
        ['cat', 'dog']
    """
    if not all(_WORDNET_ID.fullmatch(name) for name in classes):
        return list(classes)
    from timm.data import ImageNetInfo

    words = ImageNetInfo("imagenet-22k")
    known = set(words.label_names())
    return [words.label_name_to_description(name) if name in known else name for name in classes]


def _print(records: list[dict[str, Any]], form: str) -> None:
    from ffconv.analysis.tables import Table, print_table

    if form == "json":
        print(json.dumps(records, indent=2))
        return
    rows = [
        (record["image"] if rank == 0 else "", found["name"], f"{100 * found['probability']:.2f}")
        for record in records
        for rank, found in enumerate(record["predictions"])
    ]
    print_table(Table("Predictions", ("image", "class", "probability (%)"), rows, left=2))
