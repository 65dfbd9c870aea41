"""``ffconv demo``: a small FFC-ResNet and its plain twin on the embedded sets, in minutes."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ffconv.cli.parser import CommandParser
from ffconv.cli.train import configs, train
from ffconv.cli.train import parse as parse_run
from ffconv.wording import say

if TYPE_CHECKING:
    from ffconv.analysis.tables import Report

HELP = (
    "Train a small FFC-ResNet and its plain twin on the two embedded sets; ends with a table and a picture."
)

_SETS = {"digits": "demo/digits", "far marks": "demo/far_marks"}
_NETWORKS = {"plain": "plain", "FFC": "ratio0.5"}

Rows = Sequence[Mapping[str, float]]


def add_arguments(parser: CommandParser) -> None:
    """Where the runs go, and how long they are."""
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("demo"),
        help="folder of the four runs; what is there already is kept",
    )
    parser.add_argument("--epochs", type=int | None, default=None, help="instead of the recipes' own")


def run(arguments: Any) -> int:
    """Trains all four, then prints the table and draws the picture."""
    from ffconv.analysis.tables import write_report
    from ffconv.files import write_atomically

    histories: dict[tuple[str, str], Rows] = {}
    records = []
    runs = len(_SETS) * len(_NETWORKS)
    for data, recipe in _SETS.items():
        for network, variant in _NETWORKS.items():
            say(f"run {len(records) + 1} of {runs}: {data}, {network} ResNet")
            folder = arguments.output / f"{data.replace(' ', '_')}-{network.lower()}"
            outcome = _train(recipe, variant, folder, arguments)
            if outcome.exit_code:
                return outcome.exit_code
            histories[data, network] = outcome.history
            records.append(_record(data, network, folder, outcome.history))
    picture = arguments.output / "demo.png"
    write_atomically(picture, _draw(histories))
    say()
    write_report([_report(records)], "table")
    say()
    say(f"{picture} shows the accuracy over the epochs.")
    return 0


def _train(recipe: str, variant: str, folder: Path, arguments: Any) -> Any:
    from ffconv.tasks.ablation import Variant

    words = ["--config", recipe, "--output", str(folder), "--resume", "auto"]
    if arguments.epochs is not None:
        words += ["--loop.epochs", str(arguments.epochs)]
    training, task = configs(parse_run(CommandParser(), words))
    name, options = Variant.parse(variant).network(task.model.name, task.model.arguments)
    model = dataclasses.replace(task.model, name=name, arguments=options)
    return train("classification", training, dataclasses.replace(task, model=model))


def _record(data: str, network: str, folder: Path, history: Rows) -> dict[str, Any]:
    from ffconv.analysis.complexity import count_complexity
    from ffconv.tasks.networks import load_trained
    from ffconv.training.folder import LAST

    trained = load_trained(folder / LAST)
    cost = count_complexity(trained.network, trained.info.input_size).total()
    return {
        "data": data,
        "network": network,
        "top1": history[-1]["top1"],
        "parameters": cost.parameters,
        "multiply_adds": cost.multiply_adds,
        "samples_per_second": statistics.median(row["samples_per_second"] for row in history),
    }


def _report(records: Sequence[Mapping[str, Any]]) -> Report:
    from ffconv.analysis.tables import Report, Table

    columns = ("data", "network", "top-1 (%)", "parameters (M)", "multiply-adds (M)", "training (images/s)")
    rows = [
        (
            record["data"],
            record["network"],
            f"{record['top1']:.1f}",
            f"{record['parameters'] / 1e6:.3f}",
            f"{record['multiply_adds'] / 1e6:.1f}",
            f"{record['samples_per_second']:.0f}",
        )
        for record in records
    ]
    notes = ("far marks: whether two marks half an image apart have the same colour; chance is 50 %",)
    return Report(
        Table("A small ResNet, plain and FFC, after the last epoch", columns, rows, notes, left=2), records
    )


def _draw(histories: Mapping[tuple[str, str], Rows]) -> bytes:
    from matplotlib.ticker import MaxNLocator

    from ffconv.pictures import BLUE, VERMILLION, new_figure, png

    figure = new_figure(4.5 * len(_SETS), 3.6)
    panels = dict(zip(_SETS, figure.subplots(1, len(_SETS), squeeze=False)[0], strict=True))
    colours = dict(zip(_NETWORKS, (BLUE, VERMILLION), strict=True))
    for (data, network), rows in histories.items():
        epochs, top1 = [row["epoch"] for row in rows], [row["top1"] for row in rows]
        # Not clipped: at 100 % the marker lies on the frame.
        panels[data].plot(
            epochs, top1, marker="o", color=colours[network], label=f"{network} ResNet", clip_on=False
        )
    for data, axes in panels.items():
        axes.set(title=data, xlabel="epochs done", ylabel="validation top-1 (%)", ylim=(0, 100))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        axes.legend()
    return png(figure)
