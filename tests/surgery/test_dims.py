"""Conversion and fusion of networks of sequences and clips."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import oracles
from ffconv import FFC1d, FFC3d, conversion_report, convert, fuse, inflate
from ffconv.errors import InputError
from ffconv.surgery.clip_layers import PaddedConv3d
from ffconv.surgery.trial import trial_forward
from small_networks import Residual, block


def sequences() -> nn.Sequential:
    def step(inputs: int, outputs: int, stride: int = 1) -> list[nn.Module]:
        return [nn.Conv1d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm1d(outputs), nn.ReLU()]

    return nn.Sequential(*step(2, 16), *step(16, 16), *step(16, 16, 2), *step(16, 16), nn.Conv1d(16, 3, 1))


def clips() -> nn.Sequential:
    images = nn.Sequential(
        *block(3, 16), Residual(16, 16), Residual(16, 32, 2), Residual(32, 32), nn.Conv2d(32, 2, 1)
    )
    temporal = {"0": 3, "*.conv1": 3}
    return inflate(images, temporal, temporal_padding="replicate", example_input=torch.zeros(1, 3, 8, 8))


def test_a_network_of_sequences_becomes_one_of_ffc1d():
    report = conversion_report(convert(sequences(), 0.5))
    assert [(row.name, row.ratio_in, row.ratio_out) for row in report.rows if row.converted] == [
        ("3", 0.0, 0.5),
        ("6", 0.5, 0.0),
    ]
    model = convert(sequences(), 0.5)
    assert [type(model[i]) for i in (0, 3, 6)] == [nn.Conv1d, FFC1d, FFC1d]


def test_a_network_of_clips_is_converted_as_that_of_images():
    images = nn.Sequential(
        *block(3, 16), Residual(16, 16), Residual(16, 32, 2), Residual(32, 32), nn.Conv2d(32, 2, 1)
    )

    def ratios(model: nn.Module) -> list[tuple]:
        rows = conversion_report(convert(model, 0.25, example_input=None)).rows
        return [(row.name, row.ratio_in, row.ratio_out) for row in rows]

    of_clips = inflate(copy.deepcopy(images), example_input=torch.zeros(1, 3, 8, 8))
    assert ratios(of_clips) == ratios(images)
    assert sum(isinstance(module, FFC3d) for module in of_clips.modules()) == 4


def test_conversion_of_clips_carries_the_weights_over():
    model = inflate(nn.Sequential(*block(3, 8), *block(8, 8), nn.Conv2d(8, 2, 1)), {"3": 3})
    weight = model[3].weight.detach().clone()
    convert(model, 0.5, rules={"3": (0, 0.5)})
    torch.testing.assert_close(model[3].weight_l2l, weight[:4])


def test_conversion_may_choose_the_axes_that_are_transformed():
    model = convert(nn.Sequential(*block3d(3, 8), *block3d(8, 8)), 0.5, spectral_dims=["t"], rules={"3": 0.5})
    assert model[3].spectral_dims == ("t",)


def block3d(inputs: int, outputs: int) -> list[nn.Module]:
    return [nn.Conv3d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm3d(outputs), nn.ReLU()]


def test_raises_on_an_axis_that_a_layer_lacks():
    model = nn.Sequential(*block(3, 8), *block(8, 8), *block(8, 8))
    with pytest.raises(InputError, match=r"spectral_dims=\('t',\) must name axes of the map"):
        convert(model, 0.5, spectral_dims=("t",), rules={"3": 0.5})
    assert isinstance(model[3], nn.Conv2d)


def test_channels_last_weights_of_clips_stay_so():
    model = nn.Sequential(*block3d(3, 8), *block3d(8, 8)).to(memory_format=torch.channels_last_3d)
    convert(model, 0.5, rules={"3": 0.5})
    assert model[3].weight_l2l.is_contiguous(memory_format=torch.channels_last_3d)


def test_the_trial_forward_of_clips_has_eight_frames():
    trace = trial_forward(nn.Sequential(nn.Conv3d(3, 4, 1)))
    assert trace.sizes(1) == ((8, 224, 224), (8, 224, 224))


@pytest.mark.parametrize("make", [sequences, clips])
def test_fuse(make):
    model = convert(make(), 0.5).double()
    oracles.randomise_norms(model)
    first = next(model.parameters())
    x = torch.randn(2, first.shape[1], *(9, 8, 7)[: first.dim() - 2], dtype=torch.float64)
    fused = fuse(model)
    torch.testing.assert_close(fused(x), model.eval()(x), rtol=0, atol=1e-10)
    norms = (nn.BatchNorm1d, nn.BatchNorm3d)
    assert not [name for name, module in fused.named_modules() if isinstance(module, norms)]


def test_a_padded_convolution_is_fused_too():
    model = clips()
    assert isinstance(model[0], PaddedConv3d)
    oracles.randomise_norms(model)
    x = torch.randn(1, 3, 4, 8, 8)
    torch.testing.assert_close(fuse(model)(x), model.eval()(x))
