from __future__ import annotations

import csv
import errno
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from commands import SOURCES
from ffconv.errors import InputError
from ffconv.training.folder import RunFolder

CONFIG: dict[str, Any] = {"output": "x", "loop": {"epochs": 5, "log_every": 10}, "data": {"path": "/a"}}
ROWS = [{"epoch": 1, "train_loss": 2.5, "top1": 10.0}, {"epoch": 2, "train_loss": 2.0, "top1": 30.0}]


@pytest.fixture
def started(tmp_path: Path) -> Path:
    folder = RunFolder(tmp_path / "run", CONFIG)
    folder.check(resume=False)
    with folder:
        folder.start(device=torch.device("cpu"), resume=False)
    return folder.path


def test_the_configuration_is_kept_as_resolved(started: Path):
    assert yaml.safe_load((started / "config.yaml").read_text()) == CONFIG


def test_a_run_is_not_written_over(started: Path):
    with pytest.raises(InputError, match=r"already holds a run.*--resume auto.*--output"):
        RunFolder(started, CONFIG).check(resume=False)


def test_the_same_configuration_may_go_on(started: Path):
    RunFolder(started, CONFIG).check(resume=True)


def test_another_configuration_is_refused_by_the_fields_name(started: Path):
    other = CONFIG | {"loop": {"epochs": 6, "log_every": 10}}
    with pytest.raises(InputError, match=r"loop.epochs is 6, but the run in .* was started with 5"):
        RunFolder(started, other).check(resume=True)


def test_a_field_of_one_start_only_is_refused_too(started: Path):
    with pytest.raises(InputError, match=r"seed is 1, but .* None"):
        RunFolder(started, CONFIG | {"seed": 1}).check(resume=True)


def test_a_field_of_the_earlier_start_only_is_refused_too(started: Path):
    with pytest.raises(InputError, match=r"loop.epochs is None, but .* was started with 5"):
        RunFolder(started, CONFIG | {"loop": {"log_every": 10}}).check(resume=True)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.yaml", "output: [", "is not YAML"),
        ("config.yaml", "- output", "must hold fields and values"),
        ("environment.json", "[", "is not JSON"),
        ("environment.json", "{}", "must hold a list of starts"),
    ],
)
def test_a_damaged_folder_is_not_gone_on_with(started: Path, name: str, content: str, message: str):
    (started / name).write_text(content)
    with pytest.raises(InputError, match=f"{name}: {message}"):
        RunFolder(started, CONFIG).check(resume=True)


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("state", ["state.pt", "state.previous.pt"])
def test_a_state_without_its_configuration_is_not_gone_on_with(started: Path, state: str, resume: bool):
    """It would be continued by whatever configuration comes, even by a run that must start anew."""
    (started / state).write_bytes(b"")
    (started / "config.yaml").unlink()
    with pytest.raises(InputError, match=rf"holds {state} of a run, but no config.yaml"):
        RunFolder(started, CONFIG).check(resume=resume)


@pytest.mark.parametrize(
    "free", [{"output": "y"}, {"loop": {"epochs": 5, "log_every": 1}}, {"data": {"path": "/b"}}]
)
def test_what_changes_no_result_may_change(started: Path, free: dict[str, Any]):
    RunFolder(started, CONFIG | free).check(resume=True)


def test_environment_says_what_each_start_ran_on(started: Path):
    with RunFolder(started, CONFIG) as folder:
        folder.start(device=torch.device("cpu"), resume=True)
    starts = json.loads((started / "environment.json").read_text())
    assert [start["device"] for start in starts] == ["cpu", "cpu"]
    assert starts[0]["packages"]["torch"].startswith(torch.__version__.split("+")[0])


def test_a_folder_that_cannot_be_made_is_said_in_a_line(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot make the folder .*: Not a directory"):
        RunFolder(tmp_path / "file" / "run", CONFIG).start(device=torch.device("cpu"), resume=True)


HOLD = """
import sys, time
from pathlib import Path
from ffconv.training.folder import ProcessLock
ProcessLock(Path(sys.argv[1])).acquire()
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def holder(started: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the folder's lock."""
    command = [sys.executable, "-c", HOLD, str(started / "run.lock")]
    environment = os.environ | {"PYTHONPATH": str(SOURCES)}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_a_second_process_is_refused_while_the_first_lives(started: Path, holder: subprocess.Popen[str]):
    before = {path.name: path.read_bytes() for path in started.iterdir()}
    host = socket.gethostname()
    rule = rf"run is in use by process {holder.pid} on {host}, started \d{{4}}-.*: wait for it, or choose"
    with pytest.raises(InputError, match=rule), RunFolder(started, CONFIG) as folder:
        folder.start(device=torch.device("cpu"), resume=True)
    assert {path.name: path.read_bytes() for path in started.iterdir()} == before


def test_the_lock_of_a_killed_process_is_taken_over(started: Path, holder: subprocess.Popen[str]):
    holder.kill()
    holder.wait()
    with RunFolder(started, CONFIG) as folder:
        folder.start(device=torch.device("cpu"), resume=True)
        assert json.loads((started / "run.lock").read_text())["process"] == os.getpid()
    assert not (started / "run.lock").exists()


def test_a_run_that_began_meanwhile_is_not_written_over(started: Path):
    with RunFolder(started, CONFIG) as folder, pytest.raises(InputError, match="already holds a run"):
        folder.start(device=torch.device("cpu"), resume=False)


def test_a_folder_that_cannot_be_locked_is_used_with_a_warning(
    started: Path, monkeypatch: pytest.MonkeyPatch
):
    def refuse(*arguments: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.lockf", refuse)
    with RunFolder(started, CONFIG) as folder, pytest.warns(UserWarning, match="cannot be locked .No locks"):
        folder.start(device=torch.device("cpu"), resume=True)


def test_metrics_have_one_row_an_epoch_however_often_they_are_written(started: Path):
    folder = RunFolder(started, CONFIG)
    folder.write_history(ROWS[:1])
    folder.write_history(ROWS)
    folder.write_history(ROWS)
    with (started / "metrics.csv").open() as file:
        rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    assert rows == ROWS


def test_curves_are_a_picture(started: Path):
    RunFolder(started, CONFIG).write_history(ROWS)
    assert (started / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_skipped_samples_are_listed_by_name(started: Path):
    RunFolder(started, CONFIG).write_skipped({"b.jpg": "truncated", "a.jpg": "empty"})
    assert (started / "skipped.csv").read_text() == "name,reason\na.jpg,empty\nb.jpg,truncated\n"


def test_no_list_where_nothing_was_skipped(started: Path):
    RunFolder(started, CONFIG).write_skipped({})
    assert not (started / "skipped.csv").exists()


def test_tensorboard_shows_only_the_last_start_where_two_overlap(started: Path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for values in ({1: 0.1, 2: 0.2, 3: 0.3}, {2: 2.0, 3: 3.0}):
        with RunFolder(started, CONFIG) as folder:
            for step, value in values.items():
                folder.log(step, {"loss": value})
    events = EventAccumulator(str(started / "tensorboard")).Reload()
    found = [(event.step, pytest.approx(event.value)) for event in events.Scalars("loss")]
    assert found == [(1, 0.1), (2, 2.0), (3, 3.0)]
