"""Layers under ``torch.compile``: one graph, ordinary operators, no identity of a layer in it."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounter, EagerAndRecordGraphs

from assertions import randomise_norms
from ffconv import fuse
from ffconv.backends.cpu import kernels
from ffconv.nn import FFC2d, FFC3d

needs_kernels = pytest.mark.skipif(not kernels.available(), reason="the CPU kernels are not built")
CLOSE = {"rtol": 1e-3, "atol": 1e-4}


@pytest.fixture(autouse=True)
def _reset() -> None:
    torch._dynamo.reset()


def _layer(**options: Any) -> FFC2d:
    layer: Any = randomise_norms(FFC2d(8, 12, 3, padding=1, ratio=0.5, **options))
    return layer


@pytest.mark.parametrize("training", [True, False])
def test_equal_layers_that_are_compiled_one_by_one_share_a_graph(training: bool) -> None:
    counter = CompileCounter()
    layers = [FFC2d(16, 16, 3, padding=1, ratio=0.5).train(training) for _ in range(12)]
    for layer in layers:
        torch.compile(layer, backend=counter, fullgraph=True)(torch.randn(2, 16, 7, 7))
    assert counter.frame_count == 1


@needs_kernels
def test_a_graph_holds_one_operator_a_layer() -> None:
    recorded = EagerAndRecordGraphs()
    layer = _layer().eval()
    with torch.no_grad():
        torch.compile(layer, backend=recorded, fullgraph=True)(torch.randn(2, 8, 6, 5))
    (graph,) = recorded.graphs
    targets = [str(node.target) for node in graph.graph.nodes if node.op == "call_function"]
    assert [target for target in targets if "getattr" not in target and "getitem" not in target] == [
        "ffconv.ffc"
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    "options", [{}, {"stride": 2}, {"padding_mode": "reflect"}, {"groups": 2}, {"lfu": False}]
)
@pytest.mark.parametrize("mode", ["train", "eval", "inference"])
def test_one_graph_for_all_sizes(options: dict[str, Any], mode: str) -> None:
    layer = _layer(**options).train(mode == "train")
    compiled = torch.compile(copy.deepcopy(layer), fullgraph=True, dynamic=True, backend="aot_eager")
    for size in ((8, 10), (7, 6), (74, 9)):
        x = torch.randn(2, 8, *size)
        with torch.set_grad_enabled(mode != "inference"):
            y, expected = compiled(x), layer(x)
        torch.testing.assert_close(y, expected, **CLOSE)
        if mode != "inference":
            found = torch.autograd.grad(y.square().sum(), list(compiled.parameters()))
            known = torch.autograd.grad(expected.square().sum(), list(layer.parameters()))
            for one, other in zip(found, known, strict=True):
                torch.testing.assert_close(one, other, rtol=1e-2, atol=1e-2)
    for one, other in zip(compiled.buffers(), layer.buffers(), strict=True):
        torch.testing.assert_close(one, other, **CLOSE)


@pytest.mark.slow
def test_frames() -> None:
    layer: Any = randomise_norms(FFC3d(8, 12, (1, 3, 3), padding=(0, 1, 1), ratio=0.5)).eval()
    compiled = torch.compile(layer, fullgraph=True, dynamic=True, backend="aot_eager")
    with torch.no_grad():
        for size in ((3, 8, 6), (2, 7, 9)):
            x = torch.randn(2, 8, *size)
            torch.testing.assert_close(compiled(x), layer(x), **CLOSE)


@pytest.mark.slow
def test_a_hook_inside_shows_in_the_compiled_layer() -> None:
    layer, x = _layer().eval(), torch.randn(2, 8, 6, 5)
    with torch.no_grad():
        plain = torch.compile(layer, backend="aot_eager")(x)
        layer.spectral.fu.register_forward_hook(lambda *arguments: 2 * arguments[2])  # pyright: ignore
        torch._dynamo.reset()
        found = torch.compile(layer, backend="aot_eager")(x)
        torch.testing.assert_close(found, layer(x), **CLOSE)
        assert (found - plain).abs().max() > 0.01


@pytest.mark.slow
def test_replaced_weights_count() -> None:
    layer, x = _layer().eval(), torch.randn(2, 8, 6, 5)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    with torch.no_grad():
        compiled(x)
        layer.weight_l2l.mul_(2)  # pyright: ignore[reportOptionalMemberAccess]
        torch.testing.assert_close(compiled(x), layer(x), **CLOSE)
        layer.weight_g2l = nn.Parameter(torch.randn_like(layer.weight_g2l))  # pyright: ignore
        torch.testing.assert_close(compiled(x), layer(x), **CLOSE)


@pytest.mark.slow
@pytest.mark.parametrize("warm", [True, False])
def test_fused_layers(warm: bool) -> None:
    layer = _layer().eval()
    network = fuse(nn.Sequential(layer, nn.BatchNorm2d(12).eval(), nn.ReLU()))
    sizes = ((6, 5), (16, 16), (9, 8))
    with torch.no_grad():
        if warm:  # packs the weights for one size
            network(torch.randn(2, 8, 16, 16))
        compiled = torch.compile(network, backend="aot_eager", fullgraph=True, dynamic=True)
        for size in sizes:
            x = torch.randn(2, 8, *size)
            torch.testing.assert_close(compiled(x), network(x), **CLOSE)


@pytest.mark.slow
def test_derivatives_inside_a_compiled_function() -> None:
    """A forward derivative of an operator without a rule is a zero without a word."""
    layer, x, tangent = _layer().eval(), torch.randn(2, 8, 6, 5), torch.randn(2, 8, 6, 5)

    def along(x: Tensor) -> Tensor:
        return torch.func.jvp(layer, (x,), (tangent,))[1]

    def gradient(x: Tensor) -> Tensor:
        return torch.func.grad(lambda x: layer(x).sin().sum())(x)

    for function in (along, gradient):
        torch._dynamo.reset()
        with torch.inference_mode(False):
            expected = function(x)
            assert expected.abs().max() > 0.1
            torch.testing.assert_close(torch.compile(function, backend="aot_eager")(x), expected, **CLOSE)


@pytest.mark.slow
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("training", [True, False])
def test_inductor(training: bool, memory_format: torch.memory_format) -> None:
    network = nn.Sequential(
        _layer(), nn.BatchNorm2d(12), nn.ReLU(), FFC2d(12, 8, 1, 2, ratio_in=0.5, ratio_out=0)
    )
    network = network.train(training).to(memory_format=memory_format)
    twin = copy.deepcopy(network)
    x = torch.randn(2, 8, 9, 7).contiguous(memory_format=memory_format)
    with torch.set_grad_enabled(training):
        y, expected = torch.compile(network, fullgraph=True)(x), twin(x)
    torch.testing.assert_close(y, expected, **CLOSE)
    if training:
        y.square().sum().backward()
        expected.square().sum().backward()
        for one, other in zip(network.parameters(), twin.parameters(), strict=True):
            torch.testing.assert_close(one.grad, other.grad, rtol=1e-2, atol=1e-3)
