"""The part of an evaluation that all tasks share: options, processes, output folder."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ffconv.cli.checkpoints import checkpoint_file
from ffconv.cli.parser import from_plain
from ffconv.cli.progress import shown
from ffconv.cli.recipes import merged
from ffconv.errors import require
from ffconv.files import make_folder, read_json, write_atomically
from ffconv.training.config import flatten
from ffconv.wording import counted

if TYPE_CHECKING:
    from torch import nn

    from ffconv.training.task import Share


_SCORES = "scores.json"
_EVALUATION = "evaluation"
_SECTIONS = ("data", "masks", "test", "limit")
_FREE = ("workers", "verify", "on_error", "allow_commands")  # options that change no score


@dataclass(frozen=True)
class Evaluated:
    """An evaluation that is to be reported.

    Args:
        scores: what the task's evaluation gave.
        output: folder of what is written; it exists.
        skipped: unreadable samples that were left out, and why.
        evaluation: what was evaluated: checkpoint, split and options.
    """

    scores: Any
    output: Path
    skipped: dict[str, str]
    evaluation: dict[str, Any]

    def write_scores(self, scores: Mapping[str, Any]) -> None:
        """Write scores.json."""
        summary = {**scores, "skipped": self.skipped, _EVALUATION: self.evaluation}
        write_atomically(self.output / _SCORES, json.dumps(summary, indent=2).encode())

    def left_out(self, sample: str) -> str:
        """How many samples were left out, as the end of a line; nothing where none were."""
        return f", {counted(len(self.skipped), f'unreadable {sample}')} left out" if self.skipped else ""


def section_of(arguments: Any, kind: type[Any], trained: Mapping[str, Any], *, section: str) -> Any:
    """Return a section of the configuration: the options that are given over what the checkpoint says.

    Where data is and how it is read is the user's to say. Of a recipe its data section is taken, but how
    inputs are prepared is the checkpoint's.
    """
    recipe = arguments.recipe.get(section) if section == "data" else None
    where = {name: value for name, value in (recipe or {}).items() if name not in trained}
    given = merged(where, arguments.given.get(section, {}))
    return from_plain(kind, merged(trained, given), section=section)


def evaluate(
    arguments: Any,
    network: nn.Module,
    config: Any,
    make_task: Callable[[Share], Any],
    score: Callable[[Any, nn.Module], Any],
    *,
    report: Callable[[Evaluated], None],
) -> int:
    """Scores a network on a split and reports it; the processes share its samples.

    Args:
        arguments: of the command.
        network: of the checkpoint.
        config: of the task.
        make_task: makes the task for this process's share of the work.
        score: what is computed with the task and the network.
        report: prints and writes it; only the main process does.

    Returns:
        Exit code.
    """
    import torch

    from ffconv.training.config import LoopConfig
    from ffconv.training.processes import share_of, start_accelerator

    accelerator = start_accelerator(LoopConfig(precision=arguments.precision, device=arguments.device))
    task = make_task(share_of(accelerator, arguments.batch_size))
    path = checkpoint_file(arguments.checkpoint, arguments.weights)
    evaluation = _evaluation(arguments, path, config)
    output = arguments.output or path.parent / _folder_name(arguments, path, config)
    _refuse_other_evaluation(output, evaluation)
    if accelerator.is_main_process:
        make_folder(output)  # before the work, which would be lost
        task.watch_evaluation(lambda batches: shown(batches, "evaluating", total=len(batches)))
    with torch.no_grad(), accelerator.autocast():
        scores = score(task, network.to(accelerator.device))
    if accelerator.is_main_process:
        report(Evaluated(scores, output, dict(task.skipped()), evaluation))
    return 0


def _evaluation(arguments: Any, path: Path, config: Any) -> dict[str, Any]:
    from ffconv.training.config import plain

    options = {name: value for name, value in plain(config).items() if name in _SECTIONS}
    options["data"] = {name: value for name, value in options["data"].items() if name not in _FREE}
    return {
        "checkpoint": path.name,
        "split": arguments.split,
        "precision": arguments.precision,
        **options,
    }


def _folder_name(arguments: Any, path: Path, config: Any) -> str:
    """Return the default name of the output: checkpoint, split, data set, and the limit that is given."""
    data = Path(config.data.path).name or config.data.format
    name = f"{path.stem}-{arguments.split}-{re.sub(r'[^A-Za-z0-9_.-]+', '_', data)}"
    return name if arguments.limit is None else f"{name}-{arguments.limit}"


def _refuse_other_evaluation(output: Path, evaluation: Mapping[str, Any]) -> None:
    """Refuse a folder that holds the scores of another evaluation, which would be lost."""
    if not (output / _SCORES).is_file():
        return
    there = flatten(read_json(output / _SCORES).get(_EVALUATION, evaluation))
    here = flatten(evaluation)
    for name in sorted(there.keys() | here.keys()):
        require(
            there.get(name) == here.get(name),
            f"{output} holds scores of another evaluation ({name} is {there.get(name)!r} there and"
            f" {here.get(name)!r} here): choose another --output",
        )
