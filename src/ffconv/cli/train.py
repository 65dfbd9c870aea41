"""``ffconv train``: a recipe, a data set, a run folder."""

from __future__ import annotations

import dataclasses
import os
import signal
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ffconv.cli.parser import CommandParser
from ffconv.cli.recipes import parse_over_recipe, take_recipes
from ffconv.training.config import TrainingConfig, plain
from ffconv.wording import say

if TYPE_CHECKING:
    from ffconv.training.loop import Outcome

HELP = "Train a network by a recipe, or go on with a stopped run (--resume auto)."
PARALLEL = True


def parse(parser: CommandParser, argv: Sequence[str]) -> Any:
    """Reads the recipes first: the task they name has options of its own."""
    recipe, name, words = take_recipes(argv)
    add_run_arguments(parser, recipe)
    if name is not None and "output" not in recipe:
        recipe["output"] = f"runs/{name}"
    return parse_over_recipe(parser, recipe, words)


def add_run_arguments(parser: CommandParser, recipe: dict[str, Any]) -> None:
    """The options of a run of the recipe's task."""
    from ffconv.tasks import task_kind

    task = recipe.get("task", "classification")
    parser.add_argument(
        "--config", action="config", help="recipe: a YAML file, or a name such as imagenet/ffc_resnet50"
    )
    parser.add_argument("--task", choices=[task], default=task, help="what is trained; recipes say it")
    parser.add_class_arguments(TrainingConfig, None)
    parser.add_class_arguments(task_kind(task).config, None)


def run(arguments: Any) -> int:
    """Trains; returns 0, or 128 and the signal's number if one stopped the run."""
    from ffconv.training.folder import BEST

    training, task = configs(arguments)
    if training.output is None:
        training = dataclasses.replace(training, output=f"runs/{arguments.model.name}")
    outcome = train(arguments.task, training, task)
    if os.environ.get("RANK", "0") != "0":
        return outcome.exit_code
    if outcome.stopped_by is None:
        say(f"finished: {training.output}/{BEST} holds the best weights")
    else:
        name = signal.Signals(outcome.stopped_by).name
        say(
            f"stopped by {name} after step {outcome.step}, saved: the same command with --resume auto goes on"
        )
    return outcome.exit_code


def train(task: str, training: TrainingConfig, config: Any, *, later_runs: int = 0) -> Outcome:
    """Train one run of a task; ``later_runs`` of the same length follow it."""
    from ffconv.tasks import task_kind
    from ffconv.training.run import train_run

    record = {"task": task, **plain(training), **plain(config)}
    record["data"].pop("allow_commands", None)  # said anew at each start
    return train_run(
        lambda share: task_kind(task).task(config, share), training, record=record, later_runs=later_runs
    )


def configs(arguments: Any) -> tuple[TrainingConfig, Any]:
    """The configuration of the run and that of its task, from parsed options."""
    from ffconv.tasks import task_kind

    def build(kind: Any) -> Any:
        return kind(**{field.name: getattr(arguments, field.name) for field in dataclasses.fields(kind)})

    return build(TrainingConfig), build(task_kind(arguments.task).config)
