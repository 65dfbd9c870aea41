"""Converted models of Hugging Face transformers are saved and read as docs/convert.md says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import ffconv
from documents import DOCS, code_blocks

transformers = pytest.importorskip("transformers")

SIZES = {"embedding_size": 8, "hidden_sizes": [8, 16, 16, 16], "depths": [1, 1, 1, 1], "layer_type": "basic"}
SAVING, SUBCLASS = (block for block in code_blocks(DOCS / "convert.md", "python") if "ResNetConfig" in block)


@pytest.fixture
def names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the blocks import, in a folder with a small network."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    transformers.ResNetForImageClassification(transformers.ResNetConfig(**SIZES)).save_pretrained("my-resnet")
    kinds = (transformers.ResNetConfig, transformers.ResNetForImageClassification)
    own = {"ffconv": ffconv, "json": json, "Path": Path, "load_file": load_file, "sizes": SIZES}
    return {**own, **{kind.__name__: kind for kind in kinds}}


def logits(network: nn.Module) -> torch.Tensor:
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return network.eval()(images).logits


def test_a_converted_model_is_saved_and_comes_back(names: dict[str, Any]):
    exec(SAVING, names)
    assert any(isinstance(module, ffconv.FFC2d) for module in names["again"].modules())
    torch.testing.assert_close(logits(names["again"]), logits(names["model"]), rtol=0, atol=0)


def test_from_pretrained_alone_brings_other_convolutions(names: dict[str, Any]):
    """The reason for the page's lines."""
    exec(SAVING, names)
    plain = transformers.ResNetForImageClassification.from_pretrained("my-ffc-resnet")
    assert not any(isinstance(module, ffconv.FFC2d) for module in plain.modules())
    assert (logits(plain) - logits(names["model"])).abs().max() > 1e-3


def test_a_class_that_converts_itself_comes_back(names: dict[str, Any]):
    made, saved, read = SUBCLASS.rpartition("network = FFCResNet.from_pretrained")
    exec(made, names)
    expected = logits(names["network"])
    exec(saved + read, names)
    assert any(isinstance(module, ffconv.FFC2d) for module in names["network"].modules())
    torch.testing.assert_close(logits(names["network"]), expected, rtol=0, atol=0)
