"""Files of the user, written and read."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from ffconv.errors import InputError
from ffconv.files import (
    make_folder,
    read_file,
    read_json,
    read_text,
    read_yaml,
    verify_torch_archive,
    write_atomically,
)


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


@pytest.mark.parametrize("read", [read_file, read_text, read_json, read_yaml])
@pytest.mark.parametrize("kind", ["pipe", "link to a device"])
def test_what_may_never_end_is_not_opened(kind: str, read: Callable[[Path], object], tmp_path: Path):
    if kind == "pipe":
        os.mkfifo(tmp_path / "a")
    else:
        (tmp_path / "a").symlink_to("/dev/zero")
    with pytest.raises(InputError, match="a: is a pipe or a device"):
        read(tmp_path / "a")


def test_a_file_above_its_limit_is_not_read(tmp_path: Path):
    (tmp_path / "a").touch()
    os.truncate(tmp_path / "a", 2**40)
    with pytest.raises(InputError, match="a: has 1099511627776 bytes, more than the 1024"):
        read_file(tmp_path / "a", limit=1024)


def test_text_is_utf8_with_or_without_a_mark(tmp_path: Path):
    (tmp_path / "a").write_bytes("\ufeffä".encode())
    assert read_text(tmp_path / "a") == "ä"
    (tmp_path / "a").write_bytes(b"\xe4")
    with pytest.raises(InputError, match="a: is not text in UTF-8"):
        read_text(tmp_path / "a")


def test_aliases_that_expand_to_billions_are_refused(tmp_path: Path):
    levels = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    levels += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    (tmp_path / "a").write_text("\n".join(levels))
    with pytest.raises(InputError, match="a: holds more than 10000 values"):
        read_yaml(tmp_path / "a")


def test_an_alias_of_itself_is_refused(tmp_path: Path):
    (tmp_path / "a").write_text("a: &a [*a]")
    with pytest.raises(InputError, match="a: holds more than 10000 values"):
        read_yaml(tmp_path / "a")


def test_a_number_of_thousands_of_digits_is_no_json(tmp_path: Path):
    (tmp_path / "a").write_text("9" * 5000)
    with pytest.raises(InputError, match="a: is not JSON"):
        read_json(tmp_path / "a")


def test_a_sound_torch_archive_passes(tmp_path: Path):
    torch.save({"w": torch.zeros(100)}, tmp_path / "a")
    verify_torch_archive(tmp_path / "a")


def test_a_wrong_check_sum_names_the_member(tmp_path: Path):
    torch.save({"w": torch.full((100,), 3.0)}, tmp_path / "a")
    content = (tmp_path / "a").read_bytes()
    value = torch.tensor(3.0).numpy().tobytes()
    (tmp_path / "a").write_bytes(content.replace(value, b"    ", 1))
    with pytest.raises(InputError, match=r"a: damaged, the check sum of a/data/0 is wrong"):
        verify_torch_archive(tmp_path / "a")


def test_an_archive_that_expands_is_refused_before_it_does(tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "a", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", bytes(2**27))
    with pytest.raises(InputError, match=r"a: has \d+ bytes, but would expand to 134217728"):
        verify_torch_archive(tmp_path / "a")
