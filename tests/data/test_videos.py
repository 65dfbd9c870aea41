"""Videos as samples: folders, Kinetics' CSV files, lists, shards, and their configuration."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from ffconv.data.clip_config import ClipConfig
from ffconv.data.loading import LoaderSpec, eval_batches
from ffconv.data.samples import UnreadableSample
from ffconv.data.shard_writing import write_shards
from ffconv.data.video_config import VideoDataConfig, open_videos
from ffconv.data.videos import VIDEOS, VideoArray, VideoFile, class_names, read_list
from ffconv.errors import InputError
from video_files import levels, make_video, numbers, video_folder

KINETICS = "label,youtube_id,time_start,time_end,split,is_cc\n"


def names(samples) -> list[tuple[str, str]]:
    """Name of each sample's file and class."""
    items = [samples[index] for index in range(len(samples))]
    return [(Path(video.name).name, samples.classes[label]) for video, label in items]


def listed(tmp_path: Path, text: str, **options: object) -> VideoDataConfig:
    (tmp_path / "train.txt").write_text(text)
    return VideoDataConfig(str(tmp_path), train="train.txt", val="train.txt", **options)


def test_a_folder_per_class(tmp_path):
    video_folder(tmp_path / "train", ["run", "jump"], videos=1)
    samples = open_videos(VideoDataConfig(str(tmp_path)), "train")
    assert names(samples) == [("0.mp4", "jump"), ("0.mp4", "run")]


def test_samples_are_not_opened_before_they_are_read(tmp_path):
    video_folder(tmp_path / "train", ["run"], videos=1)
    (tmp_path / "train" / "run" / "0.mp4").write_bytes(b"")
    video, _ = open_videos(VideoDataConfig(str(tmp_path)), "train")[0]
    with pytest.raises(UnreadableSample, match=r"0\.mp4: is empty"), video.open():
        pass


@pytest.mark.parametrize("below", ["train/abseiling", "anywhere"])
def test_kinetics_csv_finds_videos_by_id_and_time(below, tmp_path):
    rows = (
        "abseiling,-abc_1,5,15,train,0\nair drumming,xyz,120,130,train,0\nair drumming,whole,1,11,train,0\n"
    )
    (tmp_path / "train.csv").write_text(KINETICS + rows)
    (tmp_path / below).mkdir(parents=True)
    for name in ("-abc_1_000005_000015.mp4", "xyz_000120_000130.mkv", "whole.webm", "other.mp4"):
        (tmp_path / below / name).touch()
    samples = open_videos(VideoDataConfig(str(tmp_path), train="train.csv", val="none"), "train")
    assert names(samples) == [
        ("-abc_1_000005_000015.mp4", "abseiling"),
        ("xyz_000120_000130.mkv", "air drumming"),
        ("whole.webm", "air drumming"),
    ]


def test_missing_videos_of_a_csv_are_refused_by_name(tmp_path):
    (tmp_path / "train.csv").write_text(f"{KINETICS}run,a,0,10,train,0\nrun,b,0,10,train,0\n")
    (tmp_path / "a_000000_000010.mp4").touch()
    config = VideoDataConfig(str(tmp_path), train="train.csv")
    with pytest.raises(InputError, match=r"1 of 2 videos are missing: .*run/b_000000_000010\.mp4"):
        open_videos(config, "train")


def test_missing_videos_of_a_csv_are_samples_that_can_be_skipped(tmp_path):
    (tmp_path / "train.csv").write_text(f"{KINETICS}run,b,0,10,train,0\n")
    config = VideoDataConfig(str(tmp_path), train="train.csv", on_error="skip")
    (video, _), *_ = open_videos(config, "train")
    with pytest.raises(UnreadableSample, match=r"b_000000_000010\.mp4: No such file"), video.open():
        pass


def test_classes_are_those_of_both_csv_files(tmp_path):
    (tmp_path / "train.csv").write_text(f"{KINETICS}run,a,0,10,train,0\njump,b,0,10,train,0\n")
    (tmp_path / "val.csv").write_text(f"{KINETICS}run,c,0,10,val,0\n")
    config = VideoDataConfig(str(tmp_path), train="train.csv", val="val.csv", on_error="skip")
    val = open_videos(config, "val")
    assert (val.classes, val.labels.tolist()) == (("jump", "run"), [1])


@pytest.mark.parametrize("between", [" ", ","])
def test_a_list_of_paths_and_numbers(between, tmp_path):
    config = listed(tmp_path, f"a b/x.mp4{between}2\n/else/y.avi{between}0\n")
    samples = open_videos(config, "train")
    assert samples.classes == ("0", "1", "2")
    assert samples.labels.tolist() == [2, 0]
    assert [samples.file(index) for index in range(2)] == [tmp_path / "a b/x.mp4", Path("/else/y.avi")]


def test_a_list_with_names(tmp_path):
    samples = open_videos(listed(tmp_path, "x.mp4 run\ny.mp4 jump\n"), "train")
    assert (samples.classes, samples.labels.tolist()) == (("jump", "run"), [1, 0])


def test_numbers_can_be_given_names(tmp_path):
    (tmp_path / "names.txt").write_text("rope jumping\nrunning\nswimming\n")
    samples = open_videos(listed(tmp_path, "x.mp4 1\n", classes="names.txt"), "train")
    assert names(samples) == [("x.mp4", "running")]
    assert len(samples.classes) == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "lists no videos"),
        ("x.mp4\n", r"train\.txt:1: 'x\.mp4' is not a path and a label"),
        (KINETICS + "run,a,soon,10,train,0\n", r"train\.txt:2: time_start and time_end must be seconds"),
        ("youtube_id,time_start,time_end\na,0,10\n", "has no column label"),
    ],
)
def test_wrong_lists(text, message, tmp_path):
    with pytest.raises(InputError, match=message):
        open_videos(listed(tmp_path, text, format="list"), "train")


def test_a_number_beyond_the_named_classes(tmp_path):
    (tmp_path / "names.txt").write_text("run\njump\n")
    with pytest.raises(InputError, match="labels 2 are none of the 2 classes"):
        open_videos(listed(tmp_path, "x.mp4 2\n", classes="names.txt"), "train")


def test_class_numbers_are_not_ordered_as_words():
    assert class_names({"10", "9"}) == tuple(map(str, range(11)))


def as_number(item, index):
    video, label = item
    with video.open() as opened:
        return {"number": numbers(opened.read([0.0]).pictures)[0], "label": label, "index": index}


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Six one-coloured videos of two classes, in shards of four."""
    for number in range(6):
        folder = tmp_path / "source" / "train" / "ab"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        make_video(folder / f"{number}.mp4", list(levels(6))[number : number + 1] * 3)
    samples = open_videos(VideoDataConfig(str(tmp_path / "source")), "train")
    write_shards(samples, tmp_path / "train", samples_per_shard=4, media=VIDEOS, progress=False)
    return tmp_path


@pytest.mark.parametrize("train", ["train", "pipe:cat {}/train/{{000000..000001}}.tar"])
@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_shards_hold_the_same_videos(train, shards):
    train = train.format(shards)
    index = str(shards / "train" / "shards.json")
    piped = "pipe" in train
    config = VideoDataConfig(
        str(shards), train=train, train_index=index if piped else "", allow_commands=piped
    )
    (batch,) = eval_batches(open_videos(config, "train"), as_number, spec=LoaderSpec(10, workers=1))
    found = sorted(zip(batch["number"].tolist(), batch["label"].tolist(), strict=True))
    assert found == [(number, number % 2) for number in range(6)]


def test_videos_travel_to_workers_that_are_spawned(tmp_path):
    video_folder(tmp_path / "train", ["run"], videos=1)
    samples = pickle.loads(pickle.dumps(open_videos(VideoDataConfig(str(tmp_path)), "train")))
    assert names(samples) == [("0.mp4", "run")]


def test_a_video_in_memory_shows_the_frame_on_screen():
    with VideoArray("x", np.stack(list(levels(4))), rate=2.0).open() as video:
        frames = video.read([0.9, 0.0, 9.0])
    assert numbers(frames.pictures) == [0, 1, 3]
    assert frames.places == [1, 0, 2]


def test_torchcodec_is_named_where_it_is_missing(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torchcodec.decoders", None)
    video = VideoFile("x", make_video(tmp_path / "x.mp4"))
    with (
        pytest.raises(InputError, match=r"data\.decoder=torchcodec cannot be loaded"),
        video.open("torchcodec"),
    ):
        pass


@pytest.mark.parametrize("wanted", [[0, 7, 29], [29, 3]])
def test_torchcodec_reads_the_same_frames(wanted, tmp_path):
    try:
        import torchcodec.decoders  # noqa: F401
    except (ImportError, OSError, RuntimeError) as error:
        pytest.skip(f"torchcodec cannot be loaded: {str(error).splitlines()[0]}")
    video = VideoFile("x", make_video(tmp_path / "x.mp4", bf="3"))
    for decoder in ("pyav", "torchcodec"):
        with video.open(decoder) as opened:
            frames = opened.read([number / 30 for number in wanted])
            assert [numbers(frames.pictures)[place] for place in frames.places] == wanted
            assert opened.seconds == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"format": "zip"}, "data.format='zip'"),
        ({"decoder": "opencv"}, "data.decoder='opencv'"),
        ({"on_error": "ignore"}, "data.on_error='ignore'"),
        ({"format": "moving_digits"}, "must keep left from right"),
    ],
)
def test_values_outside_their_range(fields, message):
    with pytest.raises(InputError, match=message):
        VideoDataConfig(**fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"frames": 0},
        {"stride": 0},
        {"segments": 0},
        {"rate": 0.0},
        {"flip": 1.1},
        {"short_side": (200, 300)},
        {"short_side": (300, 256)},
        {"eval_short_side": 200},
        {"std": (0.0, 1.0, 1.0)},
    ],
)
def test_clip_values_outside_their_range(fields):
    with pytest.raises(InputError, match=rf"data\.clip\.{next(iter(fields))}="):
        ClipConfig(**fields)


def test_the_path_must_be_given():
    with pytest.raises(InputError, match="path is not given"):
        open_videos(VideoDataConfig(), "train")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("label,youtube_id,time_start,time_end\nrun,a,0", "x.csv:2: must have label"),
        ("label,youtube_id,time_start,time_end\n,a,0,10", "x.csv:2: must have label"),
        ("label,youtube_id,time_start,time_end\nrun,a,0,inf", "x.csv:2: time_start and time_end must be"),
        ("label,youtube_id,time_start,time_end\nrun,a,0," + "1" * 200_000, "x.csv: is no CSV file"),
    ],
)
def test_damaged_lists_of_kinetics(tmp_path, lines, message):
    (tmp_path / "x.csv").write_text(lines)
    with pytest.raises(InputError, match=message):
        read_list(tmp_path / "x.csv", tmp_path)


@pytest.mark.parametrize("label", ["999999999999", "\N{SUPERSCRIPT TWO}", "9" * 5000])
def test_a_label_that_counts_too_many_classes_is_a_name(label):
    assert class_names({label}) == (label,)
