"""jsonargparse with errors of one line and, for unknown names, the nearest known one."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from jsonargparse import ArgumentParser, Namespace

from ffconv.cli.nearest import did_you_mean
from ffconv.errors import InputError

_UNKNOWN_OPTION = re.compile(r"unrecognized arguments: --([\w.\-]+)")


class CommandParser(ArgumentParser):
    """The parser of one command: wrong words raise `InputError` instead of ending the process."""

    def __init__(self, *args: Any, **options: Any):
        # With abbreviations a misspelt --loop.epoch would pass here, and be an unknown field in a recipe.
        super().__init__(*args, exit_on_error=False, allow_abbrev=False, **options)

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
