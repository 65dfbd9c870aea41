"""Nothing overflows in float16 for maps of 512 x 512 pixels with values up to 10 000."""

from __future__ import annotations

import copy

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector

from ffconv.models.lama_layers import FourierOptions, LamaFourierUnit
from ffconv.nn import FFC2d, FourierUnit, LocalFourierUnit, SpectralTransform

SIDE, LARGEST = 512, 1e4
MAPS = ("nearly constant", "random", "checkerboard")


def image(kind: str, channels: int) -> Tensor:
    """Maps whose energy lies in the constant coefficient, in all of them, and in the highest one."""
    if kind == "nearly constant":
        return torch.empty(1, channels, SIDE, SIDE).uniform_(0.9 * LARGEST, LARGEST)
    if kind == "random":
        return torch.empty(1, channels, SIDE, SIDE).uniform_(-LARGEST, LARGEST)
    row = torch.arange(SIDE)
    signs = 1.0 - 2.0 * ((row[:, None] + row) % 2)
    return LARGEST * signs.expand(1, channels, -1, -1).contiguous()


def network(channels: int) -> nn.Module:
    """The FFC layers of a block, with a norm after each."""
    return nn.Sequential(
        FFC2d(channels, 8, 3, padding=1, bias=False, ratio=0.5),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        FFC2d(8, 8, 3, stride=2, padding=1, bias=False, ratio=0.5),
        nn.BatchNorm2d(8),
    )


LAYERS = {
    "FourierUnit": lambda: FourierUnit(4, 4),
    "LocalFourierUnit": lambda: LocalFourierUnit(4, 4),
    "SpectralTransform": lambda: SpectralTransform(4, 4),
    "FFC2d": lambda: FFC2d(4, 8, 3, padding=1, ratio=0.5),
    "network": lambda: network(4),
    "LaMa's unit, fft_norm=backward": lambda: LamaFourierUnit(4, FourierOptions(fft_norm="backward")),
}

NETWORKS = {
    "FFC-ResNet": lambda: timm.create_model(
        "ffc_resnet18", layers=(1, 1, 1, 1), channels=(16, 16, 16, 16), in_chans=4, num_classes=5
    ),
    "LaMa": lambda: timm.create_model("lama_generator", width=4, blocks=1),
}
#: A convolution of stride 2 makes a constant map of a checkerboard. Its variance is what was rounded, so that
#: the norm behind divides it by the root of its eps of 1e-5 and makes it some 300 times larger.
_WITHIN = {("LaMa", "checkerboard"): 0.2}


@pytest.mark.parametrize("kind", MAPS)
@pytest.mark.parametrize("name", LAYERS)
def test_autocast(name: str, kind: str) -> None:
    layer, x = LAYERS[name](), image(kind, 4)
    expected = copy.deepcopy(layer)(x)
    with torch.autocast("cpu", torch.float16):
        y = layer(x)
    _assert_near(y, expected)


@pytest.mark.parametrize("kind", MAPS)
@pytest.mark.parametrize("name", LAYERS)
def test_whole_network(name: str, kind: str) -> None:
    layer, x = LAYERS[name](), image(kind, 4)
    expected = copy.deepcopy(layer)(x)
    _assert_near(layer.half()(x.half()), expected)


@pytest.mark.slow
@pytest.mark.parametrize("kind", MAPS)
@pytest.mark.parametrize("name", NETWORKS)
def test_a_step_of_a_network(name: str, kind: str) -> None:
    """Output, loss and every gradient, by way of a scaled loss as in training."""
    network, x = NETWORKS[name](), image(kind, 4)
    expected = copy.deepcopy(network)(x).detach()
    with torch.autocast("cpu", torch.float16):
        y = network(x)
    _assert_near(y.detach(), expected, _WITHIN.get((name, kind), 0.02))
    torch.amp.GradScaler("cpu", init_scale=256.0).scale(y.float().square().mean()).backward()
    gradients = _gradients(network)
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert any(gradient.any() for gradient in gradients)


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_are_near_those_of_float32(name: str) -> None:
    """All of them together; of random maps, as those of the others cancel in the norms."""
    network, x = NETWORKS[name](), image("random", 4)
    twin = copy.deepcopy(network)
    twin(x).square().mean().backward()
    with torch.autocast("cpu", torch.float16):
        y = network(x)
    (256 * y.float().square().mean()).backward()
    ours, theirs = (parameters_to_vector(_gradients(each)) for each in (network, twin))
    assert (ours / 256 - theirs).norm() < 0.2 * theirs.norm()


@pytest.mark.parametrize("kind", MAPS)
@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_in_half_precision(name: str, kind: str) -> None:
    network, x = NETWORKS[name](), image(kind, 4)
    with torch.no_grad():
        expected = copy.deepcopy(network)(x)
        _assert_near(network.half()(x.half()), expected, _WITHIN.get((name, kind), 0.02))


def _gradients(network: nn.Module) -> list[Tensor]:
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    assert len(gradients) == len(list(network.parameters()))
    return gradients


def _assert_near(y: Tensor, expected: Tensor, share: float = 0.02) -> None:
    assert y.isfinite().all()
    error = (y.float() - expected).square().mean().sqrt()
    assert error < share * expected.square().mean().sqrt()
