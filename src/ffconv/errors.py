"""The one exception that means: what the user gave us is at fault."""

from __future__ import annotations


class InputError(ValueError):
    """Wrong input, said in one line that names the value and the rule.

    The command line prints the message alone and exits with code 2; any other exception is a defect of
    ours and keeps its traceback.
    """


def first_line(error: BaseException) -> str:
    """The first line of what an exception of others says, or its kind where it says nothing."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def require(condition: bool, message: str) -> None:
    """Raise `InputError` with the message unless the condition holds."""
    if not condition:
        raise InputError(message)
