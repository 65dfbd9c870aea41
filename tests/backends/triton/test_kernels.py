"""The Triton kernels: interpreted, compiled for GPUs that are not here, and on one that is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

triton = pytest.importorskip("triton", reason="triton is not installed")

CASES = Path(__file__).with_name("interpreted.py")
ROOT = Path(__file__).parents[3]


def _run_cases(**environment: str) -> None:
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith(("TRITON", "PYTEST"))
    }
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", str(CASES)]
    done = subprocess.run(
        command, cwd=ROOT, env=inherited | environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


def test_interpreted() -> None:
    _run_cases(TRITON_INTERPRET="1")


@pytest.mark.gpu
def test_on_a_gpu() -> None:
    _run_cases()


NUMBERS = ("C", "H", "W", "stride_n", "stride_c", "stride_h")
MAPS = {"forward": ("x", "spectrum"), "inverse": ("spectrum", "y", "residual", "scale", "shift")}
OPTIONS = {
    "forward": {"COLUMNS": 32},
    "inverse": {"WIDTH": 128, "NORM": True, "RELU": True, "RESIDUAL": True},
}


class Build(NamedTuple):
    """For which GPU, for planes of which side, and with which operands the kernels are compiled."""

    capability: int
    side: int
    dtype: str
    precision: str
    ones: bool = False


BUILDS = [
    Build(80, 128, "fp32", "tf32x3"),
    Build(80, 128, "bf16", "ieee"),
    Build(80, 128, "fp16", "ieee"),
    Build(80, 128, "bf16", "ieee", ones=True),
    Build(90, 128, "fp32", "tf32x3"),
    Build(90, 28, "fp32", "tf32x3"),
    Build(120, 7, "fp32", "tf32x3"),
]


@pytest.mark.parametrize("kernel", ["forward", "inverse"])
@pytest.mark.parametrize("build", BUILDS, ids=str)
def test_compiled_for_a_gpu_to_products_of_its_matrix_units(
    kernel: str, build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from ffconv.backends.triton import kernels, transforms

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    function = getattr(kernels, kernel)
    tiles = transforms._tiles(build.side)
    warps = tiles.pop("num_warps")
    constants = {"STEP": 16, "PRECISION": build.precision, **OPTIONS[kernel], **tiles}
    if build.ones:  # Triton takes numbers that are 1 for constants
        constants |= {name: 1 for name in NUMBERS if name in function.arg_names}
    types = dict.fromkeys(NUMBERS, "i32") | dict.fromkeys(MAPS[kernel], "*fp32")
    types |= {"inner": "fp32", "waves_h": f"*{build.dtype}", "waves_w": f"*{build.dtype}"}
    signature = {name: "constexpr" if name in constants else types[name] for name in function.arg_names}
    source = ASTSource(function, signature=signature, constexprs=constants)
    options = {"enable_fp_fusion": True, "num_stages": kernels.STAGES, "num_warps": warps}
    compiled = triton.compile(source, target=GPUTarget("cuda", build.capability, 32), options=options)
    assert "mma.sync" in compiled.asm["ptx"]
    assert compiled.metadata.shared <= 99 * 1024  # what every GPU since 2020 has
