from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

from ffconv.errors import InputError
from ffconv.models import SimpleBaseline
from ffconv.nn import FFC2d

NETWORKS = [f"{kind}pose_resnet{depth}" for kind in ("", "ffc_") for depth in (18, 34, 50, 101, 152)]
# Millions of parameters of the published networks.
MILLIONS = {"pose_resnet50": 34.0, "pose_resnet101": 53.0, "pose_resnet152": 68.6}


def _on_meta(name: str, **arguments) -> SimpleBaseline:
    with torch.device("meta"):
        return timm.create_model(name, **arguments)


def _parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.fixture(scope="module")
def network() -> SimpleBaseline:
    torch.manual_seed(0)
    return timm.create_model("ffc_pose_resnet18", num_classes=5).eval()


@pytest.mark.parametrize("name", NETWORKS)
def test_all_are_registered(name):
    assert timm.is_model(name)


@pytest.mark.parametrize("name", MILLIONS)
def test_parameters_to_the_printed_digit(name):
    assert round(_parameters(_on_meta(name)) / 1e6, 1) == MILLIONS[name]


def test_parameters_are_those_of_the_backbone_and_the_published_decoder():
    taps = 4 * 4
    decoder = taps * 256 * (2048 + 256 + 256) + 3 * 2 * 256 + 256 * 17 + 17
    backbone = _parameters(_on_meta("ffc_resnet50", num_classes=0))
    assert _parameters(_on_meta("ffc_pose_resnet50")) == backbone + decoder


def test_heatmaps_are_a_quarter_of_the_image(network):
    assert network(torch.randn(2, 3, 64, 96)).shape == (2, 5, 16, 24)


def test_forward_is_deconvolutions_on_the_backbones_last_features(network):
    x = torch.randn(1, 3, 64, 64)
    y = network.backbone.forward_features(x)
    for index in (0, 3, 6):
        conv, norm = network.deconv_layers[index], network.deconv_layers[index + 1]
        y = nn.functional.conv_transpose2d(y, conv.weight, stride=2, padding=1)
        y = norm(y).relu()
    expected = nn.functional.conv2d(y, network.final_layer.weight, network.final_layer.bias)
    torch.testing.assert_close(network(x), expected)


def test_the_decoder_begins_small():
    torch.manual_seed(0)
    network = timm.create_model("pose_resnet18")
    for layer in (network.deconv_layers[0], network.deconv_layers[6], network.final_layer):
        assert layer.weight.std().item() == pytest.approx(1e-3, rel=0.05)
    assert not network.final_layer.bias.any()
    assert all(norm.weight.eq(1).all() and not norm.bias.any() for norm in network.deconv_layers[1::3])


def test_names_are_those_of_the_public_checkpoints():
    names = {name for name in _on_meta("pose_resnet18").state_dict() if not name.startswith("backbone.")}
    norms = {
        f"deconv_layers.{index}.{entry}"
        for index in (1, 4, 7)
        for entry in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    }
    convolutions = {f"deconv_layers.{index}.weight" for index in (0, 3, 6)}
    assert names == norms | convolutions | {"final_layer.weight", "final_layer.bias"}


def test_no_parameter_is_left_without_a_gradient():
    network = timm.create_model("ffc_pose_resnet18", num_classes=2, lfu=False)
    network(torch.randn(2, 3, 64, 64)).square().mean().backward()
    assert [name for name, parameter in network.named_parameters() if parameter.grad is None] == []


def test_arguments_reach_the_backbone():
    network = _on_meta("ffc_pose_resnet18", ratio=0.5, lfu=False, in_chans=1)
    conv = network.backbone.layer2[0].conv2
    assert isinstance(conv, FFC2d)
    assert (conv.ratio_in, conv.spectral.lfu, network.backbone.conv1.in_channels) == (0.5, None, 1)


def test_width_is_that_of_every_transposed_convolution():
    network = _on_meta("pose_resnet18", width=32)
    shapes = [tuple(network.deconv_layers[index].weight.shape) for index in (0, 3, 6)]
    assert shapes == [(512, 32, 4, 4), (32, 32, 4, 4), (32, 32, 4, 4)]
    assert network.final_layer.in_channels == 32


@pytest.mark.parametrize(
    ("backbone", "doublings"), [("convnext_atto", 3), ("vit_tiny_patch16_224", 2), ("ffc_resnet26", 3)]
)
def test_any_backbone_with_features(backbone, doublings):
    network = _on_meta("pose", backbone=backbone, num_classes=4).eval()
    assert network(torch.zeros(1, 3, 224, 224, device="meta")).shape == (1, 4, 56, 56)
    assert sum(isinstance(layer, nn.ConvTranspose2d) for layer in network.deconv_layers) == doublings


def test_a_backbone_of_another_stride_is_refused():
    with pytest.raises(InputError, match="has stride 14: it must be 8, 16, 32 or 64"):
        _on_meta("pose", backbone="vit_small_patch14_dinov2")


def test_reset_classifier_leaves_the_rest(network):
    twin = timm.create_model("ffc_pose_resnet18", num_classes=5).eval()
    twin.load_state_dict(network.state_dict())
    twin.reset_classifier(2)
    assert twin(torch.zeros(1, 3, 32, 32)).shape == (1, 2, 8, 8)
    assert (twin.num_classes, twin.get_classifier().out_channels) == (2, 2)
    assert twin.final_layer.weight.std().item() == pytest.approx(1e-3, rel=0.2)
    assert torch.equal(twin.deconv_layers[0].weight, network.deconv_layers[0].weight)


def test_gradient_checkpointing_gives_the_same_gradients(network):
    x = torch.randn(1, 3, 64, 64)
    gradients = []
    for enable in (False, True):
        network.set_grad_checkpointing(enable)
        network.zero_grad()
        network(x).square().sum().backward()
        gradients.append(network.backbone.layer1[0].conv1.weight_l2l.grad.clone())
    network.set_grad_checkpointing(False)
    torch.testing.assert_close(*gradients)


@pytest.mark.slow
def test_compile_and_export(network):
    x = torch.randn(1, 3, 64, 64)
    torch._dynamo.reset()
    with torch.no_grad():
        expected = network(x)
        torch.testing.assert_close(torch.compile(network, fullgraph=True)(x), expected, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(torch.export.export(network, (x,)).module()(x), expected)
