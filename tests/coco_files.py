"""A small annotation file in COCO's format, to be spoilt by tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from PIL import Image

NAMES = ("head", "left hand", "right hand")


def annotation(number: int, image: int, **changes: Any) -> dict[str, Any]:
    """A person with three keypoints, of which the last is not labelled."""
    return {
        "id": number,
        "image_id": image,
        "category_id": 5,
        "bbox": [10.0, 5.0, 21.0, 31.0],
        "keypoints": [20, 10, 2, 28, 30, 1, 0, 0, 0],
        "num_keypoints": 2,
        "area": 300.0,
        "iscrowd": 0,
        **changes,
    }


def content(*annotations: dict[str, Any]) -> dict[str, Any]:
    """Two images of 64 x 48 pixels and two categories, of which one has keypoints."""
    person = {"id": 5, "name": "puppet", "keypoints": list(NAMES), "skeleton": [[1, 2], [1, 3]]}
    return {
        "images": [
            {"id": number, "file_name": f"{number}.png", "width": 64, "height": 48} for number in (7, 3)
        ],
        "annotations": list(annotations) or [annotation(1, 7), annotation(2, 3), annotation(3, 3)],
        "categories": [{"id": 2, "name": "chair"}, person],
    }


def write(folder: Path, data: Any, name: str = "annotations.json") -> Path:
    """The file, and beside it in ``images`` the two images, each of one grey level: 70 and 30."""
    path = folder / name
    path.write_text(json.dumps(data))
    (folder / "images").mkdir(exist_ok=True)
    for number in (7, 3):
        Image.new("RGB", (64, 48), (10 * number,) * 3).save(folder / "images" / f"{number}.png")
    return path
