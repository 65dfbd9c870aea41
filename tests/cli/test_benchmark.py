"""``ffconv benchmark``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from commands import refused
from ffconv.cli import main

QUICK = ["--rounds", "1", "--warmup", "0", "--block", "0", "--batch_size", "1"]


def test_operators_by_size_and_mode_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "figures.json"
    words = ["benchmark", "operator", "fourier-unit", "--channels", "32", "--size", "4", "6x5", *QUICK]
    assert main([*words, "--mode", "inference", "training", "--format", "json", "--output", str(output)]) == 0
    printed = capsys.readouterr().out
    assert output.read_text() == printed
    measured = json.loads(printed)["measurements"]
    combinations = [(one["subject"], one["size"], one["mode"]) for one in measured]
    plain = "FourierUnit (plain transcription)"
    assert combinations == [
        (name, size, mode)
        for size in ([4, 4], [6, 5])
        for mode in ("inference", "training")
        for name in ("FourierUnit", plain)
    ]
    assert {one["peer"] for one in measured} == {plain}


def test_each_backend_has_its_own_lines(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["benchmark", "operator", "fourier-unit", "--channels", "32", "--size", "6", *QUICK]
    assert main([*words, "--fft_backend", "torch", "dft_matmul", "--format", "json"]) == 0
    measured = json.loads(capsys.readouterr().out)["measurements"]
    ours = [one["fft_backend"] for one in measured if one["subject"] == "FourierUnit"]
    assert ours == ["torch", "dft_matmul"]


def test_a_memory_format_for_all(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["benchmark", "operator", "fourier-unit", "--channels", "32", "--size", "6", *QUICK]
    assert main([*words, "--memory_format", "channels_last", "--format", "json"]) == 0
    measured = json.loads(capsys.readouterr().out)["measurements"]
    assert {one["memory_format"] for one in measured} == {"channels_last"}


def test_networks_beside_their_peer_as_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["benchmark", "model", "resnet18", "--peer", "torchvision/resnet18", "--size", "32", *QUICK]
    assert main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[2:4]] == ["torchvision/resnet18", "resnet18"]
    assert "1.000" in lines[2]


def test_lamas_generator_beside_its_transcription(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["benchmark", "inpainting", "--width", "4", "--blocks", "1", "--size", "32", *QUICK]
    assert main([*words, "--format", "json"]) == 0
    measured = json.loads(capsys.readouterr().out)["measurements"]
    plain = "lama_generator (plain transcription)"
    assert [one["subject"] for one in measured] == ["lama_generator", plain]
    assert {one["peer"] for one in measured} == {plain}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], 'expected "kind" to be one of'),
        (["operator", "pooling"], "pooling"),
        (["operator", "ffc", "--size", "7"], "needs even sides"),
        (["operator", "ffc", "--size", "8", "--fft_backend", "fftw"], "fftw"),
        (["model", "--size", "3x224x224"], "size '3x224x224' must read side or HxW"),
        (["model", "--engine", "fused", "--mode", "training"], "leaves nothing to train"),
        (["model", "no_such_network", "--size", "32"], "no network is called 'no_such_network'"),
    ],
)
def test_wrong_words_get_one_line(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["benchmark", *words, *(QUICK if words else [])]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_device_that_is_not_there_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert "device='foo' cannot be used here: " in refused(["benchmark", "model", "--device", "foo"], capsys)
