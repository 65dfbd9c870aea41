"""Recipes: YAML files of options, found by name, that may build on one another.

base: imagenet/paper        another recipe, taken first (a name, or a file beside this one)
model: {name: resnet50}     then this one's own fields
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from ffconv.cli.nearest import did_you_mean
from ffconv.cli.parser import CommandParser
from ffconv.errors import InputError
from ffconv.files import read_yaml

# Beside the package in a checkout, inside it in an installed wheel.
_ROOTS = tuple(parent / "recipes" for parent in (Path(__file__).parents[1], Path(__file__).parents[3]))


def recipe_names() -> list[str]:
    """Names of the recipes that come with ffconv, as in ``imagenet/ffc_resnet50``."""
    return sorted(
        path.relative_to(root).with_suffix("").as_posix() for root in _ROOTS for path in root.rglob("*.yaml")
    )


def find_recipe(name: str, beside: Path | None = None) -> Path:
    """The file of a recipe given as a path, a path relative to another recipe's folder, or a name.

    Raises:
        InputError: if there is none, with the nearest name.
    """
    folders = [Path(), *([beside] if beside else []), *_ROOTS]
    for folder in folders:
        for path in (folder / name, folder / f"{name}.yaml"):
            if path.is_file():
                return path
    raise InputError(f"no recipe {name!r}, as a file or by name{did_you_mean(name, recipe_names())}")


def load_recipe(name: str, beside: Path | None = None, above: tuple[Path, ...] = ()) -> dict[str, Any]:
    """The fields of a recipe, those of its base filled in.

    Raises:
        InputError: if it cannot be found or read, or is its own base.
    """
    path = find_recipe(name, beside).resolve()
    if path in above:
        raise InputError(f"recipe {path} is its own base")
    fields = read_yaml(path)
    base = fields.pop("base", None)
    return fields if base is None else merged(load_recipe(base, path.parent, (*above, path)), fields)


def merged(lower: Mapping[str, Any], upper: Mapping[str, Any]) -> dict[str, Any]:
    """Both mappings in one, the upper one's values before the lower one's, at any depth.

    Example:
        >>> merged({"a": {"b": 1, "c": 2}}, {"a": {"c": 3}})
        {'a': {'b': 1, 'c': 3}}
    """
    result = dict(lower)
    for name, value in upper.items():
        below = result.get(name)
        if isinstance(below, Mapping) and isinstance(value, Mapping):
            value = merged(below, value)
        result[name] = value
    return result


def take_recipes(argv: Sequence[str]) -> tuple[dict[str, Any], str | None, list[str]]:
    """Splits ``--config NAME`` off a command line.

    Returns:
        The fields of all recipes together, the later ones' values before the earlier ones'; the last recipe's
        name (None without one); the words left.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--config", action="append", default=[])
    try:
        found, rest = parser.parse_known_args(argv)
    except argparse.ArgumentError as error:
        raise InputError(str(error)) from error
    fields: dict[str, Any] = {}
    for name in found.config:
        fields = merged(fields, load_recipe(name))
    return fields, Path(found.config[-1]).stem if found.config else None, rest


def refuse_commands(recipe: Mapping[str, Any]) -> None:
    """Refuse a recipe that allows itself to run commands: recipes are passed on, and often unread.

    Raises:
        InputError: naming the option that allows it.
    """
    data = recipe.get("data")
    if isinstance(data, Mapping) and data.get("allow_commands"):
        raise InputError("a recipe must not set data.allow_commands: give --data.allow_commands true")


def parse_over_recipe(parser: CommandParser, recipe: Mapping[str, Any], argv: Sequence[str]) -> Any:
    """Parses the words of a command line over a recipe's fields, and makes the sections' dataclasses.

    Raises:
        InputError: for an unknown field or option, with the nearest name, or a wrong value.
    """
    refuse_commands(recipe)
    known = parser.option_names()
    for name in _leaves(recipe):
        if not any(name == option or name.startswith(f"{option}.") for option in known):
            raise InputError(f"unknown recipe field {name}{did_you_mean(name, known)}")
    arguments = parser.parse_args(["--config", yaml.safe_dump(dict(recipe)), *argv])
    return parser.instantiate(arguments)


def _leaves(fields: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in fields.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"
