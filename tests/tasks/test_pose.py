from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ffconv.data.keypoint_sets import COCO_PERSON, KeypointSet
from ffconv.data.pose_config import PoseDataConfig
from ffconv.data.pose_transforms import PoseTestConfig, PoseTransformConfig
from ffconv.errors import InputError
from ffconv.interop.checkpoint_info import PoseInfo
from ffconv.tasks import task_kind
from ffconv.tasks.heatmap_loss import heatmap_loss
from ffconv.tasks.networks import ModelConfig, load_trained
from ffconv.tasks.pose import Pose, PoseConfig, PoseEstimator, PoseLossConfig
from ffconv.training.checkpoint import read_metadata, read_safetensors, save_weights
from ffconv.training.task import Share
from two_processes import results

SMALL = PoseTransformConfig(input_size=(64, 64), codec="unbiased", sigma=1.0)
FIGURES = PoseDataConfig(format="figures", workers=0, transform=SMALL)
NETWORK = ModelConfig("pose", {"backbone": "test_resnet"})


def task(share: Share | None = None, *, keypoints: KeypointSet | None = None, **fields: Any) -> Pose:
    defaults = {"model": NETWORK, "data": FIGURES, "limit": 12, "test": PoseTestConfig(flip=False)}
    return Pose(PoseConfig(**(defaults | fields)), share or Share(batch_size=4), keypoints=keypoints)


class Oracle(nn.Module):
    """Gives for each image the heatmaps that its person should have."""

    def __init__(self, asked: Pose, split: str = "val") -> None:
        super().__init__()
        self.targets = {
            image.sum().item(): target
            for batch in asked._loaders.evaluation(split)  # pyright: ignore[reportArgumentType]
            for image, target in zip(batch["image"], batch["target"], strict=True)
        }

    def forward(self, images: Tensor) -> Tensor:
        return torch.stack([self.targets[image.sum().item()] for image in images])


class Fixed(nn.Module):
    """Gives each image the same heatmaps."""

    def __init__(self, heatmaps: Tensor) -> None:
        super().__init__()
        self.heatmaps = nn.Parameter(heatmaps)

    def forward(self, images: Tensor) -> Tensor:
        return self.heatmaps.expand(len(images), -1, -1, -1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PoseLossConfig(hardest=0), "loss.hardest=0 must be at least 1"),
        (lambda: PoseTestConfig(flip_shift=-1), "test.flip_shift=-1 must not be negative"),
        (lambda: PoseConfig(limit=0), "limit=0 must be at least 1"),
        (lambda: task(loss=PoseLossConfig(hardest=18)).check(), "must not exceed the 17 keypoints"),
    ],
)
def test_values_out_of_range_are_refused(make: Any, message: str):
    with pytest.raises(InputError, match=message):
        make()


def test_a_missing_package_of_the_evaluation_is_named_before_training(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "faster_coco_eval", None)
    with pytest.raises(InputError, match="needs the package faster-coco-eval"):
        task().check()


def test_the_task_is_known_by_its_name():
    assert task_kind("pose") == (Pose, PoseConfig)


def test_right_heatmaps_score_1():
    asked = task()
    scores = asked.scores(Oracle(asked), "val")
    assert scores.ap == pytest.approx(100)
    assert len(scores.results) == len(asked._loaders.samples("val"))


def test_heatmaps_of_somebody_else_score_little():
    asked = task()
    oracle = Oracle(asked)
    keys = list(oracle.targets)
    shuffled = [oracle.targets[key].flip(-1) for key in keys[1:] + keys[:1]]
    oracle.targets = dict(zip(keys, shuffled, strict=True))
    assert asked.scores(oracle, "val").ap < 20


def test_batch_size_changes_no_score():
    one, many = task(Share(batch_size=1)), task(Share(batch_size=50))
    model = one.build_model().eval()
    with torch.no_grad():
        assert one.evaluate(model) == pytest.approx(many.evaluate(model), abs=1e-6)


def _scores_of(rank: int) -> dict[str, float]:
    asked = task(Share(batch_size=4, rank=rank, world_size=2))
    return asked.evaluate(Oracle(asked))


@pytest.mark.slow
def test_two_processes_score_as_one(tmp_path: Path):
    alone = task()
    assert results(_scores_of, tmp_path) == [alone.evaluate(Oracle(alone))] * 2


def test_loss_is_that_of_the_heatmaps_with_weights_and_mining():
    batch = next(iter(task().train_batches(0, 0)))
    heatmaps = 0.1 * torch.rand(17, 16, 16)
    asked = task(loss=PoseLossConfig(hardest=5))
    expected = heatmap_loss(
        heatmaps.expand(4, -1, -1, -1), batch["target"], batch["target_weight"], hardest=5
    )
    torch.testing.assert_close(asked.loss(Fixed(heatmaps), batch, 0), expected)


def test_training_goes_on_where_it_stopped():
    whole, rest = list(task().train_batches(3, 0)), list(task().train_batches(3, 1))
    assert len(rest) == len(whole) - 1 > 0
    assert all(torch.equal(a["image"], b["image"]) for a, b in zip(whole[1:], rest, strict=True))


def test_training_crops_are_random_and_evaluation_crops_are_not():
    asked = task(Share(batch_size=100))
    epochs = [next(iter(asked.train_batches(epoch, 0))) for epoch in (0, 1)]
    sets = [{image.sum().item() for image in batch["image"]} for batch in epochs]
    assert sets[0].isdisjoint(sets[1])
    passes = [next(iter(asked._loaders.evaluation("train"))) for _ in range(2)]
    assert torch.equal(passes[0]["image"], passes[1]["image"])


def test_limit_takes_about_so_many_persons():
    assert 8 <= len(task(limit=12)._loaders.samples("val")) <= 16


PAIRS = KeypointSet(("left", "right", "top"), (), ((0, 1),), (0.1,) * 3)


def estimator(**test: Any) -> PoseEstimator:
    """A network whose three heatmaps are the image's channels, each pixel the mean of 4 x 4."""
    return PoseEstimator(nn.AvgPool2d(4), PAIRS, SMALL, PoseTestConfig(**test))


def test_without_flip_the_heatmaps_are_the_networks():
    images = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(estimator(flip=False).heatmaps(images), nn.functional.avg_pool2d(images, 4))


def test_flip_averages_with_the_mirrored_pairs():
    images = torch.randn(2, 3, 64, 64)
    maps = nn.functional.avg_pool2d(images, 4)
    torch.testing.assert_close(estimator().heatmaps(images), (maps + maps[:, [1, 0, 2]]) / 2)


@pytest.mark.parametrize(
    ("codec", "shift", "moved"), [("protocol", None, 1), ("protocol", 0, 0), ("unbiased", 1, 1)]
)
def test_flip_shift_is_the_codecs_unless_told_otherwise(codec: Any, shift: int | None, moved: int):
    transform = dataclasses.replace(SMALL, codec=codec)
    asked = PoseEstimator(nn.AvgPool2d(4), PAIRS, transform, PoseTestConfig(flip_shift=shift))
    images = torch.randn(1, 3, 64, 64)
    maps = nn.functional.avg_pool2d(images, 4)
    swapped = maps[:, [1, 0, 2]]
    later = torch.cat([swapped[..., :moved], swapped[..., : 16 - moved]], dim=-1)
    torch.testing.assert_close(asked.heatmaps(images), (maps + later) / 2)


def test_keypoints_are_brought_to_the_image():
    heatmaps = torch.zeros(17, 16, 16)
    heatmaps[:, 5, 9] = 1.0
    transform = dataclasses.replace(SMALL, codec="protocol")
    asked = PoseEstimator(Fixed(heatmaps), COCO_PERSON, transform, PoseTestConfig(flip=False))
    matrices = torch.tensor([[[2.0, 0, 100], [0, 3.0, 50]]])
    keypoints, scores = asked(torch.zeros(1, 3, 64, 64), matrices)
    expected = torch.tensor([2 * 36.0 + 100, 3 * 20.0 + 50]).expand(1, 17, 2)
    torch.testing.assert_close(keypoints, expected)
    assert torch.equal(scores, torch.ones(1, 17))


@pytest.mark.parametrize(
    ("model", "size", "message"),
    [
        (ModelConfig("test_resnet"), (64, 64), r"makes \(17,\) of an input of .*, not \(17, 16, 16\)"),
        (NETWORK, (72, 64), r"makes \(17, 24, 16\) of an input of .*, not \(17, 18, 16\)"),
    ],
)
def test_a_network_without_fitting_heatmaps_is_refused(
    model: ModelConfig, size: tuple[int, int], message: str
):
    data = dataclasses.replace(FIGURES, transform=dataclasses.replace(SMALL, input_size=size))
    with pytest.raises(InputError, match=message):
        task(model=model, data=data).build_model()


def test_data_must_have_the_keypoints_of_a_checkpoint():
    two = KeypointSet(("head", "foot"), (), (), (0.1, 0.1))
    with pytest.raises(InputError, match="data split val: 17 keypoints, but the network has 2"):
        task(keypoints=two).scores(nn.Identity(), "val")


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Path, nn.Module]:
    trained = task()
    model = trained.build_model().eval()
    path = tmp_path / "x.safetensors"
    save_weights(path, model.state_dict(), {**trained.metadata(), "metrics": {"epoch": 3, "AP": 50.0}})
    return path, model


def test_a_checkpoint_rebuilds_its_network_and_knows_its_keypoints(saved: tuple[Path, nn.Module]):
    path, model = saved
    loaded = load_trained(path, PoseInfo)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(loaded.network(images), model(images))
    assert loaded.info.keypoints == COCO_PERSON
    assert (loaded.info.transform.input_size, loaded.info.test.flip) == ((64, 64), False)
    assert loaded.info.metrics == {"epoch": 3, "AP": 50.0}


def test_metadata_is_json_and_says_nothing_of_this_machine():
    metadata = task().metadata()
    assert json.loads(json.dumps(metadata))["task"] == "pose"
    assert metadata["data"].keys() == {"transform"}


def test_a_checkpoint_of_another_task_is_refused(saved: tuple[Path, nn.Module]):
    path, _ = saved
    weights, metadata = read_safetensors(path), read_metadata(path)
    save_weights(path, weights, metadata | {"task": "classification"})
    with pytest.raises(InputError, match="is a checkpoint of classification, not of pose"):
        load_trained(path, PoseInfo)
