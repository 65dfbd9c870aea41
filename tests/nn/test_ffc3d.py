"""FFC3d: what time adds to FFC2d."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import oracles
from ffconv.nn import FFC2d, FFC3d

# (kernel_size, stride, padding, dilation), as nn.Conv3d takes them.
GEOMETRIES = [
    (1, 1, 0, 1),
    (3, 1, 1, 1),
    ((3, 1, 1), 1, (1, 0, 0), 1),
    ((1, 3, 3), (1, 2, 2), (0, 1, 1), 1),
    ((3, 3, 3), (2, 2, 1), 1, 1),
    ((5, 1, 1), (2, 1, 1), (2, 0, 0), 1),
    ((3, 3, 3), 1, (2, 1, 1), (2, 1, 1)),
    ((3, 1, 1), 1, 0, 1),
    (3, 1, "same", (1, 2, 1)),
    ((3, 2, 2), (3, 2, 1), "valid", 1),
]
SPECTRAL_DIMS = [("h", "w"), ("t", "h", "w"), ("t",), ("w",), ("t", "w")]
CLOSE = {"rtol": 0, "atol": 1e-11}


def _layer(*arguments, **options) -> FFC3d:
    layer = FFC3d(*arguments, **{"ratio": 0.5, **options}, dtype=torch.float64).eval()
    oracles.randomise_norms(layer)
    if layer.bias is not None:
        nn.init.normal_(layer.bias)
    return layer


def _video(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64)


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("size", [(5, 7, 6), (4, 5, 5)])
def test_definition(geometry, size):
    layer, x = _layer(6, 8, *geometry), _video(2, 6, *size)
    torch.testing.assert_close(layer(x), oracles.ffc(layer, x), **CLOSE)


@pytest.mark.parametrize("spectral_dims", SPECTRAL_DIMS)
@pytest.mark.parametrize("lfu", [True, False])
@pytest.mark.parametrize("size", [(4, 6, 5), (3, 5, 4), (1, 3, 1)])
def test_spectral_dims(spectral_dims, lfu, size):
    layer = _layer(16, 16, 3, padding=1, spectral_dims=spectral_dims, lfu=lfu)
    x = _video(2, 16, *size)
    torch.testing.assert_close(layer(x), oracles.ffc(layer, x), **CLOSE)


@pytest.mark.parametrize("ratios", [(0, 0.5), (0.5, 0), (0.25, 0.75), (1, 1), (0, 0)])
def test_ratios(ratios):
    layer = _layer(8, 8, 3, padding=1, ratio_in=ratios[0], ratio_out=ratios[1])
    x = _video(1, 8, 3, 4, 5)
    torch.testing.assert_close(layer(x), oracles.ffc(layer, x), **CLOSE)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("lfu", [True, False])
def test_without_a_temporal_kernel_it_is_ffc2d_frame_by_frame(lfu, stride):
    image = FFC2d(8, 8, 3, stride, 1, ratio=0.5, lfu=lfu, dtype=torch.float64).eval()
    oracles.randomise_norms(image)
    video = _layer(8, 8, (1, 3, 3), (1, stride, stride), (0, 1, 1), lfu=lfu)
    video.load_state_dict(
        {
            name: tensor.unsqueeze(2) if tensor.dim() == 4 else tensor
            for name, tensor in image.state_dict().items()
        }
    )
    x = _video(2, 8, 3, 7, 6)
    expected = torch.stack([image(frame) for frame in x.unbind(2)], dim=2)
    torch.testing.assert_close(video(x), expected, **CLOSE)


def test_convolutions_inside_the_transform_have_the_layers_kernel_in_time_alone():
    spectral = FFC3d(8, 8, (3, 5, 5), padding=(2, 2, 2), dilation=(2, 1, 1), ratio=0.5).spectral
    inside = [module for module in spectral.modules() if isinstance(module, nn.Conv3d)]
    assert {(conv.kernel_size, conv.dilation) for conv in inside} == {((3, 1, 1), (2, 1, 1))}
    assert len(inside) == 4


def test_a_transformed_time_needs_no_kernel():
    spectral = FFC3d(8, 8, 3, padding=1, ratio=0.5, spectral_dims=("t", "h", "w")).spectral
    assert {m.kernel_size for m in spectral.modules() if isinstance(m, nn.Conv3d)} == {(1, 1, 1)}


@pytest.mark.parametrize("modes", ["replicate", "circular", ("replicate", "zeros", "reflect")])
@pytest.mark.parametrize("groups", [1, 2])
def test_padding_modes(modes, groups):
    layer = _layer(8, 8, 3, stride=(1, 2, 1), padding=1, padding_mode=modes, groups=groups)
    x = _video(1, 8, 4, 5, 6)
    if modes == "circular":  # the oracle of what is inside knows it as the cyclic shift of frames
        torch.testing.assert_close(layer(x.roll(1, 2)), layer(x).roll(1, 2), **CLOSE)
    else:
        torch.testing.assert_close(layer(x), oracles.ffc(layer, x), **CLOSE)


@pytest.mark.parametrize("options", [{"groups": 2}, {}, {"local_to_global": False}, {"padding": "same"}])
def test_replicated_frames_keep_a_still_clip_still(options):
    layer = _layer(
        8, 8, 3, **{"padding": 1, **options}, padding_mode=("replicate", "zeros", "zeros"), bias=False
    )
    y = layer(_video(1, 8, 1, 5, 6).expand(-1, -1, 4, -1, -1))
    torch.testing.assert_close(y, y[:, :, :1].expand_as(y), **CLOSE)


def test_zero_padding_with_mixed_modes_may_be_uneven():
    modes = ("replicate", "zeros", "zeros")
    layer = _layer(4, 4, (3, 2, 1), padding="same", padding_mode=modes, ratio=0)
    x = _video(1, 4, 3, 4, 4)
    torch.testing.assert_close(layer(x), oracles.ffc(layer, x), **CLOSE)


@pytest.mark.parametrize("geometry", [g for g in GEOMETRIES if g[0] != 1])
def test_ratio_0_is_the_plain_convolution(geometry):
    layer, conv = FFC3d(4, 6, *geometry, ratio=0), nn.Conv3d(4, 6, *geometry)
    layer.load_dense_weight(conv.weight, conv.bias)
    x = torch.randn(2, 4, 5, 6, 7)
    torch.testing.assert_close(layer(x), conv(x))


@pytest.mark.parametrize("spectral_dims", SPECTRAL_DIMS)
def test_every_output_depends_on_every_position_along_the_transformed_axes(spectral_dims):
    layer = _layer(16, 16, 1, spectral_dims=spectral_dims, lfu=False)
    nn.init.constant_(layer.spectral.bn1.bias, 5.0)  # no pixel is cut off by the ReLU before the unit
    x = _video(1, 16, 3, 4, 3).requires_grad_()
    (grad,) = torch.autograd.grad(layer(x)[:, 8:, 1, 1, 1].sum(), x)
    reached = grad[0, 8:].abs().sum(0) > 1e-9
    for axis, name in enumerate("thw"):
        others = [other for other in range(3) if other != axis]
        assert reached.any(others[1]).any(others[0]).all() == (name in spectral_dims)


@pytest.mark.parametrize("options", [{}, {"spectral_dims": ("t", "h", "w")}, {"stride": 2}])
@pytest.mark.parametrize("training", [False, True])
def test_gradcheck(options, training):
    layer = _layer(4, 4, 3, padding=1, **options).train(training)
    for module in layer.modules():
        if isinstance(module, nn.BatchNorm3d):
            module.momentum = 0.0
    assert torch.autograd.gradcheck(layer, _video(2, 4, 2, 3, 3).requires_grad_())


def test_memory_layout_does_not_matter():
    layer, x = _layer(8, 8, 3, padding=1), _video(2, 8, 3, 4, 5)
    y = layer(x.to(memory_format=torch.channels_last_3d))
    torch.testing.assert_close(y, layer(x), rtol=0, atol=1e-12)


def test_channels_last_in_channels_last_out():
    layer = FFC3d(8, 8, 3, padding=1).to(memory_format=torch.channels_last_3d)
    y = layer(torch.randn(2, 8, 3, 4, 5).to(memory_format=torch.channels_last_3d))
    assert y.is_contiguous(memory_format=torch.channels_last_3d)


def test_dense_weight_has_a_zero_block():
    layer = FFC3d(8, 12, (3, 1, 1), ratio=0.25)
    weight = layer.dense_weight()
    assert weight.shape == (12, 8, 3, 1, 1)
    assert not weight[9:, 6:].any()
    torch.testing.assert_close(weight[:9, 6:], layer.weight_g2l)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 0.05), (torch.float16, 0.01)])
def test_autocast(dtype, tolerance):
    layer, x = FFC3d(16, 16, 3, padding=1, ratio=0.5).eval(), torch.randn(2, 16, 3, 5, 6)
    with torch.autocast("cpu", dtype):
        y = layer(x)
    torch.testing.assert_close(y.float(), layer(x), rtol=tolerance, atol=2 * tolerance)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"spectral_dims": ("t", "x")}, r"spectral_dims=\('t', 'x'\) must name axes of the map"),
        ({"spectral_dims": ()}, r"spectral_dims=\(\) must name axes of the map"),
        ({"spectral_dims": ("t", "t")}, r"each once, among \('t', 'h', 'w'\)"),
        ({"stride": (1, 2)}, r"stride=\(1, 2\) must have one entry for each of the 3 axes"),
        ({"padding_mode": ("zeros", "zeros")}, "padding_mode=.* must have one entry for each of the 3 axes"),
        ({"padding_mode": ("zeros", "mirror", "zeros")}, "padding_mode=.* must be one of"),
        ({"dilation": (0, 1, 1)}, r"dilation=\(0, 1, 1\) must be positive"),
    ],
)
def test_raises(options, message):
    with pytest.raises(ValueError, match=message):
        FFC3d(8, 8, 3, **options)


def test_has_the_geometry_attributes_of_a_convolution():
    arguments = (8, 12, (3, 1, 1), (2, 1, 1), (1, 0, 0), 1, 2)
    layer, conv = FFC3d(*arguments, ratio=0.5), nn.Conv3d(*arguments)
    names = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups")
    assert {n: getattr(layer, n) for n in names} == {n: getattr(conv, n) for n in names}


def test_says_which_axes_are_transformed_where_they_are_not_the_usual_ones():
    assert "spectral_dims" not in repr(FFC3d(8, 8, 3))
    assert "spectral_dims=('t',)" in repr(FFC3d(8, 8, 3, spectral_dims=["t"]))


def test_state_dict_round_trip():
    source, target = FFC3d(8, 8, 3, padding=1).eval(), FFC3d(8, 8, 3, padding=1).eval()
    target.load_state_dict(source.state_dict())
    x = torch.randn(1, 8, 3, 5, 4)
    torch.testing.assert_close(target(x), source(x), rtol=0, atol=0)
