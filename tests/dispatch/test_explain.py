"""What ``ffconv.explain`` says of a network."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import ffconv
from ffconv.backends.cpu import kernels
from ffconv.nn import FFC1d, FFC2d


@pytest.mark.skipif(not kernels.available(), reason="the CPU kernels are not built")
def test_one_line_a_layer_with_reasons() -> None:
    network = nn.Sequential(FFC2d(8, 8, 3, padding=1, ratio=0.5), FFC2d(8, 8, 1, groups=2, ratio=0.5)).eval()
    network[0].spectral.fu.register_forward_hook(lambda *_: None)
    with torch.no_grad():
        found = ffconv.explain(network, torch.zeros(1, 8, 6, 6))
    first, second = found
    assert (first.name, first.operator, first.implementation) == ("0", "parts", "torch")
    assert first.reasons[0] == ("ffc", "fu has hooks or a replaced forward")
    assert second.reasons[0] == ("ffc", "groups=2: each path has convolutions of its own")
    assert (second.operator, second.implementation) == ("spectral_transform", "cpu")
    assert len(str(found).splitlines()) == 2


def test_the_network_stays_as_it_is() -> None:
    network = FFC2d(8, 8, 3, padding=1, ratio=0.5).train()
    before = {name: buffer.clone() for name, buffer in network.named_buffers()}
    ffconv.explain(network, torch.randn(2, 8, 6, 6))
    torch.testing.assert_close(dict(network.named_buffers()), before)
    assert not network._forward_pre_hooks


def test_a_network_without_ffcs() -> None:
    assert str(ffconv.explain(nn.Conv2d(3, 3, 1), torch.zeros(1, 3, 4, 4))) == "no FFC ran"


def test_sequences() -> None:
    (only,) = ffconv.explain(FFC1d(8, 8, 3, ratio=0.5), torch.zeros(1, 8, 9))
    assert "one-dimensional" in only.reasons[0][1]


def test_a_fused_network() -> None:
    network = ffconv.fuse(nn.Sequential(FFC2d(8, 8, 3, padding=1, ratio=0.5), nn.ReLU()).eval())
    with torch.no_grad():
        (only,) = ffconv.explain(network, torch.zeros(1, 8, 6, 6))
    assert only.operator == ("ffc" if kernels.available() else "parts")
