"""LaMa's generator as a network of ours; its function is tested with its checkpoints (tests/interop)."""

from __future__ import annotations

import copy

import pytest
import timm
import torch
from torch import nn
from torchvision.models.feature_extraction import create_feature_extractor

import ffconv
from ffconv.errors import InputError
from ffconv.models import LamaGenerator
from ffconv.models.inpainting import hide
from ffconv.models.lama_layers import FourierOptions, GatedFFC2d, LamaFourierUnit, PositionedNorm
from ffconv.nn import FourierUnit

OPTIONS = [
    {},
    {"ratio": 0.0},
    {"ratio": 1.0},
    {"lfu": True},
    {"gated": True},
    {"spectral_pos_encoding": True},
    {"fft_norm": "backward"},
    {"spatial_scale_factor": 0.5},
]


def small(**options) -> LamaGenerator:
    """A network with batch statistics that are not those of the start."""
    network = timm.create_model("lama_generator", width=8, downsamplings=2, blocks=2, **options)
    with torch.no_grad():
        network.train()
        for _ in range(3):
            network(torch.rand(4, 4, 32, 32))
    return network.eval()


def pair() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.rand(2, 3, 32, 48), (torch.rand(2, 1, 32, 48) < 0.3).float()


def test_big_lama_has_the_published_size():
    with torch.device("meta"):
        network = timm.create_model("lama_generator")
    assert sum(parameter.numel() for parameter in network.parameters()) == 50_975_875


def test_what_the_hole_hides_is_not_seen():
    network, (image, mask) = small(), pair()
    other = image + mask * torch.rand_like(image)
    assert torch.equal(network(hide(image, mask)), network(hide(other, mask)))


def test_hide_gives_image_and_mask():
    image, mask = pair()
    x = hide(image, mask)
    assert torch.equal(x[:, 3:], mask)
    assert torch.equal(x[:, :3][mask.expand_as(image) == 0], image[mask.expand_as(image) == 0])


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_every_output_depends_on_a_far_input_with_global_channels(options: dict):
    network = small(**options)
    x = torch.rand(1, 4, 96, 96, requires_grad=True)
    network(x)[0, :, :4, :4].sum().backward()
    assert (x.grad[..., -4:, -4:].abs().sum() > 0) == (options.get("ratio") != 0.0)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_every_parameter_learns(options: dict):
    network = small(**options).train()
    network(torch.rand(2, 4, 32, 32)).square().sum().backward()
    without = [name for name, parameter in network.named_parameters() if not parameter.grad.abs().sum() > 0]
    biases_before_norms = [name for name in without if name.startswith("up.") and name.endswith("conv.bias")]
    assert without == biases_before_norms


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_fused_it_computes_the_same(options: dict):
    network, x = small(**options).double(), torch.rand(1, 4, 32, 48, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(ffconv.fuse(network)(x), network(x), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_features_can_be_taken(options: dict):
    network, x = small(**options), torch.rand(1, 4, 32, 32)
    extractor = create_feature_extractor(network, {"blocks.1": "deep"})
    expected = network.blocks(network.down(network.stem(x)))
    torch.testing.assert_close(extractor(x)["deep"], expected)


@pytest.mark.parametrize("norm", ["backward", "forward"])
def test_norms_of_the_transform_move_the_spectrums_scale_only(norm: str):
    plain, unit = FourierUnit(4, 4).eval(), LamaFourierUnit(4, FourierOptions(fft_norm=norm)).eval()
    unit.load_state_dict(plain.state_dict())
    with torch.no_grad():
        for module in (plain, unit):  # without its epsilon the norm of a spectrum at rest is linear
            module.bn.eps = 0.0
    x = torch.randn(2, 4, 7, 6)
    torch.testing.assert_close(unit(x), plain(x))


def test_the_position_is_a_shift_of_the_spectrum():
    norm = PositionedNorm(3).double().eval()
    spectrum = torch.randn(2, 3, 5, 4, dtype=torch.float64)
    plain = nn.BatchNorm2d(3).double().eval()
    for row, column in ((0, 0), (2, 3), (4, 1)):
        shift = norm.position[:, 0] * row / 4 + norm.position[:, 1] * column / 3
        expected = plain(spectrum[:, :, row, column, None, None] + shift[:, None, None])[..., 0, 0]
        torch.testing.assert_close(norm(spectrum)[:, :, row, column], expected)


def test_open_gates_are_half_an_ffc():
    gated = GatedFFC2d(8, 8, 3, padding=1, bias=False, ratio=0.5)
    nn.init.zeros_(gated.gate.weight), nn.init.zeros_(gated.gate.bias)
    plain = ffconv.FFC2d(8, 8, 3, padding=1, bias=False, ratio=0.5)
    plain.load_state_dict(gated.state_dict(), strict=False)
    with torch.no_grad():
        plain.weight_l2g.mul_(0.5), plain.weight_g2l.mul_(0.5)  # sigmoid(0)
    x = torch.randn(2, 8, 6, 5)
    torch.testing.assert_close(gated.eval()(x), plain.eval()(x))


@pytest.mark.parametrize("wrong", [{"stride": 2}, {"groups": 2}, {"ratio": 0.0}])
def test_a_gated_ffc_refuses_what_it_cannot_gate(wrong: dict):
    with pytest.raises(ValueError, match="needs all four paths"):
        GatedFFC2d(8, 8, 3, **{"padding": 1, "bias": False, "ratio": 0.5, **wrong})


def test_half_precision_stays_near():
    network, x = small(spectral_pos_encoding=True, fft_norm="backward"), torch.rand(1, 4, 32, 32)
    with torch.no_grad():
        expected = network(x)
        with torch.autocast("cpu", torch.bfloat16):
            torch.testing.assert_close(network(x).float(), expected, rtol=0, atol=0.05)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"ratio": 1.5}, "ratio=1.5"),
        ({"downsamplings": 0}, "downsamplings=0"),
        ({"blocks": -1}, "blocks=-1"),
        ({"width": 0}, "width must be at least 1"),
        ({"fft_norm": "none"}, "fft_norm='none'"),
        ({"spatial_scale_factor": 0.0}, "spatial_scale_factor=0.0"),
        ({"spatial_scale_mode": "area"}, "spatial_scale_mode='area'"),
        ({"gated": True, "ratio": 0.0}, "gated needs both kinds of channels"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments: dict, message: str):
    with pytest.raises(ValueError, match=message):
        timm.create_model("lama_generator", **{"width": 8, "blocks": 1, **arguments})


def test_wrong_arguments_are_the_users():
    with pytest.raises(InputError, match="fft_norm"):
        FourierOptions(fft_norm="none")  # pyright: ignore[reportArgumentType]


@pytest.mark.slow
def test_compiled_it_computes_the_same():
    network, x = small(gated=True, spectral_pos_encoding=True), torch.rand(1, 4, 32, 32)
    compiled = torch.compile(network, fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), network(x), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_compiled_it_trains_the_same():
    network = timm.create_model("lama_generator", width=8, downsamplings=2, blocks=1)
    x = torch.rand(2, 4, 32, 32)
    twin = copy.deepcopy(network)
    y, expected = torch.compile(network, fullgraph=True)(x), twin(x)
    torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-5)
    y.square().mean().backward()
    expected.square().mean().backward()
    ours, theirs = ([p.grad for p in each.parameters()] for each in (network, twin))
    scale = max(float(gradient.abs().max()) for gradient in theirs)
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4 * scale)
