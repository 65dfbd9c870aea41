"""The ffc_* networks: the paper's counts, and timm's behaviours as timm's own model tests have them."""

from __future__ import annotations

import pickle
from functools import partial

import pytest
import timm
import torch
from timm.models import is_model, list_models
from timm.models._features_fx import GraphExtractNet
from torch import nn

import ffconv.models  # noqa: F401
from ffconv.errors import InputError
from ffconv.nn import FFC2d

NETWORKS = [
    "ffc_resnet18",
    "ffc_resnet26",
    "ffc_resnet34",
    "ffc_resnet50",
    "ffc_resnet101",
    "ffc_resnet152",
    "ffc_resnet200",
    "ffc_resnext101_32x8d",
    "ffc_resnext50_32x4d",
    "ffc_seresnet50",
]
# The same code as the others, only longer.
LONGER = {"ffc_resnet152", "ffc_resnet200", "ffc_resnext101_32x8d"}
# Millions of parameters as the paper and the released code have them: (network, ratio, lfu).
MILLIONS = {
    ("ffc_resnet50", 0.125, False): 25.70,
    ("ffc_resnet50", 0.125, True): 25.85,
    ("ffc_resnet50", 0.25, False): 26.10,
    ("ffc_resnet50", 0.25, True): 26.72,
    ("ffc_resnet50", 0.5, False): 27.72,
    ("ffc_resnet50", 0.5, True): 30.18,
    ("ffc_resnet50", 0.75, False): 30.40,
    ("ffc_resnet50", 0.75, True): 35.93,
    ("ffc_resnet50", 1, False): 34.15,
    ("ffc_resnet50", 1, True): 43.97,
    ("ffc_resnet18", 0.25, False): 11.57,
    ("ffc_resnet18", 0.25, True): 11.60,
    ("ffc_resnet26", 0.25, False): 16.26,
    ("ffc_resnet26", 0.25, True): 16.54,
    ("ffc_resnet101", 0.25, False): 46.12,
    ("ffc_resnet101", 0.25, True): 48.01,
    ("ffc_resnet152", 0.25, False): 62.62,
    ("ffc_resnet152", 0.25, True): 65.55,
    ("ffc_resnext50_32x4d", 0.25, False): 25.78,
    ("ffc_resnext50_32x4d", 0.25, True): 26.47,
    ("ffc_resnext50_32x4d", 0.5, False): 28.02,
    ("ffc_resnext50_32x4d", 0.5, True): 30.75,
}

# Traced, the Spectral Transform runs operation by operation.
ROUNDING = {"rtol": 1e-4, "atol": 1e-4}


def _parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def _on_meta(name: str, **arguments) -> nn.Module:
    with torch.device("meta"):
        return timm.create_model(name, **arguments)


@pytest.fixture(scope="module")
def resnet18() -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model("ffc_resnet18", num_classes=7).eval()


def test_all_are_registered():
    assert {name for name in list_models("ffc_*", module="image") if is_model(name)} == set(NETWORKS)


@pytest.mark.parametrize(("name", "ratio", "lfu"), MILLIONS)
def test_parameters_to_the_printed_digit(name, ratio, lfu):
    millions = _parameters(_on_meta(name, ratio=ratio, lfu=lfu)) / 1e6
    assert round(millions, 2) == MILLIONS[name, ratio, lfu]


@pytest.mark.parametrize(("lfu", "parameters"), [(False, 26_102_744), (True, 26_721_784)])
def test_exact_parameters_of_the_released_code(lfu, parameters):
    assert _parameters(_on_meta("ffc_resnet50", lfu=lfu)) == parameters


def test_exact_parameters_with_squeeze_and_excitation():
    assert _parameters(_on_meta("ffc_resnet18", ratio=0.5, lfu=False, se=True)) == 11_303_680


def test_global_path_begins_in_layer1_and_ends_in_layer4():
    network = _on_meta("ffc_resnet50")
    ratios = {n: (m.ratio_in, m.ratio_out) for n, m in network.named_modules() if isinstance(m, FFC2d)}
    assert isinstance(network.conv1, nn.Conv2d)
    assert ratios["layer1.0.conv1"] == ratios["layer1.0.downsample.0"] == (0, 0.25)
    assert ratios["layer1.0.conv2"] == ratios["layer3.5.conv3"] == (0.25, 0.25)
    assert ratios["layer4.0.conv1"] == ratios["layer4.0.downsample.0"] == (0.25, 0)
    assert [n for n in ratios if n.startswith("layer4")] == ["layer4.0.conv1", "layer4.0.downsample.0"]


def test_ratio_0_has_timms_parameters_and_the_first_shortcut():
    plain, converted = _on_meta("resnet18"), _on_meta("ffc_resnet18", ratio=0)
    theirs, ours = ({n: p.shape for n, p in network.named_parameters()} for network in (plain, converted))
    assert theirs.items() <= ours.items()
    assert ours.keys() - theirs.keys() == {
        "layer1.0.downsample.0.weight",
        "layer1.0.downsample.1.weight",
        "layer1.0.downsample.1.bias",
    }


def test_switches_leave_the_begin_and_the_end():
    network = _on_meta("ffc_resnet18", local_to_global=False, global_to_local=False)
    assert network.layer1[0].conv2.weight_l2g is None
    assert network.layer1[0].conv2.weight_g2l is None
    assert network.layer1[0].conv1.weight_l2g is not None
    assert network.layer4[0].conv1.weight_g2l is not None


def test_parts_are_initialised_by_themselves():
    torch.manual_seed(0)
    conv = timm.create_model("ffc_resnet18").layer3[1].conv2
    assert conv.weight_l2g.std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.02)


def test_added_shortcut_has_the_width_and_the_norm_of_its_block():
    norm_layer = partial(nn.BatchNorm2d, eps=1e-3)
    network = _on_meta("ffc_resnet18", norm_layer=norm_layer, block_reduce_first=2)
    conv, norm = network.layer1[0].downsample
    assert (conv.in_channels, conv.out_channels, norm.num_features) == (64, 64, 64)
    assert norm.eps == 1e-3


@pytest.mark.parametrize(("zero", "expected"), [(False, 1.0), (True, 0.0)])
def test_zero_init_last(zero, expected):
    network = timm.create_model("ffc_resnet18", zero_init_last=zero)
    assert (network.layer2[0].bn2.weight == expected).all()


def test_squeeze_and_excitation_has_a_sixteenth_of_the_channels():
    network = _on_meta("ffc_resnet18", se=True)
    assert [stage[0].se.fc1.out_channels for stage in (network.layer1, network.layer4)] == [4, 32]


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in NETWORKS if name not in LONGER])
def test_forward_and_backward(name):
    network = timm.create_model(name, num_classes=5)
    y = network(torch.randn(2, 3, 64, 64))
    assert y.shape == (2, 5)
    y.mean().backward()
    assert [n for n, p in network.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("name", NETWORKS)
def test_pretrained_cfg_names_the_first_and_the_last_layer(name):
    network = _on_meta(name)
    state = network.state_dict()
    assert f"{network.pretrained_cfg['first_conv']}.weight" in state
    assert f"{network.pretrained_cfg['classifier']}.weight" in state
    assert network.pretrained_cfg["architecture"] == name


def test_pretrained_is_refused_while_there_are_no_weights():
    with pytest.raises(RuntimeError, match="pretrained"):
        timm.create_model("ffc_resnet18", pretrained=True)


def test_forward_is_features_and_head(resnet18):
    x = torch.randn(2, 3, 65, 47)
    features = resnet18.forward_features(x)
    assert features.shape == (2, resnet18.num_features, 3, 2)
    torch.testing.assert_close(resnet18.forward_head(features), resnet18(x))
    assert resnet18.forward_head(features, pre_logits=True).shape == (2, resnet18.head_hidden_size)


def test_reset_classifier_and_global_pool():
    network = timm.create_model("ffc_resnet18", num_classes=7).eval()
    x = torch.randn(1, 3, 64, 64)
    network.reset_classifier(3)
    assert network(x).shape == (1, 3)
    network.reset_classifier(0)
    assert network(x).shape == (1, 512)
    network.reset_classifier(0, "")
    assert network(x).shape == (1, 512, 2, 2)
    assert timm.create_model("ffc_resnet18", num_classes=0, global_pool="").eval()(x).shape == (1, 512, 2, 2)


def test_the_classifier_is_the_layer_timm_says(resnet18):
    assert resnet18.get_classifier() is resnet18.get_submodule(resnet18.pretrained_cfg["classifier"])
    x = torch.randn(2, 3, 40, 40)
    features = resnet18.forward_head(resnet18.forward_features(x), pre_logits=True)
    torch.testing.assert_close(resnet18.get_classifier()(features), resnet18(x))


def test_checkpoint_path_is_loaded(resnet18, tmp_path):
    torch.save({"state_dict": resnet18.state_dict()}, tmp_path / "last.pth")
    twin = timm.create_model("ffc_resnet18", num_classes=7, checkpoint_path=tmp_path / "last.pth").eval()
    x = torch.randn(1, 3, 40, 40)
    torch.testing.assert_close(twin(x), resnet18(x), rtol=0, atol=0)


@pytest.mark.parametrize("in_chans", [1, 4])
def test_in_chans(in_chans):
    network = timm.create_model("ffc_resnet18", in_chans=in_chans, num_classes=2).eval()
    assert network(torch.randn(1, in_chans, 32, 32)).shape == (1, 2)


@pytest.mark.parametrize("output_stride", [8, 16, 32])
def test_output_stride(output_stride):
    network = timm.create_model("ffc_resnet18", output_stride=output_stride).eval()
    side = 64 // output_stride
    assert network.forward_features(torch.randn(1, 3, 64, 64)).shape[-2:] == (side, side)


@pytest.mark.parametrize("output_stride", [8, 32])
def test_features_only(output_stride):
    network = timm.create_model("ffc_resnet18", features_only=True, output_stride=output_stride).eval()
    features = network(torch.randn(1, 3, 96, 64))
    assert [f.shape[1] for f in features] == network.feature_info.channels()
    for f, reduction in zip(features, network.feature_info.reduction(), strict=True):
        assert reduction <= output_stride
        assert f.shape[-2:] == (96 // reduction, 64 // reduction)


def test_forward_intermediates_are_the_features_of_the_forward(resnet18):
    x = torch.randn(1, 3, 64, 64)
    final, intermediates = resnet18.forward_intermediates(x)
    assert [f.shape[1] for f in intermediates] == [info["num_chs"] for info in resnet18.feature_info]
    torch.testing.assert_close(final, resnet18.forward_features(x))
    torch.testing.assert_close(intermediates[-1], final)


def test_gradient_checkpointing_gives_the_same_gradients():
    network = timm.create_model("ffc_resnet18", num_classes=2).eval()
    x = torch.randn(1, 3, 48, 48)
    network(x).sum().backward()
    expected = [p.grad.clone() for p in network.parameters()]
    network.zero_grad()
    network.set_grad_checkpointing()
    network(x).sum().backward()
    for p, grad in zip(network.parameters(), expected, strict=True):
        torch.testing.assert_close(p.grad, grad)


@pytest.mark.parametrize("size", [(64, 64), (65, 47)])
def test_fx_features(resnet18, size):
    x = torch.randn(1, 3, *size)
    features = GraphExtractNet(resnet18, ["layer2", "fc"])(x)
    found = features["fc"] if isinstance(features, dict) else features[-1]
    torch.testing.assert_close(found, resnet18(x), **ROUNDING)


def test_drop_path_and_dropout():
    network = timm.create_model("ffc_resnet18", drop_path_rate=0.5, drop_rate=0.3, num_classes=2)
    assert network.layer4[1].drop_path.drop_prob == 0.5
    assert network.drop_rate == 0.3
    x = torch.randn(2, 3, 32, 32)
    assert not torch.equal(network(x), network(x))


def test_state_dict_and_pickle_round_trip(resnet18):
    x = torch.randn(1, 3, 40, 56)
    twin = timm.create_model("ffc_resnet18", num_classes=7).eval()
    twin.load_state_dict(resnet18.state_dict())
    torch.testing.assert_close(twin(x), resnet18(x), rtol=0, atol=0)
    copied = pickle.loads(pickle.dumps(resnet18))
    torch.testing.assert_close(copied(x), resnet18(x), rtol=0, atol=0)


def test_ratio_outside_its_range_is_refused_by_value():
    with pytest.raises(InputError, match=r"ratio=1.5 must lie in \[0, 1\]"):
        timm.create_model("ffc_resnet18", ratio=1.5)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_compile_export_and_trace(resnet18):
    x = torch.randn(1, 3, 64, 64)
    torch._dynamo.reset()
    with torch.no_grad():
        expected = resnet18(x)
        torch.testing.assert_close(torch.compile(resnet18, fullgraph=True)(x), expected, **ROUNDING)
        torch.testing.assert_close(torch.export.export(resnet18, (x,)).module()(x), expected, **ROUNDING)
        torch.testing.assert_close(torch.jit.trace(resnet18, x)(x), expected, **ROUNDING)
