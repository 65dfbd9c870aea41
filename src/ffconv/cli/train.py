"""``ffconv train``: a recipe, a data set, a run folder."""

from __future__ import annotations

import argparse
import dataclasses
import os
import signal
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ffconv.cli.parser import CommandParser
from ffconv.cli.recipes import parse_over_recipe, take_recipes
from ffconv.errors import InputError, require
from ffconv.training.config import TrainingConfig, plain
from ffconv.wording import say

if TYPE_CHECKING:
    from ffconv.training.loop import Outcome

#: Options in ``--help``; the others are in ``--help-all``.
FIRST_OPTIONS = (
    *("config", "task", "model.name", "model.arguments", "model.weights"),
    *("data.path", "data.format", "limit", "loop.epochs", "loop.batch_size", "optim.lr", "loop.device"),
    *("output", "resume", "print_config"),
)
EXAMPLE = "Example: ffconv train --config imagenet/ffc_resnet50 --data.path /data/imagenet --loop.epochs 30"

HELP = "Train a network by a recipe, or go on with a stopped run (--resume auto)."
PARALLEL = True


def parse(parser: CommandParser, argv: Sequence[str]) -> Any:
    """Reads the recipes first: the task they name has options of its own."""
    recipe, name, words = take_recipes(argv)
    add_run_arguments(parser, recipe, words)
    parser.shorten_help(FIRST_OPTIONS, usage="[--config RECIPE] [--OPTION VALUE ...]")
    parser.epilog = EXAMPLE
    if name is not None and "output" not in recipe:
        recipe["output"] = f"runs/{name}"
    return parse_over_recipe(parser, recipe, words)


def add_run_arguments(parser: CommandParser, recipe: dict[str, Any], words: Sequence[str]) -> None:
    """Add the options of a run of the task that the recipe or the command line names."""
    from ffconv.tasks import TASKS, task_kind

    task = _named_task(recipe, words)
    kind = task_kind(task)
    parser.add_argument(
        "--config", action="config", help="recipe: a YAML file, or a name such as imagenet/ffc_resnet50"
    )
    for action in parser._actions:
        if action.dest == "print_config":
            action.help = "print the configuration that would run, and exit"
    parser.add_argument("--task", choices=TASKS, default=task, help="what is trained; a recipe names its own")
    parser.add_class_arguments(TrainingConfig, None)
    parser.add_class_arguments(kind.config, None)


def _named_task(recipe: dict[str, Any], words: Sequence[str]) -> str:
    reader = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    reader.add_argument("--task")
    try:
        given = reader.parse_known_args(words)[0].task
    except argparse.ArgumentError as error:
        raise InputError(str(error)) from error
    named = recipe.get("task")
    require(
        given is None or named in (None, given), f"--task {given}: the recipe is of {named}, leave --task out"
    )
    return given or named or "classification"


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
