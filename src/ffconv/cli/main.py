"""The ``ffconv`` command: finds the command's module, reads its options, runs it.

A command is a module of this package with ``HELP``, ``add_arguments(parser)`` and ``run(arguments)``, which
returns the exit code (None is 0). Where the options depend on a recipe it has ``parse(parser, argv)`` too.
``PARALLEL = True`` says that processes of one launcher share its work; the other commands refuse to be
several.
A module is imported only when its command is called. The list of the commands is :mod:`ffconv_command`'s.
"""

from __future__ import annotations

import importlib
import os
import sys
import warnings
from collections.abc import Sequence
from typing import Any

from ffconv.errors import InputError, require
from ffconv.wording import printable, say
from ffconv_command import COMMANDS, asks_for_overview, overview

INPUT_ERROR = 2
INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line.

    Args:
        argv: Words after ``ffconv``; by default the process's own.

    Returns:
        Exit code: 0, 2 for wrong input (said in one line on stderr), or what the command returns.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    before, warnings.formatwarning = warnings.formatwarning, _one_line
    try:
        if asks_for_overview(words):
            sys.stdout.write(f"{overview()}\n")
            return 0
        if words[0] == "--version":
            import ffconv

            say(f"ffconv {ffconv.__version__}")
            return 0
        return _run(words[0], words[1:])
    except InputError as error:
        return _refused(str(error))
    except RuntimeError as error:
        if type(error).__name__ != "OutOfMemoryError":  # torch's, which may not be loaded
            raise
        return _refused(_out_of_memory(error))
    except KeyboardInterrupt:
        say("ffconv: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # ffconv ... | head
        sys.stderr.close()
        return 0
    except OSError as error:
        if error.filename is None:
            raise
        # Any look at a path that is too long, or below a folder that is closed to us, ends here.
        return _refused(f"{error.filename}: {error.strerror}")
    finally:
        warnings.formatwarning = before


def _one_line(message: Warning | str, *where: Any) -> str:
    """Return a warning without the place in our code, which a user cannot act on."""
    return f"ffconv: warning: {printable(' '.join(str(message).split()))}\n"


def _refused(message: str) -> int:
    """Says in one line what is wrong with the input; returns the exit code."""
    rank = os.environ.get("RANK", "0")
    where = "" if rank == "0" else f" [process {rank}]"
    say(f"ffconv{where}: {' '.join(message.split())}", file=sys.stderr)
    return INPUT_ERROR


def _out_of_memory(error: RuntimeError) -> str:
    from ffconv.errors import first_line

    asked_for = ". ".join(first_line(error).split(". ")[:2])
    return f"{asked_for}: take smaller batches or images, or add batches up (loop.accumulate)"


def _run(command: str, argv: list[str]) -> int:
    from ffconv.cli.nearest import did_you_mean

    if command not in COMMANDS:
        raise InputError(f"no command {command!r}, see ffconv --help{did_you_mean(command, COMMANDS)}")
    from ffconv.cli.parser import CommandParser

    module = importlib.import_module(f"ffconv.cli.{command}")
    if not getattr(module, "PARALLEL", False):
        _require_single_process(command)
    parser = CommandParser(prog=f"ffconv {command}", description=module.HELP)
    if hasattr(module, "parse"):
        arguments = module.parse(parser, argv)
    else:
        module.add_arguments(parser)
        arguments = parser.parse_args(argv)
    code = module.run(arguments) or 0
    _leave_other_processes()
    return code


def _require_single_process(command: str) -> None:
    from ffconv.environment import launched_processes

    launched = launched_processes()
    require(
        launched == 1,
        f"ffconv {command} works in one process, but the launcher started {launched}: run it alone",
    )


def _leave_other_processes() -> None:
    """Ends torch's process group, which warns where a process exits inside one."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
