"""Tasks: what a batch, a loss and an evaluation are. The training loop is the same for all."""

from __future__ import annotations

import importlib
from typing import Any, NamedTuple

from ffconv.errors import InputError

_TASKS = {
    "action": ("ffconv.tasks.action", "Action", "ActionConfig"),
    "classification": ("ffconv.tasks.classification", "Classification", "ClassificationConfig"),
    "inpainting": ("ffconv.tasks.inpainting", "Inpainting", "InpaintingConfig"),
    "pose": ("ffconv.tasks.pose", "Pose", "PoseConfig"),
}


#: Names of the tasks.
TASKS = tuple(_TASKS)


class TaskKind(NamedTuple):
    """A task's class and that of its configuration, whose fields are top-level fields of a recipe."""

    task: Any
    config: Any


def task_kind(name: str) -> TaskKind:
    """The task with this name.

    Raises:
        InputError: if there is none.
    """
    if name not in _TASKS:
        raise InputError(f"task={name!r} must be one of {', '.join(_TASKS)}")
    module, task, config = _TASKS[name]
    found = importlib.import_module(module)
    return TaskKind(getattr(found, task), getattr(found, config))
