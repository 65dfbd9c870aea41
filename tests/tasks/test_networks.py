from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from ffconv.errors import InputError
from ffconv.models.registry import create_network
from ffconv.tasks.networks import ModelConfig, build_network


def test_an_unknown_network_is_refused_with_the_nearest():
    with pytest.raises(InputError, match=r"'resnet81' is no network timm knows; did you mean resnet"):
        ModelConfig("resnet81")


def test_arguments_reach_the_network():
    network = build_network(ModelConfig("test_resnet", {"in_chans": 1}), 7).eval()
    assert network(torch.zeros(1, 1, 32, 32)).shape == (1, 7)


def test_an_unknown_argument_is_said_in_a_line():
    with pytest.raises(InputError, match=r"model test_resnet with .*'ratios'"):
        build_network(ModelConfig("test_resnet", {"ratios": 0.5}), 7)


def test_a_ratio_outside_its_range_is_said_in_a_line():
    with pytest.raises(InputError, match=r"model ffc_resnet18 with .*ratio.*1.5"):
        build_network(ModelConfig("ffc_resnet18", {"ratio": 1.5}), 7)


def test_weights_are_loaded(tmp_path: Path):
    source = build_network(ModelConfig("test_resnet"), 7)
    save_file(source.state_dict(), tmp_path / "w.safetensors")
    loaded = build_network(ModelConfig("test_resnet", weights=str(tmp_path / "w.safetensors")), 7)
    assert all(torch.equal(a, b) for a, b in zip(source.parameters(), loaded.parameters(), strict=True))


def test_a_classifier_of_another_size_needs_leave(tmp_path: Path):
    source = build_network(ModelConfig("test_resnet"), 7)
    save_file(source.state_dict(), tmp_path / "w.safetensors")
    weights = str(tmp_path / "w.safetensors")
    with pytest.raises(InputError, match=r"fc\.weight"):
        build_network(ModelConfig("test_resnet", weights=weights), 3)
    tuned = build_network(ModelConfig("test_resnet", weights=weights, new_classifier=True), 3)
    assert tuned.get_parameter("fc.weight").shape[0] == 3
    assert torch.equal(tuned.get_parameter("conv1.0.weight"), source.get_parameter("conv1.0.weight"))


def test_weights_of_another_architecture_are_refused(tmp_path: Path):
    save_file(build_network(ModelConfig("test_vit"), 7).state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(InputError):
        build_network(ModelConfig("test_resnet", weights=str(tmp_path / "w.safetensors")), 7)


def test_missing_weights_are_said_in_a_line(tmp_path: Path):
    with pytest.raises(InputError, match="none"):
        build_network(ModelConfig("test_resnet", weights=str(tmp_path / "none.safetensors")), 7)


@pytest.mark.parametrize("side", [8, 24, 64])
@pytest.mark.parametrize("name", ["resnet18", "ffc_resnet18"])
def test_small_images_train(name: str, side: int):
    network = build_network(ModelConfig(name), 7)
    network(torch.randn(2, 3, side, side)).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("resnet50", {}),
        ("test_resnet", {"layers": (600, 1, 1, 1)}),
        ("ffc_resnet18", {"layers": (600, 1, 1, 1)}),
    ],
    ids=["values", "modules", "modules converted"],
)
def test_a_network_far_larger_than_its_file_is_refused(name: str, arguments: dict[str, Any], tmp_path: Path):
    save_file({"w": torch.zeros(1)}, tmp_path / "w.safetensors")
    with pytest.raises(InputError, match=rf"model {name} with .*far larger than .*w\.safetensors"):
        create_network(name, arguments, weights=tmp_path / "w.safetensors")
