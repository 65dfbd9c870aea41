"""The lines of docs/hubs.md do what they say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.feature_extraction import create_feature_extractor
from torchvision.models.segmentation.fcn import FCN, FCNHead

import ffconv
from documents import DOCS, code_blocks

SAVING, CONVERTING, BACKBONES = code_blocks(DOCS / "hubs.md", "python")


def test_a_network_is_saved_and_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ffconv, "push_to_hub", lambda *given: pushed.append(given[1]))
    pushed: list[str] = []
    names: dict[str, Any] = {"ffconv": ffconv, "network": timm.create_model("test_resnet", num_classes=2)}
    exec(SAVING, names)
    assert names["network"].pretrained_cfg["label_names"] == ["cat", "dog"]
    assert pushed == ["user/my-model"]


def test_a_converted_network_has_a_name():
    names: dict[str, Any] = {"timm": timm}
    exec(CONVERTING, names)
    assert ffconv.conversion_report(names["network"]).ratio == 0.25


def test_backbones_go_into_torchvisions_networks():
    parts = (BackboneWithFPN, FasterRCNN, FCN, FCNHead, IntermediateLayerGetter, create_feature_extractor)
    names: dict[str, Any] = {"timm": timm, "num_classes": 3, **{part.__name__: part for part in parts}}
    with torch.device("meta"):
        exec(BACKBONES, names)
        scores = names["segmenter"].eval()(torch.zeros(1, 3, 64, 64))["out"]
    assert scores.shape == (1, 3, 64, 64)
