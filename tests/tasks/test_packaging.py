"""What a checkpoint of each task tells a hub."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch

from ffconv.data.clip_config import ClipConfig
from ffconv.data.keypoint_sets import COCO_PERSON
from ffconv.data.pose_transforms import PoseTransformConfig
from ffconv.data.transforms import ImageTransformConfig
from ffconv.errors import InputError
from ffconv.interop.checkpoint_info import CheckpointInfo, ClipInfo, ImageInfo, InpaintingInfo, PoseInfo
from ffconv.interop.hub import from_pretrained, save_pretrained
from ffconv.tasks.networks import load_trained
from ffconv.tasks.packaging import about_checkpoint, open_for_hub
from ffconv.training.checkpoint import save_weights
from lama import Lama, save_lightning

CLASSES = ("one", "two", "three")
IMAGES = ImageTransformConfig(train_size=32, eval_size=28, eval_short_side=32, interpolation="bicubic")
CLIPS = ClipConfig(frames=4, train_size=32, short_side=(32, 32), eval_size=32, eval_short_side=40)
HOLES = ImageTransformConfig(train_size=32, eval_size=32, eval_short_side=32)
PERSONS = PoseTransformConfig(input_size=(64, 32))
METRICS = {"epoch": 3, "lr": 0.1, "top1": 50.0}
TASKS: dict[str, CheckpointInfo] = {
    "classification": ImageInfo("test_resnet", {}, CLASSES, IMAGES, metrics=METRICS),
    "action": ClipInfo("ffc_c2d_resnet18", {}, CLASSES, CLIPS, metrics=METRICS),
    "pose": PoseInfo("pose", {"backbone": "test_resnet"}, COCO_PERSON, PERSONS, metrics=METRICS),
    "inpainting": InpaintingInfo("lama_generator", {"width": 4, "blocks": 1}, HOLES, metrics=METRICS),
}


@pytest.mark.parametrize("task", TASKS)
def test_a_packaged_checkpoint_is_the_network_and_still_a_checkpoint(task: str, tmp_path: Path):
    info = TASKS[task]
    network = timm.create_model(info.name, num_classes=info.output_size[0], **info.arguments)
    save_weights(tmp_path / "best.safetensors", network.state_dict(), info.metadata())
    found, about = open_for_hub(tmp_path / "best.safetensors")
    save_pretrained(found, tmp_path / "package", about)
    again = from_pretrained(tmp_path / "package")
    channels, *_, height, width = info.input_size
    assert tuple(again.pretrained_cfg["input_size"]) == (channels, height, width)
    expected, twin = network.state_dict(), load_trained(tmp_path / "package" / "model.safetensors")
    assert twin.info == info
    for weights in (again.state_dict(), twin.network.state_dict()):
        assert all(torch.equal(tensor, expected[key]) for key, tensor in weights.items())


def test_classification_tells_classes_and_the_evaluation_transform():
    about = about_checkpoint(TASKS["classification"])
    assert about.classes == CLASSES
    assert about.preprocessing == {
        "input_size": (3, 28, 28),
        "crop_pct": 0.875,
        "interpolation": "bicubic",
        "mean": IMAGES.mean,
        "std": IMAGES.std,
    }


def test_timm_resizes_to_the_short_side_of_the_checkpoint():
    transform = ImageTransformConfig(eval_size=17, eval_short_side=25)  # 17 / (17 / 25) is a bit below 25
    about = about_checkpoint(ImageInfo("test_resnet", {}, CLASSES, transform))
    assert timm.data.create_transform(**about.preprocessing).transforms[0].size == 25


def test_metrics_are_those_of_the_network():
    assert about_checkpoint(TASKS["pose"]).metrics == {"epoch": 3, "top1": 50.0}


def test_keypoints_are_the_names_of_the_outputs():
    assert about_checkpoint(TASKS["pose"]).classes == COCO_PERSON.names


def test_the_multiply_adds_of_a_clip_are_those_of_its_frames():
    assert about_checkpoint(TASKS["action"]).frames == 4


def test_lamas_checkpoint_is_packaged(tmp_path: Path):
    path = save_lightning(Lama(ngf=4, n_blocks=1).weights(torch.float32), tmp_path / "best.ckpt")
    network, about = open_for_hub(path)
    save_pretrained(network, tmp_path / "package", about)
    x = torch.rand(1, 4, 32, 32)
    with torch.no_grad():
        assert torch.equal(from_pretrained(tmp_path / "package")(x), network(x))


def test_the_card_of_lamas_checkpoint_says_what_the_network_does(tmp_path: Path):
    path = save_lightning(Lama(ngf=4, n_blocks=1).weights(torch.float32), tmp_path / "best.ckpt")
    network, about = open_for_hub(path)
    save_pretrained(network, tmp_path / "package", about)
    card = (tmp_path / "package" / "README.md").read_text()
    assert "pipeline_tag: image-to-image" in card
    assert "ffconv inpaint photo.png mask.png" in card
    assert "crop_pct" not in card  # images are neither cut nor normalised


def test_a_file_of_other_weights_is_refused(tmp_path: Path):
    torch.save({"fc.weight": torch.zeros(2, 2)}, tmp_path / "x.pth")
    with pytest.raises(InputError, match="not of LaMa's generator"):
        open_for_hub(tmp_path / "x.pth")
