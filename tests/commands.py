"""The command line in tests: a small network on a few digits, in this process or in one of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from ffconv.cli import main
from ffconv.training.checkpoint import load_state

SOURCES = Path(__file__).parents[1] / "src"

#: Options of a run of seconds: here, and of two epochs.
SHORT = ("--loop.device", "cpu", "--data.workers", "0", "--loop.epochs", "2")

#: `ffconv train` in seconds: 64 digits of 32 x 32 pixels, a network of 0.4 M parameters.
QUICK_TRAIN = (
    *("train", "--config", "small/digits", "--model.name", "test_resnet", "--model.arguments", "{}"),
    *("--limit", "64", "--loop.batch_size", "16", *SHORT),
)


def run_of(words: tuple[str, ...], factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that ends well."""
    folder = factory.mktemp("runs") / "run"
    assert main([*words, "--output", str(folder)]) == 0
    return folder


def evaluated(output: Path, *words: str) -> dict[str, Any]:
    """What ``ffconv evaluate`` wrote into scores.json."""
    assert main(["evaluate", *words, "--device", "cpu", "--data.workers", "0", "--output", str(output)]) == 0
    return json.loads((output / "scores.json").read_text())


def predicted(capsys: pytest.CaptureFixture[str], *words: str) -> list[dict[str, Any]]:
    """What ``ffconv predict`` prints as JSON."""
    capsys.readouterr()
    assert main(["predict", *words, "--format", "json", "--device", "cpu"]) == 0
    return json.loads(capsys.readouterr().out)


def refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line on stderr of a command that is refused with exit code 2."""
    capsys.readouterr()
    assert main(words) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("ffconv: ")
    assert printed.count("\n") == 1
    return printed


def start(*words: str, launcher: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    """Starts ``ffconv`` as a process group of its own; several processes by a launcher such as torchrun."""
    environment = os.environ | {"PYTHONPATH": str(SOURCES), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, *launcher, "-m", "ffconv", *words],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Waits for a process; its exit code and what it printed."""
    printed, _ = process.communicate(timeout=300)
    return process.returncode, printed


def torchrun(processes: int) -> tuple[str, ...]:
    """The launcher of several processes on this machine, on a port of its own."""
    return ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes))


def state_of(folder: Path) -> dict[str, Any]:
    """A run's newest state, without the times, which no two runs share."""
    state = load_state(folder)
    if state is None:
        raise AssertionError(f"no state in {folder}")
    state["position"].pop("seconds")
    for row in state["position"]["history"]:
        row.pop("samples_per_second")
    return state


def same_bits(a: Any, b: Any) -> bool:
    """Whether two states are the same to the last bit."""
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same_bits(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same_bits, a, b))
    return a == b


def assert_same_run(folder: Path, whole: Path) -> None:
    """The two runs' states and weights are the same to the last bit."""
    assert same_bits(state_of(folder), state_of(whole))
    for name in ("best.safetensors", "last.safetensors"):
        assert (folder / name).read_bytes() == (whole / name).read_bytes()


def image_folder(path: Path, classes: str, images: int = 3) -> Path:
    """A tree of class folders with small images of one colour each."""
    for label, name in enumerate(classes):
        (path / name).mkdir(parents=True)
        for number in range(images):
            colour = (40 * label % 256, 60 * number % 256, 128)
            Image.new("RGB", (20, 24), colour).save(path / name / f"{number}.png")
    return path
