"""``ffconv export``: a network as a file that other programs run."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ffconv.cli.checkpoints import checkpoint_file
from ffconv.cli.complexity import map_size
from ffconv.errors import require

if TYPE_CHECKING:
    from torch import nn

    from ffconv.analysis.benchmark import Effort
    from ffconv.analysis.tables import Table
    from ffconv.cli.parser import CommandParser
    from ffconv.interop.export import ExportReport
    from ffconv.interop.export_engines import OnnxEngine
    from ffconv.interop.export_input import NetworkInput
    from ffconv.tasks.exporting import Exportable

HELP = "Writes a network as ONNX, torch.export or TorchScript, and checks the file against the network."

_MIB = 2**20
# A name that is no file may have a point in it too, as in ffc_resnet50,ratio=0.5.
_CHECKPOINTS = (".safetensors", ".ckpt", ".pt", ".pth")


def add_arguments(parser: CommandParser) -> None:
    """The options of the command."""
    parser.add_argument(
        "model",
        type=str,
        help="name[,argument=value,...] of a network, a .safetensors checkpoint, a run folder (its best), a"
        " package, or LaMa's best.ckpt or folder",
    )
    parser.add_argument("-o", "--output", type=Path, required=True, help="file to write")
    _add_form(parser)
    _add_input(parser)
    _add_check(parser)


def _add_form(parser: CommandParser) -> None:
    parser.add_argument(
        "--to", type=Literal["onnx", "torch-export", "torchscript"], default="onnx", help="format"
    )
    parser.add_argument(
        "--fft_backend",
        type=Literal["torch", "dft_matmul"],
        default="dft_matmul",
        help="Fourier transforms as such (in ONNX the operator DFT), or as products of real matrices",
    )
    parser.add_argument("--opset", type=int, default=18, help="of an ONNX file, 13 to 23; with fft from 17")
    parser.add_argument(
        "--dtype", type=Literal["float32", "float16", "bfloat16"], default="float32", help="of the weights"
    )
    parser.add_argument("--fuse", action="store_true", help="fold batch norms into convolutions first")
    parser.add_argument(
        "--dynamic",
        nargs="+",
        type=Literal["batch", "size", "time"],
        default=[],
        help="axes whose size is left open; time is that of clips",
    )


def _add_input(parser: CommandParser) -> None:
    parser.add_argument("--size", type=str | None, default=None, help="side or HxW in pixels (default: the"
                        " network's own)")  # fmt: skip
    parser.add_argument(
        "--frames", type=int | None, default=None, help="of a clip (default: the network's own)"
    )
    parser.add_argument(
        "--weights", type=Path | None, default=None, help="file of weights for a named network"
    )
    parser.add_argument(
        "--arguments", type=dict[str, Any], default={}, help="of LaMa's network where its weights do not tell"
    )


def _add_check(parser: CommandParser) -> None:
    parser.add_argument("--check", type=bool, default=True, help="run the file against the network")
    parser.add_argument(
        "--check_input", type=Path | None, default=None, help="an image or a video to check with"
    )
    parser.add_argument(
        "--check_engine",
        type=Literal["onnxruntime", "openvino"],
        default="onnxruntime",
        help="what runs an ONNX file",
    )
    parser.add_argument(
        "--tolerance",
        type=float | None,
        default=None,
        help="largest difference, as a share of the largest output (default: 1e-4; float16 1e-2,"
        " bfloat16 5e-2)",
    )
    parser.add_argument("--time", action="store_true", help="measure the file beside eager PyTorch")
    parser.add_argument("--rounds", type=int, default=15, help="of --time")


def run(arguments: Any) -> None:
    """Writes the file, prints what it is, how far it is from the network and how long it takes."""
    from ffconv.analysis.benchmark import Effort
    from ffconv.analysis.tables import print_table
    from ffconv.interop.export import Check, ExportConfig, export
    from ffconv.tasks.exporting import read_input

    config = ExportConfig(
        arguments.to,
        arguments.dtype,
        arguments.fuse,
        tuple(arguments.dynamic),
        arguments.opset,
        arguments.fft_backend,
    )
    wanted = arguments.check_input
    require(arguments.check or wanted is None, "check_input is for a check: leave out --check false")
    effort = Effort(rounds=arguments.rounds)
    network, given, trained = _exportable(arguments)
    inputs = () if wanted is None else ((str(wanted), read_input(wanted, given)),)
    check = Check(inputs, arguments.check_engine, arguments.tolerance) if arguments.check else None
    with _steps_shown():
        report = export(network, arguments.output, given, config, check=check)
    _print_report(report, given, trained)
    if arguments.time:
        print_table(_times(network, given, report, engine=arguments.check_engine, effort=effort))


@contextmanager
def _steps_shown() -> Iterator[None]:
    """What is being done: on a terminal one line with its time, gone in the end; else a line a step."""
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    from ffconv.interop.export import logger

    console = Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    shown = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    task = shown.add_task("")

    class Steps(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if console.is_terminal:
                shown.reset(task, description=record.getMessage())
            else:
                print(record.getMessage(), flush=True)  # stderr is for the one line of a refusal

    steps, before = Steps(), logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(steps)
    try:
        with shown:
            yield
    finally:
        logger.removeHandler(steps)
        logger.setLevel(before)


def _exportable(arguments: Any) -> Exportable:
    from ffconv.tasks.exporting import Wanted, network_by_name, network_of_checkpoint

    size = None if arguments.size is None else map_size(arguments.size)
    require(arguments.frames is None or arguments.frames > 0, f"frames={arguments.frames} must be at least 1")
    wanted = Wanted(size, arguments.frames, arguments.weights, arguments.arguments)
    path = Path(arguments.model)
    if path.exists() or path.suffix in _CHECKPOINTS:
        return network_of_checkpoint(checkpoint_file(path), wanted)
    return network_by_name(arguments.model, wanted)


def _print_report(report: ExportReport, given: NetworkInput, trained: bool) -> None:
    from ffconv.analysis.tables import Table, print_table

    config, opened = report.config, given.dynamic_axes(report.config.dynamic)
    size = "x".join(opened.get(number, str(side)) for number, side in enumerate((1, *given.size)))
    opset = f" opset {config.opset}" if config.to == "onnx" else ""
    dtype = str(config.input_dtype).removeprefix("torch.")
    mib = report.path.stat().st_size / _MIB
    print(f"{report.path}: {config.to}{opset}, FFT backend {config.fft_backend}, {mib:.1f} MiB")
    print(f"{given.task}: {given.name} {size} {dtype} -> {given.output_name}")
    if not trained:
        print("weights: random, norms measured on random input")
    if report.operators:
        print("operators: " + ", ".join(f"{name} {count}" for name, count in report.operators.items()))
    if not report.differences:
        print("not checked")
        return
    rows = [(found.input, f"{found.absolute:.2e}", f"{found.relative:.2e}") for found in report.differences]
    print_table(
        Table("Largest difference from the network", ("input", "absolute", "of largest output"), rows)
    )


def _times(
    network: nn.Module, given: NetworkInput, report: ExportReport, *, engine: OnnxEngine, effort: Effort
) -> Table:
    from ffconv.interop.export_engines import open_exported
    from ffconv.interop.export_timing import time_exported, times_table

    config = report.config
    runs_in = engine if config.to == "onnx" else config.to
    runner = open_exported(report.path, config.to, engine)
    name = ", ".join([runs_in, config.fft_backend, config.dtype, *(["fused"] if config.fuse else [])])
    return times_table(time_exported(network, given, {name: (runner, config.input_dtype)}, effort), given)
