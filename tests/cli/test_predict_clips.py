"""``ffconv predict`` with a checkpoint of action recognition."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from commands import predicted
from ffconv.cli import main
from ffconv.data.clip_config import ClipConfig
from ffconv.data.video_config import VideoDataConfig
from ffconv.tasks.action import Action, ActionConfig
from ffconv.tasks.networks import ModelConfig
from ffconv.training.checkpoint import save_weights
from ffconv.training.task import Share
from video_files import decoded, levels, make_video, video_folder

CLASSES = ("run", "jump", "swim")
CLIP = ClipConfig(frames=4, stride=3, short_side=(24, 32), train_size=16, eval_short_side=24, eval_size=16)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A network that says jump (2/4), run (1/4), swim (1/4) of whatever it sees."""
    config = ActionConfig(ModelConfig("tiny_video"), VideoDataConfig(clip=CLIP))
    task = Action(config, Share(batch_size=1), classes=CLASSES)
    network = task.build_model()
    nn.init.zeros_(network.fc.weight)
    network.fc.bias.data = torch.tensor([0.25, 0.5, 0.25]).log()
    path = tmp_path / "action.safetensors"
    save_weights(path, network.state_dict(), {**task.metadata(), "metrics": {}})
    return path


def test_json_holds_classes_and_the_seconds_of_each_clip(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    video = make_video(tmp_path / "x.mp4", levels(30))
    (record,) = predicted(capsys, str(checkpoint), str(video), "--clips", "3", "--top", "2")
    assert record["video"] == str(video)
    assert [(p["class"], p["probability"]) for p in record["predictions"]] == [("jump", 0.5), ("run", 0.25)]
    # Ten frames a clip (4 at stride 3), the first from 0, the last to the end.
    spans = [(clip["start"], clip["end"]) for clip in record["clips"]]
    assert spans == [(0.0, 0.333), (0.333, 0.667), (0.667, 1.0)]
    assert all(clip["predictions"][0]["class"] == "jump" for clip in record["clips"])


@pytest.mark.parametrize("batch_size", ["1", "100"])
def test_each_video_below_a_folder_has_a_record(
    batch_size: str, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    folder = video_folder(tmp_path / "videos", ["a", "b"])
    records = predicted(capsys, str(checkpoint), str(folder), "--batch_size", batch_size)
    assert [record["video"] for record in records] == sorted(map(str, folder.rglob("*.mp4")))


def test_a_table_has_the_whole_and_the_parts(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    video = make_video(tmp_path / "x.mp4", levels(30))
    words = ["predict", str(checkpoint), str(video), "--clips", "2", "--top", "2", "--device", "cpu"]
    assert main(words) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[2] == [str(video), "all", "clips", "jump", "50.00"]
    assert lines[3:6] == [
        ["run", "25.00"],
        ["0.00", "to", "0.33", "jump", "50.00"],
        ["0.67", "to", "1.00", "jump", "50.00"],
    ]


def test_the_video_is_written_with_its_label(checkpoint: Path, tmp_path: Path):
    plain = make_video(tmp_path / "x.mp4", [np.full((96, 160, 3), 200, np.uint8)] * 12, rate=12)
    output = tmp_path / "out" / "labelled.mp4"
    assert main(["predict", str(checkpoint), str(plain), "--output", str(output), "--device", "cpu"]) == 0
    frames = decoded(output)
    assert [frame.shape for frame in frames] == [(96, 160, 3)] * 12
    assert all((frame[:30, :60] < 100).mean() > 0.2 for frame in frames)  # the dark ground of the words
    assert all((frame[60:] > 180).all() for frame in frames)


def test_videos_of_a_folder_are_written_into_a_folder(checkpoint: Path, tmp_path: Path):
    folder = video_folder(tmp_path / "videos", ["a"], videos=2)
    words = ["predict", str(checkpoint), str(folder), "--output", str(tmp_path / "out"), "--device", "cpu"]
    assert main(words) == 0
    assert sorted(path.name for path in (tmp_path / "out" / "a").iterdir()) == ["0.mp4", "1.mp4"]


def test_videos_that_differ_in_their_extension_are_written_to_two_files(checkpoint: Path, tmp_path: Path):
    folder = tmp_path / "videos"
    folder.mkdir()
    make_video(folder / "x.mp4", levels(4))
    make_video(folder / "x.avi", levels(9))
    words = ["predict", str(checkpoint), str(folder), "--output", str(tmp_path / "out"), "--device", "cpu"]
    assert main(words) == 0
    written = {path.name: len(decoded(path)) for path in (tmp_path / "out").iterdir()}
    assert written == {"x.mp4": 4, "x.avi.mp4": 9}


def test_two_videos_that_would_be_written_to_one_file_are_refused_before_the_work(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    folder = tmp_path / "videos"
    folder.mkdir()
    for name in ("x.avi", "x.avi.mp4"):
        make_video(folder / name, levels(4))
    monkeypatch.setattr("ffconv.tasks.multi_view.scored_videos", None)
    words = ["predict", str(checkpoint), str(folder), "--output", str(tmp_path / "out"), "--device", "cpu"]
    assert main(words) == 2
    assert "x.avi and x.avi.mp4 would both be written to x.avi.mp4" in capsys.readouterr().err


def test_the_video_itself_is_not_written_over(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    video = make_video(tmp_path / "x.mp4")
    content = video.read_bytes()
    assert main(["predict", str(checkpoint), str(video), "--output", str(video), "--device", "cpu"]) == 2
    assert "must not be the video itself" in capsys.readouterr().err
    assert video.read_bytes() == content


def test_a_bad_video_is_named_after_the_others_predictions(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    folder = video_folder(tmp_path / "videos", ["a"], videos=3)
    (folder / "a" / "1.mp4").write_bytes(b"")
    assert main(["predict", str(checkpoint), str(folder), "--format", "json", "--device", "cpu"]) == 2
    printed = capsys.readouterr()
    assert [Path(record["video"]).name for record in json.loads(printed.out)] == ["0.mp4", "2.mp4"]
    assert printed.err == f"ffconv: {folder}/a/1.mp4: is empty (0 bytes)\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--clips", "0"], "clips=0 must be at least 1"),
        (["--crops", "4"], "crops"),
        (["--top", "0"], "top=0 must be at least 1"),
        (["--batch_size", "0"], "batch_size=0 must be at least 1"),
    ],
)
def test_wrong_options_are_one_line(
    words: list[str], message: str, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    video = make_video(tmp_path / "x.mp4")
    assert main(["predict", str(checkpoint), str(video), "--device", "cpu", *words]) == 2
    printed = capsys.readouterr().err
    assert message in printed
    assert printed.count("\n") == 1
