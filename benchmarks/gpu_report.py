"""Everything that is to be known of a GPU, by one command: whether results are right, and what they cost.

python benchmarks/gpu_report.py [--device cuda] [--sections NAME ...] [--quick] [--output report.md]

Sections: tests (those marked gpu), transforms and networks (errors against float64), inference, training,
units, lama, generator, growth, engines (times). Each is printed when it is done, and one that fails does not
stop the others. ``--quick`` takes small sizes, to try the command itself.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any, get_args

import growth
import torch
import fft_backends
from gpu_errors import Way, network_errors, transform_errors

from ffconv.analysis.benchmark import Effort, Measurement, compare
from ffconv.analysis.networks import NetworkSpec
from ffconv.analysis.subjects import OperatorShape, inpainting_subjects, network_subject, operator_subjects
from ffconv.dispatch import FFTBackend
from ffconv.analysis.work import Engine, Mode, Precision, Setting, Subject
from ffconv.environment import describe_environment

Lines = Iterator[str]


@dataclass(frozen=True)
class Plan:
    """What is measured; sizes in pixels.

    Args:
        device: where.
        transforms: engines of the Fourier transform.
        engines: ways to run a network; those with "fused" in inference only.
        effort: how long a comparison lasts.
    """

    device: str
    transforms: tuple[FFTBackend, ...]
    engines: tuple[Engine, ...]
    effort: Effort = field(default_factory=lambda: Effort(rounds=7))
    network: str = "ffc_resnet50"
    peer: str = "torchvision/resnet50"
    batch: int = 256
    image: int = 224
    checked_image: int = 96
    sides: tuple[int, ...] = (1, 4, 7, 14, 28, 33, 37, 56, 64, 96, 127, 128, 256)
    unit_channels: tuple[int, ...] = (64, 192, 256, 512)
    unit_sizes: tuple[int, ...] = (14, 28, 56, 64, 96, 128)
    unit_batch: int = 32
    lama_channels: int = 512
    lama_sizes: tuple[int, ...] = (64, 128, 256)
    generator_width: int = 64
    generator_sizes: tuple[int, ...] = (512, 1024)
    growth_sizes: tuple[int, ...] = growth.SIZES
    engine_channels: tuple[int, ...] = (16, 64, 256)


def plan_for(device: str, *, quick: bool) -> Plan:
    """The whole, or a small one of the same kind."""
    on_cuda = device.startswith("cuda")
    transforms: tuple[FFTBackend, ...] = ("torch", "dft_matmul", "triton") if on_cuda else ("auto", "torch", "dft_matmul")
    engines = tuple(engine for engine in get_args(Engine) if on_cuda or engine in ("eager", "fused"))
    plan = Plan(device, transforms, engines)
    if not quick:
        return plan
    return replace(
        plan,
        effort=Effort(rounds=2, warmup=1, block=0.0),
        network="ffc_resnet18",
        peer="torchvision/resnet18",
        batch=2,
        image=32,
        checked_image=64,  # of fewer the last norms see four values, and gradients jump
        sides=(1, 4, 7),
        unit_channels=(32,),
        unit_sizes=(8,),
        unit_batch=2,
        lama_channels=32,
        lama_sizes=(8,),
        generator_width=8,
        generator_sizes=(32,),
        growth_sizes=(8, 9, 16),
        engine_channels=(2,),
    )


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Lines:
    """Markdown."""
    for cells in (heads, ["---"] * len(heads), *rows):
        yield f"| {' | '.join(cells)} |"


def times(measured: Sequence[Measurement]) -> Lines:
    """A line for each subject beside its peer."""
    rows = []
    for one in measured:
        if one.subject == one.peer:
            continue
        (peer,) = (other for other in measured if other.subject == one.peer and other.setting == one.setting)
        low, high = one.quartiles
        setting = one.setting
        rows.append(
            (
                *(one.subject, setting.mode, setting.dtype, setting.engine, setting.fft_backend),
                *(f"{setting.batch_size} x {setting.size[0]}", f"{one.median:.3f} ({low:.3f} to {high:.3f})"),
                *(f"{peer.median:.3f}", f"{one.time_ratio:.2f}"),
                "-" if "graphs" in setting.engine else f"{one.memory_ratio:.2f}",
            )
        )
    heads = "subject, mode, type, engine, transform, batch x px, ms (quartiles), peer's ms, time / peer"
    yield from table([*heads.split(", "), "peak memory / peer's"], rows)


def compared(
    plan: Plan, subjects: Sequence[Subject], settings: Sequence[Setting], peer: str
) -> Iterator[Measurement]:
    """All settings; what fails in one is told, and left out."""
    for setting in settings:
        try:
            yield from compare(subjects, setting, plan.effort, peer=peer)
        except Exception:
            print(f"left out: {setting}\n{traceback.format_exc(limit=3)}", file=sys.stderr, flush=True)


def run_tests(plan: Plan) -> Lines:
    root = Path(__file__).parents[1]
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", "tests"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    yield "    " + "\n    ".join(done.stdout.strip().splitlines()[-60:])


def transforms(plan: Plan) -> Lines:
    yield "Largest error over the largest value: forward, inverse, their gradients."
    yield ""
    sizes = [*((side, side) for side in plan.sides), (5, 8), (8, 5)]
    rows = []
    for engine, dtype in product(plan.transforms, (torch.float64, torch.float32)):
        worst = [
            max(each)
            for each in zip(
                *(transform_errors(engine, size, dtype, plan.device) for size in sizes), strict=True
            )
        ]
        rows.append((engine, str(dtype).removeprefix("torch."), *(f"{error:.1e}" for error in worst)))
    yield from table(["engine", "type", "forward", "inverse", "gradient", "gradient of the inverse"], rows)


def networks(plan: Plan) -> Lines:
    yield "Root mean square errors of the output and of all gradients; half precision by autocast."
    yield ""
    low: list[Way] = [Way(torch.bfloat16), Way(torch.float16)]
    plain = [Way(torch.float32), *low]
    ways = [*plain, *(Way(torch.float32, transform) for transform in plan.transforms)]
    ways += [Way(torch.bfloat16, transform) for transform in plan.transforms]
    ways += [Way(torch.float32, engine=engine) for engine in plan.engines if engine.startswith("compile")]
    side = plan.checked_image
    images = torch.randn(4, 3, side, side, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    rows = []
    for name, of_network in ((plan.network, ways), (plan.peer, plain)):
        for way, errors in network_errors(name, images, of_network, plan.device).items():
            dtype = str(way.dtype).removeprefix("torch.")
            rows.append((name, dtype, way.fft_backend, way.engine, *(f"{error:.1e}" for error in errors)))
    yield from table(["network", "type", "transform", "engine", "output", "gradients"], rows)


def whole_networks(plan: Plan, mode: Mode) -> Lines:
    specs = [NetworkSpec.parse(name) for name in (plan.peer, plan.network)]
    subjects = [network_subject(spec) for spec in specs]
    size = (plan.image, plan.image)
    base = Setting(mode=mode, dtype="bfloat16", device=plan.device, batch_size=plan.batch, size=size)
    engines = [engine for engine in plan.engines if mode == "inference" or "fused" not in engine]
    settings = [replace(base, engine=engine) for engine in engines]
    settings += [
        replace(base, engine=engine, fft_backend=transform)
        for engine in engines[:1]
        for transform in plan.transforms[1:]
    ]
    yield from times(list(compared(plan, subjects, settings, str(specs[0]))))


def units(plan: Plan) -> Lines:
    precisions: tuple[Precision, ...] = ("float32", "bfloat16")
    measured: list[Measurement] = []
    for channels, side in product(plan.unit_channels, plan.unit_sizes):
        size = (side, side)
        base = Setting(mode="training", device=plan.device, batch_size=plan.unit_batch, size=size)
        settings = [
            replace(base, dtype=dtype, fft_backend=transform)
            for dtype, transform in product(precisions, plan.transforms)
        ]
        subjects = operator_subjects("fourier-unit", OperatorShape(channels), size)
        measured += compared(plan, subjects, settings, subjects[-1].name)
    yield from times(measured)


def lama(plan: Plan) -> Lines:
    measured: list[Measurement] = []
    modes: tuple[Mode, ...] = get_args(Mode)
    shape = OperatorShape(plan.lama_channels, ratio=0.75, lfu=False, padding_mode="reflect")
    for side, mode, transform in product(plan.lama_sizes, modes, plan.transforms):
        setting = Setting(mode=mode, device=plan.device, batch_size=1, size=(side, side), fft_backend=transform)
        subjects = operator_subjects("ffc", shape, setting.size)
        measured += compared(plan, (subjects[0], subjects[-1]), [setting], subjects[-1].name)
    yield from times(measured)


def generator(plan: Plan) -> Lines:
    subjects = inpainting_subjects(width=plan.generator_width, blocks=18)
    settings = [Setting(device=plan.device, batch_size=1, size=(side, side)) for side in plan.generator_sizes]
    yield from times(list(compared(plan, subjects, settings, subjects[-1].name)))


def grown(plan: Plan) -> Lines:
    layer = growth.ffc_layer(32, plan.device)
    measured = {side: growth.seconds(layer, side, plan.effort.rounds) for side in plan.growth_sizes}
    yield from table(
        ["side (px)", *map(str, measured)],
        [("median (ms)", *(f"{1e3 * took:.3f}" for took in measured.values()))],
    )
    yield ""
    yield f"Time grows as (H W log(H W)) to the power {growth.exponent(measured):.2f}."


def engines(plan: Plan) -> Lines:
    yield "Milliseconds of a transform and back, channels last, batch 64 (quick: 2)."
    yield ""
    rows = []
    for channels, side in product(plan.engine_channels, plan.sides):
        x = torch.randn(min(64, plan.batch), channels, side, side, device=plan.device)
        x = x.contiguous(memory_format=torch.channels_last)
        found = fft_backends.medians(x, plan.transforms, rounds=plan.effort.rounds, seconds=0.02)
        rows.append((str(channels), str(side), *(f"{figure:.3f}" for figure in found)))
    yield from table(["channels", "side (px)", *plan.transforms], rows)


SECTIONS: dict[str, tuple[str, Callable[[Plan], Lines]]] = {
    "tests": ("Tests marked gpu", run_tests),
    "transforms": ("Errors of transforms against float64", transforms),
    "networks": ("Errors of networks against float64", networks),
    "inference": (
        "Inference beside the plain network (goals: 1.15 compiled, 1.3 eager)",
        lambda plan: whole_networks(plan, "inference"),
    ),
    "training": (
        "Training step beside the plain network (goals: time 1.25 compiled, memory 1.15)",
        lambda plan: whole_networks(plan, "training"),
    ),
    "units": ("One Fourier Unit, forward and backward, beside the transcription (goal: 0.6)", units),
    "lama": ("LaMa's bottleneck beside the transcription (goal: 0.5)", lama),
    "generator": ("LaMa's generator beside the transcription", generator),
    "growth": ("One FFC of 32 channels, by size (goal: a power within 0.1 of 1)", grown),
    "engines": ("Engines of the transform", engines),
}


def report(plan: Plan, names: Sequence[str], say: Callable[[str], object]) -> bool:
    """Says the sections; whether none failed."""
    whole = True
    for name in names:
        title, section = SECTIONS[name]
        say(f"\n## {title}\n")
        try:
            for line in section(plan):
                say(line)
        except Exception:
            whole = False
            say(f"failed:\n\n    {traceback.format_exc().strip()}".replace("\n", "\n    "))
    return whole


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N, or cpu to try the command")
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--quick", action="store_true", help="small sizes")
    parser.add_argument("--output", type=Path, help="file that gets the report as well, line by line")
    options = parser.parse_args()
    torch.backends.cudnn.benchmark = True  # both networks with the algorithms that are fastest for them
    told: dict[str, Any] = describe_environment(torch.device(options.device))
    with open(options.output or os.devnull, "w") as file:

        def say(line: str) -> None:
            print(line, flush=True)
            print(line, file=file, flush=True)

        say("# Report of a GPU\n")
        versions = ", ".join(f"{name} {version}" for name, version in told["packages"].items())
        say(f"{told['device']} (CUDA {told['cuda']}), {told['processor']}, {versions}, {told['started']}")
        whole = report(plan_for(options.device, quick=options.quick), options.sections, say)
    return 0 if whole else 1


if __name__ == "__main__":
    sys.exit(main())
