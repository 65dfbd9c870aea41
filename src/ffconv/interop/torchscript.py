"""Read the tensors of a TorchScript file by their names, without running the program in it.

Such a file is a zip archive: the program as source text below ``code/``, the bytes of each tensor in a file
of its own, and ``data.pkl``, a pickle of nested modules that refers to both. Only that pickle is read, by an
unpickler that builds tensors, lists and module records, and refuses every other name.
"""

from __future__ import annotations

import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ffconv.errors import InputError, first_line

_DTYPES = {
    "BFloat16Storage": torch.bfloat16,
    "BoolStorage": torch.bool,
    "ByteStorage": torch.uint8,
    "CharStorage": torch.int8,
    "ComplexDoubleStorage": torch.complex128,
    "ComplexFloatStorage": torch.complex64,
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "IntStorage": torch.int32,
    "LongStorage": torch.int64,
    "ShortStorage": torch.int16,
}
# Typed lists and dicts of TorchScript; only the plain value inside is of use.
_CONTAINERS = (
    *("build_intlist", "build_doublelist", "build_boollist", "build_tensorlist"),
    "restore_type_tag",
)


def is_torchscript(path: Path) -> bool:
    """Return True if a zip archive has the entries of ``torch.jit.save``."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except (zipfile.BadZipFile, OSError):
        return False


def read_torchscript(path: Path) -> dict[str, Tensor]:
    """Read the parameters and buffers of a TorchScript file, on the CPU, by their names in its module.

    Raises:
        InputError: If the file is damaged, names anything but tensors and modules, or has its weights frozen
            into its program.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            tensors = dict(_tensors(_Unpickler(archive).load()))
    except _NamesCodeError as error:
        raise InputError(f"{path}: refused, reading it would run code: it names {error}") from error
    except Exception as error:  # damaged bytes may fail anywhere in pickle, zipfile or torch
        raise InputError(f"{path}: truncated or not a TorchScript file ({first_line(error)})") from error
    if not tensors:
        raise InputError(
            f"{path}: a frozen TorchScript program keeps its weights as nameless constants: load the "
            "checkpoint or the unfrozen file that it was made from"
        )
    return tensors


class _NamesCodeError(Exception):
    """The pickle names something that is neither a tensor nor a module."""


class _Module:
    """A record in the place of a TorchScript module."""

    attributes: dict[str, Any]

    def __init__(self) -> None:
        self.attributes = {}

    def __setstate__(self, state: Any) -> None:
        # Modules with a __getstate__ of their own (packed, quantised weights) have no attributes by name.
        self.attributes = state if isinstance(state, dict) else {}


class _Unpickler(pickle.Unpickler):
    def __init__(self, archive: zipfile.ZipFile) -> None:
        (name,) = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        super().__init__(archive.open(name))
        self._archive = archive
        self._folder = name.removesuffix("data.pkl")
        self._storages: dict[str, Tensor] = {}
        if f"{self._folder}byteorder" in archive.namelist():
            order = archive.read(f"{self._folder}byteorder").decode()
            if order != "little":
                raise ValueError(f"byte order {order}, only little is read")

    def find_class(self, module: str, name: str) -> Any:
        if module == "__torch__" or module.startswith("__torch__."):
            return type(name, (_Module,), {})
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda storage, offset, size, stride, *rest: storage.as_strided(size, stride, offset)
        if (module, name) == ("collections", "OrderedDict"):  # backward hooks of a tensor, always empty
            return lambda: OrderedDict()
        if module == "torch.jit._pickle" and name in _CONTAINERS:
            return lambda value, *tag: value
        raise _NamesCodeError(f"{module}.{name}")

    def persistent_load(self, pid: Any) -> Tensor:
        _, dtype, key, _, _ = pid
        if key not in self._storages:
            entry = self._archive.getinfo(f"{self._folder}data/{key}")
            if entry.compress_type != zipfile.ZIP_STORED:
                raise ValueError(f"{entry.filename} is compressed")
            content = bytearray(self._archive.read(entry))
            # torch.frombuffer refuses an empty buffer.
            storage = torch.frombuffer(content, dtype=dtype) if content else torch.empty(0, dtype=dtype)
            self._storages[key] = storage
        return self._storages[key]


def _tensors(module: Any, prefix: str = "", above: tuple[int, ...] = ()) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors below a module in the order of its state dict."""
    if not isinstance(module, _Module) or id(module) in above:
        raise ValueError("its pickle holds no tree of modules")
    for name, value in module.attributes.items():
        if isinstance(value, Tensor):
            yield f"{prefix}{name}", value
    for name, value in module.attributes.items():
        if isinstance(value, _Module):
            yield from _tensors(value, f"{prefix}{name}.", (*above, id(module)))
