"""Reads weights files without running what is in them.

A file written by ``torch.save`` is a pickle, and a pickle is a program. ``torch.load(weights_only=True)``
runs none of it, but refuses files that also carry a training framework's objects (callbacks,
configurations, enums). Those are given here as inert stand-ins: the names come from the file, nothing is
imported, and an instance holds nothing. TorchScript files are read by :mod:`ffconv.interop.torchscript`.
"""

from __future__ import annotations

import pickle
import sys
import warnings
from collections import OrderedDict
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from ffconv.errors import InputError, require
from ffconv.files import verify_torch_archive
from ffconv.interop.torchscript import is_torchscript, read_torchscript
from ffconv.training.checkpoint import read_safetensors

# Where trainers keep the weights, the averaged ones first: they are the ones that get evaluated.
WEIGHT_ENTRIES = (
    *("state_dict_ema", "model_ema", "ema_state_dict", "ema", "params_ema"),
    *("state_dict", "model_state_dict", "model", "network", "net", "weights", "params", "module"),
)

# Calls of these make plain values, and are common in configurations and logged results.
_VALUE_MODULES = frozenset(
    ("numpy", "pathlib", "datetime", "collections", "copyreg", "decimal", "fractions", "functools", "uuid")
)
_VALUE_BUILTINS = frozenset(("builtins.slice", "builtins.range", "builtins.frozenset"))
# "commands" is what pickle writes for subprocess, after Python 2.
_STANDARD_LIBRARY = sys.stdlib_module_names | {"commands"}
# weights_only has no way to let these pass, not even as stand-ins.
_BLOCKED_MODULES = frozenset(("os", "posix", "nt", "sys"))


class _NeedsCodeError(Exception):
    """Reading on would mean calling what the file names."""


class _StandInType(type):
    """Classes of this type replace what a file names. Calling one is pickle's way of calling that thing."""

    path: str

    def __call__(cls, *args: Any) -> Any:
        if not _is_value_or_class(cls.path):
            raise _NeedsCodeError(f"it calls {cls.path}")
        return super().__call__(*args)


class _StandIn(metaclass=_StandInType):
    path = ""

    def __new__(cls, *args: Any) -> Any:
        # The unpickler fills dict, OrderedDict and Counter, and no subclass (AttributeDict, defaultdict).
        return OrderedDict() if cls.path.lower().endswith("dict") else super().__new__(cls)

    def __setstate__(self, state: Any) -> None:
        """Drops the state: nobody reads it."""


def _is_value_or_class(path: str) -> bool:
    """Return True if calling ``path`` makes a plain value or, by its name, an object of a foreign class.

    Safety does not rest on it, for stand-ins never call anything: it tells files to read past from files
    whose content only their code could make.
    """
    module, _, name = path.rpartition(".")
    root = module.partition(".")[0]
    if root in _VALUE_MODULES or path in _VALUE_BUILTINS:
        return True
    return root not in _STANDARD_LIBRARY and name.lstrip("_")[:1].isupper()


def read_checkpoint(path: str | PathLike[str]) -> Any:
    """Read a safetensors, ``torch.save`` or TorchScript file onto the CPU, foreign objects made inert.

    Raises:
        InputError: if there is no such file, if it is damaged or of another kind, or if it needs code to run.
    """
    path = Path(path)
    if not path.is_file():
        require(not path.is_dir(), f"{path}: is a folder, not a weights file")
        require(not path.exists(), f"{path}: is a pipe or a device, not a regular file")
        raise InputError(f"{path}: no such file")
    try:
        with path.open("rb") as file:
            start = file.read(9)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error
    if not start:
        raise InputError(f"{path}: the file is empty")
    if path.suffix == ".safetensors" or start[8:] == b"{":  # a length of 8 bytes, then JSON
        return read_safetensors(path)
    if start.startswith(b"PK\x03\x04"):
        verify_torch_archive(path)
        return read_torchscript(path) if is_torchscript(path) else _read_torch_archive(path)
    return _read_old_torch_file(path)


def _read_torch_archive(path: Path) -> Any:
    try:
        names = get_unsafe_globals_in_checkpoint(path)
    except pickle.UnpicklingError as error:  # protocol 4 and later
        raise InputError(f"{path}: its pickle cannot be checked, save it again ({error})") from error
    except Exception as error:  # damaged bytes may fail anywhere in the reader
        raise InputError(f"{path}: truncated or not a file of weights ({_reason(error)})") from error
    blocked = sorted(name for name in names if name.partition(".")[0] in _BLOCKED_MODULES)
    if blocked:
        raise InputError(f"{path}: refused, reading it would run code: it names {', '.join(blocked)}")
    try:
        with safe_globals([(_stand_in(name), name) for name in names]):
            return _load(path)
    except (_NeedsCodeError, pickle.UnpicklingError) as error:
        raise InputError(f"{path}: refused, reading it would run code: {_reason(error)}") from error
    except Exception as error:
        raise InputError(f"{path}: truncated or not a file of weights ({_reason(error)})") from error


def _read_old_torch_file(path: Path) -> Any:
    """A file of torch before 1.6, a bare pickle: plain weights only."""
    try:
        return _load(path)
    except pickle.UnpicklingError as error:
        if name := str(error).partition("GLOBAL ")[2].partition(" ")[0]:
            raise InputError(f"{path}: refused, reading it would run code: it names {name}") from error
        raise InputError(f"{path}: not a file of weights that torch or safetensors wrote") from error
    except Exception as error:  # its own words, such as KeyError's, would explain nothing
        raise InputError(f"{path}: truncated or not a file of weights") from error


def _load(path: Path) -> Any:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Detected pickle protocol")
        return torch.load(path, map_location="cpu", weights_only=True)


def _stand_in(path: str) -> Any:
    module, _, name = path.rpartition(".")
    return _StandInType(name, (_StandIn,), {"__module__": module, "path": path})


def _reason(error: Exception) -> str:
    """The error in one line, without torch's advice to read the file unsafely."""
    text = str(error).rpartition("WeightsUnpickler error:")[2].partition(" In PyTorch 2.6")[0]
    return next(iter(text.strip().splitlines()), type(error).__name__)


def find_weights(content: Any, *, source: str, entry: str | None = None) -> tuple[dict[str, Tensor], str]:
    """The tensors by name in what a file holds, and where they were, such as "state_dict" or "".

    Args:
        content: what was read: a state dict, or dicts around one.
        source: the file's name, for messages.
        entry: the entry that holds the weights; None takes the first of :data:`WEIGHT_ENTRIES` that does.
    Raises:
        InputError: if there are no tensors by name, or no such entry.
    """
    if entry is not None:
        if not isinstance(content, Mapping) or entry not in content:
            raise InputError(f"{source}: has no entry {entry!r}, but {_describe(content)}")
        tensors, inner = find_weights(content[entry], source=source)
        return tensors, f"{entry}.{inner}" if inner else entry
    found = _search(content)
    if found is None:
        raise InputError(f"{source}: holds no weights by name, but {_describe(content)}")
    return found


def _search(content: Any) -> tuple[dict[str, Tensor], str] | None:
    if not isinstance(content, Mapping):
        return None
    for name in WEIGHT_ENTRIES:
        if (found := _search(content.get(name))) is not None:
            tensors, inner = found
            return tensors, f"{name}.{inner}" if inner else name
    tensors = {
        name: value.detach()
        for name, value in content.items()
        if isinstance(name, str) and isinstance(value, Tensor)
    }
    return (tensors, "") if tensors else None


def _describe(content: Any) -> str:
    """What was found instead of weights; a pickled network is the usual reason, so it is named."""
    if isinstance(content, _StandIn):
        return f"an object of class {type(content).path}; reading it would run code, so save its state_dict()"
    if not isinstance(content, Mapping):
        return f"a {type(content).__name__}"
    if not content:
        return "nothing at all"
    objects = [
        f"{name!r} is {_describe(value)}" for name, value in content.items() if isinstance(value, _StandIn)
    ]
    return objects[0] if objects else f"the entries {', '.join(map(repr, content))}"
