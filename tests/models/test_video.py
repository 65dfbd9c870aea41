"""The paper's video networks."""

from __future__ import annotations

import copy

import pytest
import timm
import torch
from torch import nn
from torchvision.models.feature_extraction import create_feature_extractor

import oracles
from ffconv import FFC3d, NonLocalBlock, fuse
from ffconv.errors import InputError

SMALL = {"num_classes": 5, "layers": (1, 1, 2, 1)}
FFC = {"ratio": 0.25}
NAMES = [
    f"{prefix}{form}_resnet{depth}{suffix}"
    for prefix in ("", "ffc_")
    for form in ("c2d", "i3d")
    for depth in (18, 50, 101)
    for suffix in ("", "_nl")
]


def build(name: str, **arguments) -> nn.Module:
    """A small network, norms and non-local blocks as after some training."""
    torch.manual_seed(0)
    model = timm.create_model(name, **{**SMALL, **arguments}).eval()
    oracles.randomise_norms(model)
    return model


def clip(frames: int = 4, side: int = 32) -> torch.Tensor:
    return torch.randn(2, 3, frames, side, side, generator=torch.Generator().manual_seed(1))


def test_all_names_are_registered():
    assert set(NAMES) <= set(timm.list_models())


@pytest.mark.parametrize("prefix", ["", "ffc_"])
@pytest.mark.parametrize("suffix", ["", "_nl"])
def test_c2d_is_blind_to_the_order_of_frames(prefix, suffix):
    model = build(f"{prefix}c2d_resnet18{suffix}", layers=(1, 2, 2, 1)).double()
    assert any(isinstance(m, NonLocalBlock) for m in model.modules()) == bool(suffix)
    x = clip().double()
    with torch.no_grad():
        torch.testing.assert_close(model(x.flip(2)), model(x), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("prefix", ["", "ffc_"])
def test_i3d_sees_the_order_of_frames(prefix):
    model, x = build(f"{prefix}i3d_resnet18"), clip()
    with torch.no_grad():
        assert (model(x.flip(2)) - model(x)).abs().max() > 1e-2


@pytest.mark.parametrize("name", ["c2d_resnet18", "ffc_i3d_resnet18"])
def test_replicate_padding_keeps_a_still_clip_still(name):
    model = build(name, temporal_padding="replicate").double()
    still = clip(1).double()
    with torch.no_grad():
        scores = [model(still.expand(-1, -1, frames, -1, -1)) for frames in (2, 6)]
    torch.testing.assert_close(*scores, rtol=1e-8, atol=1e-8)


def test_kernels_in_time_of_i3d_resnet50():
    model = timm.create_model("i3d_resnet50", num_classes=5)
    assert model.conv1.kernel_size == (5, 7, 7)
    kernels = {
        stage: [block.conv1.kernel_size[0] for block in model.get_submodule(stage) if hasattr(block, "conv1")]
        for stage in ("layer1", "layer2", "layer3", "layer4")
    }
    assert kernels == {
        "layer1": [3, 3, 3],
        "layer2": [3, 1, 3, 1],
        "layer3": [3, 1, 3, 1, 3, 1],
        "layer4": [1, 3, 1],
    }


@pytest.mark.parametrize(("depth", "layer2", "layer3"), [(50, "13", "135"), (18, "1", "1")])
def test_places_of_non_local_blocks(depth, layer2, layer3):
    model = timm.create_model(f"c2d_resnet{depth}_nl", num_classes=5)
    names = [name for name, module in model.named_modules() if isinstance(module, NonLocalBlock)]
    expected = [f"layer2.non_local{i}" for i in layer2] + [f"layer3.non_local{i}" for i in layer3]
    assert names == expected
    order = [name for name, _ in model.layer2.named_children()]
    assert order.index("non_local1") == order.index("1") + 1


def test_resnet101_has_a_non_local_block_after_every_seventh_of_layer3():
    with torch.device("meta"):
        model = timm.create_model("c2d_resnet101_nl")
    names = [name for name, module in model.layer3.named_children() if isinstance(module, NonLocalBlock)]
    assert names == ["non_local6", "non_local13", "non_local20"]


def test_defaults_are_the_protocols():
    model = timm.create_model("ffc_c2d_resnet18")
    assert (model.num_classes, model.drop_rate) == (400, 0.5)
    assert timm.create_model("c2d_resnet18", drop_rate=0.1).drop_rate == 0.1


def test_global_channels_are_those_of_the_image_network():
    video, image = build("ffc_c2d_resnet18"), timm.create_model("ffc_resnet18", **SMALL)
    ratios = {name: m.ratio_out for name, m in video.named_modules() if isinstance(m, FFC3d)}
    assert ratios == {name: m.ratio_out for name, m in image.named_modules() if hasattr(m, "ratio_out")}
    assert set(ratios.values()) == {0.0, 0.25}


def test_classifier_can_be_reset():
    model = build("c2d_resnet18")
    model.reset_classifier(3, "max")
    assert model(clip()).shape == (2, 3)
    model.reset_classifier(0)
    assert model(clip()).shape == (2, 512)


def test_features_of_timm():
    model = timm.create_model("ffc_i3d_resnet18_nl", features_only=True, layers=(1, 2, 2, 1))
    assert [tuple(f.shape[1:]) for f in model(clip())] == [
        (64, 4, 16, 16),
        (64, 2, 8, 8),
        (128, 2, 4, 4),
        (256, 2, 2, 2),
        (512, 2, 1, 1),
    ]


NETWORKS = ["i3d_resnet18_nl", "ffc_i3d_resnet18_nl"]


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("padding", ["zeros", "replicate"])
def test_feature_extractor_and_fx(name, padding):
    model, x = build(name, layers=(1, 2, 1, 1), temporal_padding=padding).double(), clip().double()
    extractor = create_feature_extractor(model, ["layer2", "fc"])
    with torch.no_grad():
        torch.testing.assert_close(extractor(x)["fc"], model(x), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("padding", ["zeros", "replicate"])
def test_fuse(name, padding):
    model = build(name, layers=(1, 2, 1, 1), temporal_padding=padding).double()
    with torch.no_grad():
        fused = fuse(model)
        torch.testing.assert_close(fused(clip().double()), model(clip().double()), rtol=1e-8, atol=1e-8)
    norms = [name for name, m in fused.named_modules() if isinstance(m, nn.BatchNorm3d)]
    assert not [name for name in norms if ".spectral." not in name]


@pytest.mark.parametrize("name", NETWORKS)
def test_gradient_checkpointing(name):
    model = build(name, layers=(1, 2, 1, 1), drop_rate=0.0).double()
    x = clip().double()
    model(x).square().sum().backward()
    expected = {name: p.grad for name, p in model.named_parameters()}
    model.zero_grad()
    model.set_grad_checkpointing(True)
    model.train()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
    model(x).square().sum().backward()
    for name, p in model.named_parameters():
        torch.testing.assert_close(p.grad, expected[name], rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", NETWORKS)
def test_export(name):
    model = build(name, layers=(1, 2, 1, 1))
    program = torch.export.export(model, (clip(),))
    torch.testing.assert_close(program.module()(clip()), model(clip()), rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ffc_i3d_resnet18_nl"])
def test_compile(name):
    model = build(name, layers=(1, 2, 1, 1), drop_rate=0.0)
    twin = copy.deepcopy(model)
    compiled = torch.compile(model, fullgraph=True)
    y, expected = compiled(clip()), twin(clip())
    torch.testing.assert_close(y, expected, rtol=1e-3, atol=1e-3)
    y.square().sum().backward()
    expected.square().sum().backward()
    scale = max(float(q.grad.abs().max()) for q in twin.parameters())
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-2, atol=1e-4 * scale)


def test_fresh_kernels_in_time_are_drawn_for_each_frame():
    weight = timm.create_model("i3d_resnet50").layer2[0].conv1.weight
    assert weight.std().item() == pytest.approx((2 / (128 * 3)) ** 0.5, rel=0.05)
    assert not torch.equal(weight[:, :, 0], weight[:, :, 2])


def test_raises_on_an_unknown_form():
    with pytest.raises(InputError, match="form='r2plus1d' must be 'c2d' or 'i3d'"):
        timm.create_model("c2d_resnet18", form="r2plus1d")
