"""A prepared FFC by one call of the compiled library: weights that stay packed, additions, ReLUs."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ffconv.nn import native
from ffconv.surgery import fuse
from single_ffc import CHANNELS, Shortcut, by_parts, image, layer

pytestmark = pytest.mark.skipif(not native.available(), reason="no C++ compiler on this machine")


class TestKeptWeights:
    """Of networks prepared for inference."""

    @pytest.mark.parametrize("ratio", [0.25, 0.75])
    def test_values(self, ratio: float, calls: list) -> None:
        ffc, x = layer(3, 1, 1, ratio=ratio), image(8, 8)
        fused = fuse(nn.Sequential(ffc))
        for _ in range(2):
            torch.testing.assert_close(fused(x), by_parts(ffc, x))
        assert len(calls) == 2

    @pytest.mark.parametrize("assign", [False, True])
    def test_they_follow_what_is_loaded(self, assign: bool) -> None:
        ffc, x = layer(3, 1, 1), image(8, 8)
        fused = fuse(nn.Sequential(ffc))
        fused(x)
        with torch.no_grad():
            ffc.weight_l2g.mul_(3)  # pyright: ignore[reportOptionalMemberAccess]
            ffc.spectral.fu.conv.weight.mul_(2)  # pyright: ignore[reportOptionalMemberAccess]
        fused.load_state_dict(fuse(nn.Sequential(ffc)).state_dict(), assign=assign)
        torch.testing.assert_close(fused(x), by_parts(ffc, x))

    def test_they_follow_what_is_written(self) -> None:
        ffc, x = layer(3, 1, 1), image(8, 8)
        fused = fuse(nn.Sequential(ffc))
        fused(x)
        with torch.no_grad():
            for module in (ffc, next(iter(fused.children()))):
                spectral: Any = module.spectral
                spectral.conv2.weight.mul_(2)
                spectral.lfu.bn.running_mean.add_(1)
        torch.testing.assert_close(fused(x), by_parts(ffc, x))

    def test_they_follow_what_is_done_to_all_tensors(self) -> None:
        ffc, x = layer(3, 1, 1), image(8, 8)
        fused = fuse(nn.Sequential(ffc))
        fused(x)
        for module in (ffc, fused):
            module._apply(lambda tensor: 1.5 * tensor)
        torch.testing.assert_close(fused(x), by_parts(ffc, x))

    def test_a_hook_is_called(self, calls: list) -> None:
        fused: Any = fuse(nn.Sequential(layer(3, 1, 1)))
        fused(image(8, 8))
        seen: list[str] = []
        next(fused.children()).spectral.fu.register_forward_hook(lambda *_: seen.append("hook"))
        for _ in range(2):
            fused(image(8, 8))
        assert seen == ["hook", "hook"]
        assert len(calls) == 1

    def test_they_follow_sizes_and_types(self) -> None:
        ffc, x, smaller = layer(3, 1, 1), image(8, 8), image(6, 5)
        fused = fuse(nn.Sequential(ffc))
        for y in (x, smaller, x):
            torch.testing.assert_close(fused(y), by_parts(ffc, y))
        torch.testing.assert_close(fused.float()(x.float()), by_parts(ffc, x).float(), atol=1e-5, rtol=1e-5)

    @pytest.mark.parametrize("copied", [copy.deepcopy, lambda network: pickle.loads(pickle.dumps(network))])
    def test_copies_keep_them_too(self, copied: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        made: list[bool] = []

        class Counted(native.Convolution):
            def __init__(self, *arguments: Any, keep_packed: bool, **options: Any) -> None:
                made.append(keep_packed)
                super().__init__(*arguments, keep_packed=keep_packed, **options)

        fused, x = copied(fuse(nn.Sequential(layer(3, 1, 1)))), image(8, 8)
        monkeypatch.setattr(native, "Convolution", Counted)
        for _ in range(2):
            fused(x)
        assert made == [True]

    def test_made_in_inference_mode_they_are_packed_each_time(self) -> None:
        x = image(8, 8)
        with torch.inference_mode():
            ffc = layer(3, 1, 1)
            fused = fuse(nn.Sequential(ffc))
            fused(x)
            for other in (ffc, next(iter(fused.children()))):
                other.spectral.conv2.weight.mul_(2)  # pyright: ignore
            torch.testing.assert_close(fused(x), by_parts(ffc, x))


@pytest.mark.parametrize("relu", [nn.ReLU(), nn.ReLU(inplace=True)])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("channels", [CHANNELS, (24, 128)])
def test_a_fused_relu(channels: tuple[int, int], memory_format: torch.memory_format, relu: nn.Module) -> None:
    ffc, x = layer(3, 1, 1, channels=channels), image(8, 8).contiguous(memory_format=memory_format)
    fused = fuse(nn.Sequential(ffc, nn.BatchNorm2d(channels[1]).double().eval(), relu))
    assert len(list(fused.children())) == 1
    expected = nn.functional.relu(by_parts(ffc, x) / (1 + 1e-5) ** 0.5)
    torch.testing.assert_close(fused(x), expected)


def test_a_relu_beside_another_reader_is_not_fused() -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.ffc = layer(1)
            self.relu = nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            y = self.ffc(x)
            return self.relu(y) + y

    network, x = Both(), image(8, 8)
    y = by_parts(network.ffc, x)
    torch.testing.assert_close(fuse(network)(x), y.relu() + y)


@pytest.mark.usefixtures("three_threads")
@pytest.mark.parametrize("number", [1, 3])
@pytest.mark.parametrize("channels", [CHANNELS, (24, 128), (24, 24)])
@pytest.mark.parametrize("size", [(8, 6), (30, 28)])
def test_a_fused_addition(size: tuple[int, int], channels: tuple[int, int], number: int, calls: list) -> None:
    ffc, x = layer(3, 1, 1, channels=channels), image(*size, number=number)
    other = torch.randn(number, channels[1], *size, dtype=x.dtype).to(memory_format=torch.channels_last)
    before = other.clone()
    y = fuse(Shortcut(ffc))(x, other)
    assert len(calls) == 1
    torch.testing.assert_close(y, nn.functional.relu(by_parts(ffc, x) + other), atol=1e-11, rtol=1e-11)
    assert torch.equal(other, before)


@pytest.mark.parametrize("kind", ["contiguous", "one channel", "float32", "number"])
def test_an_addition_to_which_the_call_does_not_apply(kind: str) -> None:
    ffc, x = layer(3, 1, 1), image(8, 6)
    torch.manual_seed(2)
    other: Any = torch.randn(2, CHANNELS[1], 8, 6).double()
    if kind == "one channel":
        other = other[:, :1]
    if kind == "float32":
        other = other.float().to(memory_format=torch.channels_last)
    if kind == "number":
        other = 3
    expected = nn.functional.relu(by_parts(ffc, x) + other)
    torch.testing.assert_close(fuse(Shortcut(ffc))(x, other), expected)
