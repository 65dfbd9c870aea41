"""Clips: which seconds and which part of the picture; workers that let go of everything."""

from __future__ import annotations

import os
import random
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from ffconv.data.clip_config import ClipConfig, ViewsConfig
from ffconv.data.clips import (
    PrepareTrainingClips,
    PrepareViews,
    even_starts,
    resize_short_side,
    timing,
)
from ffconv.data.loading import BatchLoader, LoaderSpec, train_batches
from ffconv.data.media import MediaFolder
from ffconv.data.samples import UnreadableSample
from ffconv.data.videos import VIDEOS, VideoArray
from ffconv.data.views import Window, normalised, view_batches, windows, windows_per_clip
from ffconv.errors import InputError
from video_files import levels, video_folder

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")  # on few cores

SMALL = ClipConfig(frames=4, stride=3, short_side=(24, 32), train_size=16, eval_short_side=24, eval_size=16)


def numbered(count: int, rate: float = 10.0, size: tuple[int, int] = (40, 60)) -> VideoArray:
    """A video whose frame n is of grey level n."""
    pictures = np.arange(count, dtype=np.uint8)[:, None, None, None]
    return VideoArray("numbered", np.tile(pictures, (1, *size, 3)), rate)


def config(**fields) -> ClipConfig:
    return ClipConfig(
        **({"short_side": (16, 16), "train_size": 16} | {"eval_short_side": 16, "eval_size": 16} | fields)
    )


def training_clip(video: VideoArray, clip: ClipConfig, seed: int = 0) -> list[list[int]]:
    """The frames' numbers of each segment of a training clip."""
    random.seed(seed)
    torch.manual_seed(seed)
    return PrepareTrainingClips(clip)((video, 3), 7)["clip"][:, 0, :, 0, 0].tolist()


def test_training_takes_frames_at_the_stride_from_every_possible_start():
    clips = [training_clip(numbered(12), config(frames=3, stride=4), seed)[0] for seed in range(60)]
    assert {tuple(clip) for clip in clips} == {(n, n + 4, n + 8) for n in range(4)}


def test_a_rate_counts_the_stride_in_its_own_frames():
    """At 5 frames a second a stride of 2 is .4 s: 4 frames of a video of 10."""
    clip = config(frames=3, stride=2, rate=5.0)
    assert training_clip(numbered(9), clip) == [[0, 4, 8]]
    assert training_clip(numbered(17, rate=20.0), clip) == [[0, 8, 16]]


@pytest.mark.parametrize(("count", "expected"), [(1, [0, 0, 0, 0]), (5, [0, 3, 1, 4]), (9, [0, 3, 6, 0])])
def test_a_short_video_begins_again(count, expected):
    assert training_clip(numbered(count), config(frames=4, stride=3)) == [expected]


def test_segments_give_a_clip_of_each_part():
    clip = config(frames=2, stride=1, segments=3)
    for seed in range(20):
        clips = training_clip(numbered(31), clip, seed)
        assert [first // 10 for first, _ in clips] == [0, 1, 2]
        assert all(second == first + 1 for first, second in clips)


def test_training_crops_a_jittered_and_flipped_square():
    picture = np.zeros((40, 80, 3), np.uint8)
    picture[:, :, 0], picture[:, :, 1] = np.arange(40)[:, None] * 6, np.arange(80) * 3
    prepare = PrepareTrainingClips(config(frames=1, short_side=(20, 40), train_size=16))
    heights, flipped = set(), set()
    for seed in range(40):
        random.seed(seed)
        clip = prepare((VideoArray("x", picture[None]), 0), 0)["clip"][0, :, 0].int()
        steps = clip[0].diff(dim=0).float().mean().item(), clip[1].diff(dim=1).float().mean().item()
        assert abs(steps[0] / 2) == pytest.approx(abs(steps[1]), rel=0.1)  # the aspect ratio stays
        heights.add(round(240 / steps[0]))
        flipped.add(steps[1] < 0)
    assert flipped == {False, True}
    assert 19 <= min(heights) < 24
    assert 36 < max(heights) <= 42


def test_labels_and_numbers_come_along():
    prepared = PrepareTrainingClips(config())((numbered(80), 3), 7)
    assert (prepared["label"], prepared["index"]) == (3, 7)


def test_test_clips_are_spread_from_the_first_frame_to_the_last():
    clip = config(frames=3, stride=4)
    with numbered(33).open() as video:
        assert even_starts(timing(video, clip), 4) == pytest.approx([0.0, 0.8, 1.6, 2.4])
        assert even_starts(timing(video, clip), 1) == pytest.approx([1.2])


def test_views_share_the_frames_they_have_in_common():
    prepared = PrepareViews(config(frames=2, stride=2), 3)((numbered(7), 1), 0)
    assert prepared["frames"][:, 0, 0, 0].tolist() == [0, 2, 4, 6]
    assert prepared["places"].tolist() == [[0, 1], [1, 2], [2, 3]]
    assert prepared["span"].tolist() == [pytest.approx(span) for span in ([0, 0.3], [0.2, 0.5], [0.4, 0.7])]


def test_ten_crops_are_corners_and_centre_and_their_mirrors():
    ten = windows(20, 30, 10, config(eval_size=10, eval_short_side=20))
    places = [(0, 0), (0, 20), (10, 0), (10, 20), (5, 10)]
    assert ten == [Window(*place, 10, flip) for flip in (False, True) for place in places]


def test_three_crops_lie_along_the_long_side():
    assert windows(20, 30, 3, config()) == [Window(0, left, 20, False) for left in (0, 5, 10)]
    assert windows(30, 20, 3, config()) == [Window(top, 0, 20, False) for top in (0, 5, 10)]


@pytest.mark.parametrize("crops", [1, 3, 10])
@pytest.mark.parametrize("flip", [0.0, 0.5])
def test_the_number_of_windows_is_known_beforehand(crops, flip):
    clip = config(flip=flip)
    assert windows_per_clip(crops, clip) == len(windows(20, 30, crops, clip))


def test_a_window_cuts_and_flips():
    pictures = torch.arange(2 * 3 * 4 * 5).view(2, 3, 4, 5)
    cut = Window(1, 2, 3, True).cut(pictures, [1, 0])
    assert torch.equal(cut, pictures[[1, 0], :, 1:4, 2:5].flip(-1).transpose(0, 1))


@pytest.mark.parametrize("size", [1, 7, 100])
def test_batches_of_views_are_bounded_and_in_order(size):
    prepare = PrepareViews(config(frames=2, stride=2, eval_short_side=20), 3)
    videos = [prepare((numbered(count), 0), 0) for count in (7, 9)]
    batches = list(view_batches(videos, config(eval_short_side=20), crops=10, size=size))
    assert all(len(batch.clips) == len(batch.owners) <= size for batch in batches)
    assert [owner for batch in batches for owner in batch.owners] == [n for n in range(6) for _ in range(10)]
    first_frames = torch.cat([batch.clips for batch in batches])[::10, 0, 0, 0, 0]
    assert first_frames.tolist() == [0, 2, 4, 0, 3, 6]


def test_normalising():
    clip = ClipConfig(mean=(0.0, 0.5, 1.0), std=(1.0, 0.5, 0.25))
    clips = torch.full((1, 3, 1, 1, 1), 255, dtype=torch.uint8)
    assert normalised(clips, clip).flatten().tolist() == [1.0, 1.0, 0.0]


def test_the_short_side_is_resized():
    assert resize_short_side(20)(np.zeros((40, 60, 3), np.uint8)).shape == (20, 30, 3)
    assert resize_short_side(20)(np.zeros((60, 10, 3), np.uint8)).shape == (120, 20, 3)


@pytest.mark.parametrize("fields", [{"clips": 0}, {"crops": 5}])
def test_views_outside_their_range(fields):
    with pytest.raises(InputError, match=next(iter(fields))):
        ViewsConfig(**fields)


# Files through the loader


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return video_folder(tmp_path / "videos", ["a", "b"], videos=4)


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_no_bit(workers, folder):
    samples, prepare = MediaFolder(folder, VIDEOS), PrepareTrainingClips(SMALL)
    alone, together = (
        list(train_batches(samples, prepare, spec=LoaderSpec(4, workers=number), epoch=1))
        for number in (0, workers)
    )
    assert [torch.equal(a["clip"], b["clip"]) for a, b in zip(alone, together, strict=True)] == [True, True]


@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_broken_videos_follow_the_rule_of_images(on_error, folder):
    bad = folder / "a" / "1.mp4"
    bad.write_bytes(bad.read_bytes()[:500])
    spec = LoaderSpec(8, on_error=on_error)
    batches = train_batches(MediaFolder(folder, VIDEOS), PrepareTrainingClips(SMALL), spec=spec, epoch=0)
    if on_error == "raise":
        with pytest.raises(UnreadableSample, match=str(bad)):
            list(batches)
    else:
        (batch,) = batches
        assert len(batch["clip"]) == 8
        assert [sample.name for sample in batches.skipped] == [str(bad)]


def usage(item, index) -> dict[str, int]:
    """Reads a clip, then tells the worker's open files and memory in MiB."""
    PrepareTrainingClips(SMALL)(item, index)
    process = psutil.Process(os.getpid())
    return {"files": process.num_fds(), "mebibytes": process.memory_info().rss >> 20, "index": index}


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 1])
def test_a_long_epoch_leaks_neither_files_nor_memory(workers, tmp_path):
    folder = video_folder(tmp_path / "videos", ["a"], videos=4, frames=list(levels(30, (240, 320))))
    (folder / "a" / "broken.mp4").write_bytes((folder / "a" / "0.mp4").read_bytes()[:900])
    loader = BatchLoader(MediaFolder(folder, VIDEOS), usage, LoaderSpec(2, workers=workers, on_error="skip"))
    rows = [batch for epoch in range(100) for batch in loader.train(epoch)]
    files, memory = (torch.cat([row[name] for row in rows]) for name in ("files", "mebibytes"))
    assert files[-1] <= files[10]
    assert memory[-50:].max() <= memory[50:100].max() + 20  # a leak of a frame a clip would be 87 MiB
