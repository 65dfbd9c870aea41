"""What is said of the machine."""

from __future__ import annotations

import json
import sys

import pytest
import torch

from ffconv.environment import describe_environment

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
