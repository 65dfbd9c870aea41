from __future__ import annotations

import importlib.util
import subprocess
import sys
import warnings

import pytest
import torch

from commands import SOURCES, refused
from ffconv.cli import main
from ffconv.cli.main import COMMANDS
from ffconv.cli.nearest import did_you_mean


def test_the_script_says_so_without_importing_anything_heavy():
    code = "import ffconv_command, sys; sys.argv = ['ffconv', '--help']; ffconv_command.main()"
    command = [sys.executable, "-c", f"{code}; sys.exit('torch' in sys.modules)"]
    done = subprocess.run(
        command, capture_output=True, text=True, env={"PYTHONPATH": str(SOURCES)}, check=True
    )
    assert "  train " in done.stdout


@pytest.mark.parametrize("argv", [[], ["--help"], ["-h"]])
def test_help_lists_every_command(argv: list[str], capsys: pytest.CaptureFixture[str]):
    assert main(argv) == 0
    printed = capsys.readouterr().out
    assert all(f"  {name} " in printed for name in COMMANDS)


def test_version_is_the_packages(capsys: pytest.CaptureFixture[str]):
    import ffconv

    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"ffconv {ffconv.__version__}\n"


def test_an_unknown_command_is_one_line_with_the_nearest(capsys: pytest.CaptureFixture[str]):
    assert main(["trian"]) == 2
    assert capsys.readouterr().err == "ffconv: no command 'trian', see ffconv --help; did you mean train?\n"


def test_memory_that_a_gpu_does_not_have_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    said = "CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 8 GiB"

    def exhausted(arguments: object) -> None:
        raise torch.OutOfMemoryError(said)

    monkeypatch.setattr("ffconv.cli.complexity.run", exhausted)
    assert main(["complexity"]) == 2
    assert capsys.readouterr().err == (
        "ffconv: CUDA out of memory. Tried to allocate 20.00 GiB: "
        "take smaller batches or images, or add batches up (loop.accumulate)\n"
    )


def test_a_warning_is_one_line_while_a_command_runs(monkeypatch: pytest.MonkeyPatch):
    said = []

    def run(arguments: object) -> None:
        said.append(warnings.formatwarning("look at\nrun\x1b[2J", UserWarning, "loop.py", 3, "line"))

    before = warnings.formatwarning
    monkeypatch.setattr("ffconv.cli.complexity.run", run)
    assert main(["complexity"]) == 0
    assert said == ["ffconv: warning: look at run\\x1b[2J\n"]
    assert warnings.formatwarning is before


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_its_module(command: str):
    assert importlib.util.find_spec(f"ffconv.cli.{command}") is not None


def test_errors_of_other_processes_say_which(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("RANK", "3")
    assert main(["trian"]) == 2
    assert capsys.readouterr().err.startswith("ffconv [process 3]: no command")


def test_a_path_the_file_system_refuses_is_one_line(capsys: pytest.CaptureFixture[str]):
    name = 300 * "x"
    assert refused(["predict", name, "a.png"], capsys) == f"ffconv: {name}: File name too long\n"


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("optim.lrr", "optim.lr"), ("lr", "optim.lr"), ("epoch", "loop.epochs"), ("seeed", "seed")],
)
def test_the_nearest_name_is_found_by_all_or_the_last_part(name: str, nearest: str):
    known = ["optim.lr", "loop.epochs", "seed", "data.path"]
    assert did_you_mean(name, known) == f"; did you mean {nearest}?"


def test_nothing_near_gives_no_hint():
    assert did_you_mean("zzz", ["optim.lr", "seed"]) == ""
