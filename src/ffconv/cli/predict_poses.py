"""``ffconv predict`` with a checkpoint of keypoints: where are they, in images or in a video?"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ffconv.cli.checkpoints import add_device, checkpoint_file, load_checkpoint
from ffconv.cli.main import INPUT_ERROR
from ffconv.cli.parser import CommandParser
from ffconv.cli.progress import shown
from ffconv.errors import require
from ffconv.files import make_folder, output_names, write_atomically
from ffconv.pictures import encoded
from ffconv.wording import counted, say

if TYPE_CHECKING:
    import torch
    from PIL import Image

    from ffconv.tasks.person_boxes import FindPersons, Picture
    from ffconv.tasks.pose_prediction import PosePredictor

# Formats that a picture is written in again; others become PNG.
_FORMATS = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG"}


def add_arguments(parser: CommandParser, task: str) -> None:
    """The options beside the checkpoint."""
    parser.add_argument("input", type=Path, help="an image file, a folder of images, or a video file")
    parser.add_argument(
        "--boxes",
        type=str,
        default="detector",
        help="boxes of the persons: 'detector' (torchvision's), 'whole' (the whole picture), or a COCO file"
        " of annotations, found by file_name, or of results, whose image_id is the number in the image's"
        " name, else its place from 1, or the frame's from 0",
    )
    parser.add_argument(
        "--detector", type=Path | None, default=None, help="weights of torchvision's Faster R-CNN (default:"
        " those torch.hub has fetched; nothing is fetched here)"
    )  # fmt: skip
    parser.add_argument("--category", type=int, default=1, help="category_id of the boxes used of a file")
    parser.add_argument("--box_threshold", type=float, default=0.5, help="smallest score of a box")
    parser.add_argument("--keypoint_threshold", type=float, default=0.2, help="smallest score that is drawn")
    parser.add_argument("--flip", type=bool | None, default=None, help="average with the mirrored image's"
                        " heatmaps (default: as in training)")  # fmt: skip
    parser.add_argument("--batch_size", type=int, default=32, help="persons per batch")
    parser.add_argument(
        "--output", type=Path, default=Path("predictions"), help="folder of the pictures and keypoints.json"
    )
    add_device(parser)


def run(arguments: Any) -> int:
    """Draws and writes the keypoints; returns 2 if some image could not be read, after the others."""
    from ffconv.data.images import IMAGE_EXTENSIONS

    require(arguments.batch_size > 0, f"batch_size={arguments.batch_size} must be at least 1")
    predictor = _predictor(arguments)
    record = _Record(predictor, _finder(arguments, predictor.device))
    path, skipped = arguments.input, []
    if path.is_file() and path.suffix.lower() not in IMAGE_EXTENSIONS:
        done = _video(path, record, arguments.output)
    else:
        done, skipped = _images(path, record, arguments.output)
    for message in skipped:
        say(f"ffconv: {message}", file=sys.stderr)
    say(f"{done}; the pictures and keypoints.json are in {arguments.output}")
    return INPUT_ERROR if skipped else 0


def _predictor(arguments: Any) -> PosePredictor:
    from ffconv.interop.checkpoint_info import PoseInfo
    from ffconv.tasks.networks import choose_device
    from ffconv.tasks.pose_prediction import pose_predictor

    return pose_predictor(
        load_checkpoint(checkpoint_file(arguments.checkpoint), PoseInfo),
        choose_device(arguments.device),
        flip=arguments.flip,
        batch_size=arguments.batch_size,
        shown=arguments.keypoint_threshold,
    )


def _finder(arguments: Any, device: torch.device) -> FindPersons:
    from ffconv.tasks.person_boxes import BoxFile, PersonDetector, whole_picture

    if arguments.boxes == "whole":
        return whole_picture
    if arguments.boxes == "detector":
        return PersonDetector(arguments.detector, threshold=arguments.box_threshold, device=device)
    return BoxFile(Path(arguments.boxes), threshold=arguments.box_threshold, category=arguments.category)


class _Record:
    """Finds the persons of one picture after the other and gathers what becomes keypoints.json."""

    def __init__(self, predictor: PosePredictor, find: FindPersons) -> None:
        self._predictor, self._find = predictor, find
        self._images: list[dict[str, Any]] = []
        self._annotations: list[dict[str, Any]] = []

    def check(self, names: Sequence[str], folder: Path) -> None:
        """Check before the work that boxes of a file belong to one picture each."""
        from ffconv.tasks.person_boxes import BoxFile

        if isinstance(self._find, BoxFile):
            self._find.check(names, folder)

    def add(self, picture: Picture) -> Image.Image:
        """The picture with its persons drawn."""
        persons = self._predictor(picture.image, self._find(picture))
        width, height = picture.image.size
        self._images.append(
            {"id": picture.number, "file_name": picture.name, "width": width, "height": height}
        )
        self._annotations += self._predictor.annotations(picture, persons)
        return self._predictor.draw(picture.image, persons)

    def write(self, folder: Path, picture: str) -> str:
        """Writes keypoints.json; how many persons it holds, in how many of such pictures, in words."""
        from ffconv.tasks.pose_prediction import coco_content

        content = coco_content(self._images, self._annotations, self._predictor.keypoint_set)
        write_atomically(folder / "keypoints.json", json.dumps(content).encode())
        return f"{counted(len(self._annotations), 'person')} in {counted(len(self._images), picture)}"


def _images(path: Path, record: _Record, output: Path) -> tuple[str, list[str]]:
    """Draws into images; says what was done, and what could not be read."""
    from ffconv.data.decoding import read_image
    from ffconv.data.images import ImageFiles
    from ffconv.data.samples import UnreadableSample
    from ffconv.tasks.person_boxes import Picture, image_numbers

    files = ImageFiles(path).files
    folder = (path.parent if path.is_file() else path).absolute()
    names = [file.absolute().relative_to(folder).as_posix() for file in files]
    outputs = output_names(names, ".png", kept=_FORMATS)
    record.check(names, folder)
    skipped: list[str] = []
    numbered = list(zip(names, image_numbers(names), files, outputs, strict=True))
    for name, number, file, written in shown(numbered, "predicting", total=len(files)):
        try:
            picture = Picture(name, number, read_image(file), folder)
        except UnreadableSample as error:
            skipped.append(str(error))
            continue
        target = output / written
        _prepare(target, source=file)
        write_atomically(target, encoded(record.add(picture), _FORMATS[target.suffix.lower()]))
    return record.write(output, "image"), skipped


def _video(path: Path, record: _Record, output: Path) -> str:
    """Draws into each frame of a video."""
    import numpy as np
    from PIL import Image

    from ffconv.data.video_reading import open_with_pyav
    from ffconv.data.video_writing import video_writer
    from ffconv.tasks.person_boxes import Picture

    target = output / output_names([path.name], ".mp4")[0]
    _prepare(target, source=path)
    with open_with_pyav(path, str(path)) as video, video_writer(target, video.rate) as writer:
        frames = shown(video.frames(), "predicting", total=round(video.seconds * video.rate))
        for number, (seconds, frame) in enumerate(frames):
            name = f"{path.name}#{number:06d}"
            picture = Picture(name, number, Image.fromarray(frame), path.parent.absolute())
            writer.write(np.asarray(record.add(picture)), seconds)
    return f"{record.write(output, 'frame')} of {target}"


def _prepare(target: Path, *, source: Path) -> None:
    require(target.resolve() != source.resolve(), f"--output {target.parent} would overwrite {source}")
    make_folder(target.parent)
