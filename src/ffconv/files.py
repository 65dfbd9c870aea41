"""Files and folders of the user: written whole or not at all, read with errors of one line."""

from __future__ import annotations

import contextlib
import json
import os
import stat
import zipfile
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from ffconv.errors import InputError, first_line, require

#: Size up to which a file is read into memory as a whole.
MAX_FILE_BYTES = 2**31

_MAX_EXPANSION = 2**26  # bytes by which a torch archive may grow when it is read
_MAX_YAML_BYTES = 2**18
_MAX_YAML_VALUES = 10_000


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


def checkpoint_file(path: Path, weights: str = "best") -> Path:
    """Find the checkpoint itself in a package of ``ffconv package``, a run folder, or LaMa's folder."""
    if not path.is_dir():
        return path
    run = path / f"{weights}.safetensors"
    # LaMa publishes a network as config.yaml and models/best.ckpt.
    others = (path / "model.safetensors", run, path / "models" / f"{weights}.ckpt")
    return next((file for file in others if file.is_file()), run)


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


def require_regular(path: Path) -> os.stat_result:
    """Refuse a pipe, socket or device, which may block for ever or never end.

    Returns:
        The file's status; that of a folder, too, which fails when it is opened.

    Raises:
        OSError: If there is no such file.
        InputError: If it is none of these.
    """
    status = path.stat()
    known = stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)
    require(known, f"{path}: is a pipe or a device, not a regular file")
    return status


def read_file(path: Path, *, limit: int = MAX_FILE_BYTES) -> bytes:
    """Return the content of a regular file.

    Args:
        path: File to read.
        limit: Largest size in bytes.

    Raises:
        InputError: If the file is missing, not a regular one, or larger.
    """
    try:
        size = require_regular(path).st_size
        require(size <= limit, f"{path}: has {size} bytes, more than the {limit} that are read")
        with path.open("rb") as file:
            return file.read(size)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from error


def read_text(path: Path) -> str:
    """Return the content of a text file in UTF-8, with or without a byte order mark.

    Raises:
        InputError: If the file cannot be read, or is not text.
    """
    try:
        return read_file(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not text in UTF-8") from error


def verify_torch_archive(path: Path) -> None:
    """Compare each member of a ``torch.save`` file with its check sum, which ``torch.load`` does not.

    torch compresses no member but TorchScript's code; an archive that would expand beyond that is refused.

    Raises:
        InputError: If the archive is damaged, or would expand by more than 64 MiB.
    """
    try:
        size = require_regular(path).st_size
        with zipfile.ZipFile(path) as archive:
            total = sum(member.file_size for member in archive.infolist())
            require(
                total <= size + _MAX_EXPANSION,
                f"{path}: has {size} bytes, but would expand to {total}: save it again by torch.save",
            )
            damaged = archive.testzip()
    except InputError:
        raise
    except Exception as error:  # damaged bytes fail anywhere in the reader
        raise InputError(f"{path}: truncated or damaged ({first_line(error)})") from error
    require(damaged is None, f"{path}: damaged, the check sum of {damaged} is wrong")


def read_json(path: Path) -> Any:
    """Return what a JSON file holds.

    Raises:
        InputError: If the file cannot be read, or is not JSON.
    """
    content = read_file(path)
    try:
        return json.loads(content)
    except json.JSONDecodeError as error:
        raise InputError(f"{path}: is not JSON: {error.msg} in line {error.lineno}") from error
    except (ValueError, RecursionError) as error:  # ValueError: no UTF-8, or a number of thousands of digits
        raise InputError(f"{path}: is not JSON ({type(error).__name__})") from error


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the fields of a YAML file, none where it is empty.

    Raises:
        InputError: If the file cannot be read, is not YAML, holds something else, or expands by its aliases
            to more values than a configuration has.
    """
    import yaml

    content = read_file(path, limit=_MAX_YAML_BYTES)
    try:
        fields = yaml.safe_load(content) or {}
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: such as a 13th month
        raise InputError(f"{path}: is not YAML: {' '.join(str(error).split())}") from error
    require(isinstance(fields, dict), f"{path}: must hold fields and values")
    require(_is_small(fields), f"{path}: holds more than {_MAX_YAML_VALUES} values")
    return fields


def _is_small(fields: Any) -> bool:
    """Return True if nested values are at most `_MAX_YAML_VALUES`, each alias counted as what it repeats."""
    waiting, count = [fields], 0
    while waiting and count <= _MAX_YAML_VALUES:
        value = waiting.pop()
        count += 1
        if isinstance(value, dict | list):
            waiting.extend(value.values() if isinstance(value, dict) else value)
    return count <= _MAX_YAML_VALUES
