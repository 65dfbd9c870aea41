"""``ffconv ablate``: the paper's Tables 2 and 3 for any data set."""

from __future__ import annotations

import dataclasses
import gc
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ffconv.cli.parser import CommandParser
from ffconv.cli.recipes import parse_over_recipe, take_recipes
from ffconv.cli.train import FIRST_OPTIONS, add_run_arguments, configs, train
from ffconv.errors import InputError
from ffconv.wording import say

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
    add_run_arguments(parser, recipe, words)
    parser.shorten_help(("variants", "seeds", *FIRST_OPTIONS), usage="[--config RECIPE] [--OPTION VALUE ...]")
    recipe.setdefault("output", f"runs/ablate-{name or 'ffc'}")
    return parse_over_recipe(parser, recipe, words)


def run(arguments: Any) -> int:
    """Trains what is not yet trained, then prints the tables."""
    from ffconv.tasks.ablation import variants
    from ffconv.training.folder import LAST

    if arguments.seeds < 1:
        raise InputError(f"seeds={arguments.seeds} must be at least 1")
    if arguments.task != "classification":
        raise InputError(f"task={arguments.task}: variants are compared by the top-1 of image classification")
    chosen = variants(arguments.variants)
    training, _ = configs(arguments)
    seeds = range(training.seed, training.seed + arguments.seeds)
    folders = {
        (variant, seed): Path(arguments.output) / variant.name / f"seed{seed}"
        for variant in chosen
        for seed in seeds
    }
    exit_code = _train_all(arguments, folders)
    if exit_code == 0 and os.environ.get("RANK", "0") == "0":
        scores = [_score(variant, [folders[variant, seed] / LAST for seed in seeds]) for variant in chosen]
        _report(scores, Path(arguments.output))
    return exit_code


def _train_all(arguments: Any, folders: Mapping[tuple[Variant, int], Path]) -> int:
    """Train what is not yet trained.

    Returns:
        Exit code of a run that was stopped by a signal, else 0.
    """
    training, task = configs(arguments)
    open_runs = [not _is_trained(folder, training.loop.epochs) for folder in folders.values()]
    for place, ((variant, seed), folder) in enumerate(folders.items()):
        if os.environ.get("RANK", "0") == "0":
            say(f"run {place + 1} of {len(folders)}: {variant.name}, seed {seed}: {folder}")
        name, options = variant.network(task.model.name, task.model.arguments)
        model = dataclasses.replace(task.model, name=name, arguments=options)
        run = dataclasses.replace(training, seed=seed, output=str(folder), resume="auto")
        of_variant = dataclasses.replace(task, model=model)
        outcome = train(arguments.task, run, of_variant, later_runs=sum(open_runs[place + 1 :]))
        gc.collect()  # else the run's network and data workers live on until some later collection
        if outcome.exit_code:
            return outcome.exit_code
    return 0


def _is_trained(folder: Path, epochs: int) -> bool:
    """Return True if a run has its last epoch."""
    from ffconv.training.checkpoint import read_metadata
    from ffconv.training.folder import LAST

    path = folder / LAST
    return path.is_file() and read_metadata(path)["metrics"]["epoch"] >= epochs


def _score(variant: Variant, checkpoints: Sequence[Path]) -> Score:
    """What the last epochs of a variant's runs reached, and what its network costs."""
    from ffconv.analysis.complexity import count_complexity
    from ffconv.tasks.ablation import Score
    from ffconv.tasks.networks import load_trained

    trained = [load_trained(path) for path in checkpoints]
    network, info = trained[0]
    metric = "ema_top1" if "ema_top1" in info.metrics else "top1"
    cost = count_complexity(network, info.input_size).total()
    values = [each.info.metrics[metric] for each in trained]
    return Score(variant, cost.parameters, cost.multiply_adds, metric, values)


def _report(scores: Sequence[Score], output: Path) -> None:
    from ffconv.analysis.tables import dump, write_report
    from ffconv.files import write_atomically
    from ffconv.tasks.ablation import draw, record, reports

    write_report(reports(scores), "table")
    write_atomically(output / "ablation.csv", dump([record(score) for score in scores], "csv").encode())
    write_atomically(output / "ablation.png", draw(scores))
    say()
    say(f"ablation.csv and ablation.png are in {output}")
