"""Networks by name."""

from __future__ import annotations

import pytest
import timm
import torch
import torchvision

from ffconv.analysis.networks import NetworkSpec
from ffconv.errors import InputError


def test_arguments_are_read_as_yaml() -> None:
    spec = NetworkSpec.parse("net,ratio=.5,lfu=false, pool=avg,out=[1,2],none=null")
    assert spec.name == "net"
    assert spec.arguments == {"ratio": 0.5, "lfu": False, "pool": "avg", "out": [1, 2], "none": None}


def test_what_is_printed_is_read_back() -> None:
    spec = NetworkSpec("net", {"ratio": 0.5, "lfu": False, "pool": "avg", "out": [1, 2]})
    assert NetworkSpec.parse(str(spec)) == spec


def test_a_value_that_is_no_yaml_is_named() -> None:
    with pytest.raises(InputError, match=r"net,out=\[1: out=\[1 is no YAML value"):
        NetworkSpec.parse("net,out=[1")


def test_the_text_overrides_the_defaults() -> None:
    assert NetworkSpec.parse("net,a=1", {"a": 2, "b": 3}).arguments == {"a": 1, "b": 3}


def test_a_name_of_both_registries_is_timms() -> None:
    assert isinstance(NetworkSpec("resnet18").build("meta"), timm.models.ResNet)


def test_torchvision_is_asked_for_by_its_prefix() -> None:
    assert isinstance(NetworkSpec("torchvision/resnet18").build("meta"), torchvision.models.ResNet)


def test_a_segmentation_network_is_built_without_fetching_weights() -> None:
    model = NetworkSpec("fcn_resnet50", {"num_classes": 3}).build("meta")
    assert isinstance(model, torchvision.models.segmentation.FCN)


def test_our_networks_are_in_the_registry() -> None:
    assert NetworkSpec("ffc_resnet50").available


def test_the_meta_device_holds_the_parameters_of_a_network() -> None:
    model = NetworkSpec("resnet18").build("meta")
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}


def test_weights_off_the_meta_device_are_drawn() -> None:
    torch.manual_seed(0)
    weight = NetworkSpec("resnet18").build().get_parameter("conv1.weight")
    assert float(weight.detach().std()) == pytest.approx((2 / (64 * 49)) ** 0.5, rel=0.05)


def test_an_unknown_name_gets_the_nearest_known_one() -> None:
    with pytest.raises(InputError, match=r"no network is called 'resnet51'; did you mean 'resnet"):
        NetworkSpec("resnet51").build()


def test_a_refused_argument_is_named() -> None:
    with pytest.raises(InputError, match=r"resnet18,ratio=0.5 cannot be built: .*'ratio'"):
        NetworkSpec("resnet18", {"ratio": 0.5}).build("meta")


@pytest.mark.parametrize("text", ["ffc_resnet18,lfu=maybe", "lama_generator,gated=perhaps"])
def test_a_switch_is_true_or_false(text: str) -> None:
    with pytest.raises(InputError, match=r"(lfu='maybe'|gated='perhaps') must be true or false"):
        NetworkSpec.parse(text).build("meta")
