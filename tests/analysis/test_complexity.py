"""Counts against closed forms, torch's own counter and the published numbers."""

from __future__ import annotations

import math

import pytest
import timm
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ffconv.analysis.complexity import Complexity, count_complexity
from ffconv.analysis.definition import Part
from ffconv.analysis.networks import NetworkSpec
from ffconv.errors import InputError
from ffconv.nn import FFC2d, FFC3d, FourierUnit, LocalFourierUnit, SpectralTransform

# In 10^9 multiply-adds at 224 x 224: ratio, LFU, convolutions and linear layer, zero block.
RESNET50 = [
    (0.125, False, 4.112, 0.048),
    (0.125, True, 4.119, 0.048),
    (0.25, False, 4.179, 0.193),
    (0.25, True, 4.209, 0.193),
    (0.5, False, 4.447, 0.774),
    (0.5, True, 4.570, 0.774),
    (0.75, False, 4.895, 1.741),
    (0.75, True, 5.171, 1.741),
    (1.0, False, 5.522, 3.096),
    (1.0, True, 6.013, 3.096),
]


def parts(complexity: Complexity) -> dict[str, Part]:
    return {part.name: part for part in complexity.parts}


def count_by_name(name: str, **arguments: object) -> Part:
    return count_complexity(NetworkSpec(name, arguments).build("meta")).total()


@pytest.mark.parametrize("name", ["resnet18", "densenet121", "vit_tiny_patch16_224", "efficientnet_b0"])
def test_a_plain_network_counts_as_torch_counts(name: str) -> None:
    with torch.device("meta"):
        model = timm.create_model(name).eval()
        image = torch.zeros(1, 3, 224, 224)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(image)
    assert count_complexity(model).total().multiply_adds == counter.get_total_flops() // 2


@pytest.mark.parametrize("name", ["resnet18", "convnext_tiny", "ffc_resnet18"])
def test_parameters_of_the_parts_add_up_to_the_network(name: str) -> None:
    model = timm.create_model(name)
    expected = sum(parameter.numel() for parameter in model.parameters())
    assert count_complexity(model).total().parameters == expected


def test_a_shared_weight_is_counted_once_and_its_work_twice() -> None:
    model = nn.Sequential(
        nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.Conv2d(4, 4, 3, padding=1, bias=False)
    )
    model[1].weight = model[0].weight
    total = count_complexity(model, (4, 5, 5)).total()
    assert (total.parameters, total.multiply_adds) == (4 * 4 * 9, 2 * 4 * 4 * 9 * 25)


def test_gates_between_the_paths_are_counted() -> None:
    model = timm.create_model("lama_generator", width=8, blocks=1, gated=True)
    counted = count_complexity(model, (4, 64, 64))
    assert counted.total().parameters == sum(parameter.numel() for parameter in model.parameters())
    gate = parts(counted)["blocks.0.conv1.gate"]
    assert gate.multiply_adds == 2 * 64 * 8 * 8


@pytest.mark.parametrize(("ratio", "lfu", "multiply_adds", "zero_block"), RESNET50)
def test_ffc_resnet50_has_the_published_counts(
    ratio: float, lfu: bool, multiply_adds: float, zero_block: float
) -> None:
    total = count_by_name("ffc_resnet50", ratio=ratio, lfu=lfu)
    assert round(total.multiply_adds / 1e9, 3) == multiply_adds
    assert round(total.zero_block / 1e9, 3) == zero_block


def test_plain_resnet50_has_the_published_count() -> None:
    assert round(count_by_name("resnet50").multiply_adds / 1e9, 3) == 4.089


def test_every_path_of_an_ffc_costs_its_weight_at_every_output_position() -> None:
    ffc = FFC2d(16, 32, 3, stride=2, padding=1, ratio_in=0.25, ratio_out=0.5, lfu=False, bias=False)
    counted = parts(count_complexity(ffc, (16, 13, 9)))
    positions = 7 * 5
    assert counted["l2l"].multiply_adds == 12 * 16 * 9 * positions
    assert counted["l2g"].multiply_adds == 12 * 16 * 9 * positions
    assert counted["g2l"].multiply_adds == 4 * 16 * 9 * positions
    assert counted[""].zero_block == 4 * 16 * 9 * positions
    assert counted["spectral.conv1"].multiply_adds == 4 * 8 * positions
    assert counted["spectral.conv2"].multiply_adds == 8 * 16 * positions


def test_groups_leave_no_zero_block() -> None:
    ffc = FFC2d(16, 16, 3, padding=1, groups=2, ratio=0.5)
    assert count_complexity(ffc, (16, 8, 8)).total().zero_block == 0


def test_of_clips_every_frame_counts_and_kernels_in_time_are_inside_the_transform() -> None:
    ffc = FFC3d(8, 8, (3, 1, 1), padding=(1, 0, 0), ratio=0.5, lfu=False)
    found = parts(count_complexity(ffc, (8, 4, 6, 7)))
    assert found["l2l"].multiply_adds == 4 * 4 * 3 * 4 * 42
    assert found["spectral.conv1"].multiply_adds == 4 * 2 * 3 * 4 * 42
    assert found["spectral.fu"].multiply_adds == 4 * 4 * 3 * 4 * (6 * 4)
    assert found["spectral.fu"].fft == round(4 * 4 * 1.25 * 42 * math.log2(42))
    assert found["spectral.conv2"].output == (4, 4, 6, 7)


def test_a_transform_over_time_too_spans_the_clip() -> None:
    ffc = FFC3d(8, 8, 1, ratio=0.5, spectral_dims=("t", "h", "w"))
    found = parts(count_complexity(ffc, (8, 4, 6, 7)))
    assert found["spectral.fu"].multiply_adds == 4 * 4 * 4 * 6 * 4
    assert found["spectral.fu"].fft == round(4 * 1.25 * 168 * math.log2(168))
    assert found["spectral.lfu"].multiply_adds == 16 * 4 * 2 * 3 * 3


def test_a_transposed_convolution_costs_its_weight_at_every_input_position() -> None:
    conv = nn.ConvTranspose2d(6, 4, 4, stride=2, padding=1, groups=2, bias=False)
    part = count_complexity(conv, (6, 5, 7)).total()
    assert part.multiply_adds == 6 * 2 * 4 * 4 * 5 * 7
    assert part.multiply_adds + part.transposed == 6 * 2 * 4 * 4 * 10 * 14


def test_other_convolutions_have_no_transposed_part() -> None:
    assert count_complexity(nn.Conv2d(3, 4, 3, stride=2), (3, 9, 9)).total().transposed == 0


def test_a_path_switched_off_costs_nothing() -> None:
    ffc = FFC2d(16, 16, 3, padding=1, ratio=0.5, local_to_global=False)
    assert "l2g" not in parts(count_complexity(ffc, (16, 8, 8)))


def test_fourier_unit_works_on_the_half_spectrum() -> None:
    part = count_complexity(FourierUnit(3, 5), (3, 6, 7)).total()
    assert part.multiply_adds == (2 * 3) * (2 * 5) * 6 * 4
    assert part.fft == round((3 + 5) * 1.25 * 42 * math.log2(42))
    assert part.normalised == 2 * 5 * 6 * 4


def test_local_fourier_unit_works_on_quadrants_of_odd_maps() -> None:
    part = count_complexity(LocalFourierUnit(8, 4), (8, 5, 7)).total()
    assert part.multiply_adds == (2 * 8) * (2 * 4) * 3 * 3
    assert part.fft == round((8 + 4) * 1.25 * 12 * math.log2(12))


def test_spectral_transform_has_its_four_parts() -> None:
    transform = SpectralTransform(8, 16, stride=2)
    counted = parts(count_complexity(transform, (8, 8, 8)))
    assert list(counted) == ["conv1", "fu", "lfu", "conv2"]
    assert counted["conv1"].multiply_adds == 8 * 8 * 16
    assert sum(part.parameters for part in counted.values()) == sum(p.numel() for p in transform.parameters())


def test_a_layer_called_twice_costs_twice_and_has_its_parameters_once() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.ffc = nn.Conv2d(8, 8, 1), FFC2d(8, 8, 1, ratio=0.5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.ffc(self.conv(self.ffc(self.conv(x))))

    model = Twice()
    once = count_complexity(nn.Sequential(model.conv, model.ffc), (8, 4, 4)).total()
    twice = count_complexity(model, (8, 4, 4)).total()
    assert (twice.multiply_adds, twice.fft) == (2 * once.multiply_adds, 2 * once.fft)
    assert twice.parameters == once.parameters


def test_a_layer_that_does_not_run_is_counted_with_its_parameters_alone() -> None:
    class Idle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.idle = nn.Conv2d(2, 2, 1), FFC2d(4, 4, 1, ratio=0.5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.used(x)

    idle = [part for name, part in parts(count_complexity(Idle(), (2, 4, 4))).items() if "idle" in name]
    assert sum(part.multiply_adds + part.fft + part.zero_block for part in idle) == 0
    assert sum(part.parameters for part in idle) > 0


def test_counting_leaves_the_model_alone() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).train()
    count_complexity(model, (3, 8, 8))
    assert model.training
    assert model[0].weight.device.type == "cpu"
    assert not model[0]._forward_hooks


def test_grouping_sums_by_the_first_components_of_names() -> None:
    complexity = count_complexity(timm.create_model("resnet18"))
    grouped = parts(complexity.grouped(1))
    assert list(grouped) == ["conv1", "bn1", "layer1", "layer2", "layer3", "layer4", "fc"]
    expected = sum(part.multiply_adds for part in complexity.parts if part.name.startswith("layer2"))
    assert grouped["layer2"].multiply_adds == expected


def test_depth_below_one_is_refused() -> None:
    with pytest.raises(InputError, match="depth=0 must be at least 1"):
        Complexity(()).grouped(0)


def test_an_input_that_does_not_fit_is_refused_with_its_size() -> None:
    with pytest.raises(InputError, match="Linear does not take an input of 3x8x8"):
        count_complexity(nn.Linear(5, 5), (3, 8, 8))
