"""An FFC as one operator of a compiled network, in inference."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.utils import counters
from torch.func import functional_call

from ffconv.nn import FFC2d, native
from ffconv.dispatch import fft_backend
from ffconv.surgery import fuse
from single_ffc import CHANNELS, Shortcut, Sum, by_parts, image, layer

pytestmark = pytest.mark.skipif(not native.available(), reason="no C++ compiler on this machine")


@pytest.fixture(autouse=True)
def _forget_graphs() -> None:
    torch.compiler.reset()
    counters.clear()


def compiled(function: Any, **options: Any) -> Any:
    return torch.compile(function, fullgraph=True, **{"backend": "aot_eager", **options})


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("prepare", [nn.Sequential, lambda ffc: fuse(nn.Sequential(ffc))])
def test_it_is_one_call(prepare: Any, dynamic: bool, calls: list) -> None:
    ffc = layer(3, 2, 1)
    graph = compiled(prepare(ffc), dynamic=dynamic)
    with torch.no_grad():
        for number, size in enumerate([(8, 9), (9, 7), (11, 6)], start=2):
            x = image(*size, number=number)
            torch.testing.assert_close(graph(x), by_parts(ffc, x))
    assert len(calls) == 3
    assert not dynamic or counters["stats"]["unique_graphs"] == 1


def test_by_the_default_compiler(calls: list) -> None:
    ffc, other = layer(3, 1, 1), layer(3, 1, 1, channels=(40, 40)).requires_grad_(False)
    network = nn.Sequential(ffc, nn.ReLU(), other)
    x = image(8, 9).contiguous()
    with torch.no_grad():
        y = torch.compile(network, fullgraph=True)(x)
        torch.testing.assert_close(y, by_parts(other, by_parts(ffc, x).relu()))
    assert len(calls) == 2


@pytest.mark.parametrize("checks", ["test_schema", "test_faketensor"])
@pytest.mark.parametrize("size", [(8, 9), (1, 1)])
def test_it_is_as_declared(checks: str, size: tuple[int, int]) -> None:
    ffc = layer(3, 1, 1).requires_grad_(False)
    name = ffc._one_call.name  # pyright: ignore[reportOptionalMemberAccess]
    tensors = [*ffc.parameters(), *ffc.buffers()]
    torch.library.opcheck(
        torch.ops.ffconv.layer, (image(*size).contiguous(), None, tensors, name), test_utils=checks
    )


def test_a_shortcut_is_added_in_the_call(calls: list) -> None:
    ffc, x, onto = layer(3, 1, 1), image(8, 9), torch.randn(2, CHANNELS[1], 8, 9).double()
    with torch.no_grad():
        for other in (onto, onto.contiguous(memory_format=torch.channels_last)):
            y = compiled(fuse(Shortcut(ffc)))(x, other.clone())
            torch.testing.assert_close(y, (by_parts(ffc, x) + onto).relu())
    assert len(calls) == 2


@pytest.mark.parametrize("onto", [3, torch.ones(40, 1, 1).double(), torch.ones(3, 1, 40, 8, 9).double()])
def test_what_is_no_map_of_the_result_is_added_outside(onto: Any) -> None:
    ffc, x = layer(3, 1, 1), image(8, 9)
    network = fuse(Sum(ffc))
    torch.testing.assert_close(compiled(network)(x, onto), by_parts(ffc, x) + onto)


def test_it_follows_the_weights(calls: list) -> None:
    ffc, x = layer(3, 1, 1), image(8, 9)
    prepared = fuse(nn.Sequential(ffc))
    graphs = compiled(nn.Sequential(ffc)), compiled(prepared)
    with torch.no_grad():
        for graph in graphs:
            graph(x)
        for module in (ffc, prepared.get_submodule("0")):
            module.spectral.conv2.weight.mul_(2)  # pyright: ignore
        for graph in graphs:
            torch.testing.assert_close(graph(x), by_parts(ffc, x))
    assert len(calls) == 4


def test_tensors_stand_in_for_the_layers_own() -> None:
    ffc, x = layer(3, 1, 1), image(8, 9)
    other = copy.deepcopy(ffc)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(1.5)
        given = dict(other.named_parameters())
        graph = compiled(lambda tensors, x: functional_call(ffc, tensors, (x,)))
        torch.testing.assert_close(graph(given, x), by_parts(other, x))
        torch.testing.assert_close(graph(dict(ffc.named_parameters()), x), by_parts(ffc, x))


def test_a_parameter_takes_anothers_place() -> None:
    ffc, x = layer(3, 1, 1), image(8, 9)
    graph = compiled(ffc)
    with torch.no_grad():
        graph(x)
        ffc.weight_l2g = nn.Parameter(2 * ffc.weight_l2g)  # pyright: ignore[reportOperatorIssue]
        torch.testing.assert_close(graph(x), by_parts(ffc, x))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda ffc: pickle.loads(pickle.dumps(ffc))])
def test_copies_are_layers_of_their_own(copied: Any) -> None:
    ffc, x = layer(3, 1, 1), image(8, 9)
    twin: FFC2d = copied(ffc)
    with torch.no_grad():
        ffc.weight_l2l.mul_(2)  # pyright: ignore[reportOptionalMemberAccess]
        torch.testing.assert_close(compiled(twin)(x), by_parts(twin, x))


def test_gradients() -> None:
    ffc, x = layer(3, 1, 1), image(8, 9)
    graph = compiled(ffc)
    with torch.no_grad():
        graph(x)
    graph(x).square().sum().backward()
    found = ffc.weight_l2g.grad  # pyright: ignore[reportOptionalMemberAccess]
    ffc.zero_grad()
    ffc(x).square().sum().backward()
    torch.testing.assert_close(found, ffc.weight_l2g.grad)  # pyright: ignore[reportOptionalMemberAccess]


@pytest.mark.parametrize("of", ["x", "onto", "weight"])
def test_gradients_of_a_prepared_layer(of: str, calls: list) -> None:
    fused = fuse(Shortcut(layer(3, 1, 1)))
    inputs = {"x": image(8, 9), "onto": torch.randn(2, CHANNELS[1], 8, 9).double()}
    wanted = fused.get_parameter("ffc.conv.weight") if of == "weight" else inputs[of]
    graph = compiled(fused)
    graph(*inputs.values())
    assert len(calls) == 1
    wanted.requires_grad_()
    found, expected = (
        torch.autograd.grad(network(*inputs.values()).square().sum(), wanted) for network in (graph, fused)
    )
    torch.testing.assert_close(found, expected)


def test_statistics_in_training_mode() -> None:
    ffc, x = layer(3, 1, 1), image(8, 9)
    graph, twin = compiled(ffc), copy.deepcopy(ffc)
    with torch.no_grad():
        graph(x)
        torch.testing.assert_close(graph(x), twin(x))
        torch.testing.assert_close(compiled(ffc.train())(x), twin.train()(x))
    torch.testing.assert_close(dict(ffc.named_buffers()), dict(twin.named_buffers()))


def test_statistics_in_training_mode_of_a_result_that_nobody_reads() -> None:
    ffc, x = layer(3, 1, 1).train(), image(8, 9)
    twin = copy.deepcopy(ffc)

    def without_result(x: Tensor) -> Tensor:
        ffc(x)
        return 2 * x

    with torch.no_grad():
        compiled(without_result)(x)
        twin(x)
    torch.testing.assert_close(dict(ffc.named_buffers()), dict(twin.named_buffers()))


def operators(function: Any, x: Tensor) -> set[str]:
    """Names of a graph's operators."""
    found: set[str] = set()

    def backend(graph: torch.fx.GraphModule, inputs: Any) -> Any:
        found.update(str(node.target) for node in graph.graph.nodes if node.op == "call_function")
        return graph

    with torch.no_grad():
        compiled(function, backend=backend)(x)
    return found


def test_other_engines_and_autocast_have_operations_of_their_own() -> None:
    ffc, x = layer(3, 1, 1).float(), image(8, 9).float()
    assert "ffconv.layer" in operators(ffc, x)
    torch.compiler.reset()
    with fft_backend("fft"):
        assert "ffconv.layer" not in operators(ffc, x)
    torch.compiler.reset()
    with torch.autocast("cpu", torch.bfloat16):
        assert "ffconv.layer" not in operators(ffc, x)


def test_a_hook_is_called_once() -> None:
    ffc, x = layer(3, 1, 1), image(8, 9)
    ffc.register_forward_hook(lambda module, args, y: 2 * y)
    with torch.no_grad():
        torch.testing.assert_close(compiled(ffc)(x), 2 * by_parts(layer(3, 1, 1), x))


def test_a_hook_is_called_once_where_tensors_stand_in_for_the_layers_own() -> None:
    ffc, x = layer(3, 1, 1), image(8, 9)
    other = copy.deepcopy(ffc)
    ffc.register_forward_hook(lambda module, args, y: 2 * y)
    with torch.no_grad():
        other.weight_l2l.mul_(3)  # pyright: ignore[reportOptionalMemberAccess]
        given = dict(other.named_parameters())
        graph = compiled(lambda tensors, x: functional_call(ffc, tensors, (x,)))
        torch.testing.assert_close(graph(given, x), 2 * by_parts(other, x))


@pytest.mark.parametrize("prepare", [nn.Sequential, lambda ffc: fuse(nn.Sequential(ffc))])
@pytest.mark.parametrize("x", [torch.zeros(1, 23, 8, 8), torch.zeros(1, 24, 2, 8)], ids=["channels", "size"])
def test_what_does_not_fit_is_torchs_error(x: Tensor, prepare: Any) -> None:
    network = prepare(layer(5).float())
    with torch.no_grad(), pytest.raises(RuntimeError, match=r"23 channels|smaller|[Kk]ernel size|too small"):
        compiled(network)(x)
