"""A layer that is edited between calls computes its definition after each edit, whatever ran before."""

from __future__ import annotations

import random
import types
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune

from assertions import assert_matches_definition, definition, randomise_norms
from ffconv.nn import FFC2d

INNER = ("conv1", "bn1", "fu", "fu.conv", "fu.bn", "lfu", "lfu.conv", "lfu.bn", "conv2")
WEIGHTS = ("weight_l2l", "weight_l2g", "weight_g2l")


def _inner(layer: Any, rng: random.Random, *kinds: type) -> Any:
    modules = [layer.spectral.get_submodule(name) for name in INNER]
    return rng.choice([module for module in modules if not kinds or isinstance(module, kinds)])


def _stride(layer: Any, rng: random.Random) -> None:
    if layer.padding != "same":
        layer.stride = rng.choice([1, 2, (1, 1), (2, 1), [1, 2]])


def _padding(layer: Any, rng: random.Random) -> None:
    layer.padding = rng.choice([0, 1, (1, 1), (2, 0), "valid"])


def _dilation(layer: Any, rng: random.Random) -> None:
    layer.dilation = rng.choice([(1, 1), (2, 2), (1, 2)])
    if layer.padding == "valid":
        layer.padding = (1, 1)


def _padding_mode(layer: Any, rng: random.Random) -> None:
    layer.padding_mode = rng.choice(["zeros", "reflect", "circular"])


def _eps(layer: Any, rng: random.Random) -> None:
    _inner(layer, rng, nn.BatchNorm2d).eps = rng.choice([1e-5, 1e-3, 0.1])


def _momentum(layer: Any, rng: random.Random) -> None:
    _inner(layer, rng, nn.BatchNorm2d).momentum = rng.choice([0.1, 0.5, None])


def _mode(layer: Any, rng: random.Random) -> None:
    layer.train(rng.random() < 0.5)


def _mode_of_a_norm(layer: Any, rng: random.Random) -> None:
    _inner(layer, rng, nn.BatchNorm2d).train(rng.random() < 0.5)


def _memory_format(layer: Any, rng: random.Random) -> None:
    layer.to(memory_format=rng.choice([torch.contiguous_format, torch.channels_last]))


def _scale_in_place(layer: Any, rng: random.Random) -> None:
    with torch.no_grad():
        tensor: Tensor = rng.choice([t for t in layer.parameters() if t.dim() > 1])
        tensor.mul_(rng.uniform(0.5, 1.5))


def _scale_data(layer: Any, rng: random.Random) -> None:
    rng.choice(list(layer.parameters())).data.mul_(rng.uniform(0.5, 1.5))


def _scale_statistics(layer: Any, rng: random.Random) -> None:
    norm = _inner(layer, rng, nn.BatchNorm2d)
    norm.running_var.mul_(rng.uniform(0.5, 1.5))


def _replace_parameter(layer: Any, rng: random.Random) -> None:
    conv = _inner(layer, rng, nn.Conv2d)
    if isinstance(conv._parameters.get("weight"), nn.Parameter):
        conv.weight = nn.Parameter(torch.randn_like(conv.weight))


def _replace_module(layer: Any, rng: random.Random) -> None:
    norm, spectral = layer.spectral.fu.bn, layer.spectral
    spectral.fu.bn = randomise_norms(
        nn.BatchNorm2d(norm.num_features).to(norm.weight.dtype).train(norm.training)
    )


def _replace_activation(layer: Any, rng: random.Random) -> None:
    layer.spectral.bn1 = nn.Sequential(layer.spectral.bn1, nn.Tanh()).train(layer.training)


def _doubled(self: Any, x: Tensor) -> Tensor:
    return 2 * type(self).forward(self, x)


def _replace_forward(layer: Any, rng: random.Random) -> None:
    module = _inner(layer, rng)
    module.forward = types.MethodType(_doubled, module)


def _halve_output(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
    return output / 2


def _add_hook(layer: Any, rng: random.Random) -> None:
    _inner(layer, rng).register_forward_hook(_halve_output)


def _remove_hooks(layer: Any, rng: random.Random) -> None:
    for module in layer.modules():
        module._forward_hooks.clear()


def _parametrize(layer: Any, rng: random.Random) -> None:
    name = rng.choice(WEIGHTS)
    if not parametrize.is_parametrized(layer, name) and name in layer._parameters:
        parametrizations.weight_norm(layer, name)


def _bake(layer: Any, rng: random.Random) -> None:
    for name in WEIGHTS:
        if parametrize.is_parametrized(layer, name):
            parametrize.remove_parametrizations(layer, name)


def _prune(layer: Any, rng: random.Random) -> None:
    conv = _inner(layer, rng, nn.Conv2d)
    if "weight" in conv._parameters and not parametrize.is_parametrized(conv):
        prune.l1_unstructured(conv, "weight", 0.3)


def _freeze(layer: Any, rng: random.Random) -> None:
    parameter = rng.choice(list(layer.parameters()))
    parameter.requires_grad_(not parameter.requires_grad)


EDITS: list[Callable[[Any, random.Random], None]] = [
    *(_stride, _padding, _dilation, _padding_mode, _eps, _momentum, _mode, _mode_of_a_norm, _memory_format),
    *(
        _scale_in_place,
        _scale_data,
        _scale_statistics,
        _replace_parameter,
        _replace_module,
        _replace_activation,
    ),
    *(_replace_forward, _add_hook, _remove_hooks, _parametrize, _bake, _prune, _freeze),
]


def _run_sequence(seed: int, length: int = 4) -> None:
    rng = random.Random(seed)
    torch.manual_seed(seed)
    kernel = rng.choice([1, 3])
    layer = FFC2d(
        rng.choice([12, 32]), rng.choice([12, 40]), kernel, padding=kernel // 2, ratio=rng.choice([0.25, 0.5])
    )
    randomise_norms(layer).train(rng.random() < 0.5)
    done: list[str] = []
    try:
        for _ in range(length):
            edit = rng.choice(EDITS)
            done.append(edit.__name__)
            edit(layer, rng)
            x = torch.randn(rng.choice([1, 2]), layer.in_channels, rng.choice([8, 11]), rng.choice([8, 9]))
            if rng.random() < 0.5:
                x = x.contiguous(memory_format=torch.channels_last)
            assert_matches_definition(layer, x, gradients=rng.random() < 0.6 or layer.training)
    except Exception as error:
        raise AssertionError(f"seed {seed}, after {done}") from error


@pytest.mark.parametrize("start", range(0, 100, 20))
def test_edited_layers(start: int) -> None:
    for seed in range(start, start + 20):
        _run_sequence(seed)


@pytest.mark.slow
@pytest.mark.parametrize("start", range(1000, 3000, 250))
def test_many_edited_layers(start: int) -> None:
    for seed in range(start, start + 250):
        _run_sequence(seed)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_layer_that_changes_its_type_and_back(dtype: torch.dtype) -> None:
    layer, x = randomise_norms(FFC2d(16, 16, 3, padding=1, ratio=0.5)).eval(), torch.randn(2, 16, 9, 8)
    layer(x)
    layer.to(dtype)
    y, exact = layer(x.to(dtype)), definition(layer)(x.to(dtype).double())
    tolerance = {torch.float16: 2e-2, torch.bfloat16: 1e-1, torch.float64: 1e-12}[dtype]
    torch.testing.assert_close(y.double(), exact, rtol=tolerance, atol=tolerance)
    assert_matches_definition(layer.float(), x)
