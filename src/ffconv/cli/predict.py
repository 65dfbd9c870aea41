"""``ffconv predict``: what is in this image, or in this clip? The checkpoint's task says how to ask."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

from ffconv.cli.checkpoints import parse_by_task
from ffconv.cli.parser import CommandParser

HELP = (
    "What a checkpoint sees in a file, or in each file below a folder. The options are those of its task:"
    " ffconv predict CHECKPOINT --help."
)

MODULES = {
    "classification": "ffconv.cli.predict_images",
    "action": "ffconv.cli.predict_clips",
    "pose": "ffconv.cli.predict_poses",
}


def parse(parser: CommandParser, argv: Sequence[str]) -> Any:
    """The options are those of the checkpoint's task."""
    return parse_by_task(parser, argv, MODULES)


def run(arguments: Any) -> int:
    """Prints the predictions; returns 2 if some file could not be read, after those of the others."""
    return importlib.import_module(MODULES[arguments.task]).run(arguments)
