"""Files and folders of the user: written whole or not at all, read with errors of one line."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from ffconv.errors import InputError, require


def write_atomically(path: Path, content: bytes | memoryview, *, keep: Path | None = None) -> None:
    """Write a file so that its name holds either the old content or the whole new one.

    Args:
        path: File to write; a device or a pipe, which must not be replaced, is written to as it is.
        content: All of it.
        keep: Where the old content goes; by default it is replaced.

    Raises:
        InputError: if the disk is full or the folder cannot be written; what was there stays.
    """
    temporary = path.parent / f".{path.name}.tmp"
    try:
        if path.exists() and not path.is_file():
            path.write_bytes(content)
            return
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


def make_folder(path: Path) -> None:
    """Make a folder and those above it, where they are not there yet.

    Raises:
        InputError: naming the folder and why it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make the folder {path}: {error.strerror or error}") from error


def output_names(names: Sequence[str], suffix: str, *, kept: Collection[str] = ()) -> list[str]:
    """Return the name of each input's output: its own name, and a suffix where it has none of those kept.

    Args:
        names: paths of the inputs.
        suffix: extension of outputs, with the dot.
        kept: further extensions that an output may have, in lower case.

    Raises:
        InputError: if two outputs would have one name.

    Example:
        >>> output_names(["test.avi", "test.mp4"], ".mp4")
        ['test.avi.mp4', 'test.mp4']
    """
    found: dict[str, str] = {}
    for name in names:
        own = name if Path(name).suffix.lower() in (suffix, *kept) else f"{name}{suffix}"
        require(own not in found, f"{found.get(own)} and {name} would both be written to {own}: rename one")
        found[own] = name
    return list(found)


def read_json(path: Path) -> Any:
    """What a JSON file holds.

    Raises:
        InputError: naming the file, if it is missing or not JSON.
    """
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from error
    except json.JSONDecodeError as error:
        raise InputError(f"{path}: is not JSON: {error.msg} in line {error.lineno}") from error
    except (UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{path}: is not JSON ({type(error).__name__})") from error


def read_yaml(path: Path) -> dict[str, Any]:
    """The fields of a YAML file, none where it is empty.

    Raises:
        InputError: naming the file, if it is missing, not YAML, or holds something else.
    """
    import yaml

    try:
        fields = yaml.safe_load(path.read_bytes()) or {}
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: such as a 13th month
        raise InputError(f"{path}: is not YAML: {' '.join(str(error).split())}") from error
    require(isinstance(fields, dict), f"{path}: must hold fields and values")
    return fields
