"""Boxes of the persons in a picture: the whole picture, those of a file, or a detector's."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import nn
from torchvision.models import get_model, get_model_weights
from torchvision.transforms import v2

from ffconv.data.coco_format import finite_numbers
from ffconv.errors import InputError, require
from ffconv.files import read_json
from ffconv.interop.reading import find_weights, read_checkpoint

# torchvision's own detectors, the best first; persons are class 1 of all.
DETECTORS = ("fasterrcnn_resnet50_fpn_v2", "fasterrcnn_resnet50_fpn", "fasterrcnn_mobilenet_v3_large_fpn")
PERSON = 1


class PersonBox(NamedTuple):
    """A box (4,), left, top, width, height in pixels of its picture, and its score in [0, 1]."""

    box: np.ndarray
    score: float


@dataclass(frozen=True)
class Picture:
    """An image, or a frame of a video.

    Args:
        name: Path below ``folder``; of a frame, its video's name, # and its number.
        number: COCO's ``image_id``.
        image: RGB.
        folder: Folder that was given, absolute.
    """

    name: str
    number: int
    image: Image.Image
    folder: PurePath = field(default_factory=PurePath)


FindPersons = Callable[[Picture], list[PersonBox]]


def whole_picture(picture: Picture) -> list[PersonBox]:
    """One person, as large as the picture."""
    return [PersonBox(np.array([0.0, 0.0, picture.image.width, picture.image.height]), 1.0)]


class BoxFile:
    """Boxes of a COCO file: annotations (with their images' file names) or a detector's results.

    Annotations belong to the picture whose path ends with their image's ``file_name``, or whose path below
    the given folder is the end of ``file_name``. Results, which have no names, belong to the picture with
    their number.

    Args:
        path: The file.
        threshold: Smallest score of a box; annotated boxes have 1.
        category: ``category_id`` of persons.

    Raises:
        InputError: naming the file, if it is missing, is no such file, holds a box that is no four finite
            numbers, or none that can be used.
    """

    def __init__(self, path: Path, *, threshold: float, category: int = PERSON) -> None:
        self.path = path
        content = read_json(path)
        self._by_name = isinstance(content, dict)
        self._boxes: defaultdict[int, list[PersonBox]] = defaultdict(list)
        try:
            entries = content["annotations"] if self._by_name else content
            known: set[int] = set()
            self._named: defaultdict[str, list[tuple[PurePath, int]]] = defaultdict(list)
            for image in content["images"] if self._by_name else ():
                number, name = image["id"], PurePath(image["file_name"])
                require(number not in known, f"{path}: image {number}: another image has the same id")
                known.add(number)
                self._named[name.name].append((name, number))
            for number, entry in enumerate(entries):
                if entry["category_id"] != category or entry.get("iscrowd", 0):
                    continue
                box = finite_numbers(entry["bbox"], 4, f"{path}: entry {number}", "bbox")
                score = float(entry.get("score", 1.0))
                if score >= threshold and min(box[2:]) > 0:
                    self._boxes[entry["image_id"]].append(PersonBox(box, score))
        except InputError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(f"{path}: is neither COCO annotations nor results ({error!r})") from error
        require(
            bool(self._boxes), f"{path}: has no boxes of category {category} with a score of {threshold:g}"
        )

    def __call__(self, picture: Picture) -> list[PersonBox]:
        number = picture.number
        if self._by_name:
            number = self._image_id(picture.name, picture.folder)
        return self._boxes.get(number, []) if number is not None else []

    def check(self, names: Sequence[str], folder: PurePath) -> None:
        """Check that no two pictures of a folder are one image of the file, and no two images one picture.

        Raises:
            InputError: naming them.
        """
        pictures: dict[int, str] = {}
        for name in names if self._by_name else ():
            number = self._image_id(name, folder)
            if number is None:
                continue
            require(
                number not in pictures,
                f"{self.path}: image {number} may be {pictures.get(number)} or {name}: write its folder into"
                " file_name",
            )
            pictures[number] = name

    def _image_id(self, name: str, folder: PurePath) -> int | None:
        """Return the id of a picture's image, None where the file does not list it."""
        alike = self._named.get(PurePath(name).name, [])
        found = [image for image in alike if _ends_with(folder / name, image[0])]
        longest = max((len(image[0].parts) for image in found), default=0)
        found = [image for image in found if len(image[0].parts) == longest]
        found = found or [image for image in alike if _ends_with(image[0], PurePath(name))]
        if len(found) > 1:
            listed = " or ".join(str(image[0]) for image in found[:3])
            raise InputError(f"{self.path}: {name} may be {listed}: predict the folder that holds them")
        return found[0][1] if found else None


def _ends_with(path: PurePath, end: PurePath) -> bool:
    return path.parts[-len(end.parts) :] == end.parts


def image_numbers(names: Sequence[str]) -> list[int]:
    """``image_id`` of each image: the number its name consists of, where all do, or its place from 1.

    Example:
        >>> image_numbers(["000000000139.jpg", "000000000785.jpg"]), image_numbers(["a.jpg", "7.jpg"])
        ([139, 785], [1, 2])
    """
    stems = [PurePath(name).stem for name in names]
    numbers = [int(stem) for stem in stems if stem.isdecimal()]
    return numbers if len(set(numbers)) == len(names) else list(range(1, len(names) + 1))


class PersonDetector:
    """torchvision's person detector, with weights that are already on this machine.

    Args:
        weights: File of one of :data:`DETECTORS`; None looks for them where torch.hub keeps its downloads.
        threshold: Smallest score of a person.
        device: Where it runs.

    Raises:
        InputError: if there are no such weights, or they fit none of the detectors.
    """

    def __init__(
        self, weights: Path | None = None, *, threshold: float = 0.5, device: torch.device | None = None
    ) -> None:
        self._threshold, self._device = threshold, device or torch.device("cpu")
        self._network = _load(weights or _cached_weights()).eval().to(self._device)
        self._to_tensor = v2.Compose([v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True)])

    @torch.no_grad()
    def __call__(self, picture: Picture) -> list[PersonBox]:
        image = self._to_tensor(picture.image).to(self._device)
        found: dict[str, Any] = {key: value.cpu() for key, value in self._network([image])[0].items()}
        wanted = (found["labels"] == PERSON) & (found["scores"] >= self._threshold)
        corners, scores = found["boxes"][wanted].double().numpy(), found["scores"][wanted].tolist()
        sides = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)
        return [PersonBox(box, score) for box, score in zip(sides, scores, strict=True)]


def _cached_weights() -> Path:
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    urls = [get_model_weights(name)["COCO_V1"].url for name in DETECTORS]
    for url in urls:
        if (path := folder / url.rpartition("/")[2]).is_file():
            return path
    raise InputError(
        f"no weights of torchvision's person detector in {folder}: fetch {urls[0]} there or name a file by"
        " --detector, or say where persons are by --boxes FILE, or --boxes whole"
    )


def _load(path: Path) -> nn.Module:
    tensors, _ = find_weights(read_checkpoint(path), source=str(path))
    for name in DETECTORS:
        network: nn.Module = get_model(name, weights=None, weights_backbone=None)
        # The released files of two of them are of frozen norms, which count no batches.
        wanted = {key for key in network.state_dict() if not key.endswith("num_batches_tracked")}
        if wanted - tensors.keys() or tensors.keys() - network.state_dict().keys():
            continue
        try:
            network.load_state_dict(tensors, strict=False)
        except RuntimeError as error:
            raise InputError(f"{path}: weights do not fit {name}: {str(error).splitlines()[1]}") from error
        return network
    raise InputError(f"{path}: weights of none of torchvision's detectors {', '.join(DETECTORS)}")
