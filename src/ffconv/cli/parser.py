"""jsonargparse with errors of one line, the nearest known name for an unknown one, and readable help."""

from __future__ import annotations

import argparse
import re
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from jsonargparse import ArgumentParser, DefaultHelpFormatter, Namespace

from ffconv.cli.nearest import did_you_mean
from ffconv.errors import InputError

_UNKNOWN_OPTION = re.compile(r"unrecognized arguments: --([\w.\-]+)")


_WORDS: Mapping[Any, str] = {
    int: "integer",
    float: "number",
    str: "text",
    Path: "path",
    type(None): "null",
    dict: "fields",
}


class HelpFormatter(DefaultHelpFormatter):
    """Names the types of options in words."""

    def _get_type_str(self, action: argparse.Action) -> str | None:
        kind = getattr(action, "_typehint", None) or action.type
        return None if kind is None else type_in_words(kind)


class CommandParser(ArgumentParser):
    """The parser of one command: wrong words raise `InputError` instead of ending the process."""

    def __init__(self, *args: Any, **options: Any):
        # With abbreviations a misspelt --loop.epoch would pass here, and be an unknown field in a recipe.
        super().__init__(
            *args, exit_on_error=False, allow_abbrev=False, formatter_class=HelpFormatter, **options
        )
        self._first_options: tuple[str, ...] = ()

    def shorten_help(self, names: Sequence[str], *, usage: str) -> None:
        """Make ``--help`` list these options alone, and add ``--help-all``, which lists all.

        Args:
            names: Full names in the order of the list, as in ``optim.lr``.
            usage: Words after the command in the line on usage.
        """
        self.usage = f"{self.prog} {usage}"
        self.add_argument(
            "--help-all",
            action=_HelpAll,
            help="Show all options, also those of optimizer, schedule and augmentation.",
        )
        self._first_options = ("help", "help_all", *names)

    def format_help(self, *rest: Any, **options: Any) -> str:
        """Return the text of ``--help``."""
        if not self._first_options:
            return super().format_help(*rest, **options)
        named = {action.dest: action for action in self._actions}
        first: Any = argparse.ArgumentParser(add_help=False).add_argument_group("options")
        first._group_actions = [named[name] for name in self._first_options]
        groups, self._action_groups = self._action_groups, [first]
        try:
            return super().format_help(*rest, **options)
        finally:
            self._action_groups = groups

    def format_full_help(self) -> str:
        """Return the text of ``--help-all``."""
        return super().format_help()

    def parse_args(self, args: Sequence[str] | None = None, *rest: Any, **options: Any) -> Namespace:
        """Parses a command's words.

        Raises:
            InputError: for an unknown option, with the nearest known one, or a wrong value.
        """
        try:
            return self._without_nulls(super().parse_args(args, *rest, **options))
        except argparse.ArgumentError as error:
            message = " ".join(str(error).split())
            unknown = _UNKNOWN_OPTION.search(message)
            hint = did_you_mean(unknown[1], self.option_names()) if unknown else ""
            raise InputError(f"{message}{hint}") from error

    def parse_object(self, *args: Any, **options: Any) -> Namespace:
        """Parse nested values; raises as jsonargparse does, and `InputError` for a null that is none."""
        return self._without_nulls(super().parse_object(*args, **options))

    def _without_nulls(self, parsed: Namespace) -> Namespace:
        """Refuse a null where the type has none, which jsonargparse takes for an option that is not given."""
        for action in self._actions:
            kind, name = getattr(action, "_typehint", None), action.dest
            optional = kind in (None, Any) or type(None) in get_args(kind) or action.default is None
            if not optional and name in parsed and parsed[name] is None:
                raise InputError(f"{name} must not be null")
        return parsed

    def option_names(self) -> list[str]:
        """Full names of all options, as in ``optim.lr``."""
        return [name for name in self.get_defaults().keys() if name != "config"]  # noqa: SIM118 (dotted)


class _HelpAll(argparse.Action):
    def __init__(self, option_strings: Sequence[str], dest: str, **options: Any) -> None:
        super().__init__(option_strings, dest, nargs=0, default=argparse.SUPPRESS, help=options.get("help"))

    def __call__(self, parser: Any, *_: Any) -> None:
        print(parser.format_full_help(), end="")  # noqa: T201
        parser.exit()


def type_in_words(kind: Any) -> str | None:
    """Return the words for a type; None where an option's choices, which are listed, say it.

    Example:
        >>> type_in_words(int | None), type_in_words(tuple[float, float]), type_in_words(list[str])
        ('integer or null', '2 numbers', 'list of texts')
    """
    origin, inner = get_origin(kind), get_args(kind)
    if kind is bool or origin is Literal:
        return None
    if origin in (Union, types.UnionType):
        parts = [
            ", ".join(map(str, get_args(one))) if get_origin(one) is Literal else type_in_words(one)
            for one in inner
        ]
        return " or ".join(part or "true or false" for part in parts)
    if origin is tuple:
        count = "" if inner[-1] is Ellipsis else f"{len(inner)} "
        return f"{count}{_plural(inner[0])}"
    if origin is list:
        return f"list of {_plural(inner[0])}"
    return _WORDS.get(origin or kind)


def _plural(kind: Any) -> str:
    words = type_in_words(kind)
    return "values" if words is None else f"{words}s"


def from_plain(kind: type[Any], values: Mapping[str, Any], *, section: str) -> Any:
    """A configuration dataclass from plain values, checked like the options of a command line.

    Args:
        kind: The dataclass.
        values: Its fields, nested sections as mappings.
        section: What the fields' names begin with in messages, as in ``data.path``.

    Raises:
        InputError: for an unknown field or a wrong value.
    """
    parser = CommandParser()
    parser.add_class_arguments(kind, section)
    try:
        return parser.instantiate(parser.parse_object({section: dict(values)}))[section]
    except argparse.ArgumentError as error:
        raise InputError(" ".join(str(error).split())) from error
