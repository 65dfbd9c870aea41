"""Commands on a checkpoint take the options of its task, wherever it stands among the words."""

from __future__ import annotations

from pathlib import Path

import pytest

from ffconv.cli import main
from ffconv.cli.checkpoints import parse_by_task
from ffconv.cli.parser import CommandParser
from ffconv.cli.predict import MODULES
from ffconv.errors import InputError
from ffconv.training.checkpoint import save_weights


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    save_weights(tmp_path / "x.safetensors", {}, {"task": "action"})
    return tmp_path / "x.safetensors"


@pytest.mark.parametrize("before", [[], ["--top", "3"], ["--top=3"]])
def test_the_checkpoint_may_stand_behind_options(before: list[str], checkpoint: Path):
    arguments = parse_by_task(CommandParser(), [*before, str(checkpoint), "x.mp4"], MODULES)
    assert (arguments.task, arguments.checkpoint, arguments.clips) == ("action", checkpoint, 10)


def test_a_run_folder_stands_for_its_best(checkpoint: Path):
    checkpoint.rename(checkpoint.with_name("best.safetensors"))
    assert parse_by_task(CommandParser(), [str(checkpoint.parent), "x.mp4"], MODULES).task == "action"


def test_a_checkpoint_that_names_no_task_is_of_the_first(tmp_path: Path):
    save_weights(tmp_path / "x.safetensors", {}, {"epoch": 1})
    words = [str(tmp_path / "x.safetensors"), "x.png"]
    assert parse_by_task(CommandParser(), words, MODULES).task == "classification"


def test_a_task_the_command_does_not_know_is_named(tmp_path: Path):
    save_weights(tmp_path / "x.safetensors", {}, {"task": "inpainting"})
    with pytest.raises(InputError, match=r"is a checkpoint of inpainting, the command takes classification"):
        parse_by_task(CommandParser(), [str(tmp_path / "x.safetensors")], MODULES)
    save_weights(tmp_path / "x.safetensors", {}, {"task": "sorting"})
    with pytest.raises(InputError, match=r"x\.safetensors is a checkpoint of sorting: known are cl"):
        parse_by_task(CommandParser(), [str(tmp_path / "x.safetensors")], MODULES)


@pytest.mark.parametrize("command", ["predict", "evaluate"])
def test_help_needs_no_checkpoint(command: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as end:
        main([command, "--help"])
    assert end.value.code == 0
    assert "checkpoint" in capsys.readouterr().out


def test_help_tells_the_options_of_the_checkpoints_task(checkpoint: Path, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        main(["predict", str(checkpoint), "--help"])
    assert "--clips" in capsys.readouterr().out


def test_without_a_checkpoint_the_command_says_so(capsys: pytest.CaptureFixture[str]):
    assert main(["predict"]) == 2
    assert "checkpoint" in capsys.readouterr().err
