"""What an evaluation is whatever the task: options over the checkpoint's, processes, where results go."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ffconv.cli.checkpoints import checkpoint_file
from ffconv.cli.parser import from_plain
from ffconv.cli.progress import shown
from ffconv.cli.recipes import merged
from ffconv.files import make_folder, write_atomically
from ffconv.wording import counted

if TYPE_CHECKING:
    from torch import nn

    from ffconv.training.task import Share


@dataclass(frozen=True)
class Evaluated:
    """An evaluation that is to be reported.

    Args:
        scores: what the task's evaluation gave.
        output: folder of what is written; it exists.
        skipped: unreadable samples that were left out, and why.
    """

    scores: Any
    output: Path
    skipped: dict[str, str]

    def write_scores(self, scores: Mapping[str, Any]) -> None:
        """Writes scores.json."""
        summary = {**scores, "skipped": self.skipped}
        write_atomically(self.output / "scores.json", json.dumps(summary, indent=2).encode())

    def left_out(self, sample: str) -> str:
        """How many samples were left out, as the end of a line; nothing where none were."""
        return f", {counted(len(self.skipped), f'unreadable {sample}')} left out" if self.skipped else ""


def section_of(arguments: Any, kind: type[Any], trained: Mapping[str, Any], *, section: str) -> Any:
    """A section of the configuration: the options that are given, the others as the checkpoint has them."""
    return from_plain(kind, merged(trained, arguments.given.get(section, {})), section=section)


def evaluate(
    arguments: Any,
    network: nn.Module,
    make_task: Callable[[Share], Any],
    score: Callable[[Any, nn.Module], Any],
    *,
    report: Callable[[Evaluated], None],
) -> int:
    """Scores a network on a split and reports it; the processes share its samples.

    Args:
        arguments: of the command.
        network: of the checkpoint.
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
    output = arguments.output or path.parent / f"{path.stem}-{arguments.split}"
    if accelerator.is_main_process:
        make_folder(output)  # before the work, which would be lost
        task.watch_evaluation(lambda batches: shown(batches, "evaluating", total=len(batches)))
    with torch.no_grad(), accelerator.autocast():
        scores = score(task, network.to(accelerator.device))
    if accelerator.is_main_process:
        report(Evaluated(scores, output, dict(task.skipped())))
    return 0
