"""Files of the user, written and read."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from ffconv.errors import InputError
from ffconv.files import make_folder, read_json, read_yaml, write_atomically


def test_writes_the_content_and_leaves_no_temporary_file(tmp_path: Path):
    write_atomically(tmp_path / "a", b"new")
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("a", b"new")]


def test_a_full_disk_leaves_the_old_file_alone(tmp_path: Path, fill_disk: Callable[[], None]):
    write_atomically(tmp_path / "a", b"old")
    fill_disk()
    with pytest.raises(InputError, match=r"cannot write .*a: No space left on device; what was saved"):
        write_atomically(tmp_path / "a", b"new")
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("a", b"old")]


def test_a_missing_folder_is_said_in_a_line(tmp_path: Path):
    with pytest.raises(InputError, match="No such file or directory"):
        write_atomically(tmp_path / "none" / "a", b"new")


def test_a_folder_is_no_file_to_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"cannot write \.: Is a directory"):
        write_atomically(Path(), b"new")


def test_a_pipe_is_written_to_and_stays(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    write_atomically(tmp_path / "pipe", b"new")
    assert os.read(reader, 10) == b"new"
    os.close(reader)
    assert [file.is_fifo() for file in tmp_path.iterdir()] == [True]


def test_a_folder_is_made_with_those_above_it(tmp_path: Path):
    make_folder(tmp_path / "a" / "b")
    make_folder(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()


def test_a_folder_that_cannot_be_made_is_said_in_a_line(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"^cannot make the folder .*file: File exists$"):
        make_folder(tmp_path / "file")


def test_what_json_and_yaml_hold(tmp_path: Path):
    (tmp_path / "a").write_text('{"b": [1]}')
    assert read_json(tmp_path / "a") == read_yaml(tmp_path / "a") == {"b": [1]}


def test_an_empty_yaml_file_has_no_fields(tmp_path: Path):
    (tmp_path / "a").touch()
    assert read_yaml(tmp_path / "a") == {}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a: [\n", "a: is not YAML: while parsing .*line 2"),
        (b"a: \xff", "a: is not YAML: .*invalid start byte"),
        (b"a: 2026-13-01", "a: is not YAML: month must be in 1..12"),
        (b"- a", "a: must hold fields and values"),
    ],
)
def test_a_damaged_yaml_file_is_said_in_a_line(content: bytes, message: str, tmp_path: Path):
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        read_yaml(tmp_path / "a")
    assert "\n" not in str(caught.value)
