"""Files that are whole or not there."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from ffconv.errors import InputError


def write_atomically(path: Path, content: bytes | memoryview, *, keep: Path | None = None) -> None:
    """Write a file so that its name holds either the old content or the whole new one.

    Args:
        path: File to write.
        content: All of it.
        keep: Where the old content goes; by default it is replaced.

    Raises:
        InputError: if the disk is full or the folder cannot be written; what was there stays.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if keep is not None and path.exists():
            os.replace(path, keep)
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise InputError(
            f"cannot write {path}: {error.strerror or error}; what was saved before is kept"
        ) from error
