"""FFC3d that leaves time alone: its frames are computed as images."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import oracles
from ffconv.nn import FFC2d, FFC3d, SpectralTransform, native, fft_backend
from ffconv.surgery import fuse
from single_ffc import Shortcut, Sum

needs_library = pytest.mark.skipif(not native.available(), reason="no C++ compiler on this machine")

POINTWISE, SPATIAL, STRIDED = (1,), ((1, 3, 3), 1, (0, 1, 1)), ((1, 3, 3), (1, 2, 2), (0, 1, 1))
LAST = torch.channels_last_3d
CLOSE = {"rtol": 1e-10, "atol": 1e-10}


def layer(*geometry: Any, **options: Any) -> FFC3d:
    torch.manual_seed(0)
    ffc = FFC3d(16, 24, *(geometry or SPATIAL), **{"ratio": 0.25, **options}).double().eval()
    oracles.randomise_norms(ffc)
    if ffc.bias is not None:
        nn.init.normal_(ffc.bias)
    return ffc


def clip(*size: int, number: int = 2, memory_format: torch.memory_format = LAST) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(number, 16, *(size or (3, 6, 5)), dtype=torch.float64, generator=generator)
    return x.contiguous(memory_format=memory_format)


def of_clips(ffc: FFC3d) -> FFC3d:
    """A copy whose parts are called with clips, since somebody looks on."""
    other = copy.deepcopy(ffc)
    assert other.spectral is not None
    other.spectral.register_forward_hook(lambda *_: None)
    return other


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
def test_what_leaves_time_alone(geometry: tuple[Any, ...], expected: bool) -> None:
    assert layer(*geometry).is_framewise == expected


@pytest.mark.parametrize("dims", [("t", "h", "w"), ("w",), ("t", "w")])
def test_what_transforms_other_axes_does_not(dims: tuple[str, ...]) -> None:
    assert not layer(1, spectral_dims=dims).is_framewise


@needs_library
@pytest.mark.parametrize("geometry", [POINTWISE, SPATIAL, STRIDED, ((1, 2, 3), 1, "valid")], ids=str)
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, LAST])
@pytest.mark.parametrize("size", [(3, 6, 5), (1, 8, 8)], ids=str)
def test_inference_is_one_call(
    size: tuple[int, ...], memory_format: torch.memory_format, geometry: tuple[Any, ...], calls: list
) -> None:
    ffc, x = layer(*geometry).to(memory_format=memory_format), clip(*size, memory_format=memory_format)
    with torch.no_grad():
        y = ffc(x)
    frames = tuple(x.transpose(1, 2).flatten(0, 1).shape)
    assert calls == [frames]
    assert y.is_contiguous(memory_format=memory_format)
    torch.testing.assert_close(y, oracles.ffc(ffc, x), **CLOSE)


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
        torch.testing.assert_close(ffc(x), oracles.ffc(ffc, x), **CLOSE)


def test_a_side_that_the_library_does_not_transform() -> None:
    ffc, x = layer(), clip(2, 37, 4)
    torch.testing.assert_close(ffc(x), oracles.ffc(ffc, x), **CLOSE)


@pytest.mark.parametrize("geometry", [POINTWISE, STRIDED], ids=str)
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, LAST])
@pytest.mark.parametrize("ratio", [0.25, 0.75])
def test_training(ratio: float, memory_format: torch.memory_format, geometry: tuple[Any, ...]) -> None:
    ffc = layer(*geometry, ratio=ratio).train()
    other = of_clips(ffc)
    grads, values = [], []
    for one in (ffc, other):
        x = clip(memory_format=memory_format).requires_grad_()
        y = one(x)
        values.append(y)
        grads.append(torch.autograd.grad(y.square().sum(), [x, *one.parameters()]))
    assert values[0].is_contiguous(memory_format=memory_format)
    torch.testing.assert_close(values[0], values[1], **CLOSE)
    torch.testing.assert_close(grads[0], grads[1], **CLOSE)
    torch.testing.assert_close(dict(ffc.named_buffers()), dict(other.named_buffers()), **CLOSE)


@needs_library
def test_training_keeps_what_that_of_images_keeps() -> None:
    """Beside x and the weights what the norms read, a third of what the parts keep when called with clips."""
    ffc = layer(1, ratio=0.75).train()

    def saved(one: FFC3d) -> int:
        sizes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()), lambda _: None):
            one(clip())
        return sum(sizes)

    assert saved(ffc) < 0.8 * saved(of_clips(ffc))


def test_second_derivatives() -> None:
    ffc, x = layer(1).train(), clip(1, 2, 3).requires_grad_()
    for norm in ffc.modules():
        if isinstance(norm, nn.BatchNorm3d):
            norm.momentum = 0.0
    weight = ffc.spectral.fu.conv.weight  # pyright: ignore[reportOptionalMemberAccess]
    other = of_clips(ffc)
    found, expected = [], []
    for one, grads in ((ffc, found), (other, expected)):
        weight = one.spectral.conv1.weight  # pyright: ignore[reportOptionalMemberAccess]
        first = torch.autograd.grad(one(x).square().sum(), [x, weight], create_graph=True)
        grads += torch.autograd.grad(sum(grad.square().sum() for grad in first), [x, weight])
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("grad", [False, True])
def test_who_looks_inside_sees_clips(grad: bool) -> None:
    ffc, x, seen = layer(), clip(), []
    ffc.spectral.fu.register_forward_hook(lambda _, inputs, y: seen.append(y.shape))  # pyright: ignore
    with torch.set_grad_enabled(grad):
        torch.testing.assert_close(ffc(x), oracles.ffc(ffc, x), **CLOSE)
    assert seen == [(2, 3, 3, 6, 5)]


def test_another_spectral_transform_is_called_with_clips() -> None:
    class OverTime(SpectralTransform):
        def forward(self, x: Tensor, onto: Tensor | None = None) -> Tensor:
            return super().forward(x.flip(2), onto)

    ffc, x = layer(), clip()
    expected = ffc(x)
    ffc.spectral.__class__ = OverTime
    found = ffc(x)
    torch.testing.assert_close(found[:, :18], expected[:, :18])
    assert (found - expected)[:, 18:].abs().max() > 0.1


@pytest.mark.parametrize(
    "context", [fft_backend("fft"), FlopCounterMode(display=False)], ids=["fft", "counter"]
)
def test_by_operations(context: Any, calls: list) -> None:
    ffc, x = layer(), clip()
    with torch.no_grad(), context:
        y = ffc(x)
    assert not calls
    torch.testing.assert_close(y, oracles.ffc(ffc, x), **CLOSE)


@pytest.mark.parametrize("training", [False, True])
def test_autocast(training: bool) -> None:
    ffc, x = layer().float().train(training), clip().float()
    with torch.autocast("cpu", torch.bfloat16):
        y = ffc(x)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), ffc(x), rtol=0.05, atol=0.2)


def test_transforms_of_functions() -> None:
    ffc, x = layer(), clip()
    tangent = torch.ones_like(x)
    y, derivative = torch.func.jvp(ffc, (x,), (tangent,))
    torch.testing.assert_close(y, ffc(x), **CLOSE)
    step = 1e-6
    torch.testing.assert_close(
        derivative, (ffc(x + step * tangent) - ffc(x - step * tangent)) / (2 * step), rtol=1e-5, atol=1e-5
    )
    torch.testing.assert_close(torch.func.vmap(ffc)(torch.stack([x, 2 * x]))[1], ffc(2 * x), **CLOSE)


def test_traced() -> None:
    ffc, x = layer(padding_mode="reflect"), clip()
    torch.testing.assert_close(torch.fx.symbolic_trace(ffc)(x), ffc(x), **CLOSE)


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
    torch.testing.assert_close(program.module()(x), ffc(x), **CLOSE)


@pytest.mark.parametrize("training", [False, True])
def test_compiled_for_all_sizes(training: bool) -> None:
    ffc = layer(*STRIDED)
    torch._dynamo.reset()
    compiled = torch.compile(ffc, fullgraph=True, dynamic=True, backend="aot_eager")
    with torch.set_grad_enabled(training):
        for size in ((3, 8, 10), (2, 7, 6), (5, 74, 9)):
            x = clip(*size)
            torch.testing.assert_close(compiled(x), ffc(x), **CLOSE)


@needs_library
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, LAST])
def test_prepared_with_its_shortcut_it_is_one_call(memory_format: torch.memory_format, calls: list) -> None:
    ffc, x = layer().to(memory_format=memory_format), clip(memory_format=memory_format)
    other = torch.randn_like(oracles.ffc(ffc, x)).contiguous(memory_format=memory_format)
    y = fuse(Shortcut(ffc))(x, other)
    assert len(calls) == 1
    torch.testing.assert_close(y, nn.functional.relu(oracles.ffc(ffc, x) + other), **CLOSE)


@pytest.mark.parametrize("other", [torch.ones(2, 24, 1, 6, 5).double(), torch.ones(1, 1).double(), 3])
def test_what_is_added_in_a_prepared_layer_may_be_less_than_a_clip(other: Any) -> None:
    ffc, x = layer(), clip()
    expected = oracles.ffc(ffc, x)
    torch.testing.assert_close(fuse(Shortcut(ffc))(x, other), nn.functional.relu(expected + other), **CLOSE)


def test_as_many_frames_of_another_number_of_clips_are_added_by_torchs_rules() -> None:
    ffc, x = layer(), clip(1, 6, 5, number=2)
    other = torch.arange(2.0, dtype=torch.float64).reshape(1, 1, 2, 1, 1).expand(1, 24, 2, 6, 5)
    torch.testing.assert_close(fuse(Sum(ffc))(x, other), oracles.ffc(ffc, x) + other, **CLOSE)


@pytest.mark.parametrize("prepared", [False, True])
def test_an_image_is_no_clip(prepared: bool) -> None:
    ffc: Any = layer()
    network = fuse(nn.Sequential(ffc)) if prepared else ffc
    with (
        torch.no_grad(),
        pytest.raises((ValueError, RuntimeError), match=r"must have \(N, C, T, H, W\)|expected input"),
    ):
        network(clip()[:, :, 0])


def test_a_clip_is_no_image() -> None:
    with torch.no_grad(), pytest.raises(RuntimeError, match="input"):
        FFC2d(16, 24, 3, padding=1).double().eval()(clip())
