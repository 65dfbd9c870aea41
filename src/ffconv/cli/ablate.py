"""``ffconv ablate``: the paper's Tables 2 and 3 for any data set."""

from __future__ import annotations

import dataclasses
import gc
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ffconv.cli.parser import CommandParser
from ffconv.cli.recipes import parse_over_recipe, take_recipes
from ffconv.cli.train import add_run_arguments, configs, train
from ffconv.errors import InputError

if TYPE_CHECKING:
    from ffconv.tasks.ablation import Score, Variant

HELP = "Train variants of a network with several seeds and print the paper's Tables 2 and 3 for them."
PARALLEL = True


def parse(parser: CommandParser, argv: Sequence[str]) -> Any:
    """The options of a run, and the list of variants."""
    recipe, name, words = take_recipes(argv)
    parser.add_argument(
        "--variants",
        type=list[str],
        default=["table2", "table3", "cross-scale"],
        help="names or groups: table2, table3, cross-scale, plain, ratioR[-lfu][-no-l2g][-no-g2l]",
    )
    parser.add_argument("--seeds", type=int, default=3, help="runs of each variant")
    add_run_arguments(parser, recipe)
    recipe.setdefault("output", f"runs/ablate-{name or 'ffc'}")
    return parse_over_recipe(parser, recipe, words)


def run(arguments: Any) -> int:
    """Trains what is not yet trained, then prints the tables."""
    from ffconv.tasks.ablation import variants

    if arguments.seeds < 1:
        raise InputError(f"seeds={arguments.seeds} must be at least 1")
    if arguments.task != "classification":
        raise InputError(f"task={arguments.task}: variants are compared by the top-1 of image classification")
    scores: list[Score] = []
    for variant in variants(arguments.variants):
        checkpoints, exit_code = _train_variant(arguments, variant)
        if exit_code:
            return exit_code
        scores.append(_score(variant, checkpoints))
    if os.environ.get("RANK", "0") == "0":
        _report(scores, Path(arguments.output))
    return 0


def _train_variant(arguments: Any, variant: Variant) -> tuple[list[Path], int]:
    """Trains each seed of a variant, or finds it trained.

    Returns:
        The checkpoints, and the exit code of a run that was stopped by a signal (else 0).
    """
    from ffconv.training.folder import LAST

    training, task = configs(arguments)
    name, options = variant.network(task.model.name, task.model.arguments)
    task = dataclasses.replace(task, model=dataclasses.replace(task.model, name=name, arguments=options))
    checkpoints = []
    for seed in range(training.seed, training.seed + arguments.seeds):
        folder = Path(arguments.output) / variant.name / f"seed{seed}"
        if os.environ.get("RANK", "0") == "0":
            print(f"{variant.name}, seed {seed}: {folder}", flush=True)
        run = dataclasses.replace(training, seed=seed, output=str(folder), resume="auto")
        outcome = train(arguments.task, run, task)
        gc.collect()  # else the run's network and data workers live on until some later collection
        if outcome.exit_code:
            return checkpoints, outcome.exit_code
        checkpoints.append(folder / LAST)
    return checkpoints, 0


def _score(variant: Variant, checkpoints: Sequence[Path]) -> Score:
    """What the last epochs of a variant's runs reached, and what its network costs."""
    from ffconv.analysis.complexity import count_complexity
    from ffconv.tasks.ablation import Score
    from ffconv.tasks.classification import load_classifier

    trained = [load_classifier(path) for path in checkpoints]
    metric = "ema_top1" if "ema_top1" in trained[0].metrics else "top1"
    side = trained[0].data["transform"]["eval_size"]
    cost = count_complexity(trained[0].network, (3, side, side)).total()
    values = [classifier.metrics[metric] for classifier in trained]
    return Score(variant, cost.parameters, cost.multiply_adds, metric, values)


def _report(scores: Sequence[Score], output: Path) -> None:
    from ffconv.analysis.tables import dump, write_report
    from ffconv.files import write_atomically
    from ffconv.tasks.ablation import draw, record, reports

    write_report(reports(scores), "table")
    write_atomically(output / "ablation.csv", dump([record(score) for score in scores], "csv").encode())
    write_atomically(output / "ablation.png", draw(scores))
    print(f"\nablation.csv and ablation.png are in {output}")
