"""`ffconv.Predictor` gives what the command prints, for every kind of input."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torch import nn

import ffconv
from commands import predicted
from ffconv.cli import main
from ffconv.data.clip_config import ClipConfig
from ffconv.data.keypoint_sets import COCO_PERSON
from ffconv.data.pose_transforms import PoseTransformConfig
from ffconv.data.transforms import ImageTransformConfig
from ffconv.data.videos import VideoFile
from ffconv.interop.checkpoint_info import CheckpointInfo, ClipInfo, ImageInfo, InpaintingInfo, PoseInfo
from ffconv.tasks.networks import choose_device
from ffconv.training.checkpoint import save_weights
from video_files import levels, make_video

CLASSES = ("cat", "dog", "owl")
IMAGES = ImageTransformConfig(train_size=32, eval_short_side=36, eval_size=32)
CLIP = ClipConfig(frames=4, stride=3, short_side=(24, 32), train_size=16, eval_short_side=24, eval_size=16)
POSE = PoseTransformConfig(input_size=(64, 64))


def saved(path: Path, info: CheckpointInfo, network: nn.Module) -> Path:
    save_weights(path, network.state_dict(), info.metadata())
    return path


def with_large_weights(network: nn.Module, layer: str) -> nn.Module:
    """Make the outputs differ from image to image, which those of an untrained network hardly do."""
    weight = network.get_parameter(f"{layer}.weight")
    nn.init.normal_(weight, std=3.0)
    return network


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    network = with_large_weights(timm.create_model("test_resnet", num_classes=3), "fc")
    info = ImageInfo("test_resnet", {}, CLASSES, IMAGES)
    return saved(tmp_path_factory.mktemp("image") / "x.safetensors", info, network)


@pytest.fixture(scope="module")
def clip_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    network = with_large_weights(timm.create_model("tiny_video", num_classes=3), "fc")
    info = ClipInfo("tiny_video", {}, CLASSES, CLIP)
    return saved(tmp_path_factory.mktemp("clip") / "x.safetensors", info, network)


@pytest.fixture(scope="module")
def pose_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    arguments = {"backbone": "test_resnet"}
    network = timm.create_model("pose", num_classes=17, **arguments)
    info = PoseInfo("pose", arguments, COCO_PERSON, POSE)
    return saved(tmp_path_factory.mktemp("pose") / "x.safetensors", info, network)


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    """Three noisy pictures of different sizes."""
    generator = np.random.default_rng(0)
    folder = tmp_path / "photos"
    folder.mkdir()
    paths = [folder / f"{number}.png" for number in range(3)]
    for number, path in enumerate(paths):
        pixels = generator.integers(0, 255, (40 + 4 * number, 48, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    return paths


def test_classes_are_what_the_command_prints(
    checkpoint: Path, photos: list[Path], capsys: pytest.CaptureFixture[str]
):
    records = predicted(capsys, str(checkpoint), str(photos[0].parent))
    found = ffconv.Predictor(checkpoint, device="cpu")(photos)
    assert found == [record["predictions"] for record in records]
    assert len({classes[0]["probability"] for classes in found}) == 3


AS: dict[str, Callable[[Path], Any]] = {
    "str": str,
    "PIL image": Image.open,
    "array": lambda path: np.asarray(Image.open(path)),
    "float array": lambda path: np.asarray(Image.open(path)) / 255,
    "uint16 array": lambda path: np.asarray(Image.open(path)).astype(np.uint16) * 257,
    "tensor": lambda path: torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1),
    "float tensor": lambda path: torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1) / 255,
}


@pytest.mark.parametrize("kind", AS)
def test_every_kind_of_image_gives_what_its_file_gives(kind: str, checkpoint: Path, photos: list[Path]):
    predictor = ffconv.Predictor(checkpoint, device="cpu")
    assert predictor(AS[kind](photos[0])) == predictor(photos[0])


def test_a_photo_that_lies_on_its_side_is_turned(checkpoint: Path, photos: list[Path], tmp_path: Path):
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(photos[0]) as image:
        image.save(tmp_path / "turned.png", exif=exif)
    predictor = ffconv.Predictor(checkpoint, device="cpu")
    with Image.open(tmp_path / "turned.png") as image:
        assert predictor(image) == predictor(tmp_path / "turned.png") != predictor(photos[0])


@pytest.mark.parametrize("channels", [1, 4])
def test_grey_and_transparent_pixels_are_read_as_from_a_file(channels: int, checkpoint: Path, tmp_path: Path):
    pixels = np.random.default_rng(1).integers(0, 255, (40, 40, channels), dtype=np.uint8)
    Image.fromarray(pixels if channels == 4 else pixels[..., 0]).save(tmp_path / "x.png")
    predictor = ffconv.Predictor(checkpoint, device="cpu")
    assert predictor(pixels) == predictor(tmp_path / "x.png")


@pytest.mark.parametrize("batch_size", [1, 2, 100])
def test_a_batch_gives_what_its_images_give(batch_size: int, checkpoint: Path):
    images = torch.rand(3, 3, 40, 40)
    predictor = ffconv.Predictor(checkpoint, device="cpu", batch_size=batch_size, top=2)
    found = predictor(images)
    assert [[one["class"] for one in classes] for classes in found] == [
        [one["class"] for one in predictor(image)] for image in images
    ]
    assert [len(classes) for classes in found] == [2, 2, 2]
    assert found == predictor(image for image in images) == predictor(images.permute(0, 2, 3, 1).numpy())


def test_no_images_give_no_predictions(checkpoint: Path):
    assert ffconv.Predictor(checkpoint, device="cpu")([]) == []


def test_run_folders_and_packages_stand_for_their_checkpoint(checkpoint: Path, photos: list[Path], tmp_path):
    expected = ffconv.Predictor(checkpoint, device="cpu")(photos[0])
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "best.safetensors").write_bytes(checkpoint.read_bytes())
    assert main(["package", str(checkpoint), str(tmp_path / "package")]) == 0
    for name in ("run", "package"):
        assert ffconv.Predictor(tmp_path / name, device="cpu")(photos[0]) == expected


def test_a_repository_of_the_hub_is_fetched(
    checkpoint: Path, photos: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    assert main(["package", str(checkpoint), str(tmp_path / "package")]) == 0
    asked: list[Any] = []

    def fetched(*words: Any) -> Path:
        asked.append(words)
        return tmp_path / "package"

    monkeypatch.setattr("ffconv.interop.hub._fetched", fetched)
    predictor = ffconv.Predictor("user/name", device="cpu", revision="v1")
    assert asked == [("user/name", "v1", None)]
    assert predictor(photos[0]) == ffconv.Predictor(checkpoint, device="cpu")(photos[0])


def test_clips_are_what_the_command_prints(
    clip_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    video = make_video(tmp_path / "x.mp4", levels(30))
    (record,) = predicted(capsys, str(clip_checkpoint), str(video), "--clips", "3", "--crops", "1")
    predictor = ffconv.Predictor(clip_checkpoint, device="cpu", clips=3, crops=1)
    assert {"video": str(video), **predictor(video)} == record
    assert predictor([video, video]) == [predictor(video)] * 2


def test_the_frames_of_a_video_give_what_its_file_gives(clip_checkpoint: Path, tmp_path: Path):
    video = make_video(tmp_path / "x.mp4", levels(30))
    with VideoFile("x", video).open() as opened:
        rate, frames = opened.rate, np.stack([frame.picture for frame in opened.frames()])
    predictor = ffconv.Predictor(clip_checkpoint, device="cpu", clips=2)
    tensor = torch.from_numpy(frames).permute(0, 3, 1, 2)
    assert predictor(frames, fps=rate) == predictor(tensor, fps=rate) == predictor(video)
    assert predictor(tensor[None], fps=rate) == [predictor(video)]


def command_persons(
    checkpoint: Path, photo: Path, output: Path, boxes: str, *words: str
) -> list[dict[str, Any]]:
    command = ["predict", str(checkpoint), str(photo), "--boxes", boxes, "--output", str(output), *words]
    assert main([*command, "--device", "cpu"]) == 0
    return json.loads((output / "keypoints.json").read_text())["annotations"]


def as_written(persons: list[Any]) -> list[dict[str, Any]]:
    return [
        {
            "bbox": person.box.round(2).tolist(),
            "keypoints": person.keypoints.round(2).tolist(),
            "keypoint_scores": person.keypoint_scores.round(4).tolist(),
            "score": round(person.score, 4),
        }
        for person in persons
    ]


def as_read(annotations: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {
            "bbox": one["bbox"],
            "keypoints": np.reshape(one["keypoints"], (-1, 3))[:, :2].tolist(),
            "keypoint_scores": one["keypoint_scores"],
            "score": one["score"],
        }
        for one in annotations
    ]


def test_keypoints_of_the_whole_image_are_what_the_command_writes(
    pose_checkpoint: Path, photos: list[Path], tmp_path: Path
):
    written = command_persons(pose_checkpoint, photos[0], tmp_path / "out", "whole")
    predictor = ffconv.Predictor(pose_checkpoint, device="cpu")
    assert as_written(predictor(photos[0])) == as_read(written)
    assert len(predictor.names) == len(written[0]["keypoint_scores"]) == 17


@pytest.mark.parametrize("flip", [True, False])
def test_keypoints_in_boxes_are_what_the_command_writes(
    flip: bool, pose_checkpoint: Path, photos: list[Path], tmp_path: Path
):
    boxes = [(4.0, 3.0, 20.0, 30.0), (24.0, 5.0, 20.0, 30.0)]
    content = [{"image_id": 1, "category_id": 1, "bbox": box, "score": 1.0} for box in boxes]
    (tmp_path / "boxes.json").write_text(json.dumps(content))
    Image.open(photos[0]).save(tmp_path / "1.png")
    words = ("--flip", str(flip).lower())
    written = command_persons(
        pose_checkpoint, tmp_path / "1.png", tmp_path / "out", str(tmp_path / "boxes.json"), *words
    )
    predictor = ffconv.Predictor(pose_checkpoint, device="cpu", flip=flip)
    found = predictor(photos[0], boxes=boxes)
    assert as_written(found) == as_read(written)
    two = predictor([photos[0], photos[1]], boxes=[torch.tensor(boxes), []])
    assert as_written(two[0]) == as_written(found)
    assert two[1] == []


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ("none.png", "none.png: No such file"),
        (".", ". is a folder: give its files"),
        (3, "input of type int must be a path"),
        ([3], "input of type int must be a path"),
        (np.zeros((3, 40, 40), np.uint8), r"image of shape \(3, 40, 40\) must be \(H, W\)"),
        (np.zeros((40, 40), np.int64), "image of int64 must be uint8, uint16 or floating point"),
        (np.full((40, 40), 255.0), r"floats must lie in \[0, 1\], not in \[255, 255\]"),
        (np.full((40, 40), np.nan), r"floats must lie in \[0, 1\]"),
        (torch.zeros(40, 40), r"image tensor of shape \(40, 40\) must be \(C, H, W\)"),
        (Image.new("F", (40, 40)), "image of mode F has no defined range"),
    ],
)
def test_a_wrong_input_is_named(inputs: Any, message: str, checkpoint: Path):
    with pytest.raises(ffconv.InputError, match=message):
        ffconv.Predictor(checkpoint, device="cpu")(inputs)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"top": 0}, "top=0 must be at least 1"),
        ({"batch_size": 0}, "batch_size=0 must be at least 1"),
        ({"device": "gpu"}, "device='gpu' cannot be used"),
    ],
)
def test_a_wrong_option_is_named(options: dict[str, Any], message: str, checkpoint: Path):
    with pytest.raises(ffconv.InputError, match=message):
        ffconv.Predictor(checkpoint, **{"device": "cpu", **options})


def test_a_missing_checkpoint_is_named_without_asking_the_hub(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("ffconv.interop.hub._fetched", None)
    with pytest.raises(ffconv.InputError, match=r"no checkpoint at runs/none\.safetensors"):
        ffconv.Predictor("runs/none.safetensors", device="cpu")


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        ([[1, 2, 3]], r"boxes must be \(P, 4\).*not of shape \(1, 3\)"),
        ([[1, 2, 0, 4]], "sides above 0"),
        ("here", r"boxes must be \(P, 4\)"),
    ],
)
def test_wrong_boxes_are_named(boxes: Any, message: str, pose_checkpoint: Path, photos: list[Path]):
    with pytest.raises(ffconv.InputError, match=message):
        ffconv.Predictor(pose_checkpoint, device="cpu")(photos[0], boxes=boxes)


def test_boxes_of_a_batch_are_one_list_an_image(pose_checkpoint: Path, photos: list[Path]):
    with pytest.raises(ffconv.InputError, match="boxes of 1 images for 3 images"):
        ffconv.Predictor(pose_checkpoint, device="cpu")(photos, boxes=[[[1, 2, 3, 4]]])


def test_what_belongs_to_another_task_is_refused(checkpoint: Path, clip_checkpoint: Path, photos: list[Path]):
    with pytest.raises(ffconv.InputError, match="boxes are of keypoints, not of classification"):
        ffconv.Predictor(checkpoint, device="cpu")(photos[0], boxes=[])
    with pytest.raises(ffconv.InputError, match="fps is of videos, not of classification"):
        ffconv.Predictor(checkpoint, device="cpu")(photos[0], fps=3)
    with pytest.raises(ffconv.InputError, match="fps=None must be the frames per second"):
        ffconv.Predictor(clip_checkpoint, device="cpu")(np.zeros((4, 40, 40, 3), np.uint8))
    with pytest.raises(ffconv.InputError, match=r"video ndarray of shape \(40, 40, 3\) must be a path"):
        ffconv.Predictor(clip_checkpoint, device="cpu")(np.zeros((40, 40, 3), np.uint8))


def test_inpainting_is_pointed_to_its_function(tmp_path: Path):
    arguments = {"width": 4, "blocks": 1}
    info = InpaintingInfo("lama_generator", arguments, IMAGES)
    path = saved(tmp_path / "x.safetensors", info, timm.create_model("lama_generator", **arguments))
    with pytest.raises(ffconv.InputError, match=r"is a checkpoint of inpainting: ffconv\.inpaint"):
        ffconv.Predictor(path, device="cpu")


def test_gradients_are_on_after_a_prediction_that_was_not_finished(checkpoint: Path):
    predictor = ffconv.Predictor(checkpoint, device="cpu", batch_size=1)
    with pytest.raises(ffconv.InputError):
        predictor([torch.rand(3, 40, 40), "none.png"])
    assert torch.is_grad_enabled()


def test_the_device_is_the_accelerator_or_the_cpu():
    expected = "cuda" if torch.cuda.is_available() else "cpu"
    assert choose_device().type == choose_device("auto").type == expected
    assert choose_device(torch.device("cpu")) == torch.device("cpu")


def test_lazy_names_are_listed():
    assert {"Predictor", "inpaint", "InputError", "FFC2d"} <= set(dir(ffconv))
    assert set(ffconv.__all__) <= set(dir(ffconv))
    assert all(getattr(ffconv, name) is not None for name in ffconv.__all__)
