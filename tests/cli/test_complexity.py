"""``ffconv complexity``."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from ffconv.cli import main
from ffconv.cli.complexity import input_size
from ffconv.errors import InputError


def test_a_network_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["complexity", "resnet18"]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("resnet18"))
    assert line.split() == ["resnet18", "11.69", "1.814", "0.000", "1.814"]


def test_networks_of_clips_are_counted_for_eight_frames(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["complexity", "c2d_resnet18", "--format", "json"]) == 0
    by_default = json.loads(capsys.readouterr().out)
    assert main(["complexity", "c2d_resnet18", "--size", "3x8x224x224", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == by_default
    assert by_default[0]["input"] == "3x8x224x224"


def test_arguments_reach_every_network(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["complexity", "resnet18", "resnet34", "--model.arguments.num_classes", "10", "--format", "json"]
    assert main(words) == 0
    records = json.loads(capsys.readouterr().out)
    assert [record["network"] for record in records] == ["resnet18,num_classes=10", "resnet34,num_classes=10"]
    assert records[0]["parameters"] == 11_689_512 - 990 * 513


def test_layers_of_an_ffc_come_by_its_parts(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["complexity", "ffc_resnet18", "--size", "64", "--layers", "--format", "csv"]) == 0
    rows = {row["layer"]: row for row in csv.DictReader(capsys.readouterr().out.splitlines())}
    assert rows["layer1.1.conv2.l2g"]["output"] == "16x16x16"
    assert int(rows["layer1.1.conv2.l2g"]["multiply_adds"]) == 48 * 16 * 9 * 16 * 16
    assert int(rows["layer1.1.conv2.spectral.lfu"]["fft_multiply_adds"]) > 0
    assert sum(int(row["parameters"]) for row in rows.values()) == 11_602_168


def test_depth_sums_layers(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["complexity", "resnet18", "--depth", "1", "--format", "json"]) == 0
    layers = [record["layer"] for record in json.loads(capsys.readouterr().out)]
    assert layers == ["conv1", "bn1", "layer1", "layer2", "layer3", "layer4", "fc"]


def test_a_file_takes_the_place_of_the_screen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["complexity", "resnet18", "--output", str(tmp_path / "out.txt")]) == 0
    assert not capsys.readouterr().out
    assert "resnet18" in (tmp_path / "out.txt").read_text()


def test_tables_of_the_paper_are_chosen_by_number(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["complexity", "--paper", "1", "6", "--format", "json"]) == 0
    assert {record["table"] for record in json.loads(capsys.readouterr().out)} == {1, 6}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "name a MODEL"),
        (["resnet18", "--paper"], "give it no MODEL"),
        (["--paper", "7"], "the paper has no Table 7"),
        (["resnet18", "--size", "0"], "size '0' must read"),
        (["resnet18", "--depth", "0"], "depth=0 must be at least 1"),
        (["resnet1"], "did you mean"),
        (["resnet18", "--sizes", "3"], "did you mean size?"),
    ],
)
def test_wrong_words_get_one_line(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["complexity", *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("text", ["", "x", "224x", "-3", "2x2x2x2x2", "3.5"])
def test_a_size_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="must read side, HxW"):
        input_size(text)
