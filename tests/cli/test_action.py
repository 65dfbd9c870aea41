"""``ffconv train``, ``evaluate`` and ``shards`` with videos: the same commands, the same loop."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import video_files  # noqa: F401  registers the small network
from commands import assert_same_run
from ffconv.cli import main
from video_files import video_folder

TRAIN = (
    *("train", "--config", "small/moving_digits", "--model.name", "tiny_video", "--model.arguments", "{}"),
    *("--limit", "32", "--loop.batch_size", "8", "--loop.device", "cpu", "--loop.epochs", "2"),
    *("--data.clip.frames", "4", "--checkpoint.every", "3"),
)
EMBEDDED = ("--data.format", "moving_digits")


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("action") / "run"
    assert main([*TRAIN, "--output", str(folder)]) == 0
    return folder


def test_a_run_that_goes_on_ends_with_the_same_bits(run_folder: Path, tmp_path: Path):
    class Stop(BaseException):
        """What kills the run."""

    from ffconv.tasks.action import Action

    losses = 0
    plain = Action.loss

    def failing(*arguments):
        nonlocal losses
        losses += 1
        if losses == 6:
            raise Stop
        return plain(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Action, "loss", failing)
        with pytest.raises(Stop):
            main([*TRAIN, "--output", str(tmp_path / "run")])
    assert main([*TRAIN, "--output", str(tmp_path / "run"), "--resume", "auto"]) == 0
    assert_same_run(tmp_path / "run", run_folder)


def test_evaluate_counts_videos(run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    words = ["evaluate", str(run_folder), *EMBEDDED, "--limit", "20", "--device", "cpu"]
    assert main([*words, "--output", str(tmp_path)]) == 0
    assert "over 20 videos" in capsys.readouterr().out
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert scores["videos"] == 20
    assert (tmp_path / "confusion.png").exists()


def test_evaluate_takes_the_views_it_is_told(run_folder: Path, tmp_path: Path):
    words = ["evaluate", str(run_folder), *EMBEDDED, "--limit", "20", "--device", "cpu"]
    losses = []
    for size, options in (("1", []), ("7", []), ("7", ["--data.test.clips", "2", "--data.test.crops", "3"])):
        output = tmp_path / str(len(losses))
        assert main([*words, "--batch_size", size, "--output", str(output), *options]) == 0
        losses.append(json.loads((output / "scores.json").read_text())["loss"])
    # A clip of moving digits fills its whole video and picture: all views are the same.
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-6)


def test_videos_are_packed_and_trained_from(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for split in ("train", "val"):
        video_folder(tmp_path / "videos" / split, ["a", "b"], videos=3)
    assert main(["shards", str(tmp_path / "videos"), str(tmp_path / "shards"), "--kind", "video"]) == 0
    assert "train: 6 videos of 2 classes in 1 shard\n" in capsys.readouterr().out
    words = ["train", "--task", "action", "--model.name", "tiny_video", "--loop.device", "cpu"]
    clip = {"frames": 4, "stride": 2, "short_side": [16, 20], "train_size": 16}
    clip |= {"eval_short_side": 16, "eval_size": 16}
    words += ["--data.path", str(tmp_path / "shards"), "--data.clip", json.dumps(clip), "--data.workers", "0"]
    words += ["--loop.batch_size", "4", "--loop.epochs", "1", "--output", str(tmp_path / "run")]
    (tmp_path / "action.yaml").write_text("task: action\n")
    assert main([words[0], "--config", str(tmp_path / "action.yaml"), *words[3:]]) == 0
    assert (tmp_path / "run" / "best.safetensors").exists()


def test_packing_refuses_a_broken_video_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = video_folder(tmp_path / "videos", ["a"], videos=2)
    (folder / "a" / "1.mp4").write_bytes(b"")
    words = ["shards", str(folder), str(tmp_path / "shards"), "--kind", "video", "--workers", "0"]
    assert main(words) == 2
    assert "a/1.mp4: is empty (0 bytes)" in capsys.readouterr().err
