"""Files that survive: weights as safetensors, what a run needs to go on as a torch file without pickles.

Every file is written under a temporary name in its own folder, flushed to the disk and then renamed, so that
a name always stands for a complete file: a crash, a kill or a full disk leaves the earlier one in place.
"""

from __future__ import annotations

import contextlib
import io
import json
import pickle
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ffconv.errors import InputError, first_line
from ffconv.files import write_atomically

STATE = "state.pt"
PREVIOUS_STATE = "state.previous.pt"
_METADATA = "ffconv"


def save_weights(path: Path, weights: Mapping[str, Tensor], metadata: Mapping[str, Any] | None) -> None:
    """Write weights and what rebuilds their network to one safetensors file.

    Args:
        path: File to write.
        weights: State dict of the network.
        metadata: What JSON can hold; None for weights that do not say what they belong to.
    """
    from safetensors.torch import save

    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    header = None if metadata is None else {_METADATA: json.dumps(metadata)}
    write_atomically(path, save(tensors, metadata=header))


def read_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The weights and the metadata that `save_weights` wrote.

    Raises:
        InputError: if the file is missing, truncated, or no checkpoint of ours.
    """
    with _opened(path) as file:
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        return weights, _metadata_of(file, path)


def read_metadata(path: Path) -> dict[str, Any]:
    """The metadata alone, without reading the weights; raises as `read_weights` does."""
    with _opened(path) as file:
        return _metadata_of(file, path)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise InputError(f"no checkpoint at {path}")
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is no readable safetensors file, or a truncated one ({error})") from error


def _metadata_of(file: Any, path: Path) -> dict[str, Any]:
    metadata = (file.metadata() or {}).get(_METADATA)
    if metadata is None:
        raise InputError(
            f"{path} does not say which network it belongs to: it was not saved by ffconv train"
            " (give such weights to a network with --model.weights)"
        )
    return json.loads(metadata)


def save_state(folder: Path, state: Mapping[str, Any]) -> None:
    """Write what a run needs to go on; the state before it is kept as a second one."""
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    write_atomically(folder / STATE, buffer.getbuffer(), keep=folder / PREVIOUS_STATE)


def load_state(folder: Path) -> dict[str, Any] | None:
    """The newest complete state in the folder, or None where there is none.

    Raises:
        InputError: if there are states and none of them can be read.
    """
    reasons = []
    for name in (STATE, PREVIOUS_STATE):
        path = folder / name
        if not path.is_file():
            continue
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except (RuntimeError, EOFError, OSError, pickle.UnpicklingError) as error:
            reasons.append(f"{path}: {first_line(error)}")
            continue
        if reasons:
            warnings.warn(f"going on from the checkpoint before ({name}): {reasons[0]}", stacklevel=2)
        return state
    if reasons:
        raise InputError(f"no complete checkpoint to resume from ({'; '.join(reasons)})")
    return None
