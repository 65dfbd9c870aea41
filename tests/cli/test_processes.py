"""Training in two processes over gloo."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch

from commands import QUICK_TRAIN, assert_same_run, finish, start, state_of, torchrun
from ffconv.cli import main
from ffconv.training.checkpoint import read_metadata, read_safetensors

pytestmark = pytest.mark.slow

# Layer norms: with batch norms each process would normalise its own half.
WITHOUT_BATCH_NORM = ("--model.name", "test_vit", "--model.arguments", "{img_size: 32}")
WORDS = (
    *QUICK_TRAIN,
    *("--loop.epochs", "3", "--limit", "128", "--checkpoint.every", "3", "--loop.log_every", "2"),
    *("--loop.ema_decay", "0.9", "--loss.mixup", "0.2", "--model.arguments.drop_path_rate", "0.2"),
    *("--resume", "auto"),
)


def test_two_processes_train_as_one(tmp_path: Path):
    words = [*QUICK_TRAIN, *WITHOUT_BATCH_NORM, "--optim.lr", "0.02"]
    assert main([*words, "--output", str(tmp_path / "one")]) == 0
    code, printed = finish(start(*words, "--output", str(tmp_path / "two"), launcher=torchrun(2)))
    assert code == 0, printed
    assert printed.count("epoch 1/2 done") == 1
    files = [tmp_path / name / "last.safetensors" for name in ("one", "two")]
    one, two = map(read_safetensors, files)
    for name, weight in one.items():
        torch.testing.assert_close(two[name], weight, rtol=1e-3, atol=1e-5)
    one, two = (read_metadata(file)["metrics"] for file in files)
    for metric in ("train_loss", "loss", "top1"):
        assert two[metric] == pytest.approx(one[metric], rel=1e-3)


@pytest.mark.skipif(torch.accelerator.is_available(), reason="device auto takes the accelerator here")
def test_two_processes_on_a_machine_without_gpu_are_one_run(tmp_path: Path):
    """By default, too: device auto."""
    run = tmp_path / "run"
    words = [*QUICK_TRAIN, "--loop.device", "auto", "--limit", "128"]
    code, printed = finish(start(*words, "--output", str(run), launcher=torchrun(2)))
    assert code == 0, printed
    assert printed.count("epoch 1/2 done") == 1
    assert json.loads((run / "environment.json").read_text())[0]["processes"] == 2
    words = [
        "evaluate",
        str(run),
        "--data.format",
        "digits",
        "--limit",
        "64",
        "--data.workers",
        "0",
        "--output",
        str(tmp_path / "scores"),
    ]
    code, printed = finish(start(*words, launcher=torchrun(2)))
    assert code == 0, printed
    assert "over 64 images" in printed
    assert printed.count("top-1") == 1
    assert json.loads((tmp_path / "scores" / "scores.json").read_text())["images"] == 64


def test_a_command_of_one_process_refuses_to_be_two():
    code, printed = finish(start("complexity", "resnet18", launcher=torchrun(2)))
    assert code != 0
    assert "ffconv: ffconv complexity works in one process, but the launcher started 2" in printed


def test_accumulation_stays_what_it_is_in_two_processes(tmp_path: Path):
    words = [*QUICK_TRAIN, *WITHOUT_BATCH_NORM, "--loop.accumulate", "2", "--loop.epochs", "1"]
    assert main([*words, "--output", str(tmp_path / "one")]) == 0
    code, printed = finish(start(*words, "--output", str(tmp_path / "two"), launcher=torchrun(2)))
    assert code == 0, printed
    one, two = (read_safetensors(tmp_path / name / "last.safetensors") for name in ("one", "two"))
    for name, weight in one.items():
        torch.testing.assert_close(two[name], weight, rtol=1e-3, atol=1e-5)


def test_a_batch_that_does_not_divide_is_refused(tmp_path: Path):
    words = [*QUICK_TRAIN, "--loop.batch_size", "15", "--output", str(tmp_path / "x")]
    code, printed = finish(start(*words, launcher=torchrun(2)))
    assert code != 0
    assert "loop.batch_size=15 must divide by 2 processes x 1 accumulated batch" in printed


def workers_of(launcher: subprocess.Popen[str]) -> list[int]:
    """The processes torchrun started."""
    children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
    return [int(child) for child in children]


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two processes with batch norms that was never stopped."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    code, printed = finish(start(*WORDS, "--output", str(folder), launcher=torchrun(2)))
    assert code == 0, printed
    return folder


def test_two_processes_evaluate_the_network_that_is_saved(whole_run: Path, tmp_path: Path):
    """Not one with each process's own batch statistics."""
    words = ["--weights", "last", "--limit", "128", "--device", "cpu", "--data.workers", "0"]
    words += ["--config", "small/digits", "--output", str(tmp_path)]
    assert main(["evaluate", str(whole_run), *words]) == 0
    alone = json.loads((tmp_path / "scores.json").read_text())
    together = read_metadata(whole_run / "last.safetensors")["metrics"]
    assert together["ema_top1"] == pytest.approx(alone["top1"])
    assert together["ema_loss"] == pytest.approx(alone["loss"], rel=1e-5)


def test_two_processes_stop_together_and_go_on_to_the_same_bits(whole_run: Path, tmp_path: Path):
    process = start(*WORDS, "--output", str(tmp_path / "run"), launcher=torchrun(2))
    while process.poll() is None and not (tmp_path / "run" / "state.pt").exists():
        time.sleep(0.01)
    # One process of the two is told; the other one hears of it from that.
    os.kill(workers_of(process)[-1], signal.SIGTERM)
    _, printed = finish(process)
    step = state_of(tmp_path / "run")["position"]["step"]
    assert f"stopped by SIGTERM after step {step}, saved" in printed
    code, printed = finish(start(*WORDS, "--output", str(tmp_path / "run"), launcher=torchrun(2)))
    assert code == 0, printed
    assert_same_run(tmp_path / "run", whole_run)
