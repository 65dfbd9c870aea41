"""The task of action recognition: its batches, its loss, its tests of many views."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

import video_files  # noqa: F401  registers the small network
from ffconv.data.clip_config import ClipConfig, ViewsConfig
from ffconv.data.clips import PrepareViews
from ffconv.data.video_config import VideoDataConfig, open_videos
from ffconv.data.views import normalised, windows
from ffconv.errors import InputError
from ffconv.interop.checkpoint_info import ClipInfo
from ffconv.tasks.action import Action, ActionConfig
from ffconv.tasks.multi_view import scored_videos
from ffconv.tasks.networks import ModelConfig, load_trained
from ffconv.training.checkpoint import save_weights
from ffconv.training.task import Share
from two_processes import results
from video_files import TinyVideoNetwork, levels, make_video, video_folder

DIGITS = ClipConfig(
    frames=4, stride=1, short_side=(24, 24), train_size=24, flip=0.0, eval_short_side=24, eval_size=24
)
FILES = ClipConfig(frames=4, stride=3, short_side=(24, 32), train_size=16, eval_short_side=24, eval_size=16)


def task(share: Share | None = None, *, clip: ClipConfig = DIGITS, **fields: Any) -> Action:
    views = {"validation": ViewsConfig(), "test": ViewsConfig(2, 3)}
    data = {name: fields.pop(name) for name in list(fields) if name in ("path", "on_error", "verify", *views)}
    form = "auto" if "path" in data else "moving_digits"
    classes = fields.pop("classes", None)
    config = ActionConfig(
        **{
            "model": ModelConfig("tiny_video"),
            "data": VideoDataConfig(format=form, workers=0, clip=clip, **(views | data)),
            "limit": None if "path" in data else 24,
            **fields,
        }
    )
    return Action(config, share or Share(batch_size=8), classes=classes)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for split in ("train", "val"):
        video_folder(tmp_path / split, ["jump", "run"], videos=3)
    make_video(tmp_path / "val" / "run" / "3.mp4", levels(28, (60, 48)))
    return tmp_path


def test_batches_are_clips_of_bytes():
    (batch, *_) = task().train_batches(0, 0)
    assert (batch["clip"].shape, batch["clip"].dtype) == ((8, 1, 3, 4, 24, 24), torch.uint8)


def test_loss_is_the_cross_entropy_of_the_segments_mean_scores():
    segments = task(clip=ClipConfig(**(vars(DIGITS) | {"segments": 3})))
    network = segments.build_model().eval()
    (batch, *_) = segments.train_batches(0, 0)
    clips = normalised(batch["clip"].flatten(0, 1), DIGITS)
    scores = network(clips).view(8, 3, 16).mean(dim=1)
    torch.testing.assert_close(segments.loss(network, batch, 0), F.cross_entropy(scores, batch["label"]))


def test_frozen_norms_stay_through_a_loss():
    frozen = task(freeze_bn=True)
    network = frozen.build_model().train()
    (batch, *_) = frozen.train_batches(0, 0)
    frozen.loss(network, batch, 0).backward()
    assert torch.equal(network.norm.running_mean, torch.zeros(8))
    assert network.norm.weight.grad is None
    assert network.conv.weight.grad is not None


def test_norms_are_trained_by_default():
    free = task()
    network = free.build_model().train()
    (batch, *_) = free.train_batches(0, 0)
    free.loss(network, batch, 0).backward()
    assert network.norm.running_mean.any()
    assert network.norm.weight.grad is not None


def by_hand(network: nn.Module, path: Path, views: ViewsConfig, clip: ClipConfig) -> tuple[Tensor, Tensor]:
    """Scores of all videos of the validation split, view by view, and their labels."""
    samples = open_videos(VideoDataConfig(str(path), clip=clip), "val")
    prepare, rows, labels = PrepareViews(clip, views.clips), [], []
    for index in range(len(samples)):
        video = prepare(samples[index], index)
        frames = video["frames"]
        cuts = windows(*frames.shape[-2:], views.crops, clip)
        chances = [
            network(normalised(window.cut(frames, places)[None], clip))[0].double().softmax(0)
            for places in video["places"]
            for window in cuts
        ]
        rows.append(torch.stack(chances).mean(0))
        labels.append(video["label"])
    return torch.stack(rows), torch.tensor(labels)


@pytest.mark.parametrize("size", [1, 5, 64])
@pytest.mark.parametrize("views", [ViewsConfig(3, 10), ViewsConfig(2, 3), ViewsConfig(1, 1)])
def test_scores_are_means_over_views_whatever_the_batch(size, views, folder):
    tested = task(Share(batch_size=size), path=str(folder), clip=FILES, test=views)
    network = tested.build_model().eval()
    with torch.no_grad():
        scores = tested.scores(network, "val")
        assert network.seen <= size
        expected, labels = by_hand(network, folder, views, FILES)
    assert scores.samples == 7
    assert scores.top1 == pytest.approx(100 * (expected.argmax(1) == labels).double().mean().item())
    assert scores.loss == pytest.approx(-expected.log()[range(7), labels].mean().item(), rel=1e-5)


@pytest.mark.parametrize("size", [1, 7])
def test_each_clip_has_scores_and_seconds(size, folder):
    tested = task(path=str(folder), clip=FILES, test=ViewsConfig(3, 3))
    network = tested.build_model().eval()
    videos = tested._testing.evaluation("val")
    with torch.no_grad():
        found = list(
            scored_videos(network, videos, FILES, views=ViewsConfig(3, 3), share=Share(batch_size=size))
        )
    assert [video.index for video in found] == list(range(7))
    assert found[6].spans.tolist() == [
        pytest.approx(span, abs=1e-4) for span in ([0, 1 / 3], [0.3, 19 / 30], [0.6, 28 / 30])
    ]
    assert all(video.clip_scores.sum(1).tolist() == pytest.approx([1.0] * 3) for video in found)


def test_epochs_are_evaluated_by_the_cheaper_views(folder):
    tested = task(path=str(folder), clip=FILES, test=ViewsConfig(3, 10))
    network = tested.build_model().eval()
    with torch.no_grad():
        expected, labels = by_hand(network, folder, ViewsConfig(1, 1), FILES)
        found = tested.evaluate(network)["loss"]
    assert found == pytest.approx(-expected.log()[range(7), labels].mean().item(), rel=1e-5)


def scores_of_rank(rank: int) -> dict[str, float]:
    torch.manual_seed(0)
    share = Share(batch_size=4, rank=rank, world_size=2)
    tested = task(share, limit=23)
    with torch.no_grad():
        scores = tested.scores(tested.build_model().eval(), "val")
    return {"samples": scores.samples, **scores.as_dict()}


@pytest.mark.slow
def test_two_processes_score_each_video_once(tmp_path):
    alone = task(limit=23)
    torch.manual_seed(0)
    with torch.no_grad():
        expected = alone.scores(alone.build_model().eval(), "val")
    for found in results(scores_of_rank, tmp_path):
        assert found == pytest.approx({"samples": 23, **expected.as_dict()}, rel=1e-6)


class Reversible(TinyVideoNetwork):
    """A network that cannot tell a clip from its reverse."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + super().forward(x.flip(2))


def test_a_network_blind_to_order_is_right_about_half_of_moving_digits_at_most():
    blind = task(limit=200)
    model = Reversible(16).train()
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for epoch in range(2):
        for batch in blind.train_batches(epoch, 0):
            optimizer.zero_grad()
            blind.loss(model, batch, 0).backward()
            optimizer.step()
    assert 100 / 16 < blind.evaluate(model.eval())["top1"] <= 50


def test_verify_decodes_every_video(folder):
    bad = folder / "val" / "run" / "1.mp4"
    bad.write_bytes(bad.read_bytes()[:600])
    with pytest.raises(InputError, match=r"1 of 7 samples cannot be read: .*run/1\.mp4"):
        task(path=str(folder), clip=FILES, verify=True).check()


def test_skipped_videos_are_listed_and_not_counted(folder):
    bad = folder / "val" / "run" / "1.mp4"
    bad.write_bytes(b"")
    skipping = task(path=str(folder), clip=FILES, on_error="skip")
    with torch.no_grad():
        assert skipping.scores(skipping.build_model().eval(), "val").samples == 6
    assert dict(skipping.skipped()) == {str(bad): "is empty (0 bytes)"}


def test_both_splits_must_have_the_same_classes(folder):
    video_folder(folder / "val", ["swim"])
    with pytest.raises(InputError, match="with swim"):
        task(path=str(folder), clip=FILES).check()


def test_a_checkpoint_rebuilds_its_network(tmp_path):
    trained = task()
    network = trained.build_model().eval()
    path = tmp_path / "x.safetensors"
    save_weights(path, network.state_dict(), {**trained.metadata(), "metrics": {"top1": 1.0}})
    found = load_trained(path, ClipInfo)
    clips = torch.randn(1, 3, 4, 24, 24)
    assert torch.equal(found.network(clips), network(clips))
    assert found.info.clip.frames == 4


def test_a_checkpoint_of_images_is_refused(tmp_path):
    save_weights(tmp_path / "x.safetensors", {}, {"task": "classification"})
    with pytest.raises(InputError, match="is a checkpoint of classification, not of action"):
        load_trained(tmp_path / "x.safetensors", ClipInfo)


def test_a_network_starts_from_an_image_network(tmp_path):
    """C2D repeats no weight: on a clip of one picture it says what the image network says, up to the head."""
    image = timm.create_model("resnet18", num_classes=7)
    save_file(image.state_dict(), tmp_path / "image.safetensors")
    weights = str(tmp_path / "image.safetensors")
    model = ModelConfig("c2d_resnet18", {"drop_rate": 0.0}, weights=weights, new_classifier=True)
    video = task(model=model).build_model().eval()
    picture = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = image.eval().forward_head(image.forward_features(picture), pre_logits=True)
        features = video.forward_features(picture[:, :, None].repeat(1, 1, 4, 1, 1))
        torch.testing.assert_close(video.forward_head(features, pre_logits=True), expected)


def test_limit_must_be_positive():
    with pytest.raises(InputError, match="limit=0"):
        ActionConfig(limit=0)
