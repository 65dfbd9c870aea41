"""Looking inside a running network."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

from ffconv.analysis.watching import calibrate_norms, stages, watch
from ffconv.errors import InputError


@pytest.fixture
def model() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU(inplace=True), nn.Flatten(), nn.Dropout(0.5))


def test_a_map_is_seen_before_the_next_layer_writes_into_it(model: nn.Sequential) -> None:
    image = torch.randn(1, 1, 8, 8)
    seen = watch(model, image, ["0"], lambda _, output: output.min().item())
    assert seen["0"] == model[0](image).min().item() < 0


def test_the_network_is_left_as_it_was(model: nn.Sequential) -> None:
    model.train()
    model[3].eval()
    watch(model, torch.zeros(1, 1, 2, 2), ["0"], lambda _, output: None)
    assert [module.training for module in (model, *model)] == [True, True, True, True, False]
    assert not model[0]._forward_hooks


def test_the_network_runs_in_evaluation_mode(model: nn.Sequential) -> None:
    modes = watch(model.train(), torch.zeros(1, 1, 2, 2), ["1"], lambda *_: model[3].training)
    assert modes == {"1": False}


@pytest.mark.parametrize(
    ("layer", "message"),
    [("9", "Sequential has no layer '9'"), ("2", "layer '2' puts out no map")],
)
def test_a_layer_that_is_none_is_refused(model: nn.Sequential, layer: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        watch(model, torch.zeros(1, 1, 2, 2), [layer], lambda *_: None)


def test_a_layer_that_does_not_run_is_refused() -> None:
    model = nn.Identity()
    model.idle = nn.Conv2d(1, 1, 1)
    with pytest.raises(InputError, match="layer 'idle' does not run"):
        watch(model, torch.zeros(1, 1, 2, 2), ["idle"], lambda *_: None)


def test_stages_are_timms_without_the_stem() -> None:
    with torch.device("meta"):
        assert stages(timm.create_model("resnet18")) == ["layer1", "layer2", "layer3", "layer4"]


def test_a_network_without_stages_asks_for_layers() -> None:
    with pytest.raises(InputError, match="does not tell its stages"):
        stages(nn.Sequential())


def test_calibrated_norms_normalise_the_images() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4)).eval()
    images = 5 + 3 * torch.randn(4, 1, 8, 8)
    calibrate_norms(model, images)
    assert not model.training
    assert model[1].momentum == 0.1
    out = model(images)
    torch.testing.assert_close(out.mean(dim=(0, 2, 3)), torch.zeros(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(out.var(dim=(0, 2, 3)), torch.ones(4), atol=1e-3, rtol=0)


def test_images_of_one_value_a_channel_cannot_calibrate() -> None:
    with pytest.raises(InputError, match=r"\(1, 4, 1, 1\) images are too few or too small"):
        calibrate_norms(nn.BatchNorm2d(4), torch.zeros(1, 4, 1, 1))
