"""A converted network by a name of timm's registry."""

from __future__ import annotations

import pytest
import timm
import torch

import ffconv
from ffconv.errors import InputError
from ffconv.nn import FFC2d


def test_it_is_the_conversion_of_the_network():
    torch.manual_seed(0)
    named = timm.create_model("ffc_converted", network="test_resnet", ratio=0.5, lfu=False, num_classes=3)
    torch.manual_seed(0)
    converted = ffconv.convert(timm.create_model("test_resnet", num_classes=3), 0.5, lfu=False)
    expected = converted.state_dict()
    assert named.state_dict().keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in named.state_dict().items())


def test_its_configuration_is_the_networks_without_its_weights():
    found = timm.create_model("ffc_converted", network="test_resnet").pretrained_cfg
    own = timm.create_model("test_resnet").pretrained_cfg
    assert found["architecture"] == "ffc_converted"
    assert not {"url", "hf_hub_id", "tag"} & found.keys()
    for key in ("input_size", "mean", "std", "first_conv", "classifier"):
        assert found[key] == own[key]


def test_rules_may_be_as_json_has_them():
    rules = {"layer2.0.conv1": [0.0, 0.5], "*": None}
    network = timm.create_model("ffc_converted", network="test_resnet", rules=rules)
    ffcs = {n: (m.ratio_in, m.ratio_out) for n, m in network.named_modules() if isinstance(m, FFC2d)}
    assert ffcs == {"layer2.0.conv1": (0.0, 0.5)}


def test_features_only():
    network = timm.create_model("ffc_converted", network="test_resnet", features_only=True).eval()
    maps = network(torch.zeros(1, 3, 64, 64))
    assert [feature.shape[1] for feature in maps] == network.feature_info.channels()


def test_an_unknown_network_is_refused():
    with pytest.raises(InputError, match="network='resnet81' is no network timm knows"):
        timm.create_model("ffc_converted", network="resnet81")
