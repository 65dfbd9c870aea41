"""Folders of save_pretrained, and of timm, stand for checkpoints where their config.json says enough."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import nn

from ffconv.data.transforms import ImageTransformConfig
from ffconv.errors import InputError
from ffconv.interop.checkpoint_info import ClipInfo, ImageInfo, InpaintingInfo, is_bare, read_info
from ffconv.interop.hub import CONFIG, WEIGHTS, About, from_pretrained, save_pretrained
from ffconv.models import LamaGenerator
from ffconv.tasks.exporting import Wanted, network_of_checkpoint
from ffconv.tasks.filling import load_filler
from ffconv.tasks.networks import load_trained
from ffconv.tasks.packaging import open_for_hub
from ffconv.training.checkpoint import save_weights

SQUARE = About(
    classes=("cat", "dog"),
    preprocessing={"input_size": (3, 28, 28), "crop_pct": 0.875, "mean": (0.1, 0.2, 0.3)},
)


def saved(folder: Path, name: str = "test_resnet", about: About = SQUARE, **arguments: Any) -> Path:
    """The weights of a package that no checkpoint of training stands behind."""
    save_pretrained(timm.create_model(name, **arguments), folder, about)
    return folder / WEIGHTS


def small(folder: Path, about: About = SQUARE) -> Path:
    return saved(folder, about=about, num_classes=2)


def with_config(path: Path, **changed: Any) -> Path:
    """The same weights, with other values in the table of preprocessing."""
    file = path.with_name(CONFIG)
    config = json.loads(file.read_text())
    config["pretrained_cfg"] |= changed
    file.write_text(json.dumps(config))
    return path


def test_classes_and_the_evaluation_transform_are_those_of_the_configuration(tmp_path: Path):
    info = read_info(small(tmp_path), ImageInfo)
    assert info.classes == ("cat", "dog")
    assert (info.transform.eval_size, info.transform.eval_short_side) == (28, 32)
    assert info.transform.mean == (0.1, 0.2, 0.3)


def test_images_are_resized_as_by_timm(tmp_path: Path):
    path = small(
        tmp_path, About(preprocessing={"input_size": (3, 28, 28), "crop_pct": 0.88})
    )  # 28 / .88 = 31.8
    config = timm.data.resolve_model_data_config(from_pretrained(tmp_path))
    resize = timm.data.create_transform(**config).transforms[0]
    assert read_info(path, ImageInfo).transform.eval_short_side == resize.size


def test_the_network_is_the_one_that_was_saved(tmp_path: Path):
    path = small(tmp_path)
    expected = from_pretrained(tmp_path).state_dict()
    found = load_trained(path)[0].state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_unnamed_classes_are_numbers(tmp_path: Path):
    assert read_info(small(tmp_path, About()), ImageInfo).classes == ("0", "1")


def test_a_folder_that_timm_wrote_is_read(tmp_path: Path):
    network = timm.create_model("test_resnet", num_classes=3)
    timm.models.save_for_hf(network, str(tmp_path), safe_serialization=True)
    assert read_info(tmp_path / WEIGHTS, ImageInfo).classes == ("0", "1", "2")


def test_clips_have_the_frames_that_were_saved(tmp_path: Path):
    path = saved(tmp_path, "ffc_c2d_resnet18", About(frames=4), num_classes=2)
    assert read_info(path, ClipInfo).clip.frames == 4


def test_holes_are_filled_by_a_package(tmp_path: Path):
    path = saved(tmp_path, "lama_generator", About(), width=4, blocks=1)
    assert isinstance(load_filler(path), LamaGenerator)
    # Of images in [0, 1], which is what the evaluation asks for.
    transform = read_info(path, InpaintingInfo).transform
    assert (transform.mean, transform.std, transform.eval_size) == ((0.0,) * 3, (1.0,) * 3, 256)


def test_a_package_of_training_says_itself_what_it_is(tmp_path: Path):
    path = small(tmp_path)
    info = ImageInfo("test_resnet", {}, ("a", "b"), ImageTransformConfig(eval_size=32))
    save_weights(path, from_pretrained(tmp_path).state_dict(), info.metadata())
    assert not is_bare(path)
    assert load_trained(path).info == info


def test_a_package_is_packaged_again(tmp_path: Path):
    network, about = open_for_hub(small(tmp_path / "1"))
    save_pretrained(network, tmp_path / "2", about)
    assert load_trained(tmp_path / "2" / WEIGHTS).info == load_trained(tmp_path / "1" / WEIGHTS).info


@pytest.mark.parametrize(
    ("name", "arguments", "about", "size"),
    [
        ("test_resnet", {"num_classes": 2}, SQUARE, (3, 28, 28)),
        ("ffc_c2d_resnet18", {"num_classes": 2}, About(frames=4), (3, 4, 224, 224)),
        ("lama_generator", {"width": 4, "blocks": 1}, About(), (4, 256, 256)),
        (
            "pose", {"backbone": "test_resnet", "num_classes": 2},
            About(("head", "hand"), {"input_size": (3, 64, 32)}), (3, 64, 32),
        ),
    ],
)  # fmt: skip
def test_the_input_of_an_export_is_the_configurations(
    name: str, arguments: dict[str, Any], about: About, size: tuple[int, ...], tmp_path: Path
):
    found = network_of_checkpoint(saved(tmp_path, name, about, **arguments), Wanted())
    assert found.trained
    assert (found.given.size, found.given.classes) == (size, about.classes)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"input_size": None}, r"config\.json: pretrained_cfg\.input_size is missing"),
        ({"input_size": [3, 32, 48]}, r"input_size=\[32, 48\]: only square images are cut"),
        ({"crop_mode": "squash"}, "crop_mode=squash: only centre crops are made"),
        ({"mean": [0.5]}, r"mean=\[0\.5\] must be that of three colours"),
    ],
)
def test_what_the_configuration_lacks_is_named(changed: dict[str, Any], message: str, tmp_path: Path):
    with pytest.raises(InputError, match=message):
        load_trained(with_config(small(tmp_path), **changed))


def test_keypoints_need_more_than_the_configuration(tmp_path: Path):
    path = saved(tmp_path, "pose", About(), backbone="test_resnet", num_classes=2)
    with pytest.raises(InputError, match=r"config\.json does not say how keypoints are read from heatmaps"):
        load_trained(path)


def test_a_network_of_ones_own_is_not_rebuilt(tmp_path: Path):
    save_pretrained(nn.Conv2d(3, 4, 3), tmp_path)
    with pytest.raises(InputError, match="weights of Conv2d, which timm's registry does not have: build it"):
        load_trained(tmp_path / WEIGHTS)


def test_damaged_weights_are_said_to_be_damaged(tmp_path: Path):
    path = small(tmp_path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match="truncated or not a safetensors file"):
        load_trained(path)
