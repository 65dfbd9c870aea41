"""Rows of the matrix: ONNX files, run by engines that are not torch."""

from __future__ import annotations

from math import gcd
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from compatibility.families import Family
from exporting import ORDINARY, relative_difference
from ffconv.interop.export import ExportConfig, export
from ffconv.interop.export_engines import OnnxEngine, open_exported
from ffconv.interop.export_input import NetworkInput

_ENGINES: tuple[OnnxEngine, ...] = ("onnxruntime", "openvino")


def matrix_products(family: Family) -> None:
    """A graph of ordinary operators, which two engines compute."""
    operators, differences = _exported(family)
    assert not set(operators) - ORDINARY
    assert max(differences) < 1e-4


def transforms(family: Family) -> None:
    """A graph with the standard operator DFT."""
    operators, differences = _exported(family, ("onnxruntime",), fft_backend="torch")
    assert operators["DFT"] >= 4  # a transform and its inverse, along two axes
    assert max(differences) < 1e-4


def fused_at_odd_sizes(family: Family) -> None:
    """Norms folded first, and a size that is odd where the network takes it."""
    _, differences = _exported(family, size=family.other_sizes[0], fuse=True)
    assert max(differences) < 1e-4


def weights_in_float16(family: Family) -> None:
    """As near to float32 as the type allows."""
    _, differences = _exported(family, dtype="float16")
    assert all(1e-6 < found < 1e-2 for found in differences)


def weights_in_bfloat16(family: Family) -> None:
    """Likewise."""
    _, differences = _exported(family, dtype="bfloat16")
    assert all(1e-6 < found < 5e-2 for found in differences)


def _exported(
    family: Family,
    engines: tuple[OnnxEngine, ...] = _ENGINES,
    *,
    size: tuple[int, ...] | None = None,
    **config: Any,
) -> tuple[dict[str, int], list[float]]:
    """The operators of a file, and for each engine how far it is from the network, on random input."""
    network, given, form = family.network().eval(), _given(family, size), ExportConfig(**config)
    x = given.example()
    with TemporaryDirectory() as folder, torch.no_grad():
        path = Path(folder, "x.onnx")
        report = export(network, path, given, form, check=None)
        differences = []
        for engine in engines:
            run = open_exported(path, "onnx", engine)
            differences.append(relative_difference(run(x.to(form.input_dtype)), network(x)))
    return report.operators, differences


def _given(family: Family, size: tuple[int, ...] | None) -> NetworkInput:
    sizes = [family.size[1:], *family.other_sizes]
    multiple = gcd(*(side for each in sizes for side in each[-2:]))
    task = "action" if len(family.size) == 4 else "classification"
    return NetworkInput(task, (family.size[0], *(size or family.size[1:])), multiple=multiple)
