"""The lines of docs/predict.md do what they say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from documents import DOCS, code_blocks
from ffconv.data.clip_config import ClipConfig
from ffconv.data.keypoint_sets import COCO_PERSON
from ffconv.data.pose_transforms import PoseTransformConfig
from ffconv.data.transforms import ImageTransformConfig
from ffconv.interop.checkpoint_info import CheckpointInfo, ClipInfo, ImageInfo, PoseInfo
from ffconv.training.checkpoint import save_weights
from video_files import levels, make_video

IMAGE, POSE, VIDEO, HUB = code_blocks(DOCS / "predict.md", "python")
SMALL = ImageTransformConfig(train_size=32, eval_short_side=32, eval_size=32)
CLIP = ClipConfig(frames=4, stride=3, short_side=(24, 32), train_size=16, eval_short_side=24, eval_size=16)
CLASSES = ("cat", "dog", "owl")


@pytest.fixture(autouse=True)
def _in_a_folder_with_photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 255, (160, 160, 3), dtype=np.uint8)
    for name in ("photo.jpg", "other.png"):
        Image.fromarray(pixels).save(name)


def make_run(name: str, info: CheckpointInfo, outputs: int) -> None:
    folder = Path("runs") / name
    folder.mkdir(parents=True)
    network = timm.create_model(info.name, num_classes=outputs, **info.arguments)
    save_weights(folder / "best.safetensors", network.state_dict(), info.metadata())


def test_images_are_classified(capsys: pytest.CaptureFixture[str]):
    make_run("ffc_resnet50", ImageInfo("test_resnet", {}, CLASSES, SMALL), 3)
    names: dict[str, Any] = {}
    exec(IMAGE, names)
    assert sorted(line.split(":")[0] for line in capsys.readouterr().out.splitlines()) == [
        "cat",
        "dog",
        "owl",
    ]
    assert [len(classes) for classes in names["several"]] == [3, 3]


def test_keypoints_are_found(capsys: pytest.CaptureFixture[str]):
    info = PoseInfo(
        "pose", {"backbone": "test_resnet"}, COCO_PERSON, PoseTransformConfig(input_size=(64, 64))
    )
    make_run("ffc_pose_resnet50_256x192", info, 17)
    names: dict[str, Any] = {}
    exec(f"import ffconv\n{POSE}", names)
    assert names["person"].box.tolist() == [0, 0, 160, 160]
    assert capsys.readouterr().out.startswith("{'nose': [")


def test_videos_are_classified(tmp_path: Path):
    make_run("ffc_c2d_resnet50", ClipInfo("tiny_video", {}, CLASSES, CLIP), 3)
    make_video(tmp_path / "clip.mp4", levels(30))
    names: dict[str, Any] = {"frames": np.zeros((30, 48, 64, 3), np.uint8)}
    exec(f"import ffconv\n{VIDEO}", names)
    assert names["whole"]["class"] in CLASSES


def test_torch_hub_loads_a_checkout(tmp_path: Path):
    make_run("ffc_resnet50", ImageInfo("test_resnet", {}, CLASSES, SMALL), 3)
    (tmp_path / "ffconv").symlink_to(DOCS.parent)
    names: dict[str, Any] = {}
    exec(HUB, names)
    assert names["network"].num_classes == 10
    assert names["predictor"].names == CLASSES
    assert isinstance(names["network"], torch.nn.Module)
