"""Files that are whole or not there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ffconv.errors import InputError
from ffconv.files import write_atomically


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
