"""Which kernels are loaded, and what happens without memory."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest

from ffconv.backends.cpu import kernels
from ffconv.backends.cpu.library import INSTRUCTION_SETS, library_path

needs_kernels = pytest.mark.skipif(not kernels.available(), reason="the CPU kernels were not built")


def run(code: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run code in a process of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": "2", **variables}
    command = [sys.executable, "-c", textwrap.dedent(code)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


PRINT = "from ffconv.backends.cpu import kernels; print(kernels.available(), kernels.instruction_set())"


@needs_kernels
@pytest.mark.parametrize("name", [*INSTRUCTION_SETS, "none", "AVX9"])
def test_environment_variable(name: str) -> None:
    result = run(PRINT, FFCONV_CPU=name)
    present = INSTRUCTION_SETS[INSTRUCTION_SETS.index(kernels.instruction_set() or "default") :]
    if name == "none":
        assert result.stdout.split() == ["False", "None"], result.stderr
        assert "ffconv runs" not in result.stderr
    elif name in present and library_path(name).exists():
        assert result.stdout.split() == ["True", name], result.stderr
    else:
        assert result.returncode != 0
        assert f"FFCONV_CPU='{name}'" in result.stderr
        assert "choose one of" in result.stderr


def test_missing_kernels_are_logged_once() -> None:
    code = """
        from pathlib import Path
        from ffconv.backends.cpu import library
        library.library_path = lambda name: Path("missing.so")
        print(library.library(), library.library())
    """
    result = run(code, FFCONV_CPU="")
    assert result.stdout.split() == ["None", "None"], result.stderr
    assert result.stderr.count("runs in plain PyTorch") == 1


LIMITED = """
    import resource
    import torch
    from ffconv.backends.cpu import kernels

    def cases(N, C, H, W):
        x = torch.randn(N, C, H, W).contiguous(memory_format=torch.channels_last)
        conv1, fu, conv2 = (torch.randn(*size, 1, 1) for size in ((C, C), (2 * C, 2 * C), (C, C)))
        layers = [conv1, *(torch.ones(C) for _ in range(4)), fu, *(torch.ones(2 * C) for _ in range(4))]
        eps = (1e-5, 1e-5)
        training = layers, (True, True), eps, conv2
        _, stats, saved = kernels.spectral_transform_forward(x, *training)
        weight = torch.randn(C, C, 3, 3)
        large = torch.ones(1, 1, C * 10, 2048)
        geometry = (1, 1), (1, 1), (1, 1), ("zeros", "zeros"), (H, W)
        return {
            "rfft2": lambda: kernels.rfft2(large),
            "inference": lambda: kernels.spectral_transform(x, layers, eps, conv2),
            "ffc": lambda: kernels.ffc(x, weight, None, None, None, *geometry, (), (), None),
            "forward": lambda: kernels.spectral_transform_forward(x, *training),
            "backward": lambda: kernels.spectral_transform_backward(x, x, *training, stats, saved),
            "weight_grads": lambda: kernels.winograd_weight_grads(x, x, weight, None, None, (1, 1)),
        }

    def limited(name, block):
        used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used, resource.RLIM_INFINITY))
        try:
            return call(name, block)
        finally:
            resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

    call = kernels._call
    for case in cases(2, 4, 8, 8).values():
        case()  # threads are started
    for name, case in cases(2, 160, 96, 96).items():
        kernels._call = limited
        try:
            case()
        except RuntimeError as error:
            print(name, error)
        kernels._call = call
    for case in cases(2, 16, 96, 96).values():
        case()
    print("works again")
"""


@needs_kernels
@pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux does")
def test_too_little_memory_raises() -> None:
    # Memory that was freed goes back to the system, and does not serve the next call.
    result = run(LIMITED, MALLOC_MMAP_THRESHOLD_="65536", MALLOC_TRIM_THRESHOLD_="0")
    assert result.returncode == 0, result.stderr[-500:]
    for name in ("rfft2", "inference", "ffc", "forward", "backward", "weight_grads"):
        assert f"{name} ffconv: not enough memory" in result.stdout
    assert "works again" in result.stdout


SIZES = """
    import torch
    from torch import ones
    from ffconv.backends.cpu import kernels

    x = torch.randn(2, 6, 8, 8)
    layers = [ones(4, 6, 1, 1), *[ones(4)] * 4, ones(8, 8, 1, 1), *[ones(8)] * 4]
    eps, conv2 = (1e-5, 1e-5), ones(3, 4, 1, 1)
    geometry = (1, 1), (0, 0), (1, 1), ("zeros", "zeros"), (8, 8)
    weight = ones(5, 6, 1, 1)
    reflect, saved = ("reflect", "reflect"), [ones(9), ones(9)]
    training, stats = (layers, (True, True), eps, conv2), [(ones(4), ones(4)), (ones(8), ones(8))]

    def replace(index, tensor):
        return [*layers[:index], tensor, *layers[index + 1 :]]

    cases = [
        lambda: kernels.irfft2(ones(1, 2, 4, 4), 5),
        lambda: kernels.spectral_transform(x, replace(0, ones(4, 5, 1, 1)), eps, conv2),
        lambda: kernels.spectral_transform(x, replace(4, ones(3)), eps, conv2),
        lambda: kernels.spectral_transform(x, replace(5, ones(8, 7, 1, 1)), eps, conv2),
        lambda: kernels.spectral_transform(x, layers[:5], eps[:1], conv2),
        lambda: kernels.spectral_transform(x, layers, eps, ones(3, 5, 1, 1)),
        lambda: kernels.spectral_transform(x, layers, eps, conv2, ones(2, 2, 8, 8)),
        lambda: kernels.spectral_transform(x, layers, eps, conv2, ones(2, 3, 8, 7)),
        lambda: kernels.spectral_transform(x, layers, eps, conv2, ones(1, 3, 8, 8).expand(2, 3, 8, 8)),
        lambda: kernels.ffc(x, ones(5, 7, 1, 1), None, None, None, *geometry, (), (), None),
        lambda: kernels.ffc(x, ones(5, 4, 1, 1), ones(5, 3, 1, 1), None, None, *geometry, (), (), None),
        lambda: kernels.ffc(x, ones(5, 4, 1, 1), ones(5, 2, 1, 3), None, None, *geometry, (), (), None),
        lambda: kernels.ffc(x, None, None, None, None, *geometry, (), (), None),
        lambda: kernels.ffc(x, weight, None, None, ones(4), *geometry, (), (), None),
        lambda: kernels.ffc(x, weight, None, None, None, (0, 1), *geometry[1:], (), (), None),
        lambda: kernels.ffc(x, weight, None, None, None, *geometry[:4], (8, 0), (), (), None),
        lambda: kernels.ffc(x, weight, *[None] * 3, (1, 1), (9, 0), (1, 1), reflect, (9, 8), (), (), None),
        lambda: kernels.ffc(x, weight, None, None, None, *geometry, (), (), None, ones(2, 5, 8, 7)),
        lambda: kernels.ffc(x, weight, None, None, None, *geometry, layers, eps, conv2),
        lambda: kernels.winograd_weight_grads(x, x, ones(6, 6, 1, 1), None, None, (1, 1)),
        lambda: kernels.winograd_input_grad(x, ones(7, 5, 3, 3), None, None, (1, 1), (8, 8)),
        lambda: kernels.spectral_transform_backward(ones(2, 3, 8, 8), x, *training, stats, saved),
    ]
    for number, case in enumerate(cases):
        try:
            case()
        except RuntimeError as error:
            print(number, error)
        else:
            print(number, "was not refused")
"""


@needs_kernels
def test_sizes_that_do_not_go_together_are_refused() -> None:
    """In a process of its own, which reading or writing beyond a tensor may end."""
    result = run(SIZES)
    assert result.returncode == 0, result.stderr[-500:]
    lines = result.stdout.splitlines()
    assert len(lines) == 22
    assert [line for line in lines if " ffconv: " not in line] == []
