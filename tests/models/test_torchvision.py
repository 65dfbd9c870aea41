"""Our networks inside torchvision's feature extractors, detection and segmentation."""

from __future__ import annotations

from statistics import mean

import pytest
import timm
import torch
from torch import Tensor, nn
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.feature_extraction import create_feature_extractor
from torchvision.models.segmentation.fcn import FCN, FCNHead

import ffconv.models  # noqa: F401

STAGES = {f"layer{number}": str(number - 1) for number in range(1, 5)}
SIDE = 64


@pytest.fixture
def resnet() -> nn.Module:
    return timm.create_model("ffc_resnet18")


def square(seed: int) -> tuple[Tensor, Tensor]:
    """A picture (3, SIDE, SIDE) of noise with a bright square, and the square's corners (4,)."""
    random = torch.Generator().manual_seed(seed)
    image = 0.2 * torch.rand(3, SIDE, SIDE, generator=random)
    left, top = torch.randint(0, SIDE // 2, (2,), generator=random).tolist()
    image[:, top : top + SIDE // 3, left : left + SIDE // 3] += 0.8
    return image, torch.tensor([left, top, left + SIDE // 3, top + SIDE // 3], dtype=torch.float32)


def test_intermediate_layers_are_timms_features(resnet: nn.Module):
    x = torch.randn(1, 3, 48, 40)
    with torch.no_grad():
        found = IntermediateLayerGetter(resnet.eval(), STAGES)(x)
        expected = resnet.forward_intermediates(x, intermediates_only=True)[1:]
    assert all(torch.equal(a, b) for a, b in zip(found.values(), expected, strict=True))


@pytest.mark.parametrize("name", ["ffc_resnet18", "ffc_seresnet50"])
def test_create_feature_extractor_computes_the_same(name: str):
    network = timm.create_model(name).double().eval()
    x = torch.randn(1, 3, 48, 40, dtype=torch.float64)
    with torch.no_grad():
        found = create_feature_extractor(network, ["layer2", "layer4"])(x)
        expected = network.forward_intermediates(x, indices=[2, 4], intermediates_only=True)
    torch.testing.assert_close(list(found.values()), expected)


def test_faster_rcnn_learns_a_square(resnet: nn.Module):
    channels = [info["num_chs"] for info in resnet.feature_info[1:]]
    backbone = BackboneWithFPN(resnet, STAGES, channels, out_channels=32)
    anchors = AnchorGenerator(tuple((size,) for size in (8, 16, 32, 64, 128)), ((1.0,),) * 5)
    detector = FasterRCNN(
        backbone, num_classes=2, rpn_anchor_generator=anchors, min_size=SIDE, max_size=SIDE
    ).train()
    images, boxes = zip(*(square(seed) for seed in range(2)), strict=True)
    targets = [{"boxes": box[None], "labels": torch.ones(1, dtype=torch.int64)} for box in boxes]
    optimizer = torch.optim.Adam(detector.parameters(), 1e-3)
    losses = []
    for _ in range(9):
        loss = sum(detector(list(images), targets).values(), torch.zeros(()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert mean(losses[-3:]) < 0.6 * mean(losses[:3])
    assert all(p.grad is not None for p in resnet.layer4.parameters())


def test_fcn_learns_a_square():
    resnet = timm.create_model("ffc_resnet18", output_stride=8)
    network = FCN(IntermediateLayerGetter(resnet, {"layer4": "out"}), FCNHead(512, 1)).train()
    images, boxes = map(torch.stack, zip(*(square(seed) for seed in range(2)), strict=True))
    rows, columns = torch.arange(SIDE)[None, :, None], torch.arange(SIDE)[None, None]
    left, top, right, bottom = boxes[:, :, None, None].unbind(1)
    inside = ((columns >= left) & (columns < right) & (rows >= top) & (rows < bottom)).float()
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    losses = []
    for _ in range(8):
        loss = nn.functional.binary_cross_entropy_with_logits(network(images)["out"][:, 0], inside)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert mean(losses[-3:]) < 0.6 * losses[0]
