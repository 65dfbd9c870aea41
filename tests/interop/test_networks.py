"""Plain torchvision and timm ResNets' weights in the FFC networks of the same shape."""

from __future__ import annotations

import pytest
import timm
import torch
import torchvision

import ffconv.models  # noqa: F401  registers the ffc_* networks with timm
from ffconv.interop.weights import load_weights


def randomise_norms(model):
    """So that a norm that is not carried over shows."""
    for name, tensor in model.state_dict().items():
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 1.5)
        elif name.endswith("running_mean"):
            tensor.normal_(std=0.1)
    return model.eval()


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnext50_32x4d", "seresnet50"])
def test_ratio_0_is_the_plain_network(name):
    plain = randomise_norms(timm.create_model(name, num_classes=10))
    model = timm.create_model(f"ffc_{name}", ratio=0, num_classes=10).eval()
    load_weights(model, plain.state_dict())
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        logits, expected = model(images), plain(images)
    # The norm of resnet18's added shortcut divides by sqrt(1 + 1e-5).
    torch.testing.assert_close(logits, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnext50_32x4d"])
def test_torchvision_lacks_only_what_a_plain_network_lacks(name):
    plain = getattr(torchvision.models, name)(num_classes=10)
    report = load_weights(timm.create_model(f"ffc_{name}", num_classes=10), plain.state_dict())
    assert report.fits
    lacking = {part for part in ("spectral", "downsample.1.") for key in report.kept if part in key}
    assert all(".spectral." in key or key.startswith("layer1.0.downsample.1.") for key in report.kept)
    assert lacking == ({"spectral", "downsample.1."} if name == "resnet18" else {"spectral"})


def test_another_architecture_is_refused_by_name():
    with pytest.raises(ValueError, match=r"do not fit FFCResNet: .*layer1\.2\.conv1\.weight"):
        load_weights(timm.create_model("ffc_resnet18"), timm.create_model("resnet34").state_dict())
