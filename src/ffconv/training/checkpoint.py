"""Files that survive: weights as safetensors, what a run needs to go on as a torch file without pickles.

Every file is written under a temporary name in its own folder, flushed to the disk and then renamed, so that
a name always stands for a complete file: a crash, a kill or a full disk leaves the earlier one in place.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import warnings
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ffconv.errors import InputError, first_line
from ffconv.files import require_regular, verify_torch_archive, write_atomically

STATE = "state.pt"
PREVIOUS_STATE = "state.previous.pt"
DAMAGED_STATE = "state.damaged.pt"
_METADATA = "ffconv"
_CHECKSUM = "crc32"  # in the metadata: safetensors has no check sum of its own


def save_weights(path: Path, weights: Mapping[str, Tensor], metadata: Mapping[str, Any] | None) -> None:
    """Write weights and what rebuilds their network to one safetensors file.

    Args:
        path: File to write.
        weights: State dict of the network.
        metadata: What JSON can hold; None for weights that do not say what they belong to.
    """
    from safetensors.torch import save

    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    described = json.loads(json.dumps(metadata or {}))  # as it will be read: tuples become lists
    described[_CHECKSUM] = _checksum(tensors, described)
    # One entry: safetensors writes several in no fixed order, and equal weights would give different files.
    write_atomically(path, save(tensors, metadata={_METADATA: json.dumps(described)}))


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of any safetensors file.

    Raises:
        InputError: If the file is missing, truncated, or does not match the check sum that `save_weights`
            gave it; files of others have none.
    """
    with _opened(path) as file:
        return _tensors_of(file, path)


def read_metadata(path: Path) -> dict[str, Any]:
    """Return what `save_weights` wrote beside the weights, without reading them.

    It is whatever the file has; :func:`ffconv.interop.checkpoint_info.read_info` takes what may be used.

    Raises:
        InputError: If the file is missing, truncated, damaged, or no checkpoint of ours.
    """
    with _opened(path) as file:
        metadata = _described(file, path)
    metadata.pop(_CHECKSUM, None)
    if not metadata:
        raise InputError(
            f"{path} does not say which network it belongs to: it was not saved by ffconv train"
            " (give such weights to a network with --model.weights)"
        )
    return metadata


def has_metadata(path: Path) -> bool:
    """Return True if the file has more of ours than a check sum; False for a damaged one."""
    try:
        return bool(read_metadata(path))
    except InputError:
        return False


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    from safetensors import SafetensorError, safe_open

    if not path.exists():
        raise InputError(f"no checkpoint at {path}")
    try:
        require_regular(path)
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, OSError, MemoryError) as error:
        raise InputError(f"{path}: truncated or not a safetensors file ({error})") from error


def _tensors_of(file: Any, path: Path) -> dict[str, Tensor]:
    tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    described = _described(file, path)
    expected = described.pop(_CHECKSUM, None)
    if expected not in (None, _checksum(tensors, described)):
        raise InputError(f"{path}: damaged, its check sum is wrong: take another copy")
    return tensors


def _checksum(tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> str:
    """Return the CRC-32 of the metadata and of the tensors' names, types, sizes and values."""
    crc = zlib.crc32(json.dumps(metadata, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        crc = zlib.crc32(f"{name} {tensor.dtype} {list(tensor.shape)}".encode(), crc)
        crc = zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy().data, crc)
    return f"{crc:08x}"


def _described(file: Any, path: Path) -> dict[str, Any]:
    """Return what `save_weights` wrote beside the tensors, nothing for files of others."""
    try:
        described = json.loads((file.metadata() or {}).get(_METADATA, "{}"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: damaged, its metadata is not JSON") from error
    if not isinstance(described, dict):
        raise InputError(f"{path}: damaged, its metadata is no table")
    return described


def save_state(folder: Path, state: Mapping[str, Any]) -> None:
    """Write what a run needs to go on; the state before it is kept as a second one."""
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    write_atomically(folder / STATE, buffer.getbuffer(), keep=folder / PREVIOUS_STATE)


def load_state(folder: Path) -> dict[str, Any] | None:
    """Return the newest state in the folder that is complete and undamaged, or None where there is none.

    A damaged newest state is set aside under another name.

    Raises:
        InputError: If there are states and none of them can be read.
    """
    reasons = []
    for name in (STATE, PREVIOUS_STATE):
        path = folder / name
        if not os.path.lexists(path):
            continue
        try:
            verify_torch_archive(path)
            state = torch.load(path, map_location="cpu", weights_only=True)
        except InputError as error:
            reasons.append(str(error))
            continue
        except Exception as error:  # what is no state of ours fails anywhere in the unpickler
            reasons.append(f"{path}: {first_line(error)}")
            continue
        if reasons:
            # Else the next save would keep the damaged one as the state before.
            with contextlib.suppress(OSError):
                os.replace(folder / STATE, folder / DAMAGED_STATE)
            warnings.warn(f"going on from the checkpoint before ({name}): {reasons[0]}", stacklevel=2)
        return state
    if reasons:
        raise InputError(f"no complete checkpoint to resume from ({'; '.join(reasons)})")
    return None
