"""FFC2d: the function it computes."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import golden
import oracles
from ffconv.nn import FFC2d, split_channels

# One of each: (kernel_size, stride, padding, dilation), as nn.Conv2d takes them.
GEOMETRIES = [
    (1, 1, 0, 1),
    (3, 1, 1, 1),
    (3, 2, 1, 1),
    (3, 4, 1, 1),
    (7, 2, 3, 1),
    (3, 1, 2, 2),
    (3, 1, 0, 1),
    (2, 2, 0, 1),
    (5, 3, 1, 1),
    ((3, 1), (2, 1), (1, 0), 1),
    (3, 1, "same", 2),
    (2, 1, "same", 1),
    (3, 2, "valid", 1),
]
RATIOS = [(0.5, 0.5), (0, 0.5), (0.5, 0), (0.25, 0.75), (1, 1), (1, 0.5), (0, 0), (0.1, 0.3)]


def _symmetric(geometry: tuple) -> bool:
    return all(isinstance(value, int) for value in geometry)


@pytest.mark.reference
@pytest.mark.parametrize("name", golden.FFC_CASES)
def test_golden(name, reference):
    arguments, weights, tensors = golden.load_case(reference, name)
    ffc = FFC2d(
        **{key: value for key, value in arguments.items() if not key.startswith("alpha")},
        ratio_in=arguments["alpha_in"],
        ratio_out=arguments["alpha_out"],
        bias=False,
        dtype=torch.float64,
    )
    golden.assert_reproduces(ffc, weights, tensors)


@pytest.mark.parametrize("geometry", [g for g in GEOMETRIES if _symmetric(g)])
@pytest.mark.parametrize("ratios", RATIOS)
@pytest.mark.parametrize("size", [(9, 6), (7, 7)])
def test_definition(geometry, ratios, size):
    ffc = FFC2d(8, 12, *geometry, ratio_in=ratios[0], ratio_out=ratios[1], dtype=torch.float64).eval()
    oracles.randomise_norms(ffc)
    nn.init.normal_(ffc.bias)
    x = torch.randn(2, 8, *size, dtype=torch.float64)
    torch.testing.assert_close(ffc(x), oracles.ffc(ffc, x), rtol=0, atol=1e-11)


@pytest.mark.parametrize("groups", [2, 4])
@pytest.mark.parametrize("ratios", [(0.5, 0.5), (0, 0.5), (0.5, 0), (1, 1)])
def test_groups(groups, ratios):
    ffc = FFC2d(
        16, 16, 3, padding=1, groups=groups, ratio_in=ratios[0], ratio_out=ratios[1], dtype=torch.float64
    ).eval()
    nn.init.normal_(ffc.bias)
    x = torch.randn(2, 16, 5, 6, dtype=torch.float64)
    torch.testing.assert_close(ffc(x), oracles.ffc(ffc, x), rtol=0, atol=1e-11)


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
@pytest.mark.parametrize("groups", [1, 2])
def test_padding_modes(mode, groups):
    ffc = FFC2d(
        8, 8, 3, stride=2, padding=1, groups=groups, padding_mode=mode, ratio=0.5, dtype=torch.float64
    ).eval()
    x = torch.randn(2, 8, 7, 6, dtype=torch.float64)
    torch.testing.assert_close(ffc(x), oracles.ffc(ffc, x), rtol=0, atol=1e-11)


@pytest.mark.parametrize("switch", ["local_to_global", "global_to_local"])
@pytest.mark.parametrize("groups", [1, 2])
def test_cross_scale_paths_switched_off(switch, groups):
    ffc = FFC2d(8, 8, 3, padding=1, groups=groups, ratio=0.5, dtype=torch.float64, **{switch: False}).eval()
    x = torch.randn(2, 8, 7, 6, dtype=torch.float64)
    torch.testing.assert_close(ffc(x), oracles.ffc(ffc, x), rtol=0, atol=1e-11)
    changed = x.clone()
    source, target = (slice(0, 4), slice(4, 8)) if switch == "local_to_global" else (slice(4, 8), slice(0, 4))
    changed[:, source] += 1
    torch.testing.assert_close(ffc(changed)[:, target], ffc(x)[:, target], rtol=0, atol=0)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("size", [(9, 6), (3, 11)])
def test_ratio_0_is_the_plain_convolution(geometry, size):
    ffc, conv = FFC2d(6, 4, *geometry, ratio=0), nn.Conv2d(6, 4, *geometry)
    ffc.load_dense_weight(conv.weight, conv.bias)
    x = torch.randn(2, 6, *size)
    torch.testing.assert_close(ffc(x), conv(x))


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("size", [(9, 6), (3, 11), (7, 1), (1, 8)])
def test_output_size_is_that_of_the_plain_convolution(geometry, size):
    conv, ffc = nn.Conv2d(8, 8, *geometry), FFC2d(8, 8, *geometry, ratio=0.5)
    x = torch.randn(2, 8, *size)
    try:
        expected = conv(x).shape
    except RuntimeError:
        pytest.skip(f"nn.Conv2d refuses {size} as well")
    assert ffc(x).shape == expected


@pytest.mark.parametrize("ratio", [0.1, 0.3, 0.125, 0.9])
def test_ratios_that_do_not_divide_round_the_global_part_down(ratio):
    ffc = FFC2d(64, 64, 3, padding=1, ratio=ratio)
    assert (ffc.in_local, ffc.in_global) == (64 - int(64 * ratio), int(64 * ratio))
    assert ffc(torch.zeros(1, 64, 5, 5)).shape == (1, 64, 5, 5)


def test_split_channels_counts_the_global_part_first():
    cases = {(64, 0.1): (58, 6), (10, 0.3): (7, 3), (3, 0.5): (2, 1), (8, 1): (0, 8), (8, 0): (8, 0)}
    assert {case: split_channels(*case) for case in cases} == cases


def test_every_output_depends_on_every_input_pixel_of_the_global_part():
    ffc = FFC2d(8, 8, 3, padding=1, ratio=0.5, dtype=torch.float64).eval()
    oracles.randomise_norms(ffc)
    nn.init.constant_(ffc.spectral.bn1.bias, 5.0)  # no pixel is cut off by the ReLU before the unit
    x = torch.randn(1, 8, 6, 5, dtype=torch.float64, requires_grad=True)
    for output in ffc(x)[:, 4:].sum(1).flatten():
        (grad,) = torch.autograd.grad(output, x, retain_graph=True)
        assert (grad[:, 4:].abs().sum(1) > 1e-9).all()


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("options", [{}, {"groups": 2}, {"padding_mode": "reflect"}, {"stride": 2}])
def test_gradcheck(options, training):
    ffc = FFC2d(4, 8, 3, padding=1, ratio=0.5, dtype=torch.float64, **options).train(training)
    for module in ffc.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.0
    x = torch.randn(2, 4, 4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(ffc, x)


@pytest.mark.parametrize("options", [{}, {"groups": 2}, {"ratio_in": 0}, {"ratio_out": 0}, {"ratio": 1}])
def test_every_parameter_gets_a_gradient(options):
    ffc = FFC2d(8, 8, 3, padding=1, **{"ratio": 0.5, **options})
    ffc(torch.randn(2, 8, 6, 6)).square().sum().backward()
    assert [name for name, p in ffc.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize(
    "layout",
    [lambda x: x.to(memory_format=torch.channels_last), lambda x: x.transpose(2, 3), lambda x: x[..., ::2]],
)
def test_memory_layout_does_not_matter(layout):
    ffc = FFC2d(8, 8, 3, padding=1, dtype=torch.float64).eval()
    x = layout(torch.randn(2, 8, 6, 10, dtype=torch.float64))
    contiguous = x.clone(memory_format=torch.contiguous_format)
    torch.testing.assert_close(ffc(x), ffc(contiguous), rtol=0, atol=1e-12)


def test_channels_last_in_channels_last_out():
    ffc = FFC2d(8, 8, 3, padding=1).to(memory_format=torch.channels_last)
    y = ffc(torch.randn(2, 8, 6, 6).to(memory_format=torch.channels_last))
    assert y.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 0.05), (torch.float16, 0.01)])
def test_half_precision_network(dtype, tolerance):
    ffc = FFC2d(16, 16, 3, padding=1, ratio=0.5).eval()
    x = torch.randn(2, 16, 9, 7)
    y = copy.deepcopy(ffc).to(dtype)(x.to(dtype))
    assert y.dtype == dtype
    torch.testing.assert_close(y.float(), ffc(x), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 0.05), (torch.float16, 0.01)])
def test_autocast(dtype, tolerance):
    ffc = FFC2d(16, 16, 3, padding=1, ratio=0.5)
    x = torch.randn(2, 16, 9, 7)
    expected = ffc(x)
    with torch.autocast("cpu", dtype):
        y = ffc(x)
    assert y.dtype == dtype
    torch.testing.assert_close(y.float(), expected, rtol=tolerance, atol=2 * tolerance)
    y.float().square().sum().backward()
    assert all(p.grad.isfinite().all() and p.grad.dtype == torch.float32 for p in ffc.parameters())


def test_dense_weight_has_a_zero_block():
    ffc = FFC2d(8, 12, 3, ratio=0.25)
    weight = ffc.dense_weight()
    assert weight.shape == (12, 8, 3, 3)
    assert not weight[9:, 6:].any()
    torch.testing.assert_close(weight[:9, 6:], ffc.weight_g2l)


@pytest.mark.parametrize("options", [{}, {"ratio_in": 0}, {"ratio_out": 0}, {"local_to_global": False}])
def test_dense_weight_keeps_the_memory_format(options):
    ffc = FFC2d(8, 8, 3, **{"ratio": 0.5, **options}).to(memory_format=torch.channels_last)
    assert ffc.dense_weight().is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("ratios", [{"ratio_in": 0.0}, {"ratio_out": 0.0}, {}])
def test_gradients_of_1x1_kernels_have_the_strides_of_their_weights(layout, ratios):
    """A 1x1 kernel is contiguous in both formats; DistributedDataParallel copies what has other strides."""
    layer = FFC2d(8, 16, 1, **ratios).to(memory_format=layout)
    layer(torch.randn(2, 8, 6, 5).to(memory_format=layout)).sum().backward()
    weights = [p for name, p in layer.named_parameters() if name.startswith("weight")]
    assert [w.grad.stride() for w in weights] == [w.stride() for w in weights]


def test_dense_weight_of_groups_is_the_same_convolution():
    ffc = FFC2d(16, 16, 3, padding=1, groups=4, ratio=0.5, bias=False, dtype=torch.float64)
    x = torch.randn(1, 16, 5, 5, dtype=torch.float64)
    local = ffc(x)[:, :8]
    torch.testing.assert_close(F.conv2d(x, ffc.dense_weight(), padding=1)[:, :8], local, rtol=0, atol=1e-12)


def test_load_dense_weight_fills_the_parts():
    ffc, conv = FFC2d(8, 12, 3, ratio=0.25), nn.Conv2d(8, 12, 3)
    ffc.load_dense_weight(conv.weight, conv.bias)
    expected = conv.weight.detach().clone()
    expected[9:, 6:] = 0
    torch.testing.assert_close(ffc.dense_weight(), expected)
    torch.testing.assert_close(ffc.bias, conv.bias)


def test_load_dense_weight_of_groups_fills_blocks_that_lie_in_a_plain_group():
    ffc, conv = FFC2d(8, 8, 1, groups=2, ratio=0.5, bias=False), nn.Conv2d(8, 8, 1, groups=2, bias=False)
    ffc.load_dense_weight(conv.weight)
    # Local channels 0..3 are the first plain group: both local groups of two lie inside it.
    torch.testing.assert_close(ffc.weight_l2l[:2], conv.weight[:2, :2])
    torch.testing.assert_close(ffc.weight_l2l[2:], conv.weight[2:4, 2:])


def test_load_dense_weight_of_groups_keeps_what_has_no_counterpart():
    ffc = FFC2d(8, 8, 1, groups=2, ratio=0.5, bias=False)
    before = ffc.weight_l2g.detach().clone()  # crosses the plain groups
    ffc.load_dense_weight(torch.full((8, 4, 1, 1), 7.0))
    torch.testing.assert_close(ffc.weight_l2g, before)


def test_initialisation_is_kaiming_normal_of_each_part():
    ffc = FFC2d(256, 256, 3, ratio=0.25)
    for weight, outputs in ((ffc.weight_l2l, 192), (ffc.weight_l2g, 64), (ffc.weight_g2l, 192)):
        assert weight.std().item() == pytest.approx((2 / (outputs * 9)) ** 0.5, rel=0.02)
    assert ffc.spectral.fu.conv.weight.std().item() == pytest.approx((2 / 64) ** 0.5, rel=0.05)
    assert not ffc.bias.any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ratio": 1.5}, r"ratio=1.5 must lie in \[0, 1\]"),
        ({"ratio_in": -0.1}, r"ratio=-0.1 must lie in \[0, 1\]"),
        ({"groups": 3, "ratio": 0}, "groups=3 must divide in_channels=8 x ratio 1 = 8"),
        ({"groups": 4}, "groups=4 must divide in_channels=8 x ratio 0.75 = 6"),
        ({"stride": 0}, r"stride=\(0, 0\) must be positive"),
        ({"dilation": (1, 0)}, r"dilation=\(1, 0\) must be positive"),
        ({"padding": -1}, r"padding=\(-1, -1\) must not be negative"),
        ({"padding": "full"}, "padding='full' must be 'same', 'valid' or numbers"),
        ({"padding": "same", "stride": 2}, "padding='same' needs stride 1"),
        ({"padding_mode": "mirror"}, "padding_mode='mirror' must be one of"),
        ({"ratio_in": 0, "local_to_global": False}, "local_to_global=False would cut off a part"),
        ({"ratio_out": 0, "global_to_local": False}, "global_to_local=False would cut off a part"),
    ],
)
def test_raises(options, message):
    with pytest.raises(ValueError, match=message):
        FFC2d(8, 8, 3, **options)


@pytest.mark.parametrize(
    ("weight", "bias", "message"),
    [
        ((8, 8, 1, 1), None, r"weight has shape \(8, 8, 1, 1\), must have \(8, 8, 3, 3\)"),
        ((8, 16, 3, 3), None, r"weight has shape \(8, 16, 3, 3\), must have \(8, 8, 3, 3\)"),
        ((8, 8, 3, 3), (4,), r"bias has shape \(4,\), must have \(8,\)"),
    ],
)
def test_raises_on_dense_weights_of_another_shape(weight, bias, message):
    with pytest.raises(ValueError, match=message):
        FFC2d(8, 8, 3).load_dense_weight(torch.zeros(weight), None if bias is None else torch.zeros(bias))


def test_raises_on_dense_weights_whose_groups_do_not_divide():
    with pytest.raises(ValueError, match="groups=4 must divide out_channels=6"):
        FFC2d(8, 6, 3, ratio=0.5).load_dense_weight(torch.zeros(6, 2, 3, 3))


def test_raises_on_a_bias_for_a_layer_without_one():
    with pytest.raises(ValueError, match=r"bias of shape \(8,\) must be None: the layer has bias=False"):
        FFC2d(8, 8, 3, bias=False).load_dense_weight(torch.zeros(8, 8, 3, 3), torch.zeros(8))


def test_has_the_geometry_attributes_of_a_convolution():
    arguments = (8, 12, 3, 2, 1, 1, 2)
    ffc, conv = FFC2d(*arguments, ratio=0.5), nn.Conv2d(*arguments)
    names = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups")
    assert {n: getattr(ffc, n) for n in names} == {n: getattr(conv, n) for n in names}
    assert not hasattr(ffc, "weight")


def test_state_dict_round_trip():
    source, target = FFC2d(8, 8, 3, padding=1), FFC2d(8, 8, 3, padding=1)
    target.load_state_dict(source.state_dict())
    x = torch.randn(2, 8, 5, 5)
    torch.testing.assert_close(target.eval()(x), source.eval()(x), rtol=0, atol=0)


@pytest.mark.parametrize("lfu", [True, False])
@pytest.mark.parametrize("dims", [("w",), ("h",)])
@pytest.mark.parametrize("grad", [True, False])
def test_spectral_dims(grad, dims, lfu):
    layer = FFC2d(16, 16, 3, padding=1, ratio=0.5, spectral_dims=dims, lfu=lfu).double().eval()
    oracles.randomise_norms(layer)
    x = torch.randn(2, 16, 6, 5, dtype=torch.float64).contiguous(memory_format=torch.channels_last)
    with torch.set_grad_enabled(grad):
        torch.testing.assert_close(layer(x), oracles.ffc(layer, x), rtol=0, atol=1e-11)
