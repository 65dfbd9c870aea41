"""A whole FFC in inference by one call of the compiled library, against its parts one by one."""

from __future__ import annotations

import copy
import functools
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ffconv.nn import FFC2d, SpectralTransform, native, fft_backend
from ffconv.surgery import fuse
from single_ffc import CHANNELS, Shortcut, by_parts, image, layer, layer_that_stays_ready

pytestmark = pytest.mark.skipif(not native.available(), reason="no C++ compiler on this machine")


@pytest.mark.parametrize(
    "geometry",
    [
        (1,),
        (3, 1, 1),
        (3, 2, 1),
        (1, 2),
        (5, 1, 2),
        (3, 1, 2, 2),
        ((3, 1), 1, (1, 0)),
        ((2, 4), (1, 2), 1),
        (3, 1, 3),
    ],
    ids=str,
)
@pytest.mark.parametrize("size", [(14, 14), (7, 9), (5, 12), (30, 31)], ids=str)
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_geometries(
    memory_format: torch.memory_format, size: tuple[int, int], geometry: tuple[Any, ...], calls: list
) -> None:
    ffc, x = layer(*geometry).to(memory_format=memory_format), image(*size)
    with torch.no_grad():
        y = ffc(x)
    assert len(calls) == 1
    assert y.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(y, by_parts(ffc, x), atol=1e-11, rtol=1e-11)


@pytest.mark.parametrize(
    "options",
    [
        {"ratio": 0.75},
        {"ratio_in": 1.0, "ratio_out": 0.5},
        {"ratio_in": 0.5, "ratio_out": 1.0},
        {"local_to_global": False},
        {"global_to_local": False},
        {"lfu": False},
        {"bias": False},
        {"padding_mode": "reflect"},
        {"padding_mode": "circular"},
    ],
    ids=str,
)
@pytest.mark.parametrize("channels", [CHANNELS, (24, 128)])
def test_options(channels: tuple[int, int], options: dict[str, Any], calls: list) -> None:
    ffc, x = layer(3, 1, 1, channels=channels, **options), image(8, 6)
    with torch.no_grad():
        y = ffc(x)
    assert len(calls) == 1
    torch.testing.assert_close(y, by_parts(ffc, x), atol=1e-11, rtol=1e-11)


@pytest.mark.filterwarnings("ignore:Using padding='same'")  # torch's own, of the parts
def test_same_padding_of_an_even_kernel(calls: list) -> None:
    ffc, x = layer((2, 4), padding="same"), image(9, 8)
    with torch.no_grad():
        y = ffc(x)
    assert len(calls) == 1
    torch.testing.assert_close(y, by_parts(ffc, x))


@pytest.mark.usefixtures("three_threads")
@pytest.mark.parametrize("number", [1, 4])
@pytest.mark.parametrize("kernel", [1, 3])
def test_threads_share_images_and_the_last_ones(kernel: int, number: int) -> None:
    ffc, x = layer(kernel, 1, kernel // 2), image(13, 10, number=number)
    with torch.no_grad():
        torch.testing.assert_close(ffc(x), by_parts(ffc, x))


def test_float32() -> None:
    ffc, x = layer(3, 1, 1), image(14, 14)
    with torch.no_grad():
        torch.testing.assert_close(
            ffc.float()(x.float()), by_parts(ffc.double(), x).float(), atol=1e-5, rtol=1e-5
        )


@pytest.mark.parametrize("make", [layer_that_stays_ready, functools.partial(layer, 3, 1, 1)])
def test_what_changes_a_layer_is_followed(make: Callable[[], FFC2d], calls: list) -> None:
    ffc, x = make(), image(8, 8)
    with torch.no_grad():
        ffc(x)
        ffc.weight_l2l.data.mul_(2)  # pyright: ignore[reportOptionalMemberAccess]
        ffc.spectral.fu.bn.running_var.add_(1)  # pyright: ignore[reportOptionalMemberAccess]
        torch.testing.assert_close(ffc(x), by_parts(ffc, x))
        ffc.weight_g2l = nn.Parameter(torch.ones_like(ffc.weight_g2l))  # pyright: ignore
        torch.testing.assert_close(ffc(x), by_parts(ffc, x))
        ffc.weight_l2g.data = ffc.weight_l2g.data.clone(memory_format=torch.channels_last)  # pyright: ignore
        torch.testing.assert_close(ffc(x), by_parts(ffc, x))
        ffc.weight_l2l.data = ffc.weight_l2l.data.transpose(2, 3)  # pyright: ignore
        torch.testing.assert_close(ffc(x), by_parts(ffc, x))
    assert len(calls) == 5


def test_copies_and_pickles() -> None:
    ffc, x = layer(3, 1, 1), image(8, 8)
    with torch.no_grad():
        y = ffc(x)
        for other in (copy.deepcopy(ffc), pickle.loads(pickle.dumps(ffc))):
            ffc.weight_l2l.mul_(1)  # pyright: ignore[reportOptionalMemberAccess]
            torch.testing.assert_close(other(x), y, atol=0, rtol=0)


def test_calls_of_several_threads_at_a_time() -> None:
    ffc = fuse(nn.Sequential(layer(3, 1, 1)))
    maps = [image(size, 8) for size in (6, 8, 10)] * 4
    with torch.no_grad():
        expected = [ffc(x) for x in maps]

    def run(x: Tensor) -> Tensor:
        with torch.no_grad():
            return ffc(x)

    with ThreadPoolExecutor(3) as pool:
        for y, known in zip(pool.map(run, maps), expected, strict=True):
            torch.testing.assert_close(y, known, atol=0, rtol=0)


@pytest.mark.parametrize("ready", [False, True])
@pytest.mark.parametrize("reason", ["gradients", "training", "contiguous", "hook", "inner hook", "prime"])
def test_otherwise_the_parts_are_called(reason: str, ready: bool, calls: list) -> None:
    ffc, x = layer_that_stays_ready(), image(8, 37 if reason == "prime" else 8)
    spectral: Any = ffc.spectral
    seen: list[str] = []
    with torch.no_grad():
        if ready:
            ffc(image(8, 8))
        calls.clear()
        for module in {"hook": [spectral], "inner hook": [spectral.fu.bn, spectral.lfu]}.get(reason, []):
            module.register_forward_hook(lambda *_: seen.append("hook"))
        if reason == "contiguous":
            x = x.contiguous()
        ffc.train(reason == "training")
    with torch.set_grad_enabled(reason == "gradients"):
        for _ in range(2):
            ffc(x)
    assert not calls
    assert len(seen) == {"hook": 2, "inner hook": 4}.get(reason, 0)


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("mode", ["autocast", "counter", "engine", "vmap"])
def test_a_layer_that_is_ready_follows_what_is_asked_for(mode: str, keep: bool, calls: list) -> None:
    ffc, x = layer_that_stays_ready(), image(8, 8)
    network: Any = fuse(nn.Sequential(ffc)) if keep else ffc
    contexts: dict[str, Any] = {
        "autocast": torch.autocast("cpu", torch.bfloat16),
        "counter": FlopCounterMode(display=False),
        "engine": fft_backend("fft"),
        "vmap": nullcontext(),
    }
    with torch.no_grad():
        network(x)
        calls.clear()
        with contexts[mode]:
            torch.func.vmap(network)(x[None]) if mode == "vmap" else network(x)
    assert not calls


@pytest.mark.parametrize("keep", [False, True])
def test_a_norm_that_trains_again_is_followed(keep: bool, calls: list) -> None:
    ffc, x = layer_that_stays_ready(), image(8, 8)
    network: Any = fuse(nn.Sequential(ffc)) if keep else ffc
    with torch.no_grad():
        network(x)
        network.train()
        network(x)
    assert len(calls) == 1


def test_a_module_in_the_place_of_another_is_called() -> None:
    ffc, x = layer_that_stays_ready(), image(8, 8)
    spectral: Any = ffc.spectral
    with torch.no_grad():
        ffc(x)
        spectral.fu.conv = copy.deepcopy(spectral.fu.conv)
        spectral.fu.conv.weight.mul_(2)
        torch.testing.assert_close(ffc(x), by_parts(ffc, x))
        del spectral.lfu
        spectral.lfu = None
        torch.testing.assert_close(ffc(x), by_parts(ffc, x))


def test_another_spectral_transform_is_called(calls: list) -> None:
    class Doubled(SpectralTransform):
        def forward(self, x: Tensor, onto: Tensor | None = None) -> Tensor:
            return super().forward(x, onto) * 2

    ffc, x = layer(3, 1, 1), image(8, 8)
    y = by_parts(ffc, x)
    ffc.spectral.__class__ = Doubled
    with torch.no_grad():
        torch.testing.assert_close(ffc(x), 2 * y)
    assert not calls


def test_a_counter_of_operations_sees_the_convolution() -> None:
    ffc, x = layer(3, 1, 1, lfu=False), image(8, 8)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        ffc(x)
    assert counter.get_total_flops() > 2 * x.shape[0] * 8 * 8 * 9 * CHANNELS[0] * CHANNELS[1]


@pytest.mark.parametrize(
    ("kernel", "size", "expected"), [(5, (31, 32), 1), (5, (32, 32), 0), (3, (32, 32), 1)]
)
def test_large_weights_for_large_maps_are_left_to_torch_but_for_tiles(
    kernel: int, size: tuple[int, int], expected: int, calls: list
) -> None:
    ffc = layer(kernel, 1, kernel // 2, channels=(24, 2048), ratio_out=0)
    with torch.no_grad():
        ffc(image(*size, number=1))
    assert len(calls) == expected


@pytest.mark.parametrize("ratios", [(0, 0.25), (0.25, 0), (0, 0), (1, 0), (0, 1)], ids=str)
@pytest.mark.parametrize("number", [1, 2, 4])
@pytest.mark.parametrize("height", [11, 61])
@pytest.mark.usefixtures("three_threads")
def test_without_a_spectral_transform(
    height: int, number: int, ratios: tuple[float, float], calls: list
) -> None:
    ffc, x = layer(3, 2, 1, ratio_in=ratios[0], ratio_out=ratios[1]), image(height, 37, number=number)
    other = torch.ones(number, CHANNELS[1], (height + 1) // 2, 19, dtype=x.dtype)
    other = other.to(memory_format=torch.channels_last)
    with torch.no_grad():
        torch.testing.assert_close(ffc(x), by_parts(ffc, x))
    torch.testing.assert_close(fuse(Shortcut(ffc))(x, other), nn.functional.relu(by_parts(ffc, x) + other))
    assert len(calls) == 2


def test_of_another_type_the_parts_are_called(calls: list) -> None:
    ffc, x = layer(3, 1, 1, ratio_out=0).bfloat16(), image(8, 8).bfloat16()
    with torch.no_grad():
        ffc(x)
    assert not calls


@pytest.mark.parametrize("channels", [20, 30])
@pytest.mark.parametrize("ratio_in", [0, 0.25, 1])
@pytest.mark.parametrize("keep", [False, True])
def test_a_map_of_other_channels_is_refused_as_by_a_convolution(
    keep: bool, ratio_in: float, channels: int
) -> None:
    ffc, x = layer(3, 1, 1, ratio_in=ratio_in), image(8, 8)
    network: Any = fuse(nn.Sequential(ffc)) if keep else ffc
    other = x.new_zeros(2, channels, 8, 8).to(memory_format=torch.channels_last)
    with torch.no_grad():
        network(x)
        with pytest.raises(RuntimeError, match="channels"):
            network(other)


def test_a_map_too_small_is_refused_as_by_a_convolution() -> None:
    with torch.no_grad(), pytest.raises(RuntimeError, match=r"[Kk]ernel size"):
        layer(3, 2)(image(2, 8))


def test_compiled_for_all_sizes() -> None:
    ffc = layer(3, 2, 1)
    torch._dynamo.reset()
    compiled = torch.compile(ffc, fullgraph=True, dynamic=True, backend="aot_eager")
    with torch.no_grad():
        for size in ((8, 10), (73, 6), (9, 9)):  # the second one's output has a side of 37
            x = image(*size)
            torch.testing.assert_close(compiled(x), by_parts(ffc, x))
