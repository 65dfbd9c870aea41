"""The plain transcription of LaMa's generator computes what ours does; its weights load, as published."""

from __future__ import annotations

import re

import torch

from ffconv import load_weights
from ffconv.analysis.reference_lama import LamaGenerator
from ffconv.models import LamaGenerator as OurGenerator

PUBLISHED = (
    (r"\b(l2l|l2g|g2l|g2g)\.", r"ffc.conv\1."),
    (r"\bffc\.ffc\.", "ffc."),
    (r"\bfu\.conv\.", "fu.conv_layer."),
)


def published(name: str) -> str:
    for pattern, replacement in PUBLISHED:
        name = re.sub(pattern, replacement, name)
    return name


def test_networks_are_equal():
    options = {"width": 8, "downsamplings": 2, "blocks": 2, "ratio": 0.75}
    plain = LamaGenerator(**options).double()
    for tensor in plain.state_dict().values():
        if tensor.dim() == 1:
            tensor.uniform_(0.5, 1.0)
    ours = OurGenerator(**options).double()
    weights = {published(name): tensor for name, tensor in plain.state_dict().items()}
    load_weights(ours, weights, spectral_layout="stacked")
    x = torch.rand(2, 4, 32, 40, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(plain.eval()(x), ours.eval()(x), rtol=1e-9, atol=1e-9)
