from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from commands import image_folder
from ffconv.data.config import DataConfig
from ffconv.data.transforms import ImageTransformConfig
from ffconv.errors import InputError
from ffconv.interop.checkpoint_info import ImageInfo
from ffconv.tasks.classification import (
    Classification,
    ClassificationConfig,
    LossConfig,
)
from ffconv.tasks.networks import ModelConfig, load_trained
from ffconv.training.checkpoint import read_metadata, read_safetensors, save_weights
from ffconv.training.task import Share

SMALL = ImageTransformConfig(train_size=32, eval_short_side=32, eval_size=32)
NETWORK = ModelConfig("test_resnet")


def task(
    share: Share | None = None, *, classes: tuple[str, ...] | None = None, **fields: Any
) -> Classification:
    defaults = {
        "model": NETWORK,
        "data": DataConfig(format="digits", workers=0, transform=SMALL),
        "limit": 50,
    }
    config = ClassificationConfig(**(defaults | fields))
    return Classification(config, share or Share(batch_size=16), classes=classes)


class FixedLogits(nn.Module):
    """Gives each batch the same logits, whatever the images."""

    def __init__(self, logits: Tensor):
        super().__init__()
        self.logits = nn.Parameter(logits)

    def forward(self, images: Tensor) -> Tensor:
        return self.logits.expand(len(images), -1)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"label_smoothing": 1.0}, "loss.label_smoothing=1.0"),
        ({"mixup": -0.1}, "loss.mixup=-0.1"),
        ({"cutmix": -1.0}, "loss.cutmix=-1.0"),
    ],
)
def test_loss_refuses_what_is_out_of_range(fields: dict[str, float], message: str):
    with pytest.raises(InputError, match=message):
        LossConfig(**fields)


def test_limit_must_be_positive():
    with pytest.raises(InputError, match="limit=0"):
        ClassificationConfig(limit=0)


def test_limit_bounds_both_splits():
    limited = task(limit=40)
    assert limited.batches_per_epoch() == 40 // 16
    assert limited.scores(limited.build_model().eval(), "val").samples == 40


def test_limit_smaller_than_a_batch_is_one_batch():
    limited = task(limit=10)
    (batch,) = limited.train_batches(0, 0)
    assert (limited.batches_per_epoch(), len(batch["label"])) == (1, 10)


def test_network_has_a_head_for_the_classes():
    assert task().build_model()(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


def test_train_batches_go_on_where_they_stopped():
    whole = list(task().train_batches(3, 0))
    rest = list(task().train_batches(3, 2))
    assert len(rest) == len(whole) - 2
    for a, b in zip(whole[2:], rest, strict=True):
        assert torch.equal(a["image"], b["image"])


def test_loss_is_cross_entropy_with_label_smoothing():
    logits, labels = torch.randn(10), torch.tensor([3, 7])
    batch = {"image": torch.zeros(2, 3, 8, 8), "label": labels}
    loss = task(loss=LossConfig(label_smoothing=0.1)).loss(FixedLogits(logits), batch, 0)
    target = torch.full((2, 10), 0.01)
    target[[0, 1], labels] += 0.9
    torch.testing.assert_close(loss, -(target * logits.log_softmax(0)).sum(1).mean())


def mixed_loss(step: int, seed: int = 0) -> float:
    mixing = task(Share(batch_size=4, seed=seed), loss=LossConfig(mixup=0.5, cutmix=1.0))
    # The images are their own logits: ten channels of 5 x 5, of which the network takes the means.
    images = torch.linspace(0, 1, 4 * 10 * 25).reshape(4, 10, 5, 5).sin().cumsum(1)
    network = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return mixing.loss(network, {"image": images, "label": torch.arange(4)}, step).item()


def test_mixing_is_a_function_of_seed_and_step():
    first = mixed_loss(5)
    torch.manual_seed(99)
    assert mixed_loss(5) == first
    assert len({mixed_loss(step) for step in range(6)} | {mixed_loss(5, seed=1)}) == 7


def test_mixing_leaves_the_generator_alone():
    mixing = task(loss=LossConfig(mixup=0.5, cutmix=1.0))
    batch = {"image": torch.zeros(4, 3, 8, 8), "label": torch.arange(4)}
    model = FixedLogits(torch.zeros(10))
    before = torch.get_rng_state()
    mixing.loss(model, batch, 5)
    assert torch.equal(torch.get_rng_state(), before)


def test_evaluation_counts_each_image_once():
    model = task().build_model().eval()
    one, many = (task(Share(batch_size=size)).scores(model, "val") for size in (7, 50))
    assert (one.samples, many.samples) == (50, 50)
    assert (one.top1, one.top5) == (many.top1, many.top5)
    assert one.loss == pytest.approx(many.loss, rel=1e-6)


def test_evaluation_is_top_1_top_5_and_mean_cross_entropy():
    logits = torch.arange(10.0)  # the prediction is always 9, the five likeliest 5 to 9
    fixed = task()
    labels = torch.tensor([label for _, label in (fixed._samples("val")[i] for i in range(50))])
    scores = fixed.evaluate(FixedLogits(logits))
    assert scores["top1"] == pytest.approx(100 * (labels == 9).double().mean().item())
    assert scores["top5"] == pytest.approx(100 * (labels >= 5).double().mean().item())
    assert scores["loss"] == pytest.approx(F.cross_entropy(logits.expand(50, -1), labels).item())


def test_evaluation_set_must_have_the_classes_of_the_training_set(tmp_path: Path):
    image_folder(tmp_path / "train", "abc")
    image_folder(tmp_path / "val", "abx")
    with pytest.raises(InputError, match=r"val.* without c and with x"):
        task(data=DataConfig(str(tmp_path), workers=0, transform=SMALL)).check()


def test_data_must_have_the_classes_of_a_checkpoint(tmp_path: Path):
    image_folder(tmp_path / "val", "abc")
    asked = task(classes=("a", "b"), data=DataConfig(str(tmp_path), workers=0, transform=SMALL))
    with pytest.raises(InputError, match="with c"):
        asked.scores(nn.Identity(), "val")


def test_verify_names_a_bad_file_before_training(tmp_path: Path):
    image_folder(tmp_path / "train", "ab")
    image_folder(tmp_path / "val", "ab")
    (tmp_path / "train" / "a" / "1.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"1\.png"):
        task(data=DataConfig(str(tmp_path), workers=0, verify=True, transform=SMALL)).check()


def test_skipped_files_are_listed(tmp_path: Path):
    image_folder(tmp_path / "train", "ab")
    (tmp_path / "train" / "a" / "1.png").write_bytes(b"")
    data = DataConfig(str(tmp_path), workers=0, on_error="skip", transform=SMALL)
    skipping = task(Share(batch_size=6), data=data, limit=None)
    list(skipping.train_batches(0, 0))
    ((name, reason),) = skipping.skipped()
    assert name == str(tmp_path / "train" / "a" / "1.png")
    assert reason


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Path, nn.Module]:
    trained = task()
    model = trained.build_model().eval()
    path = tmp_path / "x.safetensors"
    save_weights(path, model.state_dict(), {**trained.metadata(), "metrics": {"epoch": 3, "top1": 12.0}})
    return path, model


def test_a_checkpoint_rebuilds_its_network(saved: tuple[Path, nn.Module]):
    path, model = saved
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(load_trained(path, ImageInfo).network(images), model(images))


def test_a_checkpoint_knows_classes_sizes_and_metrics(saved: tuple[Path, nn.Module]):
    classifier = load_trained(saved[0], ImageInfo)
    assert classifier.info.classes == tuple("0123456789")
    assert classifier.info.transform.eval_size == 32
    assert classifier.info.metrics == {"epoch": 3, "top1": 12.0}


def test_weights_of_another_architecture_are_refused(saved: tuple[Path, nn.Module]):
    path, _ = saved
    weights, metadata = read_safetensors(path), read_metadata(path)
    metadata["model"]["name"] = "resnet18"
    save_weights(path, weights, metadata)
    with pytest.raises(InputError, match=r"x\.safetensors: the weights do not fit resnet18: .*Missing key"):
        load_trained(path, ImageInfo)


def test_a_checkpoint_of_another_task_is_refused(saved: tuple[Path, nn.Module]):
    path, _ = saved
    weights, metadata = read_safetensors(path), read_metadata(path)
    save_weights(path, weights, metadata | {"task": "pose"})
    with pytest.raises(InputError, match="is a checkpoint of pose, not of classification"):
        load_trained(path, ImageInfo)
