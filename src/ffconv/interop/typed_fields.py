"""Read plain values from files of other people: of the right type, within bounds."""

from __future__ import annotations

import dataclasses
import logging
import math
import re
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Union, cast, get_args, get_origin, get_type_hints

from ffconv.errors import InputError, require
from ffconv.models.registry import require_known

#: Largest whole number of a field: sides in pixels, frames, clips.
LARGEST = 4096
_LARGEST_FLOAT, _SMALLEST_FLOAT = 1e3, 1e-6
_LONGEST_TEXT = 1000
_LONGEST_LIST = 10**6
_SHOWN = 60
_LARGEST_ARGUMENT = 2**14
#: Most outputs of a classifier.
MOST_CLASSES = 2**20
_LONGEST_TABLE = 10_000  # rules of a conversion have an entry for each convolution
_DEEPEST = 4
#: A name: of a pooling, an activation, a metric, another network.
WORD = re.compile(r"[\w.\-]{0,100}")
_KEY = re.compile(r"[\w.\-*?\[\]!]{1,300}")  # of layers, with wildcards
# Arguments of timm.create_model that name weights, folders or devices.
_NO_ARGUMENTS = re.compile(
    r"pretrained.*|checkpoint_path|cache_dir|device|dtype|model_cfg|feature_cfg|kwargs_filter"
)

logger = logging.getLogger(__name__)


def read_value(kind: Any, value: Any, where: str, dropped: list[str], *, largest: int = LARGEST) -> Any:
    """Return a value of JSON as the given type.

    Nothing is converted but whole numbers to floats, lists to tuples and tables to dataclasses.

    Args:
        kind: int, float, bool, str, a Literal, a tuple, a union of these with None, or a dataclass of them.
        value: what the file has.
        where: the field's name, for messages.
        dropped: takes the names of fields that a dataclass does not have.
        largest: bound of whole numbers.

    Raises:
        InputError: naming the field, the value and the rule.
    """
    origin, choices = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        if value is None and types.NoneType in choices:
            return None
        (kind,) = (choice for choice in choices if choice is not types.NoneType)
        return read_value(kind, value, where, dropped, largest=largest)
    if origin is Literal:
        found = [choice for choice in choices if type(choice) is type(value) and choice == value]
        _require(bool(found), where, value, f"one of {', '.join(map(str, choices))}")
        return found[0]
    if origin is tuple:
        return _read_tuple(choices, value, where, dropped, largest)
    if dataclasses.is_dataclass(kind):
        return read_section(cast("type[Any]", kind), value, where, dropped)
    if kind is int:
        fits = type(value) is int and abs(value) <= largest
        _require(fits, where, value, f"a whole number of at most {largest}")
    elif kind is float:
        fits = type(value) in (int, float) and (value == 0 or _SMALLEST_FLOAT <= abs(value) <= _LARGEST_FLOAT)
        _require(fits, where, value, f"0 or a number of size {_SMALLEST_FLOAT:g} to {_LARGEST_FLOAT:g}")
    elif kind is str:
        fits = isinstance(value, str) and len(value) <= _LONGEST_TEXT
        _require(fits, where, value, f"text of at most {_LONGEST_TEXT} characters")
    else:
        _require(type(value) is kind, where, value, "true or false")
    return value


def read_section(kind: type[Any], content: Any, where: str, dropped: list[str]) -> Any:
    """Return a table of a file as a dataclass; fields that the file lacks have their defaults.

    Raises:
        InputError: naming the field, the value and the rule.
    """
    hints = get_type_hints(kind)
    content = read_table(content, where)
    dropped += [f"{where}.{name}" for name in content if name not in hints]
    missing = [
        field.name
        for field in dataclasses.fields(kind)
        if field.name not in content
        and field.default is dataclasses.MISSING
        and field.default_factory is dataclasses.MISSING
    ]
    require(not missing, f"{where} lacks {', '.join(missing)}")
    found = {
        name: read_value(hints[name], value, f"{where}.{name}", dropped)
        for name, value in content.items()
        if name in hints
    }
    return kind(**found)


def read_table(content: Any, where: str) -> dict[str, Any]:
    """Return a table, whose names are text in JSON.

    Raises:
        InputError: if it is something else.
    """
    _require(isinstance(content, Mapping), where, content, "a table of fields")
    return dict(content)


def shown(value: Any) -> str:
    """Return a value as it stands in a message: on one line, without control characters, not long."""
    try:
        text = value if isinstance(value, str) and re.fullmatch(r"[\w.\-]+", value) else ascii(value)
    except (RecursionError, ValueError):  # ValueError: a whole number of thousands of digits
        text = f"a {type(value).__name__}"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _read_tuple(
    kinds: tuple[Any, ...], value: Any, where: str, dropped: list[str], largest: int
) -> tuple[Any, ...]:
    is_open = kinds[-1] is Ellipsis
    fits = isinstance(value, (list, tuple)) and (
        len(value) <= _LONGEST_LIST if is_open else len(value) == len(kinds)
    )
    _require(fits, where, value, "a list" if is_open else f"a list of {len(kinds)}")
    expected = [kinds[0]] * len(value) if is_open else kinds
    return tuple(
        read_value(kind, item, where, dropped, largest=largest)
        for kind, item in zip(expected, value, strict=True)
    )


def _require(fits: bool, where: str, value: Any, rule: str) -> None:
    if not fits or (isinstance(value, float) and not math.isfinite(value)):
        raise InputError(f"{where}={shown(value)} must be {rule}")


def require_name(name: Any, where: str) -> None:
    """Refuse what is no name of a network of timm's registry: an address, a folder, a repository of a hub.

    Raises:
        InputError: naming the field and the value.
    """
    plain_name = isinstance(name, str) and WORD.fullmatch(name) is not None
    require(plain_name, f"{where}={shown(name)} must be a name of timm's registry")
    require_known(name, where)


def read_arguments(values: Any, where: str, dropped: list[str]) -> dict[str, Any]:
    """Return the arguments of a network that a file may give it.

    Those that name weights, folders or devices are dropped. Others are numbers, switches and names, or lists
    and tables of these.

    Raises:
        InputError: naming the argument, the value and the rule.
    """
    kept = {}
    for name, value in read_table(values, where).items():
        if _NO_ARGUMENTS.fullmatch(name):
            dropped.append(f"{where}.{name}")
        else:
            kept[name] = value
    return _read_argument(kept, where)


def _read_argument(value: Any, where: str, depth: int = 0) -> Any:
    require(depth <= _DEEPEST, f"{where} has more than {_DEEPEST} levels")
    if isinstance(value, Mapping):
        names = all(isinstance(name, str) and _KEY.fullmatch(name) for name in value)
        require(names and len(value) <= _LONGEST_TABLE, f"{where}={shown(value)} must be a table of names")
        return {name: _read_argument(item, f"{where}.{name}", depth + 1) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        require(len(value) <= _LONGEST_TABLE, f"{where} must be a list of at most {_LONGEST_TABLE}")
        return [_read_argument(item, where, depth + 1) for item in value]
    if isinstance(value, str):
        require(
            WORD.fullmatch(value) is not None,
            f"{where}={shown(value)} must be a name: letters, digits, '.', '-' and '_'",
        )
        return value
    if value is None or isinstance(value, bool):
        return value
    kind = int if isinstance(value, int) else float
    largest = MOST_CLASSES if where.endswith(".num_classes") else _LARGEST_ARGUMENT
    return read_value(kind, value, where, [], largest=largest)


def log_dropped(path: Path, dropped: Sequence[str]) -> None:
    """Say in one line of the log which fields of a file are not used."""
    if dropped:
        rest = f" and {len(dropped) - 20} more" if len(dropped) > 20 else ""
        logger.warning("%s: fields not used: %s%s", path, ", ".join(map(shown, dropped[:20])), rest)
