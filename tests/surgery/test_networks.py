"""Conversion of well-known networks."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves
from torchvision.models import get_model

from ffconv import FFC2d
from ffconv.surgery import ConversionReport, conversion_report, convert

# The parts of a released FFC whose shapes tell which paths it has.
RELEASED_PATH = r"\.ffc\.(convl2l|convl2g|convg2l|convg2g\.conv2)\.weight$"
STEM, HEAD, POINT, NONE = "input stem", "output head", "1x1 map", "no global channels on either side"


@dataclass(frozen=True)
class Expected:
    """Numbers of FFCs by ``ratio_in -> ratio_out``, of what was left by reason, and of mixings."""

    begin: int
    between: int
    end: int
    left: dict[str, int]
    mixings: int = 0


EXPECTED = {
    "resnet18": Expected(1, 13, 2, {STEM: 1, NONE: 3}),
    "resnet50": Expected(2, 40, 2, {STEM: 1, NONE: 8}),
    "resnext50_32x4d": Expected(2, 40, 2, {STEM: 1, NONE: 8}),
    "seresnet50": Expected(2, 40, 2, {STEM: 1, NONE: 8, POINT: 32}),
    "regnety_008": Expected(2, 37, 2, {STEM: 1, NONE: 5, POINT: 28}),
    "densenet121": Expected(1, 86, 16, {STEM: 1, NONE: 16}, mixings=57),
    "efficientnet_b0": Expected(1, 21, 1, {STEM: 1, NONE: 9, POINT: 32, "depthwise": 16}),
    "convnext_tiny": Expected(1, 1, 1, {STEM: 1, "depthwise": 18}),
    "mobilenetv3_large_100": Expected(1, 23, 1, {STEM: 1, NONE: 5, POINT: 17, "depthwise": 15}),
    "vgg16_bn": Expected(1, 8, 1, {STEM: 1, NONE: 2, POINT: 2}),
    "deeplabv3_resnet50": Expected(2, 40, 3, {STEM: 1, NONE: 14, POINT: 1, HEAD: 2}),
    "fcn_resnet50": Expected(2, 40, 3, {STEM: 1, NONE: 9, HEAD: 2}),
    "shufflenet_v2_x1_0": Expected(2, 24, 2, {STEM: 1, NONE: 8, "depthwise": 19}, mixings=14),
}
FAST = {"resnet18", "convnext_tiny"}


def build(name: str) -> nn.Module:
    if timm.is_model(name):
        return timm.create_model(name)
    segmentation = {"weights_backbone": None, "aux_loss": True} if name.endswith("resnet50") else {}
    return get_model(name, weights=None, **segmentation)


def outcomes(report: ConversionReport) -> dict[str, tuple[float, float] | str]:
    return {row.name: row.reason or (row.ratio_in, row.ratio_out) for row in report.rows}


@pytest.fixture(
    scope="module",
    params=[name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in EXPECTED],
)
def converted(request: pytest.FixtureRequest) -> tuple[str, nn.Module]:
    torch.manual_seed(0)
    return request.param, convert(build(request.param))


@pytest.fixture
def images() -> Tensor:
    return torch.randn(2, 3, 64, 64)


def test_plan(converted: tuple[str, nn.Module]) -> None:
    name, model = converted
    report = conversion_report(model)
    found = list(outcomes(report).values())
    left = [outcome for outcome in found if isinstance(outcome, str)]
    assert EXPECTED[name] == Expected(
        found.count((0.0, 0.25)),
        found.count((0.25, 0.25)),
        found.count((0.25, 0.0)),
        {reason: left.count(reason) for reason in set(left)},
        len(report.mixings),
    )


def test_output_has_the_shape_of_the_plain_network(converted: tuple[str, nn.Module], images: Tensor) -> None:
    name, model = converted
    with torch.no_grad():
        shapes = [output.shape for output in tree_leaves(model.eval()(images))]
        assert shapes == [output.shape for output in tree_leaves(build(name).eval()(images))]


def test_every_parameter_takes_part(converted: tuple[str, nn.Module], images: Tensor) -> None:
    _, model = converted
    sum(output.square().mean() for output in tree_leaves(model.train()(images))).backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []


def test_state_round_trip(converted: tuple[str, nn.Module], images: Tensor) -> None:
    name, model = converted
    other = convert(build(name))
    other.load_state_dict(model.state_dict())
    with torch.no_grad():
        outputs = tree_leaves(model.eval()(images))
        assert all(map(torch.equal, outputs, tree_leaves(other.eval()(images))))


def test_ratios_of_a_resnet() -> None:
    """Nothing global is read where layer1 begins, nothing is made in layer4, which is plain inside."""
    expected: dict[str, tuple[float, float] | str] = {"conv1": STEM}
    for layer, blocks in enumerate((3, 4, 6, 3), start=1):
        for block in range(blocks):
            reads = 0.0 if (layer, block) == (1, 0) or (layer == 4 and block > 0) else 0.25
            makes = 0.0 if layer == 4 else 0.25
            convs = {"conv1": (reads, makes), "conv2": (makes, makes), "conv3": (makes, makes)}
            if block == 0:
                convs["downsample.0"] = (reads, makes)
            for conv, ratios in convs.items():
                expected[f"layer{layer}.{block}.{conv}"] = ratios if any(ratios) else NONE
    assert outcomes(conversion_report(convert(timm.create_model("resnet50")))) == expected


@pytest.mark.parametrize("output_stride", [8, 16])
def test_dilated_resnet_has_the_ratios_of_the_strided_one(output_stride: int) -> None:
    dilated = convert(timm.create_model("resnet50", output_stride=output_stride))
    strided = convert(timm.create_model("resnet50"))
    assert outcomes(conversion_report(dilated)) == outcomes(conversion_report(strided))


@pytest.mark.parametrize(("lfu", "parameters"), [(False, 26_102_744), (True, 26_721_784)])
def test_parameters_of_the_published_resnet50(lfu: bool, parameters: int) -> None:
    model = convert(timm.create_model("resnet50"), 0.25, lfu)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


@pytest.mark.reference
@pytest.mark.parametrize("name", ["resnet50", "resnext50_32x4d"])
def test_paths_are_those_of_the_released_networks(name: str, reference: Path) -> None:
    released = json.loads((reference / "golden" / "official_state_dict_keys.json").read_text())[f"ffc_{name}"]
    theirs = {key: shape for key, shape in released["state_dict"].items() if re.search(RELEASED_PATH, key)}
    ours: dict[str, list[int]] = {}
    model = convert(timm.create_model(name), **released["arguments"])
    for path, module in model.named_modules():
        prefix = re.sub(r"downsample\.0$", "downsample", path) + ".ffc."
        if isinstance(module, FFC2d):
            parts = {
                "convl2l.weight": module.weight_l2l,
                "convl2g.weight": module.weight_l2g,
                "convg2l.weight": module.weight_g2l,
                "convg2g.conv2.weight": module.spectral and module.spectral.conv2.weight,
            }
            ours |= {
                prefix + part: list(weight.shape) for part, weight in parts.items() if weight is not None
            }
        elif isinstance(module, nn.Conv2d) and path.startswith("layer4"):
            ours[f"{prefix}convl2l.weight"] = list(module.weight.shape)
    assert ours == theirs


def test_features_of_a_converted_backbone(images: Tensor) -> None:
    model = convert(timm.create_model("resnet18", features_only=True))
    assert [feature.shape[1] for feature in model(images)] == [64, 64, 128, 256, 512]


def test_tracing_by_fx_after_conversion(images: Tensor) -> None:
    model = convert(timm.create_model("resnet18")).eval()
    with torch.no_grad():
        torch.testing.assert_close(torch.fx.symbolic_trace(model)(images), model(images))
