"""Every row of the table against the definition in float64."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from assertions import assert_matches_definition, assert_near, randomise_norms
from ffconv import functional
from ffconv.backends.cpu import kernels
from ffconv.dispatch import fft_backend, layers, table
from ffconv.functional.fft import column_weights
from ffconv.nn import FFC2d, FFC3d, FourierUnit, SpectralTransform

needs_kernels = pytest.mark.skipif(not kernels.available(), reason="the CPU kernels are not built")
FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


def pairwise(**options: list[Any]) -> list[dict[str, Any]]:
    """Return cases in which each two values of two options occur together, chosen greedily."""
    names = list(options)
    left = {
        (a, x, b, y)
        for a, b in itertools.combinations(range(len(names)), 2)
        for x in range(len(options[names[a]]))
        for y in range(len(options[names[b]]))
    }
    everything = list(itertools.product(*(range(len(values)) for values in options.values())))
    cases = []
    while left:
        best = max(everything, key=lambda case: sum(case[a] == x and case[b] == y for a, x, b, y in left))
        cases.append({name: options[name][i] for name, i in zip(names, best, strict=True)})
        left = {(a, x, b, y) for a, x, b, y in left if not (best[a] == x and best[b] == y)}
    return cases


FFC_CASES = pairwise(
    geometry=[
        (1, 1, 0, 1),
        (3, 1, 1, 1),
        (3, 2, 1, 1),
        (1, 2, 0, 1),
        (5, 3, 1, 1),
        (3, 1, 2, 2),
        (2, 2, 0, 1),
        (3, 1, "same", 2),
    ],
    size=[(1, 1), (7, 6), (16, 16), (9, 33)],
    ratios=[(0.5, 0.5), (0, 0.5), (0.5, 0), (0.25, 0.75), (0, 0), (0.1, 0.3)],
    padding_mode=["zeros", "reflect", "replicate", "circular"],
    switches=[{}, {"lfu": False}, {"bias": False}, {"local_to_global": False}, {"global_to_local": False}],
    channels=[(20, 24), (48, 40)],
    memory_format=list(FORMATS),
    mode=["train", "eval", "inference"],
)


@needs_kernels
@pytest.mark.parametrize("case", FFC_CASES, ids=str)
def test_ffc(case: dict[str, Any]) -> None:
    kernel, stride, padding, dilation = case["geometry"]
    stride = 1 if padding == "same" else stride
    ratio_in, ratio_out = case["ratios"]
    height, width = case["size"]
    span = dilation * (kernel - 1)
    options = {**case["switches"], "padding_mode": case["padding_mode"]}
    if 0 in case["ratios"]:
        options = {name: value for name, value in options.items() if "_to_" not in name}
    height, width = max(height, span + 1), max(width, span + 1 if case["mode"] != "train" else 9)
    layer = FFC2d(
        *case["channels"],
        kernel,
        stride,
        padding,
        dilation,
        ratio_in=ratio_in,
        ratio_out=ratio_out,
        **options,
    )
    memory_format = FORMATS[case["memory_format"]]
    randomise_norms(layer).train(case["mode"] == "train")
    layer = layer.to(memory_format=memory_format)
    x = torch.randn(3, case["channels"][0], height, width).contiguous(memory_format=memory_format)
    call = layers.ffc_call(layer, x)
    assert not isinstance(call, str), call
    with torch.set_grad_enabled(case["mode"] != "inference"):
        assert table.choose("ffc", call[0]).name == "cpu"
        assert_matches_definition(layer, x, gradients=case["mode"] != "inference")


@needs_kernels
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("size", [(4, 4), (7, 9)])
@pytest.mark.parametrize(
    "module", [FourierUnit(6, 6), SpectralTransform(8, 12), SpectralTransform(8, 12, 2, lfu=False)]
)
def test_spectral_layers(module: Any, size: tuple[int, int], training: bool) -> None:
    randomise_norms(module).train(training)
    assert_matches_definition(module, torch.randn(2, 6 if isinstance(module, FourierUnit) else 8, *size))


@needs_kernels
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last_3d])
@pytest.mark.parametrize("training", [True, False])
def test_frames(training: bool, memory_format: torch.memory_format) -> None:
    layer = FFC3d(16, 24, (1, 3, 3), (1, 2, 2), (0, 1, 1), ratio=0.5)
    randomise_norms(layer).train(training).to(memory_format=memory_format)
    x = torch.randn(2, 16, 3, 8, 6).contiguous(memory_format=memory_format)
    call = layers.ffc_call(layer, x)
    assert not isinstance(call, str)
    assert table.choose("ffc", call[0]).name == "cpu"
    assert_matches_definition(layer, x)


FFT_ROWS = [
    row.name for row in table.TABLE["fft"] if row.name != "triton"
]  # tests/backends/triton has that one


@pytest.mark.parametrize("backend", FFT_ROWS)
@pytest.mark.parametrize(
    ("shape", "axes"),
    [((2, 9, 1, 1), (2, 3)), ((2, 9, 7, 6), (2, 3)), ((2, 8, 5, 6, 7), (3, 4)), ((1, 8, 12), (2,))],
)
@pytest.mark.parametrize("inner", [1.0, 0.5, 2.0])
def test_transforms(backend: Any, shape: tuple[int, ...], axes: tuple[int, ...], inner: float) -> None:
    x = torch.randn(shape)
    width = shape[axes[-1]]
    found = torch.ops.ffconv.rfftn(x, axes, backend, inner)
    exact = functional.rfftn(x.double(), axes)
    weights = column_weights(inner, width, exact, axes[-1])
    assert_near(found, exact * weights)
    spectrum = torch.randn(found.shape)  # not Hermitian
    back = torch.ops.ffconv.irfftn(spectrum, axes, width, backend, inner)
    assert_near(back, functional.irfftn(spectrum.double() * weights, axes, width))


@needs_kernels
@pytest.mark.parametrize(("width", "height"), [(37, 4), (1, 101), (74, 37)])
def test_the_kernels_transform_sizes_with_large_prime_factors(width: int, height: int) -> None:
    x = torch.randn(1, 3, height, width)
    spectrum = kernels.rfft2(x)
    assert_near(spectrum, functional.rfftn(x.double(), (2, 3)))
    assert_near(kernels.irfft2(spectrum, width), x.double())


REFUSED: list[tuple[str, Any, str]] = [
    (
        "float64",
        lambda: (FFC2d(8, 8, 3, padding=1).double(), torch.randn(1, 8, 6, 6).double()),
        "float64, not float32",
    ),
    (
        "a negative view",
        lambda: (FFC2d(8, 8, 3, padding=1), torch.view_as_complex(torch.randn(1, 8, 6, 6, 2)).conj().imag),
        "negative view",
    ),
    ("no map", lambda: (FFC2d(8, 8, 3, padding=1), torch.randn(0, 8, 6, 6)), "empty"),
    (
        "large prime sides",
        lambda: (FFC2d(8, 8, 3, padding=1, ratio=0.5), torch.randn(1, 8, 74, 6)),
        "large prime factor",
    ),
    (
        "no convolution",
        lambda: (FFC2d(8, 8, 3, padding=1, ratio=1), torch.randn(1, 8, 6, 6)),
        "no convolution",
    ),
    (
        "one value a channel",
        lambda: (FFC2d(8, 8, 1, ratio=0.5).train(), torch.randn(1, 8, 1, 1)),
        "more than one value",
    ),
    ("large weights and maps", lambda: (FFC2d(1024, 1024, 1).eval(), torch.randn(1, 1024, 32, 32)), "oneDNN"),
]


@needs_kernels
@pytest.mark.parametrize(("name", "make", "reason"), REFUSED, ids=[name for name, _, _ in REFUSED])
def test_the_kernels_refuse(name: str, make: Any, reason: str) -> None:
    layer, x = make()
    with torch.no_grad():
        call = layers.ffc_call(layer, x)
        assert not isinstance(call, str)
        rows = {row.name: row for row in table.TABLE["ffc"]}
        assert reason in (table.reason_against(rows["cpu"], call[0], "auto") or "")
        assert table.choose("ffc", call[0]).name == "torch"


@needs_kernels
def test_a_negative_view_has_the_right_sign() -> None:
    layer = randomise_norms(FFC2d(8, 8, 3, padding=1, ratio=0.5)).eval()
    x: Tensor = torch.view_as_complex(torch.randn(1, 8, 6, 6, 2)).conj().imag
    with torch.no_grad():
        torch.testing.assert_close(layer(x), layer(x.resolve_neg().clone()), rtol=1e-4, atol=1e-4)


@needs_kernels
@pytest.mark.parametrize("name", ["torch", "dft_matmul"])
def test_a_named_backend_takes_the_kernels_place(name: Any) -> None:
    layer, x = randomise_norms(FFC2d(8, 8, 3, padding=1, ratio=0.5)).eval(), torch.randn(2, 8, 6, 5)
    with torch.no_grad(), fft_backend(name):
        call = layers.ffc_call(layer, x)
        assert isinstance(call, str) or table.choose("ffc", call[0]).name == "torch"
        y = layer(x)
    with torch.no_grad():
        torch.testing.assert_close(y, layer(x), rtol=1e-4, atol=1e-4)


def test_batch_statistics_of_one_value_are_refused_as_by_torch() -> None:
    with pytest.raises(ValueError, match="more than 1 value"):
        FFC2d(8, 8, 1, ratio=0.5).train()(torch.randn(1, 8, 1, 1))


UNEQUAL_STRIDES = """
import torch
from assertions import assert_matches_definition
from ffconv.nn import FFC2d
torch.set_num_threads(2)
for stride in ((2, 1), (1, 2), (3, 1)):
    for size in ((9, 8), (16, 7), (5, 20)):
        for memory_format in (torch.contiguous_format, torch.channels_last):
            layer = FFC2d(16, 24, 1, stride, ratio=0.5).to(memory_format=memory_format)
            x = torch.randn(2, 16, *size).contiguous(memory_format=memory_format)
            assert_matches_definition(layer, x)
"""


@pytest.mark.slow
def test_unequal_strides_of_a_1x1_kernel_in_a_process_of_their_own() -> None:
    """A damaged heap would end the process."""
    paths = [str(Path(__file__).parents[1]), *sys.path]
    checked = {**os.environ, "MALLOC_CHECK_": "3", "PYTHONPATH": os.pathsep.join(paths)}
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", UNEQUAL_STRIDES], env=checked, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr


@needs_kernels
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (3, 1), (3, 2)])
def test_values_that_are_not_finite_stay_where_torch_leaves_them(
    kernel: int, stride: int, bad: float
) -> None:
    layer = FFC2d(24, 48, kernel, stride, kernel // 2, ratio=0).eval()
    for row, column in itertools.product(range(8, 12), repeat=2):
        x = torch.randn(1, 24, 24, 24)
        x[0, 3, row, column] = bad
        with torch.no_grad():
            found = layer(x)
            expected = torch.nn.functional.conv2d(x, layer.weight_l2l, layer.bias, stride, kernel // 2)
        torch.testing.assert_close(found.isfinite(), expected.isfinite())


@needs_kernels
def test_transforms_of_channels_do_not_mix() -> None:
    x = torch.randn(1, 20, 9, 8)
    x[0, 3, 4, 4] = float("nan")
    reached = (~kernels.rfft2(x).isfinite()).nonzero()[:, 1].unique()
    assert reached.tolist() == [6, 7]
