"""Reading frames at times: the right ones, in every container, and broken files by name."""

from __future__ import annotations

import itertools
import os
import random
import re
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from ffconv.data import video_reading
from ffconv.data.samples import UnreadableSample
from ffconv.data.video_reading import open_with_pyav
from video_files import decoded, levels, make_video, numbers


def read(path: Path, times: list[float]) -> list[np.ndarray]:
    with open_with_pyav(path, path.name) as video:
        frames = video.read(times)
    return [frames.pictures[place] for place in frames.places]


def read_numbers(path: Path, wanted: list[int], rate: float = 30) -> list[int]:
    return numbers(read(path, [number / rate for number in wanted]))


CONTAINERS = [
    ("x.mp4", "libx264", {}),
    ("x.mp4", "mpeg4", {"bf": "2", "qmax": "2"}),
    ("x.mkv", "libx264", {"bf": "3"}),
    ("x.webm", "libvpx-vp9", {"deadline": "realtime"}),
    ("x.avi", "mpeg4", {"bf": "2", "qmax": "2"}),
    ("x.ts", "libx264", {}),
    ("x.h264", "libx264", {}),
]


def said_rate(name: str) -> float:
    """Frames a second; a bare stream does not say, and is taken to have FFmpeg's 25."""
    return 25.0 if name == "x.h264" else 30.0


@pytest.mark.parametrize(("name", "codec", "options"), CONTAINERS)
def test_frames_are_those_at_their_times(name, codec, options, tmp_path):
    path = make_video(tmp_path / name, codec=codec, **options)
    assert read_numbers(path, [3, 4, 17, 29], said_rate(name)) == [3, 4, 17, 29]


@pytest.mark.parametrize(("name", "codec", "options"), CONTAINERS)
def test_length_and_rate_are_known(name, codec, options, tmp_path):
    path = make_video(tmp_path / name, codec=codec, **options)
    with open_with_pyav(path, name) as video:
        assert video.seconds == pytest.approx(30 / said_rate(name), abs=0.04)
        assert video.rate == pytest.approx(said_rate(name), rel=0.01)


@pytest.mark.parametrize(("key_frames", "b_frames"), [("5", "0"), ("12", "3"), ("250", "3")])
@pytest.mark.parametrize("open_groups", ["", "open-gop=1"])
def test_any_frames_are_the_bits_of_whole_decoding(key_frames, b_frames, open_groups, tmp_path):
    options = {"g": key_frames, "bf": b_frames, "b-pyramid": "normal", "x264-params": open_groups}
    noise = np.random.default_rng(0).integers(0, 255, (60, 32, 48, 3), dtype=np.uint8)
    path = make_video(tmp_path / "x.mp4", list(noise), **options)
    whole = decoded(path)
    draw = random.Random(0)
    for _ in range(6):
        wanted = draw.sample(range(60), 4)
        for number, picture in zip(wanted, read(path, [number / 30 for number in wanted]), strict=True):
            np.testing.assert_array_equal(picture, whole[number])


@pytest.mark.parametrize("number", range(8))
@pytest.mark.parametrize(("name", "codec", "options"), CONTAINERS)
def test_a_single_early_frame(name, codec, options, number, tmp_path):
    """Matroska's first packets have no time of decoding, and B-frames follow frames that are shown later."""
    path = make_video(tmp_path / name, codec=codec, **options)
    assert read_numbers(path, [number], said_rate(name)) == [number]


def test_frames_far_apart_are_found_by_seeking(tmp_path):
    path = make_video(tmp_path / "x.mp4", levels(420), rate=20, g="20")
    assert read_numbers(path, [1, 3, 201, 203, 415], rate=20) == [n % 30 for n in (1, 3, 201, 203, 415)]


@pytest.mark.parametrize("wanted", [[150, 158], [35, 265]])
def test_only_what_is_needed_is_decoded(wanted, tmp_path, monkeypatch):
    """Of ten groups of 30 frames those, up to the wanted frame, that hold one."""
    path = make_video(tmp_path / "x.mp4", levels(300), g="30", bf="0")
    given = []

    def noting(packets, stamps):
        given.append(needed(packets, stamps))
        return given[-1]

    needed = video_reading._needed
    monkeypatch.setattr(video_reading, "_needed", noting)
    assert read_numbers(path, wanted) == [number % 30 for number in wanted]
    assert sum(map(len, given)) == sum({number // 30: number % 30 + 1 for number in wanted}.values())


def test_times_beyond_the_ends_are_the_ends(tmp_path):
    assert numbers(read(make_video(tmp_path / "x.mp4"), [-1.0, 5.0])) == [0, 29]


@pytest.mark.parametrize("name", ["x.mp4", "x.avi"])
def test_a_time_means_the_frame_on_screen(name, tmp_path):
    path = make_video(tmp_path / name, codec="libx264" if name == "x.mp4" else "mpeg4")
    assert numbers(read(path, [9.6 / 30, 10 / 30, 10.6 / 30])) == [9, 10, 10]


@pytest.mark.parametrize("rate", [7, 25, 60])
def test_odd_rates(rate, tmp_path):
    path = make_video(tmp_path / "x.mp4", rate=rate)
    assert read_numbers(path, [5, 28], rate) == [5, 28]


@pytest.mark.parametrize("name", ["x.mp4", "x.mkv"])
def test_variable_rates_show_what_is_on_screen(name, tmp_path):
    """As in a screen recording: frames come when something changes."""
    draw = random.Random(0)
    times = list(itertools.accumulate(draw.choice((1, 1, 2, 7, 40, 90)) for _ in range(30)))
    times = [time - times[0] for time in times]
    path = make_video(tmp_path / name, levels(30), rate=100, times=times, g="8", bf="2")
    with av.open(str(path)) as container:
        stamps = [float(frame.time) for frame in container.decode(video=0)]
    shown = [draw.uniform(0, 1.1 * stamps[-1]) for _ in range(60)]
    shown = [time for time in shown if min(abs(time - stamp) for stamp in stamps) > 1e-3] + stamps
    expected = [sum(stamp <= time for stamp in stamps) - 1 for time in shown]
    assert numbers(read(path, shown)) == expected


def test_a_key_frame_that_begins_late_counts_from_itself(tmp_path):
    path = make_video(tmp_path / "x.mkv", levels(20), times=list(range(90, 110)))
    assert read_numbers(path, [0, 7, 19]) == [0, 7, 19]


def corner(rotation: int, tmp_path: Path, hflip: bool = False, vflip: bool = False) -> np.ndarray:
    """Where a mark at the top left of the stored picture is shown: (2, 2), a quarter of the picture each."""
    picture = np.full((32, 64, 3), 30, np.uint8)
    picture[:16, :32] = 220
    path = make_video(tmp_path / "x.mp4", [picture] * 3, orientation=(rotation, hflip, vflip))
    shown = read(path, [0.0])[0]
    height, width, _ = shown.shape
    assert (height < width) == (rotation in (0, 180))
    return shown.reshape(2, height // 2, 2, width // 2, 3).mean(axis=(1, 3, 4)) > 128


@pytest.mark.parametrize(("rotation", "place"), [(0, (0, 0)), (90, (1, 0)), (180, (1, 1)), (-90, (0, 1))])
def test_display_rotation_is_applied(rotation, place, tmp_path):
    shown = corner(rotation, tmp_path)
    assert np.argwhere(shown).tolist() == [list(place)]


@pytest.mark.parametrize(("flips", "place"), [((True, False), (0, 1)), ((False, True), (1, 0))])
def test_mirroring_is_applied(flips, place, tmp_path):
    assert np.argwhere(corner(0, tmp_path, *flips)).tolist() == [list(place)]


def test_a_file_without_sound_and_one_with_longer_sound(tmp_path):
    path = tmp_path / "x.mkv"
    with av.open(str(path), "w") as container:
        picture, sound = container.add_stream("libx264", rate=30), container.add_stream("aac", rate=8000)
        picture.height, picture.width, picture.pix_fmt = 48, 64, "yuv420p"
        for number, array in enumerate(levels(30)):
            frame = av.VideoFrame.from_ndarray(array, format="rgb24")
            frame.pts = number
            container.mux(picture.encode(frame))
        container.mux(picture.encode())
        for number in range(0, 24000, 1024):
            silence = av.AudioFrame.from_ndarray(
                np.zeros((1, 1024), np.float32), format="fltp", layout="mono"
            )
            silence.sample_rate, silence.pts, silence.time_base = 8000, number, Fraction(1, 8000)
            container.mux(sound.encode(silence))
        container.mux(sound.encode())
    with open_with_pyav(path, "x") as video:
        assert video.seconds == pytest.approx(1.0, abs=0.05)
    assert read_numbers(path, [0, 29]) == [0, 29]


def test_without_an_index(tmp_path):
    """Matroska written to a pipe has neither cues nor a duration."""
    path = tmp_path / "x.mkv"

    class Pipe:
        def __init__(self):
            self.file = path.open("wb")

        def write(self, content):
            return self.file.write(content)

    pipe = Pipe()
    with av.open(pipe, "w", format="matroska") as container:
        stream = container.add_stream("libx264", rate=30, options={"g": "10"})
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        for number, array in enumerate(levels(30)):
            frame = av.VideoFrame.from_ndarray(array, format="rgb24")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    pipe.file.close()
    with av.open(str(path)) as container:
        assert container.duration is None
    with open_with_pyav(path, "x") as video:
        assert video.seconds == pytest.approx(1.0, abs=0.04)
    assert read_numbers(path, [2, 25]) == [2, 25]


def test_content_in_memory(tmp_path):
    content = make_video(tmp_path / "x.mp4").read_bytes()
    with open_with_pyav(content, "x") as video:
        assert numbers(video.read([0.5]).pictures) == [15]


def test_all_frames_in_order(tmp_path):
    path = make_video(tmp_path / "x.mp4")
    with open_with_pyav(path, "x") as video:
        found = list(video.frames())
    assert [frame.seconds for frame in found] == pytest.approx([number / 30 for number in range(30)])
    assert numbers([frame.picture for frame in found]) == list(range(30))


def test_pictures_are_resized_as_they_come(tmp_path):
    with open_with_pyav(make_video(tmp_path / "x.mp4"), "x") as video:
        frames = video.read([0.0, 0.2], lambda picture: picture[::2, ::2])
    assert {picture.shape for picture in frames.pictures} == {(24, 32, 3)}


# Broken files


def reason(path: Path, times: list[float] | None = None) -> str:
    with pytest.raises(UnreadableSample) as error, open_with_pyav(path, path.name) as video:
        list(video.frames()) if times is None else video.read(times)
    assert str(error.value).startswith(f"{path.name}: ")
    return error.value.reason


def test_an_empty_file(tmp_path):
    (tmp_path / "x.mp4").touch()
    assert reason(tmp_path / "x.mp4") == "is empty (0 bytes)"


def test_a_missing_file(tmp_path):
    assert reason(tmp_path / "x.mp4") == "No such file or directory"


def test_a_file_of_something_else(tmp_path):
    (tmp_path / "x.mp4").write_text("no video at all" * 100)
    assert "cannot be read as a video" in reason(tmp_path / "x.mp4")


SESSION = b"""v=0
o=- 0 0 IN IP4 127.0.0.1
s=x
c=IN IP4 127.0.0.1
t=0 0
m=video 5004 RTP/AVP 96
a=rtpmap:96 H264/90000
"""


@pytest.mark.parametrize("name", ["x.mp4", "concat:a.mp4|b.mp4", "http:x.mp4"])
@pytest.mark.parametrize(
    "content",
    [
        SESSION,
        b"ffconcat version 1.0\nfile /etc/passwd\n",
        b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n",
        b"P6 4 4 255 " + bytes(48),
    ],
    ids=["session description", "list of files", "playlist", "image"],
)
def test_what_connects_or_names_other_files_is_not_opened(content, name, tmp_path, monkeypatch):
    (tmp_path / name).write_bytes(content)
    monkeypatch.chdir(tmp_path)
    rule = r"is no video in a container that is read|cannot be read as a video \(Invalid data"
    for source in (Path(name), tmp_path / name, content):
        with pytest.raises(UnreadableSample, match=rule), open_with_pyav(source, name):
            pass


def test_names_are_no_protocols_of_ffmpeg(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_video(tmp_path / "x.mp4").rename(tmp_path / "concat:x.mp4")
    with open_with_pyav(Path("concat:x.mp4"), "x") as video:
        assert numbers(video.read([0.1]).pictures) == [3]


@pytest.mark.parametrize("kind", ["pipe", "link to a device"])
def test_what_may_never_end_is_not_opened(kind, tmp_path):
    path = tmp_path / "x.mp4"
    os.mkfifo(path) if kind == "pipe" else path.symlink_to("/dev/zero")
    with pytest.raises(UnreadableSample, match="x: is a pipe or a device"), open_with_pyav(path, "x"):
        pass


@pytest.mark.parametrize(
    ("name", "codec", "tag"),
    [("x.mkv", "ffv1", b"V_FFV1"), ("x.mp4", "libx264", b"avc1"), ("x.avi", "mpeg4", b"FMP4")],
)
def test_an_unknown_codec(name, codec, tag, tmp_path):
    path = make_video(tmp_path / name, codec=codec)
    content = path.read_bytes()
    assert tag in content
    path.write_bytes(content.replace(tag, b"?" * len(tag)))
    with (
        pytest.raises(UnreadableSample, match=r"x: (its video codec is not known|holds no video)"),
        open_with_pyav(path, "x"),
    ):
        pass


def test_metadata_in_another_encoding(tmp_path):
    path = make_video(tmp_path / "x.mkv")
    content = path.read_bytes()
    assert b"Lavf" in content
    path.write_bytes(content.replace(b"Lavf", b"L\xe4vf"))
    assert read_numbers(path, [3]) == [3]


def test_frames_that_fill_the_memory_are_refused_before_they_are_decoded(tmp_path, monkeypatch):
    path = make_video(tmp_path / "x.mp4")
    monkeypatch.setattr(video_reading, "MAX_PIXELS", 64 * 48 - 1)
    with pytest.raises(UnreadableSample, match="x: has frames of 64 x 48"), open_with_pyav(path, "x"):
        pass


def test_sound_alone(tmp_path):
    path = tmp_path / "x.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        silence.sample_rate = 8000
        container.mux(stream.encode(silence))
        container.mux(stream.encode())
    assert reason(path) == "holds no video stream"


def cut_off(path: Path, share: float) -> Path:
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    return path


def test_a_truncated_mp4(tmp_path):
    assert "cannot be read as a video" in reason(cut_off(make_video(tmp_path / "x.mp4"), 0.5))


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [("x.mp4", "libx264", {}), ("x.mkv", "libx264", {}), ("x.avi", "mpeg4", {})],
)
@pytest.mark.parametrize("times", [None, [0.0, 3.9]])
def test_a_file_truncated_behind_its_header(name, codec, options, times, tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (120, 48, 64, 3), dtype=np.uint8)
    path = tmp_path / name
    with av.open(str(path), "w", options={"movflags": "faststart"} if name == "x.mp4" else {}) as container:
        stream = container.add_stream(codec, rate=30)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        for picture in noise:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    assert re.search("truncated|damaged|Invalid data", reason(cut_off(path, 0.6), times))


def test_damage_in_the_middle(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (60, 48, 64, 3), dtype=np.uint8)
    path = make_video(tmp_path / "x.mp4", list(noise), g="60")
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 3000] = bytes(3000)
    path.write_bytes(content)
    assert reason(path, [number / 30 for number in range(60)])
