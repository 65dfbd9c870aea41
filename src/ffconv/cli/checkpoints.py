"""What the commands on a checkpoint share: its file, and the module that knows its task.

Such a command is a table from the name of a task to a module of this package, which has
``add_arguments(parser, task)`` for the options that are its task's own and ``run(arguments)``.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ffconv.cli.parser import CommandParser
from ffconv.cli.progress import announced
from ffconv.errors import require
from ffconv.files import checkpoint_file

if TYPE_CHECKING:
    from ffconv.interop.checkpoint_info import Info
    from ffconv.tasks.networks import Trained


def parse_by_task(parser: CommandParser, argv: Sequence[str], modules: Mapping[str, str]) -> Any:
    """Adds the checkpoint and the options of its task's module, then parses.

    Args:
        parser: The command's.
        argv: Its words; where no checkpoint is among them (as in ``--help``), the first task's options serve.
        modules: Module of each task.

    Returns:
        The options, ``task`` among them.

    Raises:
        InputError: if there is no such checkpoint, or the command has nothing to do with its task.
    """
    from ffconv.interop.checkpoint_info import task_of_file

    word = _first_operand(argv)
    task = next(iter(modules))
    if word is not None:
        path = checkpoint_file(Path(word))
        task = task_of_file(path)
        require(task in modules, f"{path} is a checkpoint of {task}, the command takes {', '.join(modules)}")
    parser.add_argument(
        "checkpoint", type=Path, help="a .safetensors checkpoint, a run folder (its best), or a package"
    )
    importlib.import_module(modules[task]).add_arguments(parser, task)
    arguments = parser.parse_args(argv)
    arguments.task = task
    return arguments


def add_device(parser: CommandParser) -> None:
    """The option --device."""
    parser.add_argument(
        "--device", type=Literal["auto", "cpu"], default="auto", help="where the network runs"
    )


def _first_operand(argv: Sequence[str]) -> str | None:
    """The first word that is neither an option nor, as each option has one, an option's value."""
    words = iter(argv)
    for word in words:
        if not word.startswith("-"):
            return word
        if word.startswith("--") and "=" not in word and word != "--help":
            next(words, None)
    return None


def load_checkpoint(path: Path, kind: type[Info]) -> Trained[Info]:
    """Load a trained network, with a line where that takes long."""
    from ffconv.tasks.networks import load_trained

    with announced(f"loading {path}"):
        return load_trained(path, kind)
