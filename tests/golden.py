"""Reads the reference vectors of the released implementation (see ``golden/README.md`` beside them)."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

FOURIER_UNIT_CASES = ("fourier_unit_c4_8x8", "fourier_unit_c4_7x5", "fourier_unit_c8_g2_8x6")
SPECTRAL_CASES = ("spectral_s1_lfu", "spectral_s2_lfu", "spectral_s1_nolfu_odd", "spectral_s1_g2_lfu")
FFC_CASES = (
    "ffc_k3_a25_lfu",
    "ffc_k3_a50_nolfu",
    "ffc_k3_s2_a25_lfu",
    "ffc_k1_a25_lfu",
    "ffc_k3_in0_out25",
    "ffc_k3_in25_out0",
    "ffc_k3_d2_a50",
    "ffc_k3_g4_a50",
)


_OUR_NAMES = {
    "convl2l.weight": "weight_l2l",
    "convl2g.weight": "weight_l2g",
    "convg2l.weight": "weight_g2l",
    "convg2g.": "spectral.",
    "conv1.0.": "conv1.",
    "conv1.1.": "bn1.",
    "conv_layer.": "conv.",
}


def our_name(key: str) -> str:
    """The parameter's name in our layers, written apart from the loader's own table, which it checks."""
    for theirs, ours in _OUR_NAMES.items():
        key = key.replace(theirs, ours)
    return key


def load_case(reference: Path, name: str) -> tuple[dict, dict[str, Tensor], dict[str, Tensor]]:
    """Returns (arguments, weights, tensors) of one case, all tensors in float64.

    ``arguments`` are the layer's, without ``kind``; ``weights`` go by the released names, without the
    ``weights.`` prefix; ``tensors`` hold the rest: ``input.0``, ``eval_output.0``, ``train_output.0``,
    ``input_grad.0``, ``grad.<weight>``, with ``.1`` for the global branch where there is one.
    """
    folder = reference / "golden"
    arguments = json.loads((folder / "cases.json").read_text())[name]
    del arguments["kind"]
    tensors = load_file(folder / f"{name}.safetensors")
    prefix = "weights."
    weights = {key.removeprefix(prefix): tensors.pop(key) for key in list(tensors) if key.startswith(prefix)}
    return arguments, weights, tensors


def joined(tensors: dict[str, Tensor], name: str) -> Tensor:
    """The branches of ``name`` ("input", "eval_output", ...) as one tensor, local channels first."""
    return torch.cat([tensors[key] for key in (f"{name}.0", f"{name}.1") if key in tensors], dim=1)


def published_shapes(reference: Path, model: str) -> dict[str, list[int]]:
    """Names and shapes of the released checkpoint of ``model`` ("ffc_resnet50", ...)."""
    text = (reference / "golden" / "official_state_dict_keys.json").read_text()
    return json.loads(text)[model]["state_dict"]


def assert_reproduces(
    module: torch.nn.Module, weights: dict[str, Tensor], tensors: dict[str, Tensor]
) -> None:
    """Eval output, train output, input and parameter gradients of one case, in float64 to 1e-10."""
    module.load_state_dict({our_name(key): value for key, value in weights.items()})
    x = joined(tensors, "input").requires_grad_()
    close = {"rtol": 1e-10, "atol": 1e-10}
    torch.testing.assert_close(module.eval()(x), joined(tensors, "eval_output"), **close)
    y = module.train()(x)
    torch.testing.assert_close(y, joined(tensors, "train_output"), **close)
    y.square().sum().backward()
    torch.testing.assert_close(x.grad, joined(tensors, "input_grad"), **close)
    parameters = dict(module.named_parameters())
    for key, value in tensors.items():
        if key.startswith("grad."):
            torch.testing.assert_close(parameters[our_name(key.removeprefix("grad."))].grad, value, **close)
