"""Compare two networks layer by layer: kinds, settings, and sizes of weights."""

from __future__ import annotations

import inspect
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

# Their attributes are settings; classes of users also count and remember, and there only those that the
# constructor takes are.
_LIBRARIES = frozenset(("torch", "torchvision", "timm", "ffconv"))
# State of training and bookkeeping, and what changes no value.
_NO_SETTINGS = frozenset(
    ("training", "inplace", "grad_checkpointing", "pretrained_cfg", "default_cfg", "process_group")
)


def first_difference(expected: nn.Module, found: nn.Module) -> str | None:
    """Return the first difference of a network from another one, in words, None where there is none.

    Compared are the modules by name, their classes, their settings (such as ``eps``, ``stride`` or ``p``) and
    the sizes of parameters and buffers, but not their values, hooks, nor whether they train. A synchronised
    batch norm stands for an ordinary one.
    """
    before = dict(expected.named_modules(remove_duplicate=False))
    now = dict(found.named_modules(remove_duplicate=False))
    for name in (*before, *now):
        if name not in before or name not in now:
            return f"{name} is {'missing' if name in before else 'new'}"
        if (difference := _module_difference(before[name], now[name])) is not None:
            return f"{name}{'.' if name and difference[0] != ' ' else ''}{difference}"
    return _size_difference(expected, found)


def _module_difference(expected: nn.Module, found: nn.Module) -> str | None:
    kind, wanted = type(found), type(expected)
    synchronised = isinstance(found, nn.SyncBatchNorm) and isinstance(expected, _BatchNorm)
    if kind is not wanted and not synchronised:
        return f" is a {kind.__name__}, not a {wanted.__name__}"
    if "forward" in vars(found) and "forward" not in vars(expected):
        return "forward was replaced"
    before, now = _settings(expected), _settings(found)
    for name in (*before, *now):
        if synchronised and not (name in before and name in now):
            continue
        if before.get(name, _MISSING) != now.get(name, _MISSING):
            return f"{name} is {now.get(name, 'missing')}, not {before.get(name, 'missing')}"
    return None


_MISSING = object()


def _settings(module: nn.Module) -> dict[str, Any]:
    """The attributes of a module that are plain values, classes or functions."""
    own = type(module).__module__.partition(".")[0] not in _LIBRARIES
    taken = inspect.signature(type(module).__init__).parameters if own else None
    return {
        name: _comparable(value)
        for name, value in vars(module).items()
        if not name.startswith("_")
        and name not in _NO_SETTINGS
        and (taken is None or name in taken)
        and _is_plain(value)
    }


def _is_plain(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, (bool, int, float, str, type)) or inspect.isfunction(value)


def _comparable(value: Any) -> Any:
    return tuple(map(_comparable, value)) if isinstance(value, (list, tuple)) else value


def _size_difference(expected: nn.Module, found: nn.Module) -> str | None:
    before, now = ({k: tuple(t.shape) for k, t in net.state_dict().items()} for net in (expected, found))
    for key in (*before, *now):
        if before.get(key) != now.get(key):
            return f"{key} is {now.get(key, 'missing')}, not {before.get(key, 'there')}"
    return None
