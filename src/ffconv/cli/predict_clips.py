"""``ffconv predict`` with a checkpoint of action recognition: what happens in these videos, and when?"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ffconv.cli.checkpoints import add_device, checkpoint_file, load_checkpoint
from ffconv.cli.main import INPUT_ERROR
from ffconv.cli.parser import CommandParser
from ffconv.cli.progress import shown
from ffconv.errors import require
from ffconv.files import make_folder, output_names
from ffconv.wording import say

if TYPE_CHECKING:
    from ffconv.data.videos import Decoder


def add_arguments(parser: CommandParser, task: str) -> None:
    """The options beside the checkpoint."""
    parser.add_argument("videos", type=Path, help="a video file, or a folder of videos")
    parser.add_argument("--top", type=int, default=5, help="how many classes")
    parser.add_argument("--clips", type=int, default=10, help="clips of each video, evenly spread")
    parser.add_argument("--crops", type=Literal[1, 3, 10], default=3, help="of each clip")
    parser.add_argument("--batch_size", type=int, default=8, help="views on the device at a time")
    parser.add_argument("--workers", type=int, default=0, help="processes that read videos")
    parser.add_argument(
        "--decoder",
        type=Literal["pyav", "torchcodec"],
        default="pyav",
        help="what decodes videos; torchcodec where it is installed",
    )
    add_device(parser)
    parser.add_argument("--format", type=Literal["table", "json"], default="table", help="how to print")
    parser.add_argument(
        "--output",
        type=Path | None,
        default=None,
        help="MP4 file to write with the labels drawn; for a folder of videos a folder",
    )


def run(arguments: Any) -> int:
    """Prints the predictions; returns 2 if some video could not be read, after those of the others."""
    from ffconv.data.clip_config import ViewsConfig
    from ffconv.data.media import MediaFiles
    from ffconv.data.videos import VIDEOS
    from ffconv.interop.checkpoint_info import ClipInfo
    from ffconv.tasks.class_prediction import ClipPredictor
    from ffconv.tasks.networks import choose_device

    for name in ("top", "batch_size"):
        require(getattr(arguments, name) > 0, f"{name}={getattr(arguments, name)} must be at least 1")
    views = ViewsConfig(arguments.clips, arguments.crops)
    trained = load_checkpoint(checkpoint_file(arguments.checkpoint), ClipInfo)
    files = MediaFiles(arguments.videos, VIDEOS)
    targets = None if arguments.output is None else _targets(files.files, arguments.videos, arguments.output)
    predictor = ClipPredictor(
        trained,
        choose_device(arguments.device),
        views=views,
        top=arguments.top,
        batch_size=arguments.batch_size,
        decoder=arguments.decoder,
    )
    batches = predictor.batches(files, workers=arguments.workers, on_error="skip")
    records = [
        {"video": str(files.files[index]), **found}
        for index, found in shown(predictor.predict(batches), "predicting", total=len(files))
    ]
    _print(records, arguments.format)
    if targets is not None:
        _draw(records, targets, arguments.decoder)
    for sample in batches.skipped:
        say(f"ffconv: {sample.name}: {sample.reason}", file=sys.stderr)
    return INPUT_ERROR if batches.skipped else 0


def _print(records: Sequence[dict[str, Any]], form: str) -> None:
    from ffconv.analysis.tables import Table, dump, print_table

    if form == "json":
        sys.stdout.write(dump(records, "json"))
        return
    rows = []
    for record in records:
        whole = [("all clips", found) for found in record["predictions"]]
        parts = [(_seconds(clip), clip["predictions"][0]) for clip in record["clips"]]
        for place, (when, found) in enumerate([*whole, *parts]):
            name = record["video"] if place == 0 else ""
            when = "" if 0 < place < len(whole) else when
            rows.append((name, when, found["name"], f"{100 * found['probability']:.2f}"))
    print_table(Table("Predictions", ("video", "seconds", "class", "probability (%)"), rows, left=3))


def _seconds(clip: dict[str, Any]) -> str:
    return f"{clip['start']:.2f} to {clip['end']:.2f}"


def _targets(files: Sequence[Path], videos: Path, output: Path) -> dict[str, Path]:
    """Return the file to write for each video.

    Raises:
        InputError: if it would be the video itself, or that of two videos.
    """
    if not videos.is_dir():
        targets = {str(file): output for file in files}
    else:
        names = output_names([file.relative_to(videos).as_posix() for file in files], ".mp4")
        targets = {str(file): output / name for file, name in zip(files, names, strict=True)}
    for file, target in targets.items():
        require(target.resolve() != Path(file).resolve(), f"output={target} must not be the video itself")
    return targets


def _draw(records: Sequence[dict[str, Any]], targets: Mapping[str, Path], decoder: Decoder) -> None:
    """Write each video with its label, and that of the clip nearest to the moment, drawn on it."""
    from ffconv.data.samples import UnreadableSample
    from ffconv.data.video_writing import video_writer, with_caption
    from ffconv.data.videos import VideoFile

    for record in records:
        file = Path(record["video"])
        target = targets[record["video"]]
        make_folder(target.parent)
        try:
            video = VideoFile(str(file), file)
            with video.open(decoder) as opened, video_writer(target, opened.rate) as writer:
                for seconds, picture in opened.frames():
                    writer.write(with_caption(picture, _caption(record, seconds)), seconds)
        except UnreadableSample as error:
            say(f"ffconv: {error}", file=sys.stderr)


def _caption(record: dict[str, Any], time: float) -> tuple[str, str]:
    clip = min(record["clips"], key=lambda clip: abs((clip["start"] + clip["end"]) / 2 - time))
    return _words(record["predictions"][0]), f"{_seconds(clip)} s: {_words(clip['predictions'][0])}"


def _words(found: dict[str, Any]) -> str:
    return f"{found['name']} {100 * found['probability']:.0f} %"
