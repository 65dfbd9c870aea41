"""The operators ``torch.ops.ffconv.*``: schemas, fake kernels, gradients of all orders, and rules."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.utils.flop_counter import FlopCounterMode

from assertions import assert_near, definition, randomise_norms
from ffconv.backends.cpu import kernels
from ffconv.dispatch import layers
from ffconv.functional import pad
from ffconv.functional.geometry import encode_geometry
from ffconv.nn import FFC2d, FourierUnit, SpectralTransform

# opcheck reads gradients of copies.
opcheck_reads_gradients = pytest.mark.filterwarnings(
    "ignore:The .grad attribute of a Tensor that is not a leaf"
)
needs_kernels = pytest.mark.skipif(not kernels.available(), reason="the CPU kernels are not built")
LAYERS: dict[str, dict[str, Any]] = {
    "both": {"ratio": 0.5},
    "to global": {"ratio_in": 0, "ratio_out": 0.5},
    "to local": {"ratio_in": 0.5, "ratio_out": 0, "bias": False},
    "strided": {"ratio": 0.5, "stride": 2, "padding_mode": "reflect", "lfu": False},
    "by side": {"ratio": 0.75},
}


def _layer(name: str, training: bool = False) -> Any:
    return randomise_norms(FFC2d(8, 12, 3, padding=1, **LAYERS[name])).train(training)


def _call(layer: Any, x: Tensor) -> Any:
    call = layers.ffc_call(layer, x)
    assert not isinstance(call, str), call
    return call[0]


def _leaf(x: Any) -> Any:
    if isinstance(x, (list, tuple)):
        return [_leaf(item) for item in x]
    return x.detach().clone().requires_grad_(x.requires_grad) if isinstance(x, Tensor) else x


@pytest.mark.slow
@opcheck_reads_gradients
@needs_kernels
@pytest.mark.parametrize("name", LAYERS)
def test_ffc_is_an_operator(name: str) -> None:
    call = _call(_layer(name), torch.randn(2, 8, 6, 5))
    arguments = _leaf((call.x, *call.weights, call.bias, call.tensors, call.eps))
    size = call.geometry.output_size((6, 5))
    residual = torch.randn(2, 12, *size)
    torch.library.opcheck(
        torch.ops.ffconv.ffc, (*arguments, encode_geometry(call.geometry), residual, True, None)
    )


@pytest.mark.slow
@opcheck_reads_gradients
@needs_kernels
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_ffc_training_is_an_operator(name: str, training: bool, memory_format: torch.memory_format) -> None:
    x = torch.randn(2, 8, 6, 5).contiguous(memory_format=memory_format)
    call = _call(_layer(name, training), x)
    padded = pad(x, call.geometry).requires_grad_()
    pooled = torch.randn(2, 4, 3, 3, requires_grad=True) if name == "strided" else None
    weights = _leaf((*call.weights, call.bias, call.tensors, call.eps, call.batch_stats))
    numbers = encode_geometry(call.geometry.after_padding())
    torch.library.opcheck(torch.ops.ffconv.ffc_training, (padded, pooled, *weights, numbers))


@pytest.mark.slow
@opcheck_reads_gradients
@needs_kernels
@pytest.mark.parametrize(
    "module", [SpectralTransform(8, 12), SpectralTransform(8, 12, lfu=False), FourierUnit(8, 8)]
)
def test_the_spectral_transform_is_an_operator(module: Any) -> None:
    x = torch.randn(2, 8, 6, 5, requires_grad=True)
    gather = layers.unit_call if isinstance(module, FourierUnit) else layers.spectral_call
    for training in (True, False):
        call: Any = gather(module.train(training), x)
        tensors = _leaf(call[0].tensors)
        torch.library.opcheck(torch.ops.ffconv.spectral_transform, (x, tensors, call[0].eps))
        arguments = (x, tensors, call[0].eps, call[0].batch_stats)
        torch.library.opcheck(torch.ops.ffconv.spectral_transform_training, arguments)


def _second_gradients(layer: nn.Module, x: Tensor) -> list[Tensor]:
    inputs = [x, *layer.parameters()]
    first = torch.autograd.grad(layer(x).sin().sum(), inputs, create_graph=True)
    return list(torch.autograd.grad(sum(grad.square().sum() for grad in first), inputs, allow_unused=True))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", LAYERS)
def test_second_derivatives(name: str, training: bool) -> None:
    layer, x = _layer(name, training), torch.randn(2, 8, 6, 5)
    exact = definition(layer)
    found = _second_gradients(layer, x.clone().requires_grad_())
    expected = _second_gradients(exact, x.double().requires_grad_())
    for one, other in zip(found, expected, strict=True):
        assert_near(one, other, 2e-3)


@pytest.mark.parametrize("name", LAYERS)
def test_batched_gradients_are_those_row_by_row(name: str) -> None:
    layer, x = _layer(name), torch.randn(1, 8, 4, 4)

    def means(x: Tensor) -> Tensor:
        return layer(x).mean((0, 2, 3))

    expected = torch.autograd.functional.jacobian(means, x)
    for found in (
        torch.autograd.functional.jacobian(means, x, vectorize=True),
        torch.func.jacrev(means)(x),
        torch.func.jacfwd(means)(x),
    ):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_hessians() -> None:
    layer, x = _layer("both"), torch.randn(1, 8, 2, 2)
    expected = torch.autograd.functional.hessian(lambda x: definition(layer)(x).sin().sum(), x.double())
    for vectorize in (False, True):
        found = torch.autograd.functional.hessian(lambda x: layer(x).sin().sum(), x, vectorize=vectorize)
        assert_near(found, expected, 1e-3)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("name", LAYERS)
def test_forward_mode_meets_no_kernel(name: str) -> None:
    """An operator without a rule gives a zero tangent without a word."""
    layer, x, tangent = _layer(name), torch.randn(2, 8, 6, 5), torch.randn(2, 8, 6, 5)
    step = 1e-6
    exact, at, along = definition(layer), x.double(), tangent.double()
    expected = (exact(at + step * along) - exact(at - step * along)) / (2 * step)
    assert_near(torch.func.jvp(layer, (x,), (tangent,))[1], expected, 1e-4)
    with forward_ad.dual_level():
        found = forward_ad.unpack_dual(layer(forward_ad.make_dual(x, tangent))).tangent
    assert found is not None
    assert_near(found, expected, 1e-4)


@pytest.mark.parametrize("training", [True, False])
def test_transforms_of_functions(training: bool) -> None:
    layer, x = _layer("both", training), torch.randn(3, 8, 6, 5)
    parameters = {name: p.detach() for name, p in layer.named_parameters()}
    buffers = {name: b.detach().clone() for name, b in layer.named_buffers()}

    def loss(parameters: dict[str, Tensor]) -> Tensor:
        buffers_of_call = {name: b.clone() for name, b in buffers.items()}
        return torch.func.functional_call(layer, (parameters, buffers_of_call), (x,)).square().sum()

    found = torch.func.grad(loss)(parameters)
    twin = copy.deepcopy(layer)
    twin(x).square().sum().backward()
    for name, parameter in twin.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad, rtol=1e-3, atol=1e-3)


def test_functional_call_uses_the_tensors_that_it_is_given() -> None:
    layer, x = _layer("both"), torch.randn(2, 8, 6, 5)
    with torch.no_grad():
        doubled = torch.func.functional_call(layer, {"weight_l2l": 2 * layer.weight_l2l}, (x,))
        twin = copy.deepcopy(layer)
        twin.weight_l2l.mul_(2)
        torch.testing.assert_close(doubled, twin(x))
        torch.testing.assert_close(torch.func.vmap(layer)(x[:, None])[:, 0], layer(x), rtol=1e-4, atol=1e-4)


@needs_kernels
def test_the_profiler_names_the_operators() -> None:
    layer, x = _layer("both"), torch.randn(2, 8, 6, 5)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        layer(x).sum().backward()
        with torch.no_grad():
            layer(x)
    names = {event.key for event in profile.key_averages()}
    assert {"ffconv::ffc", "ffconv::ffc_training", "ffconv::ffc_backward"} <= names


def test_a_dispatch_mode_sees_torch_operations() -> None:
    layer, x = _layer("both"), torch.randn(2, 8, 6, 5)
    with FlopCounterMode(display=False) as counter:
        layer(x)
    assert {str(name) for name in counter.get_flop_counts()["Global"]} == {"aten.convolution"}
    assert counter.get_total_flops() > 0


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast(dtype: torch.dtype, training: bool) -> None:
    layer, x = _layer("both", training), torch.randn(2, 8, 6, 5)
    expected = definition(layer)(x.double())
    with torch.autocast("cpu", dtype):
        y = layer(x)
    assert y.dtype == dtype
    assert_near(y.float(), expected, 0.05)
    y.float().square().sum().backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in layer.parameters())


@needs_kernels
def test_under_inference_mode_and_in_threads() -> None:
    layer, x = _layer("both"), torch.randn(4, 8, 9, 7)
    expected = layer(x).detach()
    with torch.inference_mode():
        torch.testing.assert_close(layer(x), expected, rtol=1e-4, atol=1e-4)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        with torch.no_grad():
            torch.testing.assert_close(layer(x), expected, rtol=1e-4, atol=1e-4)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("requires_grad", [True, False])
def test_a_map_without_a_batch(requires_grad: bool) -> None:
    layer, x = _layer("both"), torch.randn(8, 6, 5, requires_grad=requires_grad)
    y = layer(x)
    assert y.shape == (12, 6, 5)
    torch.testing.assert_close(y, layer(x[None])[0])


def test_frozen_parts_get_no_gradient() -> None:
    layer, x = _layer("both", training=True), torch.randn(2, 8, 6, 5)
    layer.requires_grad_(False)
    layer.spectral.fu.conv.weight.requires_grad_(True)
    layer(x).sum().backward()
    assert [name for name, p in layer.named_parameters() if p.grad is not None] == ["spectral.fu.conv.weight"]
    layer.requires_grad_(True)
    layer(x).sum().backward()
    assert x.grad is None
