"""Weights of the released code must give the released code's outputs."""

from __future__ import annotations

import pytest
import timm
import torch

import golden
import released
from ffconv.interop.weights import load_weights
from ffconv.nn import FFC2d, FourierUnit, SpectralTransform

pytestmark = pytest.mark.reference


def build(name, arguments):
    arguments = dict(arguments)
    if name in golden.FOURIER_UNIT_CASES:
        return FourierUnit(**arguments).double()
    if name in golden.SPECTRAL_CASES:
        return SpectralTransform(**arguments).double()
    ratios = {"ratio_in": arguments.pop("alpha_in"), "ratio_out": arguments.pop("alpha_out")}
    return FFC2d(**arguments, **ratios, bias=False).double()


@pytest.mark.parametrize("name", golden.FOURIER_UNIT_CASES + golden.SPECTRAL_CASES + golden.FFC_CASES)
class TestLayers:
    @pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
    def test_outputs(self, name, training, reference):
        arguments, weights, tensors = golden.load_case(reference, name)
        module = build(name, arguments)
        report = load_weights(module, weights)
        assert report.format == "the released FFC code"
        y = module.train(training)(golden.joined(tensors, "input"))
        expected = golden.joined(tensors, "train_output" if training else "eval_output")
        torch.testing.assert_close(y, expected, rtol=1e-10, atol=1e-10)

    def test_every_entry_is_loaded(self, name, reference):
        arguments, weights, _ = golden.load_case(reference, name)
        module = build(name, arguments)
        assert set(load_weights(module, weights).loaded) == set(module.state_dict())

    def test_independent_network_agrees(self, name, reference):
        """What the whole networks below are compared with is itself the released function."""
        arguments, weights, tensors = golden.load_case(reference, name)
        x = golden.joined(tensors, "input")
        if name in golden.FOURIER_UNIT_CASES:
            y = released.fourier_unit(weights, x, groups=arguments["groups"])
        elif name in golden.SPECTRAL_CASES:
            stride, groups = arguments["stride"], arguments["groups"]
            y = released.spectral_transform(weights, x, stride=stride, groups=groups)
        else:
            geometry = {key: arguments[key] for key in ("stride", "padding", "dilation", "groups")}
            pair = released.ffc(weights, (tensors["input.0"], tensors.get("input.1")), **geometry)
            y = torch.cat([branch for branch in pair if branch is not None], dim=1)
        torch.testing.assert_close(y, golden.joined(tensors, "eval_output"), rtol=1e-10, atol=1e-10)


# Name, arguments, groups of the 3x3 convolutions.
NETWORKS = {
    "ffc_resnet50": ({"ratio": 0.25, "lfu": True}, 1),
    "ffc_resnet18": ({"ratio": 0.5, "lfu": False, "se": True}, 1),
    "ffc_resnext50_32x4d": ({"ratio": 0.5, "lfu": False}, 32),
}


@pytest.mark.parametrize("name", NETWORKS)
class TestNetworks:
    @pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
    def test_outputs(self, name, dtype, tolerance, reference):
        arguments, groups = NETWORKS[name]
        weights = released.random_weights(golden.published_shapes(reference, name), dtype)
        model = timm.create_model(name, **arguments).to(dtype).eval()
        load_weights(model, {"state_dict": {f"module.{key}": tensor for key, tensor in weights.items()}})
        images = torch.randn(2, 3, 64, 96, dtype=dtype)
        with torch.no_grad():
            logits, expected = model(images), released.network(weights, images, groups=groups)
        assert (logits - expected).abs().max() < tolerance * expected.abs().max()

    def test_every_entry_is_loaded(self, name, reference):
        weights = released.random_weights(golden.published_shapes(reference, name))
        model = timm.create_model(name, **NETWORKS[name][0])
        assert set(load_weights(model, weights).loaded) == set(model.state_dict())
