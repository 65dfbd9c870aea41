"""FFC3d that leaves time alone: its frames are computed as images."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import oracles
from assertions import assert_matches_definition, assert_near, definition
from ffconv.backends.cpu import kernels
from ffconv.dispatch import fft_backend
from ffconv.nn import FFC2d, FFC3d, SpectralTransform
from ffconv.surgery import fuse

needs_kernels = pytest.mark.skipif(not kernels.available(), reason="the kernels are not built")

POINTWISE, SPATIAL, STRIDED = (1,), ((1, 3, 3), 1, (0, 1, 1)), ((1, 3, 3), (1, 2, 2), (0, 1, 1))
LAST = torch.channels_last_3d
MEMORY_FORMATS = [torch.contiguous_format, LAST]


def layer(*geometry: Any, **options: Any) -> FFC3d:
    torch.manual_seed(0)
    ffc = FFC3d(16, 24, *(geometry or SPATIAL), **{"ratio": 0.25, **options}).eval()
    oracles.randomise_norms(ffc)
    if ffc.bias is not None:
        nn.init.normal_(ffc.bias)
    return ffc


def clip(*size: int, number: int = 2, memory_format: torch.memory_format = LAST) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(number, 16, *(size or (3, 6, 5)), generator=generator)
    return x.contiguous(memory_format=memory_format)


def exact(ffc: FFC3d, x: Tensor) -> Tensor:
    return oracles.ffc(definition(ffc), x.double())  # pyright: ignore[reportArgumentType]


class Shortcut(nn.Module):
    """relu(ffc(x) + other), as in a residual block."""

    def __init__(self, ffc: FFC3d) -> None:
        super().__init__()
        self.ffc, self.relu = ffc, nn.ReLU(inplace=True)

    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        y = self.ffc(x)
        y += other
        return self.relu(y)


class Sum(nn.Module):
    """ffc(x) + other."""

    def __init__(self, ffc: FFC3d) -> None:
        super().__init__()
        self.ffc = ffc

    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        return self.ffc(x) + other


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Sizes of the maps for which a kernel computed a whole FFC."""
    sizes: list[tuple[int, ...]] = []
    run = kernels.ffc

    def counting(x: Tensor, *args: Any) -> Tensor:
        sizes.append(tuple(x.shape))
        return run(x, *args)

    monkeypatch.setattr(kernels, "ffc", counting)
    return sizes


@pytest.mark.parametrize(
    ("geometry", "expected"),
    [
        (POINTWISE, True),
        (STRIDED, True),
        (((1, 2, 2), 1, "valid"), True),
        (((3, 1, 1), 1, (1, 0, 0)), False),
        ((1, (2, 1, 1)), False),
        ((1, 1, (1, 0, 0)), False),
    ],
    ids=str,
)
def test_framewise_geometries(geometry: tuple[Any, ...], expected: bool, calls: list) -> None:
    ffc = layer(*geometry)
    assert ffc.geometry.is_framewise == expected
    with torch.no_grad():
        assert_near(ffc(clip()), exact(ffc, clip()))
    assert bool(calls) == (expected and kernels.available())


@pytest.mark.parametrize("dims", [("t", "h", "w"), ("w",), ("t", "w")])
def test_transforms_of_other_axes_run_part_by_part(dims: tuple[str, ...], calls: list) -> None:
    ffc, x = layer(1, spectral_dims=dims), clip()
    with torch.no_grad():
        assert_near(ffc(x), exact(ffc, x))
    assert not calls


@needs_kernels
@pytest.mark.parametrize("geometry", [POINTWISE, SPATIAL, STRIDED, ((1, 2, 3), 1, "valid")], ids=str)
@pytest.mark.parametrize("memory_format", MEMORY_FORMATS)
@pytest.mark.parametrize("size", [(3, 6, 5), (1, 8, 8)], ids=str)
def test_inference_is_one_kernel(
    size: tuple[int, ...], memory_format: torch.memory_format, geometry: tuple[Any, ...], calls: list
) -> None:
    ffc, x = layer(*geometry).to(memory_format=memory_format), clip(*size, memory_format=memory_format)
    with torch.no_grad():
        y = ffc(x)
    assert calls == [tuple(x.transpose(1, 2).flatten(0, 1).shape)]
    assert y.is_contiguous(memory_format=memory_format)
    assert_near(y, exact(ffc, x))


@pytest.mark.parametrize(
    "options",
    [
        {"ratio": 0.75},
        {"ratio_in": 0},
        {"ratio_out": 0},
        {"ratio": 1},
        {"lfu": False},
        {"bias": False},
        {"groups": 2, "ratio": 0.5},
        {"padding_mode": ("zeros", "reflect", "replicate")},
        {"padding_mode": ("replicate", "zeros", "zeros"), "ratio": 0.5},
        {"local_to_global": False},
    ],
    ids=str,
)
@pytest.mark.parametrize("grad", [False, True])
def test_options(grad: bool, options: dict[str, Any]) -> None:
    ffc, x = layer(*SPATIAL, **options), clip()
    with torch.set_grad_enabled(grad):
        assert_near(ffc(x), exact(ffc, x))


def test_a_side_with_a_large_prime_factor() -> None:
    ffc, x = layer(), clip(2, 37, 4)
    assert_near(ffc(x), exact(ffc, x))


@pytest.mark.parametrize("geometry", [POINTWISE, STRIDED], ids=str)
@pytest.mark.parametrize("memory_format", MEMORY_FORMATS)
@pytest.mark.parametrize("ratio", [0.25, 0.75])
def test_training(ratio: float, memory_format: torch.memory_format, geometry: tuple[Any, ...]) -> None:
    ffc = layer(*geometry, ratio=ratio).train()
    assert_matches_definition(ffc, clip(memory_format=memory_format))
    assert ffc(clip(memory_format=memory_format)).is_contiguous(memory_format=memory_format)


@needs_kernels
def test_training_saves_less_than_that_of_clips() -> None:
    ffc, x = FFC3d(64, 64, 1, ratio=0.5), torch.randn(1, 64, 2, 8, 8)
    watched = copy.deepcopy(ffc)
    watched.spectral.register_forward_hook(lambda *_: None)  # pyright: ignore

    def saved(one: FFC3d) -> int:
        sizes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()), lambda _: None):
            one(x)
        return sum(sizes)

    assert saved(ffc) < 0.8 * saved(watched)


def test_second_derivatives() -> None:
    ffc, x = layer(1).train(), clip(1, 2, 3)
    exact_ffc: Any = definition(ffc)
    results = []
    for one, own in ((ffc, x), (exact_ffc, x.double())):
        inputs = [own.requires_grad_(), one.spectral.conv1.weight]  # pyright: ignore
        first = torch.autograd.grad(one(own).square().mean(), inputs, create_graph=True)
        results.append(torch.autograd.grad(sum(grad.square().sum() for grad in first), inputs))
    for found, expected in zip(*results, strict=True):
        assert_near(found, expected, 5e-4)


@pytest.mark.parametrize("grad", [False, True])
def test_hooks_see_clips(grad: bool) -> None:
    ffc, x, seen = layer(), clip(), []
    ffc.spectral.fu.register_forward_hook(lambda _, inputs, y: seen.append(y.shape))  # pyright: ignore
    with torch.set_grad_enabled(grad):
        assert_near(ffc(x), exact(ffc, x))
    assert seen[0] == (2, 3, 3, 6, 5)


def test_another_spectral_transform_is_called_with_clips() -> None:
    class OverTime(SpectralTransform):
        def forward(self, x: Tensor, *args: Any, **options: Any) -> Tensor:
            return super().forward(x.flip(2), *args, **options)

    ffc: Any = layer()
    x = clip()
    expected = ffc(x)
    ffc.spectral.__class__ = OverTime
    found = ffc(x)
    torch.testing.assert_close(found[:, :18], expected[:, :18])
    assert (found - expected)[:, 18:].abs().max() > 0.1


@pytest.mark.parametrize(
    "context", [fft_backend("torch"), FlopCounterMode(display=False)], ids=["torch", "counter"]
)
def test_plain_torch_where_it_must_run(context: Any, calls: list) -> None:
    ffc, x = layer(), clip()
    with torch.no_grad(), context:
        y = ffc(x)
    assert not calls
    assert_near(y, exact(ffc, x))


@pytest.mark.parametrize("training", [False, True])
def test_autocast(training: bool) -> None:
    ffc, x = layer().train(training), clip()
    with torch.autocast("cpu", torch.bfloat16):
        y = ffc(x)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), ffc(x), rtol=0.05, atol=0.2)


def test_transforms_of_functions() -> None:
    ffc, x = layer().double(), clip().double()
    tangent = torch.ones_like(x)
    y, derivative = torch.func.jvp(ffc, (x,), (tangent,))
    torch.testing.assert_close(y, ffc(x))
    step = 1e-6
    torch.testing.assert_close(
        derivative, (ffc(x + step * tangent) - ffc(x - step * tangent)) / (2 * step), rtol=1e-5, atol=1e-5
    )
    torch.testing.assert_close(torch.func.vmap(ffc)(torch.stack([x, 2 * x]))[1], ffc(2 * x))


def test_symbolic_trace() -> None:
    ffc, x = layer(padding_mode="reflect"), clip()
    assert_near(torch.fx.symbolic_trace(ffc)(x), exact(ffc, x))


def test_meta() -> None:
    y = layer(*STRIDED).to("meta")(clip().to("meta"))
    assert y.shape == (2, 24, 3, 3, 3)


def test_exported_graphs_have_clips_only() -> None:
    ffc, x = layer(lfu=False), clip()
    program = torch.export.export(ffc, (x,))
    convolutions = {
        str(node.target)
        for node in program.graph.nodes
        if node.op == "call_function" and "conv" in str(node.target)
    }
    assert convolutions == {"aten.conv3d.default"}
    assert_near(program.module()(x), exact(ffc, x))


@pytest.mark.slow
@pytest.mark.parametrize("training", [False, True])
def test_compiled_for_all_sizes(training: bool) -> None:
    ffc = layer(*STRIDED)
    torch._dynamo.reset()
    compiled = torch.compile(ffc, fullgraph=True, dynamic=True, backend="aot_eager")
    with torch.set_grad_enabled(training):
        for size in ((3, 8, 10), (2, 7, 6), (5, 74, 9)):
            x = clip(*size)
            assert_near(compiled(x), exact(ffc, x))


@needs_kernels
@pytest.mark.parametrize("memory_format", MEMORY_FORMATS)
def test_fused_with_its_shortcut_it_is_one_kernel(memory_format: torch.memory_format, calls: list) -> None:
    ffc, x = layer().to(memory_format=memory_format), clip(memory_format=memory_format)
    expected = exact(ffc, x)
    other = torch.randn(expected.shape).contiguous(memory_format=memory_format)
    y = fuse(Shortcut(ffc))(x, other)
    assert len(calls) == 1
    assert_near(y, nn.functional.relu(expected + other))


@pytest.mark.parametrize("other", [torch.ones(2, 24, 1, 6, 5), torch.ones(1, 1), 3])
def test_the_residual_of_a_fused_layer_is_broadcast(other: Any) -> None:
    ffc, x = layer(), clip()
    assert_near(fuse(Shortcut(ffc))(x, other), nn.functional.relu(exact(ffc, x) + other))


def test_a_residual_of_another_number_of_clips_with_as_many_frames_is_broadcast() -> None:
    ffc, x = layer(), clip(1, 6, 5, number=2)
    other = torch.arange(2.0).reshape(1, 1, 2, 1, 1).expand(1, 24, 2, 6, 5)
    assert_near(fuse(Sum(ffc))(x, other), exact(ffc, x) + other)


@pytest.mark.parametrize("fused", [False, True])
def test_an_image_is_no_clip(fused: bool) -> None:
    ffc: Any = layer()
    network = fuse(nn.Sequential(ffc)) if fused else ffc
    with (
        torch.no_grad(),
        pytest.raises((ValueError, RuntimeError), match=r"must have shape \(N, 16, T, H, W\)|Expected 4D"),
    ):
        network(torch.zeros(2, 16, 6))


def test_a_clip_is_no_image() -> None:
    with torch.no_grad(), pytest.raises(RuntimeError, match="input"):
        FFC2d(16, 24, 3, padding=1).eval()(clip())
