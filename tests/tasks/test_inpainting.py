"""Inpainting as a task: batches, loss, evaluation, pictures, checkpoints."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from ffconv.data.config import DataConfig
from ffconv.data.masks import MaskConfig
from ffconv.data.transforms import ImageTransformConfig
from ffconv.errors import InputError
from ffconv.interop.checkpoint_info import InpaintingInfo
from ffconv.tasks.inpainting import Inpainting, InpaintingConfig, ReconstructionConfig
from ffconv.tasks.networks import ModelConfig, load_trained
from ffconv.training.checkpoint import save_weights
from ffconv.training.task import DrawsPictures, Share
from lama import Lama, save_lightning

SIZES = ImageTransformConfig(
    train_size=32, eval_short_side=32, eval_size=32, scale=(1, 1), ratio=(1, 1), mean=(0, 0, 0), std=(1, 1, 1)
)
NETWORK = ModelConfig("lama_generator", {"width": 4, "downsamplings": 2, "blocks": 1})


def task(share: Share | None = None, **fields: Any) -> Inpainting:
    defaults = {
        "model": NETWORK,
        "data": DataConfig(format="textures", workers=0, transform=SIZES),
        "limit": 20,
    }
    return Inpainting(InpaintingConfig(**(defaults | fields)), share or Share(batch_size=8))


class Constant(nn.Module):
    """Draws one grey everywhere."""

    def __init__(self, level: float) -> None:
        super().__init__()
        self.level = level

    def forward(self, x: Tensor) -> Tensor:
        return torch.full_like(x[:, :3], self.level)


class Copies(nn.Module):
    """Gives back what it is shown."""

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :3]


def images_below(path: Path, names: list[str]) -> Path:
    for number, name in enumerate(names):
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 36), (30 * number, 100, 200)).save(path / name)
    return path


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"norm": "l3"}, "loss.norm='l3'"),
        ({"hole": 0.0}, "loss.hole=0.0"),
        ({"known": -1.0}, "loss.known=-1.0"),
    ],
)
def test_loss_refuses_what_is_out_of_range(fields: dict[str, Any], message: str):
    with pytest.raises(InputError, match=message):
        ReconstructionConfig(**fields)


def test_images_must_stay_in_0_to_1():
    with pytest.raises(InputError, match=r"data\.transform\.mean must be 0"):
        InpaintingConfig(data=DataConfig(format="textures"))


def test_limit_must_be_positive():
    with pytest.raises(InputError, match="limit=0"):
        InpaintingConfig(limit=0)


@pytest.mark.parametrize(("norm", "power"), [("l1", 1), ("l2", 2)])
def test_loss_weighs_hole_and_known_pixels(norm: Any, power: int):
    batch = {"image": torch.rand(2, 3, 8, 8), "mask": (torch.rand(2, 1, 8, 8) < 0.3).float()}
    asked = task(loss=ReconstructionConfig(norm, hole=2.0, known=0.5))
    error = (batch["image"] - 0.25).abs() ** power
    inside = batch["mask"].expand(2, 3, 8, 8) > 0
    expected = 2 * error[inside].mean() + 0.5 * error[~inside].mean()
    torch.testing.assert_close(asked.loss(Constant(0.25), batch, 0), expected)


def test_the_network_is_not_shown_the_hole():
    batch = next(iter(task().train_batches(0, 0)))
    asked = task(loss=ReconstructionConfig("l1", hole=1.0, known=0.0))
    # It copies black where it knows nothing.
    expected = (batch["image"] * batch["mask"]).sum() / (3 * batch["mask"].sum())
    torch.testing.assert_close(asked.loss(Copies(), batch, 0), expected)


def test_train_batches_go_on_where_they_stopped():
    whole, rest = list(task().train_batches(3, 0)), list(task().train_batches(3, 1))
    assert len(rest) == len(whole) - 1
    assert torch.equal(whole[1]["mask"], rest[0]["mask"])


def test_evaluation_is_of_the_filled_image():
    found = task()
    scores = found.evaluate(Constant(0.5))
    batch = found._loaders.evaluation("val")
    squares = [
        ((0.5 - item["image"]) ** 2 * item["mask"]).sum((1, 2, 3)) / (3 * item["mask"].sum((1, 2, 3)))
        for item in batch
    ]
    expected = (-10 * torch.cat(squares).log10()).mean().item()
    assert scores["hole_psnr"] == pytest.approx(expected, rel=1e-5)


def test_evaluation_counts_each_image_once():
    one, many = (task(Share(batch_size=size)).scores(Constant(0.4), "val") for size in (3, 20))
    assert one.all.samples == many.all.samples == 20
    assert one.all.hole_ssim == pytest.approx(many.all.hole_ssim)


def test_processes_share_the_images():
    whole = task().scores(Constant(0.4), "val").all
    parts = [task(Share(8, rank=rank, world_size=2)).scores(Constant(0.4), "val").all for rank in (0, 1)]
    assert sum(part.samples * part.hole_psnr for part in parts) / 20 == pytest.approx(whole.hole_psnr)


def test_holes_of_one_kind_only():
    scores = task(masks=MaskConfig(("thick",))).scores(Constant(0.4), "val")
    assert list(scores.by_kind) == ["thick"]


def test_images_need_no_class_folders(tmp_path: Path):
    images_below(tmp_path, ["train/a.png", "train/deep/b.jpg", "val/c.png"])
    found = task(Share(2), data=DataConfig(str(tmp_path), workers=0, transform=SIZES))
    assert len(next(iter(found.train_batches(0, 0)))["image"]) == 2


def test_a_folder_needs_no_splits(tmp_path: Path):
    images_below(tmp_path, [f"{name}.png" for name in "abcd"])
    found = task(Share(2), data=DataConfig(str(tmp_path), workers=0, transform=SIZES))
    assert [len(found._open(split)) for split in ("train", "val")] == [3, 1]


@pytest.mark.parametrize("name", ["train", "val"])
def test_a_folder_with_one_split_lacks_the_other(name: str, tmp_path: Path):
    images_below(tmp_path, ["a.png", f"{name}/b.png"])
    found = task(data=DataConfig(str(tmp_path), workers=0, transform=SIZES))
    with pytest.raises(InputError, match="no such file or folder"):
        found.check()


def test_published_weights_are_a_start(tmp_path: Path):
    weights = Lama(ngf=4, n_downsampling=2, n_blocks=1).weights(torch.float32)
    (tmp_path / "models").mkdir()
    save_lightning(weights, tmp_path / "models" / "best.ckpt")
    model = ModelConfig(NETWORK.name, NETWORK.arguments, weights=str(tmp_path))
    network: Any = task(model=model).build_model()
    assert torch.equal(network.head.weight, weights["model.13.weight"])


def test_an_unreadable_image_is_left_out_of_the_pictures(tmp_path: Path):
    images_below(tmp_path, ["train/a.png", "val/b.png", "val/c.png"])
    (tmp_path / "val" / "a.png").write_bytes(b"")
    found = task(data=DataConfig(str(tmp_path), workers=0, on_error="skip", transform=SIZES))
    picture = Image.open(io.BytesIO(found.pictures(Copies())["samples.png"]))
    factor, side, padding, titles = 3, 32, 2, 17
    assert picture.size == (
        factor * (4 * (side + padding) + padding),
        titles + factor * (2 * (side + padding) + padding),
    )


def test_pictures_show_hole_filling_drawing_and_image():
    found = task()
    assert isinstance(found, DrawsPictures)
    picture = Image.open(io.BytesIO(found.pictures(Constant(0.0))["samples.png"]))
    titles = 17  # the line above
    assert np.asarray(picture)[:titles].min() < 100
    pixels = np.asarray(picture.crop((0, titles, *picture.size)).reduce(3)).astype(int)
    tiles = [pixels[2:34, 2 + 34 * column : 34 + 34 * column] for column in range(4)]
    item = found._for_evaluation(found._loaders.samples("val")[0], 0)
    hole = item["mask"][0].numpy() > 0
    image = (item["image"] * 255).round().permute(1, 2, 0).numpy()
    grey, black = np.where(hole[..., None], 128, image), np.where(hole[..., None], 0, image)
    for tile, expected in zip(tiles, (grey, black, np.zeros_like(image), image), strict=True):
        assert np.abs(tile - expected).max() <= 1


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            ModelConfig("lama_generator", {"width": 4, "downsamplings": 6, "blocks": 1}),
            "takes no input of 4x32x32",
        ),
        (ModelConfig("resnet18", {"in_chans": 4}), r"makes \(3,\) of an input of"),
        (ModelConfig("resnet18"), "takes no input of 4x32x32"),
    ],
)
def test_a_network_that_makes_no_image_is_refused(model: ModelConfig, message: str):
    with pytest.raises(InputError, match=message):
        task(model=model).build_model()


def test_a_size_that_does_not_come_back_is_refused():
    data = DataConfig(format="textures", transform=dataclasses.replace(SIZES, train_size=30))
    with pytest.raises(InputError, match=r"makes \(3, 32, 32\) of an input of .*multiples of 4"):
        task(data=data).build_model()


def test_a_checkpoint_rebuilds_its_network(tmp_path: Path):
    trained = task()
    network = trained.build_model().eval()
    path = tmp_path / "x.safetensors"
    save_weights(path, network.state_dict(), {**trained.metadata(), "metrics": {"hole_psnr": 12.0}})
    loaded, x = load_trained(path, InpaintingInfo), torch.rand(1, 4, 32, 32)
    assert torch.equal(loaded.network(x), network(x))
    assert loaded.info.masks.kinds == ("thin", "medium", "thick")


def test_a_checkpoint_of_another_task_is_refused(tmp_path: Path):
    save_weights(tmp_path / "x.safetensors", {"a": torch.zeros(1)}, {"task": "pose"})
    with pytest.raises(InputError, match="is a checkpoint of pose, not of inpainting"):
        load_trained(tmp_path / "x.safetensors", InpaintingInfo)
