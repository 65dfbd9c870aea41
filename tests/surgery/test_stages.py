"""Stem, heads, 1x1 maps and the last stage, found from the trial forward."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ffconv.surgery.maps import FeatureMaps
from ffconv.surgery.stages import find_heads, find_last_stage, find_points, find_stem
from ffconv.surgery.trace import convolutions
from ffconv.surgery.trial import trial_forward
from small_networks import Residual, UNet, block


def last_stage(model: nn.Module) -> set[str]:
    """The last stage if all but stem, heads and 1x1 maps may be converted."""
    trace = trial_forward(model)
    left = find_stem(trace) | find_heads(trace) | find_points(trace)
    movable = [name for _, name in trace.calls() if name not in left]
    return find_last_stage(trace, movable, FeatureMaps(trace, movable), convolutions(model))


class Sum(nn.Module):
    """The sum of what its parts make of one input."""

    def __init__(self, *parts: nn.Module) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def forward(self, x: Tensor) -> Tensor:
        return sum((part(x) for part in self.parts[1:]), self.parts[0](x))


def test_stem_is_what_reads_the_input() -> None:
    assert find_stem(trial_forward(nn.Sequential(*block(3, 4), *block(4, 4)))) == {"0"}


def test_small_module_around_the_first_convolution_is_the_stem() -> None:
    deep = nn.Sequential(*block(3, 4), *block(4, 4), *block(4, 4))
    assert find_stem(trial_forward(nn.Sequential(deep, block(4, 4)))) == {"0.0", "0.3", "0.6"}


def test_large_module_around_the_first_convolution_is_no_stem() -> None:
    features = nn.Sequential(*block(3, 4), *block(4, 4), *block(4, 4), *block(4, 4))
    assert find_stem(trial_forward(nn.Sequential(features, block(4, 4)))) == {"0.0"}


def test_small_module_that_holds_all_convolutions_is_no_stem() -> None:
    features = nn.Sequential(*block(3, 4), *block(4, 4))
    assert find_stem(trial_forward(nn.Sequential(features, nn.Flatten()))) == {"0.0"}


def test_convolutions_of_resized_images_are_stems() -> None:
    class Pyramid(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fine, self.coarse = block(3, 4), block(3, 4)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return self.fine(x), self.coarse(F.avg_pool2d(x, 2))

    assert find_stem(trial_forward(Pyramid())) == {"fine.0", "coarse.0"}


def test_head_is_behind_resizing_and_sigmoid() -> None:
    tail = [nn.Conv2d(4, 2, 1), nn.Upsample(scale_factor=2), nn.Sigmoid()]
    assert find_heads(trial_forward(nn.Sequential(*block(3, 4), *tail))) == {"3"}


def test_convolution_with_norm_and_activation_is_no_head() -> None:
    assert find_heads(trial_forward(nn.Sequential(block(3, 4), block(4, 4)))) == set()


def test_score_maps_that_are_added_are_heads() -> None:
    model = nn.Sequential(block(3, 4), Sum(nn.Conv2d(4, 2, 1), nn.Conv2d(4, 2, 1)))
    assert find_heads(trial_forward(model)) == {"1.parts.0", "1.parts.1"}


def test_end_of_a_residual_chain_is_no_head() -> None:
    inner = nn.Sequential(nn.ReLU(), nn.Conv2d(4, 4, 1))
    model = nn.Sequential(block(3, 4), Sum(nn.Identity(), inner), Sum(nn.Identity(), inner))
    assert find_heads(trial_forward(model)) == set()


def test_output_subtracted_from_the_image_is_a_head() -> None:
    model = Sum(nn.Identity(), nn.Sequential(*block(3, 4), nn.Conv2d(4, 3, 1)))
    assert find_heads(trial_forward(model)) == {"parts.1.3"}


def test_points_are_convolutions_of_pooled_maps_and_full_size_kernels() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 224), nn.Conv2d(4, 4, 1))
    assert find_points(trial_forward(model)) == {"1", "2"}


def test_last_stage_begins_behind_the_last_pooling() -> None:
    layers = [*block(3, 4), *block(4, 4), nn.MaxPool2d(2), *block(4, 4), *block(4, 4)]
    assert last_stage(nn.Sequential(*layers)) == {"7", "10"}


def test_last_stage_begins_with_its_first_block() -> None:
    """conv1 of the strided block works on the larger map."""
    model = nn.Sequential(block(3, 8), Residual(8, 8), Residual(8, 16, stride=2), Residual(16, 16))
    assert last_stage(model) == {"2.conv1", "2.conv2", "2.shortcut", "3.conv1", "3.conv2"}


def test_last_stage_of_a_dilated_network() -> None:
    """Its map keeps its size from the stride of the block before on."""
    model = nn.Sequential(
        block(3, 8), Residual(8, 8, stride=2), Residual(8, 16), Residual(16, 16, dilation=2)
    )
    assert last_stage(model) == {"2.conv1", "2.conv2", "2.shortcut", "3.conv1", "3.conv2"}


def test_last_stage_of_a_decoder_begins_behind_the_last_upsampling() -> None:
    assert last_stage(UNet(bilinear=True)) == {"conv2.0", "conv2.3"}


def test_upsampling_without_convertible_convolutions_behind_is_no_stage() -> None:
    up = nn.Sequential(nn.ConvTranspose2d(8, 8, 2, 2), nn.ReLU(), nn.Conv2d(8, 2, 1))
    model = nn.Sequential(block(3, 8), block(8, 8), nn.MaxPool2d(2), block(8, 8), up)
    trace = trial_forward(model)
    movable = ["1.0", "3.0"]
    found = find_last_stage(trace, movable, FeatureMaps(trace, movable), convolutions(model))
    assert found == {"3.0"}


def test_network_of_one_size_has_no_last_stage() -> None:
    assert (
        last_stage(nn.Sequential(block(3, 4), block(4, 4), nn.Conv2d(4, 4, 3), nn.Conv2d(4, 1, 1))) == set()
    )


def test_stage_tied_to_earlier_maps_by_a_sum_is_no_last_stage() -> None:
    """A parameter-free shortcut around the downsampling: global channels have no place to end."""
    down = Sum(nn.MaxPool2d(2), block(8, 8, stride=2))
    assert last_stage(nn.Sequential(block(3, 8), Residual(8, 8), down)) == set()


def test_convolution_over_channels_does_not_count_as_a_change_of_size() -> None:
    class ChannelAttention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv1d(1, 1, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            gate = self.conv(x.mean((2, 3)).unsqueeze(1)).transpose(1, 2).unsqueeze(3)
            return x * torch.sigmoid(gate)

    layers = [*block(3, 8), *block(8, 8), nn.MaxPool2d(2), *block(8, 8), ChannelAttention(), *block(8, 8)]
    assert last_stage(nn.Sequential(*layers)) == {"7", "11"}


def test_last_stage_whose_blocks_are_the_whole_network_is_what_works_on_the_small_map() -> None:
    two_ways = Sum(nn.Sequential(block(4, 8), block(8, 8, stride=2)), block(4, 8, stride=2))
    assert last_stage(nn.Sequential(block(3, 4), two_ways)) == {"1.parts.0.1.0", "1.parts.1.0"}
