from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.models import get_model

from ffconv.errors import InputError
from ffconv.tasks.person_boxes import BoxFile, PersonDetector, Picture, image_numbers, whole_picture


def picture(name: str = "a.jpg", number: int = 1) -> Picture:
    return Picture(name, number, Image.new("RGB", (64, 48)))


def write(path: Path, content: Any) -> Path:
    path.write_text(json.dumps(content))
    return path


def result(image_id: int, left: float, *, score: float = 0.9, category: int = 1) -> dict[str, Any]:
    box = [left, 2.0, 3.0, 4.0]
    return {"image_id": image_id, "category_id": category, "bbox": box, "score": score}


def lefts(file: BoxFile, asked: Picture) -> list[tuple[float, float]]:
    return [(float(found.box[0]), found.score) for found in file(asked)]


def test_whole_picture_is_one_person():
    (found,) = whole_picture(picture())
    assert (found.box.tolist(), found.score) == ([0, 0, 64, 48], 1)


def test_results_are_found_by_number(tmp_path: Path):
    content = [result(7, 10), result(8, 20), result(7, 30, score=0.4), result(7, 40, category=2)]
    file = BoxFile(write(tmp_path / "r.json", content), threshold=0.4)
    assert lefts(file, picture("000007.jpg", 7)) == [(10, 0.9), (30, 0.4)]
    assert lefts(file, picture("9.jpg", 9)) == []


def test_threshold_and_category_choose(tmp_path: Path):
    content = [result(7, 10), result(7, 30, score=0.4), result(7, 40, category=2)]
    path = write(tmp_path / "r.json", content)
    assert lefts(BoxFile(path, threshold=0.5), picture(number=7)) == [(10, 0.9)]
    assert lefts(BoxFile(path, threshold=0.5, category=2), picture(number=7)) == [(40, 0.9)]


def test_annotations_are_found_by_file_name_and_crowds_left_out(tmp_path: Path):
    one = {"image_id": 5, "category_id": 1, "bbox": [1, 2, 3, 4]}
    content = {
        "images": [{"id": 5, "file_name": "folder/a.jpg"}, {"id": 6, "file_name": "b.jpg"}],
        "annotations": [one, {**one, "iscrowd": 1}, {**one, "image_id": 6, "bbox": [9, 2, 3, 4]}],
    }
    file = BoxFile(write(tmp_path / "a.json", content), threshold=0.5)
    assert lefts(file, picture("a.jpg", 6)) == [(1, 1)]
    assert lefts(file, picture("below/b.jpg", 5)) == [(9, 1)]


def of_images(tmp_path: Path, *names: str) -> BoxFile:
    """A file with one box an image, whose left side is the image's place from 1."""
    content = {
        "images": [{"id": n, "file_name": name} for n, name in enumerate(names, start=1)],
        "annotations": [
            {"image_id": n, "category_id": 1, "bbox": [n, 2, 3, 4]} for n in range(1, len(names) + 1)
        ],
    }
    return BoxFile(write(tmp_path / "a.json", content), threshold=0.5)


@pytest.mark.parametrize(
    ("names", "folder", "name", "left"),
    [
        (["cam1/0001.png", "cam2/0001.png"], "/data", "cam2/0001.png", 2),
        (["cam1/0001.png", "cam2/0001.png"], "/data/cam2", "0001.png", 2),
        (["/data/cam1/0001.png", "/data/cam2/0001.png"], "/data", "cam2/0001.png", 2),
        (["x/cam1/0001.png", "x/cam2/0001.png"], "/data", "cam1/0001.png", 1),
        (["0001.png", "cam2/0001.png"], "/data", "cam2/0001.png", 2),
        (["0001.png", "cam2/0001.png"], "/data", "cam1/0001.png", 1),
        (["cam1/0001.png"], "/data", "cam2/0001.png", None),
    ],
)
def test_annotations_are_found_by_path(
    tmp_path: Path, names: list[str], folder: str, name: str, left: int | None
):
    asked = Picture(name, 1, Image.new("RGB", (64, 48)), Path(folder))
    assert [found[0] for found in lefts(of_images(tmp_path, *names), asked)] == ([left] if left else [])


def test_a_name_that_may_be_several_images_is_refused(tmp_path: Path):
    file = of_images(tmp_path, "cam1/0001.png", "cam2/0001.png")
    with pytest.raises(InputError, match=r"0001\.png may be cam1/0001\.png or cam2/0001\.png"):
        file.check(["0001.png"], Path("/elsewhere"))


def test_an_image_that_may_be_several_pictures_is_refused(tmp_path: Path):
    file = of_images(tmp_path, "0001.png")
    with pytest.raises(InputError, match=r"image 1 may be cam1/0001\.png or cam2/0001\.png"):
        file.check(["cam1/0001.png", "cam2/0001.png"], Path("/data"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([{"image_id": 1}], r"x\.json: is neither COCO annotations nor results"),
        ({"images": []}, r"x\.json: is neither COCO annotations nor results"),
        ([result(1, float("nan"))], "entry 0: bbox must be finite"),
        ([{**result(1, 1), "bbox": list("abcd")}], r"x\.json: is neither COCO annotations nor results"),
        ({"images": 2 * [{"id": 5, "file_name": "a"}], "annotations": []}, "image 5: another image has the"),
        ([{**result(1, 1), "score": "high"}], r"x\.json: is neither COCO annotations nor results"),
        ([result(1, 1, category=3)], "has no boxes of category 1 with a score of 0.5"),
        ([result(1, 1, score=0.1)], "has no boxes of category 1 with a score of 0.5"),
    ],
)
def test_a_file_that_cannot_serve_is_refused(tmp_path: Path, content: Any, message: str):
    with pytest.raises(InputError, match=message):
        BoxFile(write(tmp_path / "x.json", content), threshold=0.5)


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(InputError, match=r"none\.json: No such file"):
        BoxFile(tmp_path / "none.json", threshold=0.5)


@pytest.mark.parametrize(
    ("names", "numbers"),
    [(["0007.jpg", "0012.png"], [7, 12]), (["a.jpg", "0012.png"], [1, 2]), (["1/7.jpg", "2/7.jpg"], [1, 2])],
)
def test_images_are_called_by_their_numbers_where_all_have_one(names: list[str], numbers: list[int]):
    assert image_numbers(names) == numbers


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return get_model("fasterrcnn_mobilenet_v3_large_fpn", weights=None, weights_backbone=None).state_dict()


def test_detector_takes_frozen_norms_weights_and_gives_boxes_as_corner_and_sides(
    tmp_path: Path, weights: dict[str, torch.Tensor]
):
    frozen = {name: tensor for name, tensor in weights.items() if not name.endswith("num_batches_tracked")}
    torch.save(frozen, tmp_path / "w.pth")
    detector = PersonDetector(tmp_path / "w.pth", threshold=0.3)
    detector._network = Corners()
    (found,) = detector(picture())
    assert np.allclose(found.box, [1, 2, 10, 20])
    assert found.score == pytest.approx(0.8)


class Corners(torch.nn.Module):
    """A detector that finds a person, a less likely one and a horse."""

    def forward(self, images: list[torch.Tensor]) -> list[dict[str, torch.Tensor]]:
        assert images[0].shape == (3, 48, 64)
        boxes = torch.tensor([[1.0, 2, 11, 22], [0, 0, 5, 5], [0, 0, 9, 9]])
        return [{"boxes": boxes, "labels": torch.tensor([1, 1, 19]), "scores": torch.tensor([0.8, 0.2, 0.9])}]


def test_weights_of_another_network_are_refused(tmp_path: Path):
    torch.save({"conv1.weight": torch.zeros(3)}, tmp_path / "w.pth")
    with pytest.raises(InputError, match=r"w\.pth: weights of none of torchvision's detectors"):
        PersonDetector(tmp_path / "w.pth")


def test_without_weights_at_hand_the_ways_out_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(InputError, match=r"no weights of torchvision's person detector in .*--boxes whole"):
        PersonDetector()


def test_weights_that_torch_hub_has_fetched_are_found(
    tmp_path: Path, weights: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "checkpoints").mkdir()
    torch.save(weights, tmp_path / "checkpoints" / "fasterrcnn_mobilenet_v3_large_fpn-fb6a3cc7.pth")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    name, tensor = next(iter(weights.items()))
    assert torch.equal(PersonDetector()._network.state_dict()[name], tensor)
