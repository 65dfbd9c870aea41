"""Weights of image networks in video networks."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

import oracles
from ffconv import NonLocalBlock, load_weights
from ffconv.interop.weights import WeightsMismatchError

SMALL = {"num_classes": 5, "layers": (1, 2, 1, 1)}


def network(name: str, **arguments) -> nn.Module:
    model = timm.create_model(name, **{**SMALL, **arguments}).double().eval()
    oracles.randomise_norms(model)
    return model


@pytest.mark.parametrize(
    ("image", "clips"), [("resnet18", "i3d_resnet18"), ("ffc_resnet18", "ffc_i3d_resnet18_nl")]
)
def test_a_still_clip_gives_the_scores_of_the_image(image, clips):
    source = network(image)
    target = network(clips, temporal_padding="replicate")
    for block in target.modules():
        if isinstance(block, NonLocalBlock):  # as when fresh
            nn.init.zeros_(block.bn.weight)
            nn.init.zeros_(block.bn.bias)
    load_weights(target, source.state_dict())
    x = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    with torch.no_grad():
        scores = target(x.unsqueeze(2).expand(-1, -1, 4, -1, -1))
        torch.testing.assert_close(scores, source(x), rtol=1e-8, atol=1e-8)


def test_the_report_says_what_was_repeated_and_what_was_kept():
    target = network("ffc_i3d_resnet18_nl")
    report = load_weights(target, network("ffc_resnet18").state_dict())
    assert "conv1.weight" in report.repeated
    assert "layer2.0.conv1.spectral.fu.conv.weight" in report.repeated
    assert {name.split(".non_local1.")[0] for name in report.kept if "non_local" in name} == {"layer2"}
    assert f"{len(report.repeated)} weights of images repeated over time" in str(report)


def test_weights_of_a_plain_image_network_fill_the_parts_of_ffcs():
    source, target = network("resnet18"), network("ffc_i3d_resnet18")
    load_weights(target, source.state_dict())
    weight = source.layer2[1].conv1.weight
    parts = target.layer2[1].conv1.dense_weight()
    torch.testing.assert_close(parts[:96, :, 0], weight[:96])
    torch.testing.assert_close(
        target.layer1[0].conv1.weight_l2l, weight_over_time(source.layer1[0].conv1.weight[:48], 3)
    )


def weight_over_time(weight: torch.Tensor, times: int) -> torch.Tensor:
    return torch.stack([weight / times] * times, dim=2)


def test_a_classifier_of_another_size_is_left_where_that_is_allowed():
    source, target = network("resnet18", num_classes=7), network("c2d_resnet18")
    before = target.fc.weight.clone()
    with pytest.raises(WeightsMismatchError, match=r"fc.weight \(\(7, 512\) in the file, \(5, 512\)"):
        load_weights(target, source.state_dict())
    load_weights(target, source.state_dict(), allow_new_classifier=True)
    torch.testing.assert_close(target.fc.weight, before)


def test_weights_of_a_video_network_are_not_repeated():
    source, target = network("ffc_i3d_resnet18"), network("ffc_i3d_resnet18_nl")
    report = load_weights(target, source.state_dict())
    assert report.repeated == ()
    torch.testing.assert_close(target.conv1.weight, source.conv1.weight)


def test_a_non_local_block_that_lacks_a_part_is_an_error():
    source, target = network("c2d_resnet18_nl"), network("c2d_resnet18_nl")
    state = source.state_dict()
    del state["layer2.non_local1.g.weight"]
    with pytest.raises(WeightsMismatchError, match=r"1 missing: layer2\.non_local1\.g\.weight"):
        load_weights(target, state)


def test_basic_blocks_without_a_shortcut_get_the_identity():
    source, target = network("resnet18"), network("ffc_c2d_resnet18")
    load_weights(target, source.state_dict())
    weight = target.layer1[0].downsample[0].dense_weight()[..., 0, 0, 0]
    torch.testing.assert_close(weight, torch.eye(64, dtype=torch.float64))


def test_kernels_in_space_of_another_size_are_named():
    target = network("c2d_resnet18")
    state = network("resnet18").state_dict()
    state["conv1.weight"] = torch.zeros(64, 3, 3, 3)
    with pytest.raises(WeightsMismatchError, match=r"conv1.weight \(\(64, 3, 1, 3, 3\) in the file"):
        load_weights(target, state)
