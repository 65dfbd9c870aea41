"""``ffconv evaluate`` for networks that name a class: of an image, or of a video."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, get_type_hints

from ffconv.cli.checkpoints import checkpoint_file, load_checkpoint
from ffconv.cli.evaluation import Evaluated, evaluate, section_of
from ffconv.cli.parser import CommandParser
from ffconv.files import write_atomically
from ffconv.wording import counted, say

if TYPE_CHECKING:
    from ffconv.metrics.classification import ClassificationScores

#: What each task counts.
_SAMPLES = {"classification": "image", "action": "video"}


def add_arguments(parser: CommandParser, task: str) -> None:
    """The data options of the task."""
    parser.add_class_arguments(_data_config(task), "data")


def run(arguments: Any) -> int:
    """Prints the scores and writes their tables."""
    from ffconv.interop.checkpoint_info import ClipInfo, ImageInfo
    from ffconv.tasks import task_kind
    from ffconv.training.config import plain

    path = checkpoint_file(arguments.checkpoint, arguments.weights)
    if arguments.task == "action":
        network, info = load_checkpoint(path, ClipInfo)
        prepared = {"clip": plain(info.clip), "test": plain(info.views)}
    else:
        network, info = load_checkpoint(path, ImageInfo)
        prepared = {"transform": plain(info.transform)}
    data = section_of(arguments, _data_config(arguments.task), prepared, section="data")
    kind = task_kind(arguments.task)
    config = kind.config(data=data, limit=arguments.limit)
    return evaluate(
        arguments,
        network,
        config,
        lambda share: kind.task(config, share, classes=info.classes),
        lambda task, network: task.scores(network, arguments.split),
        report=partial(_report, sample=_SAMPLES[arguments.task]),
    )


def _data_config(task: str) -> Any:
    from ffconv.tasks import task_kind

    return get_type_hints(task_kind(task).config)["data"]


def _report(found: Evaluated, sample: str) -> None:
    from ffconv.metrics.classification import write_per_class
    from ffconv.tasks.class_prediction import class_titles
    from ffconv.tasks.confusion import draw_confusion

    scores: ClassificationScores = found.scores
    write_per_class(scores, found.output / "per_class.csv")
    titles = class_titles([score.name for score in scores.per_class])
    write_atomically(found.output / "confusion.png", draw_confusion(scores, titles))
    found.write_scores({f"{sample}s": scores.samples, **scores.as_dict()})
    top5 = f"  top-5 {scores.top5:.3f} %" if "top5" in scores.as_dict() else ""
    say(
        f"top-1 {scores.top1:.3f} %{top5}  loss {scores.loss:.4f}"
        f"  over {counted(scores.samples, sample)}{found.left_out('one')}"
    )
    say(f"per_class.csv, confusion.png and scores.json are in {found.output}")
