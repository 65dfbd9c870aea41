"""From networks of images to networks of clips."""

from __future__ import annotations

import copy

import pytest
import timm
import torch
from timm.layers import BatchNormAct2d, EffectiveSEModule, SEModule
from torch import Tensor, nn

import oracles
from ffconv import FFC2d, FFC3d, SpectralTransform, Temporal, inflate
from ffconv.errors import InputError
from small_networks import Residual, block

CLOSE = {"rtol": 0, "atol": 1e-9}
IMAGE = torch.ones(1, 3, 12, 10, dtype=torch.float64)


def small() -> nn.Sequential:
    """All layers that can be inflated, in evaluation mode, norms as after some training."""
    model = nn.Sequential(
        *block(3, 8),
        nn.MaxPool2d(3, 2, 1),
        FFC2d(8, 8, 3, padding=1, ratio_in=0, ratio_out=0.5, bias=False),
        BatchNormAct2d(8),
        FFC2d(8, 8, 3, stride=2, padding=1, ratio=0.5),
        nn.Dropout2d(0.5),
        SEModule(8, rd_channels=4),
        nn.ZeroPad2d(1),
        nn.AvgPool2d(2, divisor_override=3),
        FFC2d(8, 8, 1, ratio_in=0.5, ratio_out=0),
        nn.ConvTranspose2d(8, 4, 2, 2),
        nn.InstanceNorm2d(4),
        nn.Conv2d(4, 6, 3, padding="same", padding_mode="circular"),
        nn.AdaptiveMaxPool2d(2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 5),
    ).double()
    oracles.randomise_norms(model)
    return model.eval()


def still(images: Tensor, frames: int) -> Tensor:
    return images.unsqueeze(2).expand(-1, -1, frames, -1, -1)


@pytest.mark.parametrize("frames", [1, 3])
def test_without_kernels_in_time_a_still_clip_gives_what_the_image_gave(frames):
    model, images = small(), torch.randn(2, 3, 12, 10, dtype=torch.float64)
    expected = model(images)
    clips = inflate(copy.deepcopy(model), example_input=IMAGE)
    torch.testing.assert_close(clips(still(images, frames)), expected, **CLOSE)


@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("stride", [1, 2])
def test_replicated_frames_give_it_for_kernels_in_time_too(kernel, stride):
    model, images = small(), torch.randn(2, 3, 12, 10, dtype=torch.float64)
    expected = model(images)
    temporal = {
        "0": Temporal(kernel, stride),
        "3": Temporal(2, 2),
        "[46]": kernel,
        "10": Temporal(2),
        "11": 3,
        "14": 3,
    }
    clips = inflate(model, temporal, temporal_padding="replicate", example_input=IMAGE)
    torch.testing.assert_close(clips(still(images, 7)), expected, **CLOSE)


def test_zero_padding_dims_the_ends_of_a_still_clip():
    model = inflate(nn.Sequential(nn.Conv2d(1, 1, 1, bias=False)), {"0": 3})
    nn.init.constant_(model[0].weight, 1.0)
    y = model(torch.ones(1, 1, 4, 1, 1)).flatten()
    torch.testing.assert_close(y, torch.tensor([2.0, 3.0, 3.0, 2.0]))


def test_weights_are_repeated_over_time_and_divided_by_the_times():
    conv = nn.Conv2d(4, 6, 3)
    weight = conv.weight.detach().clone()
    inflated = inflate(nn.Sequential(conv), {"0": 3})[0]
    assert inflated.weight.shape == (6, 4, 3, 3, 3)
    for time in range(3):
        torch.testing.assert_close(inflated.weight[:, :, time], weight / 3)


def test_kernels_of_even_sides_are_inflated_where_their_padding_is_a_number():
    images = torch.randn(1, 3, 6, 6)
    model = nn.Sequential(nn.Conv2d(3, 4, 2, 2, padding=1))
    expected = model(images)
    clips = inflate(model, {"0": 3}, temporal_padding="replicate", example_input=images)
    torch.testing.assert_close(clips(still(images, 2)), still(expected, 2))


def test_an_ffc_keeps_its_parts_and_its_switches():
    model = inflate(
        nn.Sequential(FFC2d(8, 8, 3, 2, 1, ratio=0.5, lfu=False, local_to_global=False)), {"0": 3}
    )
    ffc = model[0]
    assert isinstance(ffc, FFC3d)
    assert (ffc.kernel_size, ffc.stride, ffc.padding) == ((3, 3, 3), (1, 2, 2), (1, 1, 1))
    assert (ffc.lfu, ffc.local_to_global, ffc.weight_l2g) == (False, False, None)
    assert ffc.spectral.fu.conv.kernel_size == (3, 1, 1)


def test_a_rule_may_be_a_function_of_name_and_layer():
    def rule(name: str, layer: nn.Module) -> Temporal:
        return Temporal(2, 2) if isinstance(layer, nn.MaxPool2d) else Temporal(5 if name == "0" else 1)

    model = inflate(nn.Sequential(nn.Conv2d(3, 4, 3), nn.MaxPool2d(2), nn.Conv2d(4, 4, 1)), rule)
    assert [layer.kernel_size for layer in model] == [(5, 3, 3), (2, 2, 2), (1, 1, 1)]
    assert model[1].stride == (2, 2, 2)


def test_the_first_pattern_that_matches_counts():
    model = inflate(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1)), {"0": 5, "*": 3})
    assert [layer.kernel_size[0] for layer in model] == [5, 3]


def test_a_layer_in_two_places_stays_one():
    shared = nn.Conv2d(3, 3, 1)
    model = inflate(nn.Sequential(shared, nn.ReLU(), shared))
    assert model[0] is model[2]


def test_flags_hooks_modes_and_memory_format_are_kept():
    model = nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4)).to(memory_format=torch.channels_last)
    model[0].bias.requires_grad_(False)
    model[1].eval()
    calls = []
    handle = model[0].register_forward_hook(lambda *_: calls.append(1))
    inflate(model, example_input=torch.ones(1, 4, 5, 5))
    calls.clear()
    model(torch.zeros(1, 4, 2, 5, 5))
    assert calls == [1]
    handle.remove()
    model(torch.zeros(1, 4, 2, 5, 5))
    assert calls == [1]
    assert (model[0].bias.requires_grad, model[0].weight.requires_grad) == (False, True)
    assert (model[0].training, model[1].training) == (True, False)
    assert model[0].weight.is_contiguous(memory_format=torch.channels_last_3d)


def test_layers_of_clips_are_left_and_inflating_twice_changes_nothing():
    model = inflate(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)))
    layers = list(model)
    assert list(inflate(model, example_input=torch.ones(1, 3, 2, 5, 5))) == layers


def test_data_type_and_device_are_kept():
    model = inflate(nn.Sequential(nn.Conv2d(3, 4, 3, device="meta", dtype=torch.bfloat16)))
    assert (model[0].weight.device.type, model[0].weight.dtype) == ("meta", torch.bfloat16)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_example_that_is_not_finite_is_refused(value):
    example = IMAGE.clone()
    example[0, 1, 2, 3] = value
    with pytest.raises(InputError, match="example_input holds values that are not finite"):
        inflate(small(), example_input=example)


def test_a_network_whose_values_are_not_finite_is_inflated():
    images = torch.ones(1, 3, 4, 4)
    model = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Conv2d(3, 2, 1))
    nn.init.constant_(model[0].weight, float("inf"))
    assert [type(layer) for layer in inflate(model, example_input=images)] == [nn.Conv3d, nn.Conv3d]


def test_the_state_of_random_generators_and_the_mode_are_left():
    model, state = small().train(), torch.get_rng_state()
    before = [module.training for module in model.modules()]
    inflate(model, example_input=IMAGE)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(before)
    assert all(module.training for module in model.modules())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18d", "regnetx_002", "ffc_seresnet50", "torchvision/resnet18"])
def test_whole_networks(name):
    from ffconv.analysis.networks import NetworkSpec

    model = NetworkSpec.parse(name).build().eval().double()
    images = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        expected = model(images)
        clips = inflate(
            model, lambda name, layer: Temporal(3 if "conv1" in name else 1), temporal_padding="replicate"
        )
        torch.testing.assert_close(clips(still(images, 3)), expected, rtol=1e-9, atol=1e-9)


class Means(nn.Module):
    """Takes the axes of an image for granted."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.conv(x.mean((2, 3), keepdim=True))


class Unpacks(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        _, channels, _, _ = x.shape
        return x * channels


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (Means(), r"1 \(Means\) gives other values for a clip than for its frames"),
        (EffectiveSEModule(4), r"1 \(EffectiveSEModule\) gives other values"),
        (Unpacks(), r"1 \(Unpacks\) does not take clips: too many values to unpack"),
        (nn.Upsample(scale_factor=2, mode="bilinear"), r"1 \(Upsample\) does not take clips"),
        (nn.LPPool2d(2, 2), r"layers without a form for clips: 1 \(LPPool2d\)"),
        (SpectralTransform(4, 4), r"1.fu \(FourierUnit outside of an FFC\), 1.lfu"),
        (type("Odd", (nn.Conv2d,), {})(4, 4, 1), r"1 \(unknown subclass Odd\)"),
        (nn.Conv2d(4, 4, 2, padding="same"), "1: padding='same' of an even kernel"),
    ],
)
def test_names_what_cannot_be_inflated_and_leaves_the_model_alone(module, message):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), module)
    with pytest.raises(InputError, match=message):
        inflate(model)
    assert [type(layer) for layer in model] == [nn.Conv2d, type(module)]


def test_blames_the_module_and_not_what_reads_its_output():
    model = nn.Sequential(nn.Sequential(Means(), *block(4, 4)), Residual(4, 4))
    with pytest.raises(InputError, match=r"^0.0 \(Means\)"):
        inflate(model, example_input=torch.randn(1, 4, 6, 6))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"temporal": {"7": 3}}, "pattern '7' in temporal matches none of the 2 layers"),
        ({"temporal": {"0": 2}}, "kernel=2 in time for 0 must be odd"),
        ({"temporal_padding": "mirror"}, "temporal_padding='mirror' must be one of"),
        (
            {"example_input": torch.zeros(1, 4, 5, 5)},
            r"Sequential does not run on an input of \(1, 4, 5, 5\)",
        ),
    ],
)
def test_raises(arguments, message):
    with pytest.raises(InputError, match=message):
        inflate(nn.Sequential(nn.Conv2d(3, 4, 3), nn.MaxPool2d(2)), **arguments)


@pytest.mark.parametrize("values", [(0, 1), (1, 0)])
def test_temporal_raises(values):
    with pytest.raises(InputError, match="must be positive"):
        Temporal(*values)


@pytest.mark.parametrize("pool", ["avg", "max", "avgmax", "catavgmax", "fastavgmax", "fast"])
@pytest.mark.parametrize("flatten", [False, True])
def test_global_pooling_of_timm(pool, flatten):
    layer = timm.layers.SelectAdaptivePool2d(pool_type=pool, flatten=flatten)
    images = torch.randn(2, 3, 4, 5)
    pooled = inflate(nn.Sequential(nn.Conv2d(3, 3, 1), layer), example_input=images)[1]
    expected = layer(images) if flatten else layer(images)[..., None]
    torch.testing.assert_close(pooled(still(images, 2)), expected)
    assert pooled.feat_mult() == layer.feat_mult()


def test_global_pooling_takes_all_frames():
    model = inflate(nn.Sequential(nn.Conv2d(1, 1, 1), timm.layers.SelectAdaptivePool2d(pool_type="max")))
    clip = torch.arange(6.0).reshape(1, 1, 3, 2, 1)
    torch.testing.assert_close(model[1](clip).flatten(), torch.tensor([5.0]))


def test_no_global_pooling_stays_none():
    pool = timm.layers.SelectAdaptivePool2d(pool_type="")
    model = inflate(nn.Sequential(nn.Conv2d(1, 1, 1), pool), example_input=torch.zeros(1, 1, 4, 4))
    clip = torch.randn(1, 1, 2, 4, 4)
    assert model[1](clip) is clip
    assert model[1].is_identity()
