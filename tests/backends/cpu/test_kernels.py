"""The CPU kernels against plain float64 PyTorch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

import kernel_reference as reference
from ffconv.backends.cpu import kernels
from ffconv.backends.cpu.library import INSTRUCTION_SETS, Library, library_path, load_functions

pytestmark = pytest.mark.skipif(not kernels.available(), reason="the CPU kernels were not built")

LAYOUTS = ["last", "first", "slice", "transposed"]


@pytest.fixture(autouse=True, params=INSTRUCTION_SETS)
def instruction_set(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run each test with the kernels of each instruction set that this processor has."""
    name = request.param
    if INSTRUCTION_SETS.index(name) < INSTRUCTION_SETS.index(kernels.instruction_set() or "default"):
        pytest.skip(f"this processor has no {name}")
    if not library_path(name).exists():
        pytest.skip(f"the kernels for {name} were not built")
    loaded = Library(name, load_functions(library_path(name)))
    monkeypatch.setattr(kernels, "library", lambda: loaded)
    return name


def lay_out(x: Tensor, layout: str) -> Tensor:
    """Return x with other strides."""
    if layout == "last":
        return x.contiguous(memory_format=torch.channels_last)
    if layout == "slice":  # the last channels of a wider channels-last map
        wide = torch.cat([x, x], 1).contiguous(memory_format=torch.channels_last)
        return wide[:, x.shape[1] :]
    if layout == "transposed":
        return x.transpose(2, 3).contiguous().transpose(2, 3)
    return x.contiguous()


def randn(*size: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed + sum(size))
    return torch.randn(*size, generator=generator, dtype=torch.float64).float()


def make_layers(C_in: int, C: int, count: int) -> tuple[list[Tensor], list[float]]:
    sizes = [(C, C_in), (2 * C, 2 * C), (2 * C, 8 * ((C + 3) // 4))][:count]
    layers = []
    for seed, (outputs, inputs) in enumerate(sizes):
        layers.append(randn(outputs, inputs, 1, 1, seed=seed) / inputs**0.5)
        layers += [1 + 0.1 * randn(outputs, seed=10 * seed + i) for i in range(3)]
        layers.append(0.5 + randn(outputs, seed=10 * seed + 3).square())
    return layers, [1e-5, 1e-3, 1e-2][:count]


def make_unit(C: int) -> tuple[list[Tensor], list[float]]:
    layers, _ = make_layers(C, C, 2)
    return layers[5:], [1e-5]


def double(tensors: Sequence[Tensor | None]) -> list[Tensor | None]:
    return [None if tensor is None else tensor.double() for tensor in tensors]


def assert_close(ours: Tensor, exact: Tensor, tolerance: float = 2e-5) -> None:
    """Compare by the error relative to the largest value."""
    assert ours.shape == exact.shape
    error = (ours.double() - exact).abs().max() / exact.abs().max().clamp(min=1e-3)
    assert error < tolerance, f"relative error {error:.1e}"


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    "size", [(2, 1, 1, 1), (1, 3, 7, 9), (2, 8, 8, 8), (1, 17, 31, 6), (3, 40, 14, 14), (2, 3, 74, 37)]
)
def test_transforms(size: tuple[int, ...], layout: str) -> None:
    x = lay_out(randn(*size), layout)
    spectrum = kernels.rfft2(x, 0.5)
    exact = reference.rfft2(x.double())
    exact[..., 1 : (size[3] + 1) // 2] *= 0.5
    assert_close(spectrum, exact)
    some = lay_out(randn(*exact.shape, seed=1), layout)
    assert_close(kernels.irfft2(some, size[3]), reference.irfft2(some.double(), size[3]))


def test_is_smooth() -> None:
    assert [n for n in (0, 1, 31, 32, 37, 62, 74, 1024) if kernels.is_smooth(n)] == [1, 31, 32, 62, 1024]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize(
    ("channels", "size"),
    [
        ((1, 2, 2), (2, 1)),
        ((3, 8, 16), (7, 9)),
        ((20, 12, 24), (1, 5)),
        ((33, 48, 70), (50, 4)),
        ((4, 16, 6), (8, 8)),
    ],
)
def test_spectral_transform(
    channels: tuple[int, int, int], size: tuple[int, int], count: int, layout: str
) -> None:
    C_in, C, C_out = channels
    layers, eps = make_unit(C_in) if count == 1 else make_layers(C_in, C, count)
    conv2 = None if count == 1 else randn(C_out, C, 1, 1)
    x = lay_out(randn(2, C_in, *size), layout)
    exact = reference.spectral_transform(x.double(), double(layers), eps, double([conv2])[0])
    assert_close(kernels.spectral_transform(x, layers, eps, conv2), exact)
    out = lay_out(randn(2, exact.shape[1] + 3, *size, seed=5), layout)
    expected = out.double()
    expected[:, 3:] += exact
    if count > 1:
        assert kernels.spectral_transform(x, layers, eps, conv2, out) is out
        assert_close(out, expected)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize(
    ("channels", "size"),
    [
        ((3, 8, 16), (7, 9)),
        ((20, 12, 24), (8, 6)),
        ((8, 40, 20), (4, 3)),
        ((5, 6, 7), (3, 100)),
        ((5, 6, 7), (100, 3)),
    ],
)
def test_training(channels: tuple[int, int, int], size: tuple[int, int], count: int, layout: str) -> None:
    C_in, C, C_out = channels
    layers, eps = make_unit(C_in) if count == 1 else make_layers(C_in, C, count)
    conv2 = None if count == 1 else randn(C_out, C, 1, 1)
    batch_stats = [True, count < 3, True][:count]
    x = lay_out(randn(3, C_in, *size), layout)

    exact_x = x.double().requires_grad_()
    exact_layers = [layer.double().requires_grad_(i % 5 < 3) for i, layer in enumerate(layers)]
    exact_conv2 = None if conv2 is None else conv2.double().requires_grad_()
    exact = reference.spectral_transform(exact_x, exact_layers, eps, exact_conv2, batch_stats)
    grad = lay_out(randn(*exact.shape, seed=7), layout)

    y, stats, saved = kernels.spectral_transform_forward(x, layers, batch_stats, eps, conv2)
    assert_close(y, exact.detach(), 1e-4)
    if count > 1:
        out = lay_out(torch.ones_like(y), layout)
        assert kernels.spectral_transform_forward(x, layers, batch_stats, eps, conv2, out)[0] is out
        assert_close(out, exact.detach() + 1, 1e-4)
    for number, used in enumerate(batch_stats):
        if not used:
            assert stats[number][0] is layers[5 * number + 3]
    if batch_stats[0] and count > 1:
        first = torch.nn.functional.conv2d(x.double(), layers[0].double())
        assert_close(stats[0][0], first.mean((0, 2, 3)))
        assert_close(stats[0][1], first.var((0, 2, 3), correction=0))

    grad_x, grad_conv2, grads = kernels.spectral_transform_backward(
        grad, x, layers, batch_stats, eps, conv2, stats, saved
    )
    parameters = [layer for i in range(count) for layer in exact_layers[5 * i : 5 * i + 3]]
    ours = [grad_x, *(gradient for layer in grads for gradient in layer)]
    if conv2 is not None:
        parameters.append(exact_conv2)
        ours.append(grad_conv2)
    for one, expected in zip(
        ours, torch.autograd.grad(exact, [exact_x, *parameters], grad.double()), strict=True
    ):
        assert_close(one, expected, 5e-4)


def make_ffc(
    channels: tuple[int, int, int, int], kernel: Sequence[int], count: int, *, last: bool
) -> tuple[list[Tensor | None], list[Tensor], list[float], Tensor | None]:
    """Return weights l2l, g2l and l2g (None if they have no channels), layers, eps and conv2."""
    local_in, global_in, local_out, global_out = channels
    sizes = [(local_out, local_in), (local_out, global_in), (global_out, local_in)]
    weights: list[Tensor | None] = [
        randn(*size, *kernel, seed=i) / (size[1] * kernel[0] * kernel[1]) ** 0.5 if min(size) > 0 else None
        for i, size in enumerate(sizes)
    ]
    if last:
        weights = [w if w is None else w.contiguous(memory_format=torch.channels_last) for w in weights]
    if not count or not global_in or not global_out:
        return weights, [], [], None
    C = max(1, global_out // 2)
    layers, eps = make_layers(global_in, C, count)
    return weights, layers, eps, randn(global_out, C, 1, 1) / C**0.5


GEOMETRIES = [  # kernel, stride, padding, dilation, modes, size, out_size
    pytest.param((1, 1), (1, 1), (0, 0), (1, 1), ("zeros", "zeros"), (7, 9), (7, 9), id="1x1"),
    pytest.param((3, 3), (1, 1), (1, 1), (1, 1), ("zeros", "zeros"), (8, 6), (8, 6), id="3x3"),
    pytest.param(
        (3, 3), (1, 1), (1, 1), (1, 1), ("reflect", "circular"), (16, 15), (16, 15), id="padding modes"
    ),
    pytest.param((3, 3), (2, 2), (1, 1), (1, 1), ("zeros", "zeros"), (9, 8), (5, 4), id="stride"),
    pytest.param((1, 1), (2, 2), (0, 0), (1, 1), ("zeros", "zeros"), (8, 7), (4, 4), id="1x1 stride"),
    pytest.param((3, 1), (2, 1), (0, 2), (1, 1), ("replicate", "replicate"), (9, 5), (4, 9), id="uneven"),
    pytest.param((2, 5), (1, 3), (3, 1), (3, 2), ("zeros", "zeros"), (9, 14), (10, 3), id="any offset"),
]
CHANNELS = [
    (3, 2, 5, 4),
    (24, 8, 40, 24),
    (0, 6, 5, 3),
    (6, 0, 3, 4),
    (5, 3, 0, 8),
    (5, 3, 8, 0),
    (48, 16, 48, 16),
]


@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize(("kernel", "stride", "padding", "dilation", "modes", "size", "out_size"), GEOMETRIES)
def test_ffc(
    kernel: Any, stride: Any, padding: Any, dilation: Any, modes: Any, size: Any, out_size: Any,
    channels: tuple[int, int, int, int],
) -> None:  # fmt: skip
    for case, layout in enumerate(LAYOUTS):
        geometry = (stride, padding, dilation, modes, out_size)
        check_ffc(kernel, geometry, size, channels, layout, count=(0, 2, 3)[(case + sum(channels)) % 3])


def check_ffc(
    kernel: Any, geometry: Any, size: Any, channels: tuple[int, int, int, int], layout: str, count: int
) -> None:
    weights, layers, eps, conv2 = make_ffc(channels, kernel, count, last=layout == "last")
    if not any(weight is not None for weight in weights):
        return
    x = lay_out(randn(3, sum(channels[:2]), *size), layout)
    outputs = channels[2] + (channels[3] if layers or weights[2] is not None else 0)
    bias = randn(outputs)
    exact = reference.ffc(
        x.double(), *double(weights), bias.double(), *geometry, double(layers), eps, double([conv2])[0]
    )
    y = kernels.ffc(x, *weights, bias, *geometry, layers, eps, conv2)
    assert_close(y, exact)
    expected_format = torch.channels_last if layout in ("last", "slice") else torch.contiguous_format
    assert y.is_contiguous(memory_format=expected_format)

    residual = randn(*exact.shape, seed=3)
    for of_residual in ("last", "first"):
        packed = kernels.pack_ffc(x.shape, *weights, None, *geometry, layers, eps, conv2)
        with_all = kernels.ffc(
            x, *weights, None, *geometry, layers, eps, conv2, lay_out(residual, of_residual), True, packed
        )
        assert_close(with_all, (exact - bias.double()[:, None, None] + residual.double()).relu())


def test_weights_packed_for_other_sizes_are_not_used() -> None:
    weights, layers, eps, conv2 = make_ffc((6, 2, 6, 2), (1, 1), 3, last=False)
    geometry = ((1, 1), (0, 0), (1, 1), ("zeros", "zeros"))
    x = randn(2, 8, 6, 4)
    exact = reference.ffc(
        x.double(), *double(weights), None, *geometry, (6, 4), double(layers), eps, double([conv2])[0]
    )
    other = kernels.pack_ffc((1, 8, 8, 8), *weights, None, *geometry, (8, 8), layers, eps, conv2)
    for packed in (other, other[:10], torch.zeros(10, dtype=torch.uint8)):
        assert_close(
            kernels.ffc(x, *weights, None, *geometry, (6, 4), layers, eps, conv2, None, False, packed), exact
        )


@pytest.mark.parametrize(("threads", "batch"), [(1, 2), (2, 1), (2, 2), (2, 5), (3, 2), (3, 4)])
@pytest.mark.parametrize("layout", ["last", "first"])
@pytest.mark.parametrize("channels", [(24, 8, 24, 8), (24, 8, 200, 0), (24, 8, 300, 100)])
def test_any_number_of_threads(
    channels: tuple[int, int, int, int], layout: str, batch: int, threads: int
) -> None:
    weights, layers, eps, conv2 = make_ffc(channels, (1, 1), 3, last=False)
    geometry = ((1, 1), (0, 0), (1, 1), ("zeros", "zeros"), (5, 6))
    x = lay_out(randn(batch, 32, 5, 6), layout)
    exact = reference.ffc(
        x.double(), *double(weights), None, *geometry, double(layers), eps, double([conv2])[0]
    )
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        assert_close(kernels.ffc(x, *weights, None, *geometry, layers, eps, conv2), exact)
        if layers:
            _, stats, saved = kernels.spectral_transform_forward(x, *spectral(layers, eps, conv2, x))
            grad = randn(batch, channels[3], 5, 6)
            several = kernels.spectral_transform_backward(
                grad, x, *spectral(layers, eps, conv2, x), stats, saved
            )
            torch.set_num_threads(1)
            one = kernels.spectral_transform_backward(grad, x, *spectral(layers, eps, conv2, x), stats, saved)
            assert_close(several[0], one[0].double())
    finally:
        torch.set_num_threads(before)


def spectral(layers: list[Tensor], eps: list[float], conv2: Any, x: Tensor) -> Any:
    weight = torch.cat([layers[0]] * (x.shape[1] // layers[0].shape[1]), 1)
    return [weight, *layers[1:]], [True] * len(eps), eps, conv2


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("channels", [(40, 24, 40, 24), (64, 0, 64, 0), (33, 7, 35, 6)])
@pytest.mark.parametrize(("size", "padding"), [((12, 14), (1, 1)), ((13, 9), (0, 2))])
def test_winograd(
    channels: tuple[int, int, int, int], size: tuple[int, int], padding: tuple[int, int], layout: str
) -> None:
    weights, *_ = make_ffc(channels, (3, 3), 0, last=layout == "last")
    x = lay_out(randn(16, sum(channels[:2]), *size), layout)
    out_size = [n + 2 * p - 2 for n, p in zip(size, padding, strict=True)]
    if channels[0] == 40:
        assert kernels.winograd_pays(x, out_size, sum(channels[2:]))
    exact_x = x.double().requires_grad_()
    exact = [None if w is None else w.double().requires_grad_() for w in weights]
    weight = reference.join(*exact, sum(channels[2:]), sum(channels[:2]))
    exact_y = torch.nn.functional.conv2d(exact_x, weight, padding=padding)
    assert_close(kernels.winograd_conv(x, *weights, None, padding, out_size), exact_y.detach())
    grad = lay_out(randn(*exact_y.shape), layout)
    present = [w for w in exact if w is not None]
    grad_x, *grads = torch.autograd.grad(exact_y, [exact_x, *present], grad.double())
    assert_close(kernels.winograd_input_grad(grad, *weights, padding, size), grad_x)
    ours = kernels.winograd_weight_grads(x, grad, *weights, padding)
    for weight, one in zip(weights, ours, strict=True):
        assert (one is None) == (weight is None)
        assert one is None or one.stride() == weight.stride()
    for one, expected in zip([one for one in ours if one is not None], grads, strict=True):
        assert_close(one, expected)
