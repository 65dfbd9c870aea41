"""Networks prepared for inference compute what they computed."""

from __future__ import annotations

import copy

import pytest
import timm
import torch
from torch import nn

import oracles
from assertions import assert_near, definition
from ffconv.errors import InputError
from ffconv.nn import FFC2d
from ffconv.surgery import fuse


def _trained(network: nn.Module) -> nn.Module:
    oracles.randomise_norms(network)
    return network.eval()


def _norms_outside_spectral_transforms(network: nn.Module) -> list[str]:
    norms = [name for name, module in network.named_modules() if isinstance(module, nn.BatchNorm2d)]
    return [name for name in norms if "spectral." not in name]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"bias": False},
        {"groups": 2, "ratio": 0.5},
        {"ratio": 1},
        {"ratio_in": 0},
        {"ratio_out": 0},
        {"padding_mode": "reflect"},
        {"stride": 2, "lfu": False},
        {"local_to_global": False},
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_layer_with_its_norm(dtype, options):
    network = _trained(
        nn.Sequential(FFC2d(8, 8, 3, padding=1, **options), nn.BatchNorm2d(8), nn.ReLU()).to(dtype)
    )
    x = torch.randn(2, 8, 7, 6, dtype=dtype)
    fused = fuse(network)
    assert_near(fused(x), definition(network)(x.double()))
    assert not _norms_outside_spectral_transforms(fused)


@pytest.mark.parametrize("name", ["ffc_resnet18", "ffc_seresnet50", "resnet18"])
def test_network(name):
    network = _trained(timm.create_model(name, num_classes=3))
    x = torch.randn(1, 3, 65, 47)
    with torch.no_grad():
        expected = network(x)
        fused = fuse(network)
        difference = (fused(x) - expected).abs().max() / expected.abs().max()
    assert difference < 1e-4
    assert not _norms_outside_spectral_transforms(fused)


def test_norm_of_a_map_that_others_read_too_stays():
    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)

        def forward(self, x):
            y = self.conv(x)
            return y + self.norm(y)

    network = _trained(Network())
    x = torch.randn(1, 4, 3, 3)
    fused = fuse(network)
    torch.testing.assert_close(fused(x), network(x))
    assert isinstance(fused.norm, nn.BatchNorm2d)


@pytest.mark.parametrize("kind", [nn.Conv2d, FFC2d])
def test_norm_behind_a_convolution_that_runs_twice_stays(kind):
    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = kind(8, 8, 1), nn.BatchNorm2d(8)

        def forward(self, x):
            return self.conv(self.norm(self.conv(x)))

    network = _trained(Network().double())
    x = torch.randn(2, 8, 5, 6, dtype=torch.float64)
    torch.testing.assert_close(fuse(network)(x), network(x))


def test_norm_without_statistics_stays():
    network = nn.Sequential(FFC2d(8, 8, 1), nn.BatchNorm2d(8, track_running_stats=False)).double().eval()
    x = torch.randn(2, 8, 5, 6, dtype=torch.float64)
    torch.testing.assert_close(fuse(network)(x), network(x))


def test_nothing_of_a_prepared_network_wants_a_gradient():
    network = nn.Sequential(FFC2d(8, 8, 1), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 1))
    assert not any(parameter.requires_grad for parameter in fuse(network).parameters())


def test_the_given_network_is_left_alone():
    network = nn.Sequential(FFC2d(8, 8, 3), nn.BatchNorm2d(8)).train()
    before = copy.deepcopy(network.state_dict())
    fuse(network)
    assert network.training
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())


def test_float16_autocast_holds_large_values():
    network = _trained(nn.Sequential(FFC2d(8, 8, 1, ratio=0.5), nn.BatchNorm2d(8)))
    x = torch.full((1, 8, 128, 128), 1e3)
    expected = network(x)
    with torch.autocast("cpu", torch.float16):
        y = fuse(network)(x)
    torch.testing.assert_close(y.float(), expected, rtol=2e-2, atol=2e-2 * expected.abs().max().item())


def test_a_network_that_cannot_be_traced_is_refused_with_the_reason():
    class Network(nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x

    with pytest.raises(InputError, match="Network cannot be traced: symbolically traced variables"):
        fuse(Network())


class _Residual(nn.Module):
    """Blocks with what may stand between an FFC and the addition to its output."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.first, self.second = FFC2d(8, 8, 1), FFC2d(8, 8, 1)
        self.drop, self.relu = nn.Identity(), nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor):
        y = self.first(x)
        if self.kind == "plain":
            return self.relu(self.drop(y) + x)
        if self.kind == "shortcut made later":
            return self.relu(torch.add(y, self.second(x)))
        if self.kind == "other first":
            return self.relu(x + y)
        if self.kind == "written to in between":
            x += 1
            return y + x
        if self.kind == "read twice":
            return y + x, y
        if self.kind == "with itself":
            return y + y
        if self.kind == "run twice":
            return self.first(y) + x
        return torch.add(y, x, alpha=2)


@pytest.mark.parametrize(
    ("kind", "additions"),
    [
        ("plain", 0),
        ("shortcut made later", 0),
        ("other first", 0),
        ("written to in between", 2),
        ("read twice", 1),
        ("with itself", 1),
        ("run twice", 1),
        ("scaled", 1),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_additions_to_an_ffc(dtype, kind, additions):
    torch.manual_seed(0)
    network = _Residual(kind).to(dtype).eval()
    x = torch.randn(2, 8, 6, 7, dtype=dtype).to(memory_format=torch.channels_last)
    fused = fuse(network)
    left = [node for node in fused.graph.nodes if node.op == "call_function" and "add" in str(node.target)]
    assert len(left) == additions
    with torch.no_grad():
        torch.testing.assert_close(fused(x.clone()), network(x.clone()))


class _Sum(nn.Module):
    """ffc(x) + other."""

    def __init__(self, ffc: FFC2d) -> None:
        super().__init__()
        self.ffc = ffc

    def forward(self, x: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        return self.ffc(x) + other


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize(
    "other",
    [
        torch.randn(2, 8, 6, 5),
        torch.randn(8, 1, 1),
        torch.randn(1, 8, 1, 5),
        torch.randn(3, 2, 8, 6, 5),
        torch.randn(2, 8, 6, 5, dtype=torch.float64),
        3,
    ],
    ids=lambda other: str(getattr(other, "shape", other)),
)
def test_a_residual_is_broadcast_and_promoted_as_by_torch(other, groups):
    network, x = _Sum(FFC2d(8, 8, 3, padding=1, groups=groups, ratio=0.5)).eval(), torch.randn(2, 8, 6, 5)
    with torch.no_grad():
        y, expected = fuse(network)(x, other), network(x, other)
    torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-5)


def test_a_map_without_a_batch():
    network, x = nn.Sequential(FFC2d(8, 8, 3, padding=1), nn.BatchNorm2d(8)).eval(), torch.randn(8, 6, 5)
    block = _Sum(FFC2d(8, 8, 1)).eval()
    with torch.no_grad():
        torch.testing.assert_close(fuse(network)(x), network(x[None])[0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(fuse(block)(x, x), block(x, x), rtol=1e-4, atol=1e-5)


def test_a_map_of_another_shape_is_refused():
    fused = fuse(nn.Sequential(FFC2d(8, 8, 1)))
    for shape in ((2, 4, 6, 5), (6, 5), (2, 8, 3, 6, 5)):
        with pytest.raises(ValueError, match=r"must have shape \(N, 8, H, W\)"):
            fused(torch.zeros(shape))


def test_maps_of_a_network_that_returns_several_stay_as_they_were():
    torch.manual_seed(0)
    network = timm.create_model("ffc_resnet18", features_only=True).double().eval()
    x = torch.randn(1, 3, 64, 64, dtype=torch.float64).to(memory_format=torch.channels_last)
    with torch.no_grad():
        torch.testing.assert_close(fuse(network)(x), network(x))


def test_a_norm_without_running_statistics_stays_in_its_layer():
    layer = FFC2d(16, 16, 3, padding=1, ratio=0.5).eval()
    layer.spectral.bn1 = nn.BatchNorm2d(4, track_running_stats=False).eval()
    x = torch.randn(3, 16, 6, 5)
    with torch.no_grad():
        torch.testing.assert_close(fuse(nn.Sequential(layer))(x), layer(x), rtol=1e-4, atol=1e-4)
