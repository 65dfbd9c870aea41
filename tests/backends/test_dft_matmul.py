"""The transforms as products of real matrices."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

import oracles
from ffconv.nn import FFC2d, FFC3d, matrix, fft_backend
from ffconv.dispatch import irfftn, rfftn

IMAGE = (2, 3)
SIZES = [(1, 1), (1, 6), (7, 1), (2, 2), (4, 6), (7, 5), (13, 8)]
VIDEO_AXES = [(3, 4), (2, 3, 4), (2,), (2, 4), (2, 3)]


def noise(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(0))


def as_parts(spectrum: Tensor) -> Tensor:
    return torch.complex(spectrum[:, 0::2].double(), spectrum[:, 1::2].double())


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@pytest.mark.parametrize("size", SIZES)
def test_forward(size: tuple[int, int], dtype: torch.dtype, tolerance: float) -> None:
    x = noise(2, 3, *size, dtype=dtype)
    spectrum = matrix.rfftn(x, IMAGE)
    assert spectrum.dtype == dtype
    torch.testing.assert_close(as_parts(spectrum), oracles.rfftn(x.double()), rtol=0, atol=tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@pytest.mark.parametrize("size", SIZES)
def test_inverse_of_a_spectrum_that_is_not_hermitian(
    size: tuple[int, int], dtype: torch.dtype, tolerance: float
) -> None:
    spectrum = noise(2, 6, size[0], size[1] // 2 + 1, dtype=dtype)
    expected = oracles.irfftn(as_parts(spectrum), IMAGE, size[1])
    x = matrix.irfftn(spectrum, IMAGE, size[1])
    assert x.dtype == dtype
    torch.testing.assert_close(x.double(), expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("axes", VIDEO_AXES)
@pytest.mark.parametrize("size", [(1, 1, 1), (2, 3, 4), (5, 4, 3)])
def test_of_videos(size: tuple[int, ...], axes: tuple[int, ...]) -> None:
    x, width = noise(2, 3, *size), size[axes[-1] - 2]
    spectrum = matrix.rfftn(x, axes)
    torch.testing.assert_close(as_parts(spectrum), oracles.rfftn(x, axes), rtol=0, atol=1e-12)
    any_spectrum = noise(*spectrum.shape)
    expected = oracles.irfftn(as_parts(any_spectrum), axes, width)
    torch.testing.assert_close(matrix.irfftn(any_spectrum, axes, width), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("length", [1, 2, 9])
def test_of_sequences(length: int) -> None:
    x = noise(2, 3, length)
    torch.testing.assert_close(as_parts(matrix.rfftn(x, (2,))), oracles.rfftn(x, (2,)), rtol=0, atol=1e-12)
    spectrum = noise(2, 6, length // 2 + 1)
    expected = oracles.irfftn(as_parts(spectrum), (2,), length)
    torch.testing.assert_close(matrix.irfftn(spectrum, (2,), length), expected, rtol=0, atol=1e-12)


@pytest.fixture
def eager_to_factor(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Sides of 36 and more with factors go in two steps, which otherwise only long ones do."""
    monkeypatch.setattr(matrix, "_STEP", 0)
    matrix._cheapest_factors.cache_clear()
    yield
    matrix._cheapest_factors.cache_clear()


@pytest.mark.parametrize("size", [(36, 3), (3, 36), (48, 45)])
@pytest.mark.usefixtures("eager_to_factor")
def test_two_steps(size: tuple[int, int]) -> None:
    assert all(matrix._factors(max(size), real=real) is not None for real in (False, True))
    x = noise(1, 2, *size)
    torch.testing.assert_close(as_parts(matrix.rfftn(x, IMAGE)), oracles.rfftn(x), rtol=0, atol=1e-12)
    spectrum = noise(1, 4, size[0], size[1] // 2 + 1)
    expected = oracles.irfftn(as_parts(spectrum), IMAGE, size[1])
    torch.testing.assert_close(matrix.irfftn(spectrum, IMAGE, size[1]), expected, rtol=0, atol=1e-12)


def test_long_sides_go_in_two_steps() -> None:
    assert matrix._factors(128, real=False) is None
    assert matrix._factors(1024, real=False) == (32, 32)
    assert matrix._factors(1021, real=False) is None


def test_matrices_are_rounded_once() -> None:
    """Cosines and sines of many turns lose digits in float32."""
    precise = matrix.dft_matrix(127, torch.device("cpu"), torch.float64)
    assert torch.equal(matrix.dft_matrix(127, torch.device("cpu"), torch.float32), precise.float())


def test_a_long_prime_side_in_float32() -> None:
    x = noise(1, 1, 1, 997)
    spectrum = matrix.rfftn(x.float(), IMAGE)
    torch.testing.assert_close(as_parts(spectrum), oracles.rfftn(x), rtol=0, atol=3e-6)


@pytest.mark.parametrize(("axes", "size"), [((2, 3), (3, 4)), ((2,), (5,)), ((2, 4), (3, 2, 4))])
def test_gradients(axes: tuple[int, ...], size: tuple[int, ...]) -> None:
    x = noise(1, 2, *size).requires_grad_()
    spectrum = noise(*matrix.rfftn(x, axes).shape).requires_grad_()
    width = size[axes[-1] - 2]
    assert torch.autograd.gradcheck(lambda x: matrix.rfftn(x, axes), x)
    assert torch.autograd.gradcheck(lambda spectrum: matrix.irfftn(spectrum, axes, width), spectrum)


@pytest.mark.usefixtures("eager_to_factor")
def test_gradients_of_two_steps() -> None:
    x = noise(1, 1, 36, 45).requires_grad_()
    grad = noise(1, 2, 36, 23)
    (ours,) = torch.autograd.grad(matrix.rfftn(x, IMAGE), x, grad)
    with fft_backend("fft"):
        (expected,) = torch.autograd.grad(rfftn(x, IMAGE), x, grad)
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-12)


def test_autocast_leaves_the_transforms_precise() -> None:
    x = noise(1, 2, 7, 6, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        spectrum = matrix.rfftn(x, IMAGE)
        back = matrix.irfftn(spectrum, IMAGE, 6)
    torch.testing.assert_close(back, x, rtol=0, atol=1e-5)


def test_matrices_made_in_inference_mode_serve_training() -> None:
    with torch.inference_mode():
        matrix.rfftn(noise(1, 1, 11, 11), IMAGE)
    x = noise(1, 1, 11, 11).requires_grad_()
    (grad,) = torch.autograd.grad(matrix.rfftn(x, IMAGE).square().sum(), x)
    with fft_backend("fft"):
        (expected,) = torch.autograd.grad(rfftn(x, IMAGE).square().sum(), x)
    torch.testing.assert_close(grad, expected, rtol=0, atol=1e-11)


def test_a_recorded_cuda_graph_keeps_its_matrices(monkeypatch: pytest.MonkeyPatch) -> None:
    """It reads them where they lie, also when the cache has long made room for others."""
    x = noise(1, 1, 3, 19)
    matrix.rfftn(x, IMAGE)
    monkeypatch.setattr(matrix, "_of_graphs", {})
    monkeypatch.setattr(matrix, "_is_recorded", lambda device: True)
    matrix.rfftn(x, IMAGE)
    recorded = {kept.data_ptr() for kept in matrix._of_graphs.values()}
    monkeypatch.setattr(matrix, "_is_recorded", lambda device: False)
    kind = matrix._Kind(x.device, x.dtype)
    used = [
        matrix._kept(build, n, kind=kind) for build, n in ((matrix._matrix, 3), (matrix._real_matrix, 19))
    ]
    assert recorded == {kept.data_ptr() for kept in used}


def test_a_matrix_is_not_made_while_a_cuda_graph_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would have no values before the graph is replayed."""
    monkeypatch.setattr(matrix, "_is_recorded", lambda device: True)
    with pytest.raises(RuntimeError, match=r"run once with sides of \(23,\) before a CUDA graph is recorded"):
        matrix.rfftn(noise(1, 1, 2, 23), IMAGE)
    monkeypatch.undo()
    x = noise(1, 1, 2, 23)
    torch.testing.assert_close(as_parts(matrix.rfftn(x, IMAGE)), oracles.rfftn(x), rtol=0, atol=1e-12)


def test_matrices_made_inside_a_transform_of_functions_do_not_leave_it() -> None:
    def energy(x: Tensor) -> Tensor:
        return matrix.rfftn(x[None, None], IMAGE).square().sum()

    x = noise(3, 12, 10)
    gradients = torch.func.vmap(torch.func.grad(energy))(x)
    torch.testing.assert_close(gradients[0], torch.func.grad(energy)(x[0]))
    assert matrix.irfftn(matrix.rfftn(x[None], IMAGE), IMAGE, 10).allclose(x[None])


class Unit(nn.Module):
    """There, something that depends on both parts, and back."""

    def __init__(self, axes: tuple[int, ...] = IMAGE) -> None:
        super().__init__()
        self.axes = axes

    def forward(self, x: Tensor) -> Tensor:
        return irfftn(rfftn(x, self.axes).relu(), self.axes, x.shape[self.axes[-1]])


FORBIDDEN = ("fft", "complex", "view_as_real", "ffconv")


def test_export_of_fixed_sizes_has_products_of_constants() -> None:
    with fft_backend("matrix"):
        program = torch.export.export(Unit(), (noise(2, 3, 9, 8),)).run_decompositions()
    targets = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert not [name for name in targets if any(word in name for word in (*FORBIDDEN, "cos", "arange"))]
    assert len(program.constants) == 4
    x = noise(2, 3, 9, 8)
    torch.testing.assert_close(program.module()(x), Unit()(x), rtol=0, atol=1e-12)


def test_export_of_unknown_sizes() -> None:
    sizes = {axis: torch.export.Dim(name, min=1, max=64) for axis, name in enumerate("nchw") if axis != 1}
    with fft_backend("matrix"):
        program = torch.export.export(Unit(), (noise(2, 3, 9, 8),), dynamic_shapes=(sizes,))
    targets = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert not [name for name in targets if any(word in name for word in FORBIDDEN)]
    for size in ((9, 8), (4, 7), (1, 1), (12, 12)):
        x = noise(3, 3, *size)
        torch.testing.assert_close(program.module()(x), Unit()(x), rtol=0, atol=1e-12)


def test_jit_trace_takes_other_sizes() -> None:
    with fft_backend("matrix"):
        traced: Any = torch.jit.trace(Unit(), noise(2, 3, 9, 8))
    kinds = {node.kind() for node in traced.inlined_graph.nodes()}
    assert not [kind for kind in kinds if any(word in kind for word in FORBIDDEN)]
    for size in ((9, 8), (5, 6)):
        x = noise(1, 3, *size)
        torch.testing.assert_close(traced(x), Unit()(x), rtol=0, atol=1e-12)


@pytest.mark.slow
def test_compile_with_dynamic_sizes() -> None:
    torch._dynamo.reset()
    compiled = torch.compile(Unit(), fullgraph=True, dynamic=True)
    for size in ((9, 8), (4, 7)):
        x = noise(2, 3, *size).requires_grad_()
        with fft_backend("matrix"):
            y = compiled(x)
        expected = Unit()(x)
        torch.testing.assert_close(y, expected, rtol=0, atol=1e-12)
        (grad,) = torch.autograd.grad(y.square().sum(), x)
        torch.testing.assert_close(grad, torch.autograd.grad(expected.square().sum(), x)[0])


@pytest.mark.parametrize(
    ("layer", "size"),
    [
        (FFC2d(8, 8, 3, padding=1, ratio=0.5), (9, 7)),
        (FFC3d(8, 8, 3, padding=1, ratio=0.5, spectral_dims=("t", "h", "w")), (3, 6, 5)),
    ],
    ids=["images", "videos"],
)
def test_a_layer_exports_without_complex_numbers(layer: nn.Module, size: tuple[int, ...]) -> None:
    layer, x = layer.eval(), noise(2, 8, *size, dtype=torch.float32)
    with fft_backend("matrix"):
        program = torch.export.export(layer, (x,)).run_decompositions()
    values = tree_leaves([node.meta.get("val") for node in program.graph.nodes])
    assert not any(value.is_complex() for value in values if isinstance(value, Tensor))
    targets = {str(node.target) for node in program.graph.nodes}
    assert not [name for name in targets if any(word in name for word in FORBIDDEN)]
    torch.testing.assert_close(program.module()(x), layer(x), rtol=1e-4, atol=1e-5)
