"""Every family of networks as a graph of ordinary operators, run by two engines."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import pytest
import timm
import torch
from torch import nn

from exporting import ORDINARY, by_onnxruntime, by_openvino, relative_difference, trained
from ffconv.errors import InputError
from ffconv.interop.export import ExportConfig, export
from ffconv.interop.export_input import NetworkInput

_ONE_BLOCK_A_STAGE: dict[str, Any] = {"layers": (1, 1, 1, 1), "num_classes": 5}


class Family(NamedTuple):
    """A small network of it, and its input."""

    name: str
    arguments: dict[str, Any]
    given: NetworkInput

    def network(self) -> nn.Module:
        torch.manual_seed(0)
        return trained(timm.create_model(self.name, **self.arguments))


FAMILIES = {
    "image": Family(
        "ffc_resnet18", {**_ONE_BLOCK_A_STAGE, "lfu": False}, NetworkInput("classification", (3, 65, 47))
    ),
    "plain image": Family("resnet18", _ONE_BLOCK_A_STAGE, NetworkInput("classification", (3, 65, 47))),
    "C2D": Family(
        "ffc_c2d_resnet18", {**_ONE_BLOCK_A_STAGE, "lfu": False}, NetworkInput("action", (3, 4, 33, 49))
    ),
    "I3D": Family(
        "ffc_i3d_resnet18_nl",
        {"layers": (1, 2, 2, 1), "num_classes": 5},
        NetworkInput("action", (3, 5, 49, 35)),
    ),
    "plain I3D": Family("i3d_resnet18", _ONE_BLOCK_A_STAGE, NetworkInput("action", (3, 4, 33, 49))),
    "pose": Family(
        "ffc_pose_resnet18",
        {**_ONE_BLOCK_A_STAGE, "width": 16, "lfu": False},
        NetworkInput("pose", (3, 64, 96), multiple=32),
    ),
    "LaMa": Family(
        "lama_generator", {"width": 8, "blocks": 2}, NetworkInput("inpainting", (4, 56, 40), multiple=8)
    ),
    "LaMa's options": Family(
        "lama_generator",
        {
            "width": 8,
            "blocks": 1,
            "gated": True,
            "lfu": True,
            "spectral_pos_encoding": True,
            "fft_norm": "forward",
        },
        NetworkInput("inpainting", (4, 56, 40), multiple=8),
    ),
}
_QUICK = ("image", "LaMa")


@pytest.fixture(
    scope="module",
    params=[name if name in _QUICK else pytest.param(name, marks=pytest.mark.slow) for name in FAMILIES],
)
def family(request: pytest.FixtureRequest) -> Family:
    return FAMILIES[request.param]


@pytest.fixture(scope="module")
def file(family: Family, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The network in the matrix form."""
    path = tmp_path_factory.mktemp("families") / "x.onnx"
    export(family.network(), path, family.given, check=None)
    return path


@pytest.mark.parametrize("run", [by_onnxruntime, by_openvino])
def test_two_engines_compute_the_network(run, family: Family, file: Path):
    x = family.given.random(1, family.given.size[1:])
    with torch.no_grad():
        assert relative_difference(run(file, x), family.network()(x)) < 1e-4


def test_the_matrix_form_has_ordinary_operators_alone(family: Family, file: Path, tmp_path: Path):
    import onnx

    from ffconv.interop.onnx_graph import operators

    assert set(operators(onnx.load(file))) <= ORDINARY


@pytest.mark.slow
@pytest.mark.parametrize("fft_backend", ["torch", "dft_matmul"])
def test_open_batch_and_size(fft_backend, family: Family, tmp_path: Path):
    axes = ("batch", "size", "time") if family.given.is_clip else ("batch", "size")
    config = ExportConfig(fft_backend=fft_backend, dynamic=axes)
    report = export(family.network(), tmp_path / "x.onnx", family.given, config)
    assert len(report.differences) == 3
    assert all(found.relative < 1e-4 for found in report.differences)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["torch-export", "torchscript"])
def test_torchs_files(form, family: Family, tmp_path: Path):
    report = export(family.network(), tmp_path / "x.pt", family.given, ExportConfig(to=form))
    assert report.differences[0].relative < 1e-4


def test_sides_that_are_no_multiple_are_refused():
    with pytest.raises(InputError, match="size 4x60x64: this network takes sides that are multiples of 8"):
        NetworkInput("inpainting", (4, 60, 64), multiple=8)
