"""``ffconv benchmark``: time and memory of networks and operators, and of reading videos, beside peers."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ffconv.cli.complexity import map_size
from ffconv.cli.parser import CommandParser, from_plain
from ffconv.errors import InputError, first_line

if TYPE_CHECKING:
    from ffconv.analysis.tables import Table
    from ffconv.analysis.work import Setting, Subject
    from ffconv.dispatch import FFTBackend

HELP = "Time of networks, operators and video reading beside their peers, taking turns in one run."


def add_arguments(parser: CommandParser) -> None:
    """Networks, operators, inpainting or video reading, a subcommand each."""
    kinds = parser.add_subcommands(dest="kind", required=True)
    kinds.add_subcommand("model", _model_parser(), help="whole networks")
    kinds.add_subcommand(
        "operator", _operator_parser(), help="single layers, beside the paper's transcription"
    )
    kinds.add_subcommand(
        "inpainting", _inpainting_parser(), help="LaMa's generator, beside its plain transcription"
    )
    kinds.add_subcommand("decoding", _decoding_parser(), help="clips of videos, beside decoding whole files")


def run(arguments: Any) -> None:
    """Measure and print or write the figures."""
    options = arguments[arguments.kind]
    if arguments.kind == "decoding":
        _run_decoding(options)
    else:
        _run_steps(arguments.kind, options)


def _run_steps(kind: str, options: Any) -> None:
    """Every combination of the options."""
    import torch

    from ffconv.analysis.benchmark import Effort, compare
    from ffconv.analysis.benchmark_report import as_json, as_table
    from ffconv.environment import describe_environment

    _require_device(options.device)
    groups = {"model": _networks, "operator": _operators, "inpainting": _inpainting}[kind]
    effort = Effort(options.rounds, options.warmup, options.block, options.threads)
    comparisons = [(setting, *group) for setting in _settings(options) for group in groups(options, setting)]
    measurements = [
        measurement
        for setting, subjects, peer in comparisons
        for measurement in compare(subjects, setting, effort, peer=peer)
    ]
    environment = describe_environment(torch.device(options.device))
    _write(as_table(measurements, environment), as_json(measurements, environment), options)


def _require_device(name: str) -> None:
    import torch

    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:  # AssertionError: torch was built without that kind
        raise InputError(f"device={name!r} cannot be used here: {first_line(error)}") from error


def _run_decoding(options: Any) -> None:
    import torch

    from ffconv.analysis.decoding import as_json, as_table, compare_decoding
    from ffconv.data.clip_config import ClipConfig
    from ffconv.environment import describe_environment

    clip = from_plain(ClipConfig, options.clip.as_dict(), section="clip")
    measured = compare_decoding(options.videos, clip, rounds=options.rounds, decoder=options.decoder)
    environment = describe_environment(torch.device("cpu"))
    _write(as_table(measured, environment), as_json(measured, environment), options)


def _model_parser() -> CommandParser:
    parser = CommandParser(description="Steps of whole networks; --size is that of the images.")
    parser.add_argument(
        "networks",
        nargs="*",
        type=str,
        metavar="MODEL",
        default=["ffc_resnet50"],
        help="name[,argument=value,...] of a timm, torchvision or ffconv network",
    )
    parser.add_argument("--peer", type=str, default="torchvision/resnet50", help="network ratios refer to")
    _add_common_options(parser, size="224")
    return parser


def _operator_parser() -> CommandParser:
    from ffconv.analysis.subjects import Operator

    parser = CommandParser(description="Steps of single layers; --size is that of the map.")
    parser.add_argument(
        "operators",
        nargs="*",
        type=Operator,
        metavar="OPERATOR",
        default=["fourier-unit", "spectral-transform", "ffc"],
        help="fourier-unit, spectral-transform or ffc",
    )
    parser.add_argument("--channels", nargs="+", type=int, default=[64], help="of the map")
    parser.add_argument("--ratio", type=float, default=0.25, help="share of global channels of an ffc")
    parser.add_argument("--kernel_size", type=int, default=3, help="of an ffc")
    parser.add_argument("--lfu", type=bool, default=True, help="whether there is a Local Fourier Unit")
    parser.add_argument(
        "--padding_mode",
        type=Literal["zeros", "reflect", "replicate", "circular"],
        default="zeros",
        help="of an ffc",
    )
    _add_common_options(parser, size="56")
    return parser


def _decoding_parser() -> CommandParser:
    from ffconv.data.clip_config import ClipConfig
    from ffconv.data.videos import Decoder

    parser = CommandParser(description="Training clips of videos, from the file to the tensor.")
    parser.add_argument("videos", type=Path, help="a video file, or a folder of videos")
    parser.add_argument("--decoder", type=Decoder, default="pyav", help="of our reader")
    parser.add_class_arguments(ClipConfig, "clip")
    parser.add_argument("--rounds", type=int, default=5, help="clips of each video")
    _add_output_options(parser)
    return parser


def _inpainting_parser() -> CommandParser:
    parser = CommandParser(description="Steps of LaMa's generator; --size is that of the images.")
    parser.add_argument("--width", type=int, default=64, help="channels after its first convolution")
    parser.add_argument("--blocks", type=int, default=18, help="residual blocks")
    _add_common_options(parser, size="512")
    parser.set_defaults({"batch_size": [1]})
    return parser


def _add_common_options(parser: CommandParser, *, size: str) -> None:
    from ffconv.analysis.work import Engine, MemoryFormat, Mode, Precision
    from ffconv.dispatch import FFTBackend

    parser.add_argument("--size", nargs="+", type=str, default=[size], help="side or HxW, in pixels")
    parser.add_argument("--batch_size", nargs="+", type=int, default=[8], help="images a step")
    parser.add_argument("--mode", nargs="+", type=Mode, default=["inference"], help="what a step is")
    parser.add_argument(
        "--dtype", nargs="+", type=Precision, default=["float32"], help="half precision is by autocast"
    )
    parser.add_argument(
        "--engine",
        nargs="+",
        type=Engine,
        default=["eager"],
        help="fused folds norms, compile is torch.compile, graphs records what is compiled as CUDA graphs",
    )
    parser.add_argument(
        "--fft_backend", nargs="+", type=FFTBackend, default=["auto"], help="backend of the Fourier transforms"
    )
    parser.add_argument(
        "--memory_format",
        type=Literal["faster", MemoryFormat],
        default="faster",
        help="of networks and maps; by default that in which a subject is faster",
    )
    parser.add_argument("--device", type=str, default="cpu", help="cpu, cuda or cuda:N")
    parser.add_argument("--threads", type=int, help="of torch on the CPU (default: torch's own choice)")
    parser.add_argument("--rounds", type=int, default=15, help="turns of each subject")
    parser.add_argument("--warmup", type=int, default=3, help="steps before the first turn")
    parser.add_argument("--block", type=float, default=0.05, help="seconds a turn lasts at least")
    _add_output_options(parser)


def _add_output_options(parser: CommandParser) -> None:
    parser.add_argument("--format", type=Literal["table", "json"], default="table", help="how to print")
    parser.add_argument("--output", type=Path, help="JSON file to write beside what is printed")


def _settings(options: Any) -> list[Setting]:
    from ffconv.analysis.work import Setting
    from ffconv.dispatch import FFTBackend

    return [
        Setting(
            mode=mode,
            dtype=dtype,
            engine=engine,
            device=options.device,
            batch_size=batch_size,
            size=size,
            fft_backend=fft_backend,
            memory_format=options.memory_format,
        )
        for size in map(map_size, options.size)
        for batch_size in options.batch_size
        for dtype in options.dtype
        for engine in options.engine
        for fft_backend in options.fft_backend
        for mode in options.mode
    ]


def _networks(options: Any, setting: Setting) -> Iterator[tuple[Sequence[Subject], str]]:
    from ffconv.analysis.networks import NetworkSpec
    from ffconv.analysis.subjects import network_subject

    specs = {str(spec): spec for spec in map(NetworkSpec.parse, [options.peer, *options.networks])}
    yield [network_subject(spec) for spec in specs.values()], next(iter(specs))


def _inpainting(options: Any, setting: Setting) -> Iterator[tuple[Sequence[Subject], str]]:
    from ffconv.analysis.subjects import inpainting_subjects

    subjects = inpainting_subjects(width=options.width, blocks=options.blocks)
    yield subjects, subjects[-1].name


def _operators(options: Any, setting: Setting) -> Iterator[tuple[Sequence[Subject], str]]:
    from ffconv.analysis.subjects import OperatorShape, operator_subjects

    for channels, operator in product(options.channels, options.operators):
        shape = OperatorShape(channels, options.kernel_size, options.ratio, options.lfu, options.padding_mode)
        subjects = operator_subjects(operator, shape, setting.size)
        yield subjects, subjects[-1].name


def _write(table: Table, figures: dict[str, Any], options: Any) -> None:
    from ffconv.analysis.tables import print_table
    from ffconv.files import write_atomically

    text = json.dumps(figures, indent=2) + "\n"
    if options.output:
        write_atomically(options.output, text.encode())
    if options.format == "json":
        print(text, end="")
    else:
        print_table(table)
