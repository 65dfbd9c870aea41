"""Graphs are as small as the exporter's own optimizer makes them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import onnx
import pytest
import torch

from exporting import TINY_INPUT, TinyNetwork, by_onnxruntime, relative_difference, trained
from ffconv.interop.export_torch import capture, quiet
from ffconv.interop.onnx_simplify import simplify
from ffconv.dispatch import fft_backend


def exported(network: torch.nn.Module, x: torch.Tensor, *, optimize: bool) -> torch.onnx.ONNXProgram:
    with quiet(), fft_backend("matrix"):
        captured = capture(network, x, {})
        program = torch.onnx.export(captured, opset_version=18, verbose=False, optimize=optimize)
    assert program is not None
    return program


def operators(model: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


@pytest.fixture
def network() -> torch.nn.Module:
    return trained(TinyNetwork())


def test_of_the_operators_as_many_remain_as_by_the_exporters_optimizer(network: torch.nn.Module) -> None:
    x = TINY_INPUT.example()
    ours, theirs = exported(network, x, optimize=False), exported(network, x, optimize=True)
    simplify(ours.model)
    assert operators(ours.model_proto) == operators(theirs.model_proto)


def test_the_function_stays(network: torch.nn.Module, tmp_path: Path) -> None:
    x = TINY_INPUT.example()
    program = exported(network, x, optimize=False)
    simplify(program.model)
    onnx.save(program.model_proto, str(tmp_path / "x.onnx"))
    with torch.no_grad():
        assert relative_difference(by_onnxruntime(tmp_path / "x.onnx", x), network(x)) < 1e-5


def test_halves_stay_slices() -> None:
    """Looking for pairs of them that are one Split takes time that grows with the square of their number."""

    class Halves(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x[..., :4] * x[..., 4:]

    program = exported(Halves(), torch.rand(2, 8), optimize=False)
    simplify(program.model)
    assert operators(program.model_proto) == {"Slice": 2, "Mul": 1}
