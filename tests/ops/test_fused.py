"""The Spectral Transform as one function against its modules one by one."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from ffconv.nn import FFC2d, FourierUnit, LocalFourierUnit, SpectralTransform, fused, native

pytestmark = pytest.mark.skipif(not native.available(), reason="no C++ compiler on this machine")


def transform(channels: int = 8, *, lfu: bool = True, train: bool = True) -> SpectralTransform:
    torch.manual_seed(0)
    module = SpectralTransform(channels, 2 * channels, lfu=lfu).double().train(train)
    for name, tensor in [*module.named_buffers(), *module.named_parameters()]:
        if "bn" in name and tensor.is_floating_point():
            nn.init.uniform_(tensor, 0.5, 1.5)
    return module


def image(channels: int, size: tuple[int, int]) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(3, channels, *size, dtype=torch.float64, generator=generator)


def loss_of(y: Tensor) -> Tensor:
    return (y * torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)).sum()


def results(module: nn.Module, x: Tensor) -> list[Tensor | None]:
    """Output, gradients and what the norms have become."""
    module, x = copy.deepcopy(module), x.clone().requires_grad_()
    y = module(x)
    loss_of(y).backward()
    return [y.detach(), x.grad, *(p.grad for p in module.parameters()), *module.buffers()]


def both_ways(
    module: nn.Module, x: Tensor, monkeypatch: pytest.MonkeyPatch
) -> tuple[list[Tensor | None], list[Tensor | None]]:
    at_once = results(module, x)
    monkeypatch.setattr(fused, "suits", lambda x, *, local: False)
    return at_once, results(module, x)


def refused(x: Tensor, onto: Tensor | None, layers: object, weight: Tensor | None) -> None:
    """In the place of the one function; a Fourier Unit alone may ask for it."""
    if weight is not None:
        pytest.fail("ran at once")


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("lfu", [True, False])
@pytest.mark.parametrize("size", [(6, 6), (7, 6), (6, 5), (9, 7), (1, 8)])
def test_values_gradients_and_statistics(
    size: tuple[int, int], lfu: bool, train: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = transform(lfu=lfu, train=train)
    at_once, one_by_one = both_ways(module, image(8, size), monkeypatch)
    for ours, expected in zip(at_once, one_by_one, strict=True):
        torch.testing.assert_close(ours, expected, atol=1e-11, rtol=1e-9)


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("unit", [FourierUnit, LocalFourierUnit])
@pytest.mark.parametrize("channels", [4, 24])
@pytest.mark.parametrize("size", [(6, 6), (7, 5), (1, 9)])
def test_a_unit_alone(
    size: tuple[int, int],
    channels: int,
    unit: type[FourierUnit],
    train: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(0)
    module = unit(channels, channels).double().train(train)
    nn.init.uniform_(module.bn.running_mean)
    at_once, one_by_one = both_ways(module, image(channels, size), monkeypatch)
    for ours, expected in zip(at_once, one_by_one, strict=True):
        torch.testing.assert_close(ours, expected, atol=1e-11, rtol=1e-9)


def test_a_unit_alone_without_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    module, x = FourierUnit(20, 20).double().eval(), image(23, (7, 6))[:, 3:]
    with torch.no_grad():
        at_once = module(x)
        monkeypatch.setattr(fused, "suits", lambda x, *, local: False)
        torch.testing.assert_close(at_once, module(x))


def test_a_unit_of_fewer_channels_out_than_in() -> None:
    assert FourierUnit(6, 4).double()(image(6, (6, 6))).shape == (3, 4, 6, 6)


@pytest.mark.parametrize("ratio", [0.25, 1.0])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_in_a_convolution(
    memory_format: torch.memory_format, ratio: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    ffc = FFC2d(16, 24, 3, stride=2, padding=1, ratio=ratio).double()
    x = image(16, (10, 9)).contiguous(memory_format=memory_format)
    for ours, expected in zip(*both_ways(ffc, x, monkeypatch), strict=True):
        torch.testing.assert_close(ours, expected, atol=1e-11, rtol=1e-9)


def test_cumulative_average_of_a_norm(monkeypatch: pytest.MonkeyPatch) -> None:
    module = transform()
    module.bn1.momentum = None
    module(image(8, (6, 6)))
    at_once, one_by_one = both_ways(module, image(8, (6, 6)), monkeypatch)
    torch.testing.assert_close(at_once[-14:], one_by_one[-14:])


def test_gradient_of_a_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    def second(module: nn.Module, x: Tensor) -> tuple[Tensor, ...]:
        x = x.clone().requires_grad_()
        first = torch.autograd.grad(loss_of(module(x)), [x, *module.parameters()], create_graph=True)
        return torch.autograd.grad(
            torch.stack([grad.square().sum() for grad in first]).sum(), [x, *module.parameters()]
        )

    module, x = transform(), image(8, (7, 6))
    at_once = second(module, x)
    monkeypatch.setattr(fused, "suits", lambda x, *, local: False)
    for ours, expected in zip(at_once, second(module, x), strict=True):
        torch.testing.assert_close(ours, expected)


def test_nan_is_not_hidden() -> None:
    module, x = transform(train=False), image(8, (6, 6))
    x[0, 0, 0, 0] = float("nan")
    y = module(x)
    assert y[0].isnan().all()
    assert not y[1:].isnan().any()


def test_hooks_of_inner_modules_are_called() -> None:
    module, seen = transform(), []
    module.fu.bn.register_forward_hook(lambda *_: seen.append("bn"))
    module(image(8, (6, 6)))
    assert seen == ["bn"]


def test_saves_less_than_its_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    def saved(module: nn.Module, x: Tensor) -> int:
        storages: dict[int, int] = {}

        def pack(tensor: Tensor) -> Tensor:
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            y = module(x)
        assert y.requires_grad
        return sum(storages.values())

    module, x = transform(32), image(32, (32, 32)).requires_grad_()
    at_once = saved(module, x)
    monkeypatch.setattr(fused, "suits", lambda x, *, local: False)
    assert at_once < 0.6 * saved(module, x)


@pytest.mark.parametrize(
    "change",
    [
        lambda module: module.fu.register_forward_pre_hook(lambda *_: None),
        lambda module: nn.utils.parametrizations.weight_norm(module.conv2),
        lambda module: module.fu.conv.register_full_backward_hook(lambda *_: None),
        nn.SyncBatchNorm.convert_sync_batchnorm,
    ],
    ids=["hook", "parametrised", "backward hook", "other norms"],
)
def test_changed_modules_run_one_by_one(change, monkeypatch: pytest.MonkeyPatch) -> None:
    module, x = transform(train=False), image(8, (6, 6))
    expected = module(x)
    change(module)
    monkeypatch.setattr(fused, "spectral_transform", refused)
    torch.testing.assert_close(module(x), expected)


def test_a_convolution_with_bias_keeps_its_bias() -> None:
    module, x = transform(train=False), image(8, (6, 6))
    expected = module(x) + 1
    with_bias = nn.Conv2d(8, 16, 1).double()
    with_bias.weight = module.conv2.weight
    nn.init.ones_(with_bias.bias)
    module.conv2 = with_bias
    torch.testing.assert_close(module(x), expected)


def test_norms_without_affine_parameters() -> None:
    module, x = transform(), image(8, (6, 6))
    module.bn1 = nn.BatchNorm2d(8, affine=False).double()
    assert module(x).isfinite().all()


def test_a_norm_told_to_leave_its_statistics(monkeypatch: pytest.MonkeyPatch) -> None:
    module = transform()
    module.bn1.track_running_stats = False
    for ours, expected in zip(*both_ways(module, image(8, (6, 6)), monkeypatch), strict=True):
        torch.testing.assert_close(ours, expected, atol=1e-11, rtol=1e-9)


def test_autocast_transforms_in_float32() -> None:
    module, x = transform().float().eval(), image(8, (6, 6)).float()
    with torch.no_grad():
        expected = module(x)
        with torch.autocast("cpu", torch.bfloat16):
            y = module(x)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y, expected.bfloat16(), rtol=1e-2, atol=1e-3)
