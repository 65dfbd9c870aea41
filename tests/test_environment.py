"""What is said of the machine."""

from __future__ import annotations

import json
import sys

import pytest
import torch

from ffconv.environment import describe_environment, launched_processes
from ffconv.errors import InputError

CPU = torch.device("cpu")


def test_it_can_be_written_as_json() -> None:
    environment = describe_environment(CPU)
    assert json.loads(json.dumps(environment)) == environment
    assert environment["packages"]["torch"].startswith(torch.__version__.partition("+")[0])
    assert environment["threads"] == torch.get_num_threads()


@pytest.mark.parametrize(
    ("program", "name"), [("/home/me/ffconv/__main__.py", "ffconv"), ("/usr/bin/ffconv", "ffconv")]
)
def test_the_command_does_not_say_where_the_program_lies(
    monkeypatch: pytest.MonkeyPatch, program: str, name: str
) -> None:
    monkeypatch.setattr(sys, "argv", [program, "complexity", "resnet18"])
    assert describe_environment(CPU)["command"] == [name, "complexity", "resnet18"]


def test_a_package_that_is_not_installed_has_no_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ffconv.environment._PACKAGES", ("no_such_package",))
    assert describe_environment(CPU)["packages"] == {"no_such_package": None}


GROUP = {
    "WORLD_SIZE": "2",
    "RANK": "1",
    "LOCAL_RANK": "1",
    "MASTER_ADDR": "localhost",
    "MASTER_PORT": "29500",
}


def set_environment(monkeypatch: pytest.MonkeyPatch, values: dict[str, str]) -> None:
    for name in (*GROUP, "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in values.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    ("values", "count"), [({}, 1), ({"WORLD_SIZE": "1"}, 1), ({"OMPI_COMM_WORLD_SIZE": "1"}, 1), (GROUP, 2)]
)
def test_launched_processes_are_counted(
    monkeypatch: pytest.MonkeyPatch, values: dict[str, str], count: int
) -> None:
    set_environment(monkeypatch, values)
    assert launched_processes() == count


@pytest.mark.parametrize("name", [name for name in GROUP if name != "WORLD_SIZE"])
def test_processes_that_cannot_find_each_other_are_refused(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    set_environment(monkeypatch, {key: value for key, value in GROUP.items() if key != name})
    with pytest.raises(InputError, match=f"WORLD_SIZE=2, but {name} is not set: launch by torchrun"):
        launched_processes()


def test_processes_of_mpi_alone_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    set_environment(monkeypatch, {"OMPI_COMM_WORLD_SIZE": "2"})
    with pytest.raises(InputError, match="OMPI_COMM_WORLD_SIZE=2, but WORLD_SIZE, RANK"):
        launched_processes()


def test_a_number_of_processes_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    set_environment(monkeypatch, GROUP | {"WORLD_SIZE": "two"})
    with pytest.raises(InputError, match="WORLD_SIZE='two' must be a number"):
        launched_processes()
