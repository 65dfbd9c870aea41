"""Other people's weights in pose networks: SimpleBaseline's, mmpose's, image networks' in the backbone."""

from __future__ import annotations

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

import ffconv.models  # noqa: F401  registers the networks with timm
import released
from ffconv.interop.weights import WeightsMismatchError, load_weights

K = 4


class PoseResNet(torchvision.models.ResNet):
    """SimpleBaseline with ResNet-18 as published, on torchvision's network."""

    def __init__(self) -> None:
        super().__init__(torchvision.models.resnet.BasicBlock, [2, 2, 2, 2])
        del self.fc
        layers: list[nn.Module] = []
        for channels in (512, 256, 256):
            layers += [nn.ConvTranspose2d(channels, 256, 4, 2, 1, bias=False), nn.BatchNorm2d(256), nn.ReLU()]
        self.deconv_layers = nn.Sequential(*layers)
        self.final_layer = nn.Conv2d(256, K, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(self.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.final_layer(self.deconv_layers(x))


@pytest.fixture(scope="module")
def public() -> nn.Module:
    torch.manual_seed(0)
    network = PoseResNet()
    shapes = {name: list(tensor.shape) for name, tensor in network.state_dict().items()}
    network.load_state_dict(released.random_weights(shapes))
    return network.eval()


def new(name: str = "pose_resnet18", keypoints: int = K, **arguments) -> nn.Module:
    return timm.create_model(name, num_classes=keypoints, **arguments).eval()


def mmpose_names(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    decoder = ("deconv_layers.", "final_layer.")
    return {f"{'head' if name.startswith(decoder) else 'backbone'}.{name}": t for name, t in tensors.items()}


@pytest.mark.parametrize("prefix", ["", "module."])
def test_public_checkpoint_gives_the_public_networks_heatmaps(public, prefix):
    model = new()
    report = load_weights(model, {f"{prefix}{name}": t for name, t in public.state_dict().items()})
    assert report.format.startswith("SimpleBaseline")
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(model(images), public(images), rtol=1e-4, atol=1e-5)


def test_mmposes_names(public):
    model = new()
    report = load_weights(model, {"meta": {}, "state_dict": mmpose_names(public.state_dict())})
    assert (report.fits, report.kept) == (True, ())
    assert torch.equal(model.deconv_layers[3].weight, public.deconv_layers[3].weight)
    assert torch.equal(model.backbone.layer4[1].conv2.weight, public.layer4[1].conv2.weight)


def test_public_checkpoint_in_a_fourier_network_lacks_the_spectral_parts_alone(public):
    report = load_weights(new("ffc_pose_resnet18"), public.state_dict())
    assert report.fits
    assert all(
        ".spectral." in key or key.startswith("backbone.layer1.0.downsample.1.") for key in report.kept
    )


@pytest.mark.parametrize("name", ["pose_resnet18", "ffc_pose_resnet18"])
def test_image_networks_weights_go_into_the_backbone(name):
    image = torchvision.models.resnet18()
    model = new(name)
    decoder = {key: t.clone() for key, t in model.state_dict().items() if not key.startswith("backbone.")}
    report = load_weights(model, image.state_dict())
    assert report.fits
    assert all(key.startswith("backbone.") for key in report.loaded)
    assert torch.equal(model.backbone.conv1.weight, image.conv1.weight)
    assert all(torch.equal(model.state_dict()[key], tensor) for key, tensor in decoder.items())


def test_our_fourier_image_network_goes_into_the_backbone_whole():
    image = timm.create_model("ffc_resnet18").eval()
    model = new("ffc_pose_resnet18")
    load_weights(model, image.state_dict())
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        features = model.backbone.forward_features(images)
        torch.testing.assert_close(features, image.forward_features(images))


def test_ours_round_trip():
    model, twin = new("ffc_pose_resnet18"), new("ffc_pose_resnet18")
    assert load_weights(twin, model.state_dict()).kept == ()
    assert all(torch.equal(t, model.state_dict()[key]) for key, t in twin.state_dict().items())


def test_another_number_of_keypoints_is_refused_by_name(public):
    with pytest.raises(
        WeightsMismatchError, match=r"final_layer\.weight \(\(4, 256, 1, 1\) in the file, \(7,"
    ):
        load_weights(new(keypoints=7), public.state_dict())


def test_another_number_of_keypoints_on_request_leaves_the_last_layer(public):
    model = new(keypoints=7)
    report = load_weights(model, public.state_dict(), allow_new_classifier=True)
    assert report.kept == ("final_layer.weight", "final_layer.bias")
    assert torch.equal(model.deconv_layers[0].weight, public.deconv_layers[0].weight)


def test_another_backbone_is_refused():
    with pytest.raises(WeightsMismatchError, match=r"unexpected: backbone\.layer1\.2\.conv1\.weight"):
        load_weights(new(), torchvision.models.resnet34().state_dict())


def test_half_a_decoder_is_refused(public):
    tensors = {name: t for name, t in public.state_dict().items() if not name.startswith("deconv_layers.3")}
    with pytest.raises(WeightsMismatchError, match=r"1 missing: deconv_layers\.3\.weight"):
        load_weights(new(), tensors)
