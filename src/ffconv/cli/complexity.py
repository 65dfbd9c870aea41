"""``ffconv complexity``: parameters and multiply-adds of networks, and the paper's tables beside them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ffconv.cli.progress import announced, shown
from ffconv.errors import InputError, require

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace

    from ffconv.analysis.tables import Report

HELP = "Parameters and multiply-adds of networks, in total or by layer."

_FRAMES = 8  # of the paper's clips
_TABLES = (1, 2, 3, 4, 5, 6)
_SIZE = re.compile(r"\d+(x\d+){0,3}")


def add_arguments(parser: ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument(
        "networks",
        nargs="*",
        type=str,
        default=[],
        metavar="MODEL",
        help="name[,argument=value,...] of a timm, torchvision or ffconv network",
    )
    parser.add_argument(
        "--model.arguments",
        type=dict[str, Any],
        default={},
        help="arguments for every MODEL, as in --model.arguments.ratio 0.5",
    )
    parser.add_argument(
        "--size",
        type=str,
        default="224",
        help="input: side, HxW, CxHxW or CxTxHxW (default: 224, for networks of clips 8 frames)",
    )
    parser.add_argument("--layers", action="store_true", help="one line a layer, an FFC by its parts")
    parser.add_argument(
        "--depth", type=int, help="one line for layers that share the first DEPTH components of their names"
    )
    parser.add_argument(
        "--paper",
        nargs="*",
        type=int,
        metavar="TABLE",
        help="the paper's Tables 1 to 6, or some, beside ours",
    )
    parser.add_argument(
        "--format", type=Literal["table", "csv", "json"], default="table", help="how to print"
    )
    parser.add_argument("--output", type=Path, help="file to write to instead of printing")


def run(arguments: Namespace) -> None:
    """Counts, and prints or writes the tables."""
    from ffconv.analysis.tables import write_report

    if arguments.paper is None and not arguments.networks:
        raise InputError("name a MODEL, or ask for the paper's tables with --paper")
    if arguments.paper is not None and arguments.networks:
        raise InputError("--paper counts the paper's own networks: give it no MODEL (and put it last)")
    reports = _networks(arguments) if arguments.paper is None else _paper(arguments.paper)
    write_report(reports, arguments.format, arguments.output)


def _networks(arguments: Namespace) -> Iterator[Report]:
    from ffconv.analysis.complexity import count_complexity
    from ffconv.analysis.networks import NetworkSpec, takes_clips
    from ffconv.analysis.reports import layers_report, networks_report

    size = input_size(arguments.size)
    specs = [NetworkSpec.parse(text, arguments.model.arguments) for text in arguments.networks]
    with announced("building the networks"):
        networks = {str(spec): spec.build("meta") for spec in specs}
    if len(size) == 3 and all(map(takes_clips, networks.values())):
        size = (size[0], _FRAMES, *size[1:])
    items = shown(networks.items(), "counting", total=len(networks))
    counts = {name: count_complexity(network, size) for name, network in items}
    if not (arguments.layers or arguments.depth is not None):
        yield networks_report(counts, size)
        return
    for name, count in counts.items():
        yield layers_report(name, count if arguments.depth is None else count.grouped(arguments.depth), size)


def _paper(numbers: list[int]) -> Iterator[Report]:
    from ffconv.analysis.paper import paper_tables
    from ffconv.analysis.paper_reports import formulas_report, paper_report

    unknown = sorted(set(numbers) - set(_TABLES))
    if unknown:
        raise InputError(f"the paper has no Table {unknown[0]}: choose among 1 to {_TABLES[-1]}")
    wanted = numbers or _TABLES
    if 1 in wanted:
        yield formulas_report()
    for table in paper_tables():
        if table.number in wanted:
            with announced(f"counting the networks of Table {table.number}"):
                report = paper_report(table)
            yield report


def input_size(text: str) -> tuple[int, ...]:
    """The size of an input as written on the command line, colour images where it names no channels.

    Raises:
        InputError: unless text is one to four positive numbers joined by x.

    Example:
        >>> input_size("224"), input_size("256x192"), input_size("3x8x224x224")
        ((3, 224, 224), (3, 256, 192), (3, 8, 224, 224))
    """
    numbers = tuple(map(int, text.split("x"))) if _SIZE.fullmatch(text) else ()
    if not numbers or 0 in numbers:
        raise InputError(f"size {text!r} must read side, HxW, CxHxW or CxTxHxW, such as 224 or 256x192")
    if len(numbers) == 1:
        numbers *= 2
    return numbers if len(numbers) > 2 else (3, *numbers)


def map_size(text: str) -> tuple[int, int]:
    """Height and width as written on the command line.

    Raises:
        InputError: unless text is one or two positive numbers joined by x.
    """
    require(text.count("x") < 2, f"size {text!r} must read side or HxW, such as 224 or 256x192")
    _, height, width = input_size(text)
    return height, width
