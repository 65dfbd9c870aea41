"""The choice of an implementation of the Fourier transforms."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

import ffconv
from ffconv import functional
from ffconv.backends import dft_matmul
from ffconv.backends.cpu import kernels
from ffconv.dispatch import FFTBackend, current_fft_backend, irfftn, rfftn, table
from ffconv.nn import SpectralTransform

IMAGE = (2, 3)
# In the package the function hides the module of the same name.
fft_backend_module = importlib.import_module("ffconv.dispatch.fft_backend")
needs_kernels = pytest.mark.skipif(not kernels.available(), reason="the kernels are not built")


def test_a_context_ends_with_its_block() -> None:
    assert current_fft_backend() == "auto"
    with ffconv.fft_backend("torch"):
        with ffconv.fft_backend("dft_matmul"):
            assert current_fft_backend() == "dft_matmul"
        assert current_fft_backend() == "torch"
    assert current_fft_backend() == "auto"


def test_a_context_holds_in_its_thread_alone() -> None:
    seen = []
    with ffconv.fft_backend("dft_matmul"):
        other = threading.Thread(target=lambda: seen.append(current_fft_backend()))
        other.start()
        other.join()
    assert seen == ["auto"]


def test_a_default_holds_in_all_threads_and_a_context_takes_precedence() -> None:
    seen = []
    ffconv.set_fft_backend("torch")
    try:
        other = threading.Thread(target=lambda: seen.append(current_fft_backend()))
        other.start()
        other.join()
        with ffconv.fft_backend("auto"):
            seen.append(current_fft_backend())
    finally:
        ffconv.set_fft_backend("auto")
    assert seen == ["torch", "auto"]


def test_autograd_threads_use_the_backend_set_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """They compute the gradients of a GPU, and run checkpointed layers again, without a context."""
    seen = []
    monkeypatch.setattr(
        fft_backend_module, "_is_autograd_thread", lambda: threading.current_thread().name == "backward"
    )
    with ffconv.fft_backend("dft_matmul"):
        for name in ("backward", "another"):
            thread = threading.Thread(target=lambda: seen.append(current_fft_backend()), name=name)
            thread.start()
            thread.join()
    assert seen == ["dft_matmul", "auto"]


def test_a_thread_of_python_is_no_autograd_thread() -> None:
    seen = []
    x = torch.ones(1, requires_grad=True)
    y = 3 * x
    y.register_hook(lambda grad: seen.append(fft_backend_module._is_autograd_thread()))
    y.backward()
    assert seen == [False]


@pytest.mark.gpu
def test_checkpointed_layers_run_again_by_the_same_backend() -> None:
    x = torch.randn(1, 2, 6, 5, device="cuda", requires_grad=True)
    seen = []

    def layer(x: Tensor) -> Tensor:
        seen.append(current_fft_backend())
        return rfftn(x, IMAGE)

    with ffconv.fft_backend("dft_matmul"):
        checkpoint(layer, x, use_reentrant=False).square().sum().backward()  # pyright: ignore
    assert seen == ["dft_matmul", "dft_matmul"]


def _enter(name: Any) -> None:
    with ffconv.fft_backend(name):
        pass


@pytest.mark.parametrize("set_backend", [ffconv.set_fft_backend, _enter])
def test_an_unknown_backend(set_backend: Callable[[str], None]) -> None:
    message = "fft_backend='fftw' must be one of auto, torch, cpu, dft_matmul, triton"
    with pytest.raises(ValueError, match=message):
        set_backend("fftw")
    assert current_fft_backend() == "auto"


def test_the_kernels_where_they_are_not_built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "available", lambda: False)
    with pytest.raises(ValueError, match=r"fft_backend='cpu' needs .* a C\+\+ compiler"):
        ffconv.set_fft_backend("cpu")


def test_triton_without_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(ValueError, match="fft_backend='triton' needs"):
        ffconv.set_fft_backend("triton")


@needs_kernels
@pytest.mark.parametrize(
    ("device", "shape", "backend"),
    [
        ("cpu", (1, 64, 56, 28), "cpu"),
        ("cpu", (1, 8, 512, 512), "cpu"),
        ("cpu", (1, 2, 32, 31), "cpu"),
        ("cpu", (1, 2, 56, 56), "torch"),
        ("cpu", (1, 64, 37, 4), "dft_matmul"),
        ("cpu", (1, 64, 1, 74), "dft_matmul"),
        ("cpu", (1, 64, 37, 130), "torch"),
        ("cpu", (1, 64, 131, 4), "torch"),
        ("meta", (1, 64, 7, 7), "torch"),
    ],
)
def test_the_choice_by_size(device: str, shape: tuple[int, ...], backend: str) -> None:
    forward = table.FFTCall(torch.empty(shape, device=device), IMAGE, None, "auto", 1.0)
    spectrum = torch.empty(shape[0], 2 * shape[1], shape[2], shape[3] // 2 + 1, device=device)
    inverse = table.FFTCall(spectrum, IMAGE, shape[3], "auto", 1.0)
    assert [table.choose("fft", call, "auto").name for call in (forward, inverse)] == [backend] * 2


def test_double_precision_is_not_for_the_kernels() -> None:
    call = table.FFTCall(torch.empty(1, 64, 8, 8, dtype=torch.float64), IMAGE, None, "auto", 1.0)
    assert table.choose("fft", call, "auto").name == "torch"


def test_the_table_chooses_by_default(ran: list[str]) -> None:
    irfftn(rfftn(torch.randn(1, 64, 37, 5), IMAGE), IMAGE, 5)
    assert ran == ["dft_matmul", "dft_matmul"]
    rfftn(torch.randn(1, 2, 56, 56), IMAGE)
    assert ran[2:] == ["torch"]


@pytest.mark.parametrize(("n", "factor"), [(1, 1), (2, 2), (12, 3), (49, 7), (97, 97), (2 * 3 * 41, 41)])
def test_largest_prime_factor(n: int, factor: int) -> None:
    assert table.largest_prime_factor(n) == factor


def _counted(monkeypatch: pytest.MonkeyPatch, owner: object, name: str, calls: list[str], word: str) -> None:
    original = getattr(owner, name)

    def counting(*args: object, **options: object) -> object:
        calls.append(word)
        return original(*args, **options)

    monkeypatch.setattr(owner, name, counting)


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The backends that have run transforms, in order."""
    calls: list[str] = []
    for name in ("rfftn", "irfftn"):
        _counted(monkeypatch, dft_matmul, name, calls, "dft_matmul")
        _counted(monkeypatch, functional, name, calls, "torch")
    for name in ("rfft2", "irfft2"):
        _counted(monkeypatch, kernels, name, calls, "cpu")
    return calls


@pytest.mark.parametrize("backend", ["torch", "dft_matmul", pytest.param("cpu", marks=needs_kernels)])
def test_a_backend_computes_forward_and_backward(backend: FFTBackend, ran: list[str]) -> None:
    x = torch.randn(1, 2, 6, 5, requires_grad=True)
    with ffconv.fft_backend(backend):
        y = irfftn(rfftn(x, IMAGE).relu(), IMAGE, 5)
    y.sum().backward()  # outside of the context: the gradient keeps the backend of its transform
    assert set(ran) == {backend}


@needs_kernels
def test_the_kernels_leave_large_prime_sides_to_torch(ran: list[str]) -> None:
    with ffconv.fft_backend("cpu"):
        rfftn(torch.randn(1, 2, 37, 5), IMAGE)
    assert ran == ["torch"]


@pytest.mark.parametrize("backend", ["torch", "dft_matmul"])
def test_another_backend_computes_a_whole_spectral_transform(
    backend: FFTBackend, ran: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels, "spectral_transform", None)
    transform = SpectralTransform(8, 8).eval()
    with ffconv.fft_backend(backend):
        transform(torch.randn(1, 8, 6, 6))
    assert set(ran) == {backend}


@pytest.mark.slow
def test_a_compiled_function_follows_the_backend(ran: list[str]) -> None:
    torch._dynamo.reset()
    compiled = torch.compile(lambda x: rfftn(x, IMAGE), fullgraph=True)
    x = torch.randn(1, 2, 6, 5)
    with ffconv.fft_backend("torch"):
        first = compiled(x)
    assert ran == ["torch"]
    with ffconv.fft_backend("dft_matmul"):
        second = compiled(x)
    assert ran.count("torch") == 1
    torch.testing.assert_close(first, second)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_a_trace_needs_no_package() -> None:
    with ffconv.fft_backend("auto"):
        traced: Any = torch.jit.trace(lambda x: rfftn(x, IMAGE), torch.randn(1, 2, 6, 5))
    assert not [node.kind() for node in traced.inlined_graph.nodes() if "ffconv" in node.kind()]
