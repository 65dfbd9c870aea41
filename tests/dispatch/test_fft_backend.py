"""Choosing who computes the transforms."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils.checkpoint import checkpoint

import ffconv
from ffconv.nn import SpectralTransform, engines, fourier, fused, matrix, native
from ffconv.ops.engines import Engine, current_engine, table_engine
from ffconv.dispatch import irfftn, rfftn

IMAGE = (2, 3)


def test_a_context_holds_within_itself() -> None:
    assert current_engine() == "auto"
    with ffconv.fft_backend("fft"):
        with ffconv.fft_backend("matrix"):
            assert current_engine() == "matrix"
        assert current_engine() == "fft"
    assert current_engine() == "auto"


def test_a_context_holds_for_its_thread() -> None:
    seen = []
    with ffconv.fft_backend("matrix"):
        other = threading.Thread(target=lambda: seen.append(current_engine()))
        other.start()
        other.join()
    assert seen == ["auto"]


def test_a_lasting_engine_holds_for_all_threads_and_a_context_comes_first() -> None:
    seen = []
    ffconv.set_fft_backend("fft")
    try:
        other = threading.Thread(target=lambda: seen.append(current_engine()))
        other.start()
        other.join()
        with ffconv.fft_backend("auto"):
            seen.append(current_engine())
    finally:
        ffconv.set_fft_backend("auto")
    assert seen == ["fft", "auto"]


def test_autograds_own_threads_take_the_engine_set_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """They compute the gradients of a GPU, and run checkpointed layers again, without a context."""
    seen = []
    monkeypatch.setattr(
        engines, "_is_autograds_thread", lambda: threading.current_thread().name == "backward"
    )
    with ffconv.fft_backend("matrix"):
        for name in ("backward", "another"):
            thread = threading.Thread(target=lambda: seen.append(current_engine()), name=name)
            thread.start()
            thread.join()
    assert seen == ["matrix", "auto"]


def test_a_thread_of_python_is_none_of_autograds() -> None:
    seen = []
    x = torch.ones(1, requires_grad=True)
    y = 3 * x
    y.register_hook(lambda grad: seen.append(engines._is_autograds_thread()))
    y.backward()
    assert seen == [False]


@pytest.mark.gpu
def test_checkpointed_layers_run_again_by_the_same_engine() -> None:
    x = torch.randn(1, 2, 6, 5, device="cuda", requires_grad=True)
    seen = []

    def layer(x: torch.Tensor) -> torch.Tensor:
        seen.append(current_engine())
        return rfftn(x, IMAGE)

    with ffconv.fft_backend("matrix"):
        checkpoint(layer, x, use_reentrant=False).square().sum().backward()
    assert seen == ["matrix", "matrix"]


@pytest.mark.parametrize("set_engine", [ffconv.set_fft_backend, lambda name: _enter(name)])
def test_an_unknown_engine(set_engine: Callable[[str], None]) -> None:
    with pytest.raises(ValueError, match="engine='fftw' must be one of auto, fft, native, matrix, triton"):
        set_engine("fftw")
    assert current_engine() == "auto"


def _enter(name: str) -> None:
    with ffconv.fft_backend(name):  # pyright: ignore[reportArgumentType]
        pass


def test_native_without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "available", lambda: False)
    with pytest.raises(ValueError, match=r"engine='native' needs Linux and a C\+\+ compiler"):
        ffconv.set_fft_backend("native")


def test_triton_without_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(ValueError, match="engine='triton' needs"):
        ffconv.set_fft_backend("triton")


@pytest.mark.parametrize(
    ("device", "channels", "sides", "engine"),
    [
        ("cpu", 64, (56, 28), "native"),
        ("cpu", 8, (512, 512), "native"),
        ("cpu", 2, (32, 31), "native"),
        ("cpu", 2, (56, 56), "fft"),
        ("cpu", 64, (37, 4), "matrix"),
        ("cpu", 64, (1, 74), "matrix"),
        ("cpu", 64, (37, 130), "fft"),
        ("cpu", 64, (131, 4), "fft"),
        ("mps", 64, (7, 7), "fft"),
        ("cuda", 64, (64, 64), "fft"),
    ],
)
def test_the_table(device: str, channels: int, sides: tuple[int, int], engine: str) -> None:
    assert table_engine(torch.device(device), torch.float32, channels, sides) == engine


def test_the_table_is_asked_by_default(ran: list[str]) -> None:
    irfftn(rfftn(torch.randn(1, 64, 37, 5), IMAGE), IMAGE, 5)
    assert ran == ["matrix", "matrix"]
    rfftn(torch.randn(1, 2, 56, 56), IMAGE)
    assert ran[2:] == ["fft"]


@pytest.mark.parametrize(("n", "factor"), [(1, 1), (2, 2), (12, 3), (49, 7), (97, 97), (2 * 3 * 41, 41)])
def test_largest_prime_factor(n: int, factor: int) -> None:
    assert engines._largest_prime_factor(n) == factor


def _counted(monkeypatch: pytest.MonkeyPatch, owner: object, name: str, calls: list[str], word: str) -> None:
    original = getattr(owner, name)

    def counting(*args: object, **options: object) -> object:
        calls.append(word)
        return original(*args, **options)

    monkeypatch.setattr(owner, name, counting)


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which engines have run, in order."""
    calls: list[str] = []
    for name in ("rfftn", "irfftn"):
        _counted(monkeypatch, matrix, name, calls, "matrix")
        _counted(monkeypatch, fourier, f"_{name}", calls, "fft")
    for name in ("rfft2", "irfft2"):
        _counted(monkeypatch, native, name, calls, "native")
    return calls


@pytest.mark.parametrize(
    "engine",
    [
        "fft",
        "matrix",
        pytest.param(
            "native", marks=pytest.mark.skipif(not native.available(), reason="no C++ compiler here")
        ),
    ],
)
def test_the_engine_asked_for_computes_forward_and_backward(engine: Engine, ran: list[str]) -> None:
    x = torch.randn(1, 2, 6, 5, requires_grad=True)
    with ffconv.fft_backend(engine):
        y = irfftn(rfftn(x, IMAGE).relu(), IMAGE, 5)
    y.sum().backward()  # outside: what was asked for holds for the gradient
    assert set(ran) == {engine}


@pytest.mark.skipif(not native.available(), reason="no C++ compiler on this machine")
def test_native_leaves_sides_it_does_not_take_to_torch(ran: list[str]) -> None:
    with ffconv.fft_backend("native"):
        rfftn(torch.randn(1, 2, 37, 5), IMAGE)
    assert ran == ["fft"]


@pytest.mark.parametrize("engine", ["fft", "matrix"])
def test_another_engine_computes_a_whole_spectral_transform(
    engine: Engine, ran: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fused, "spectral_transform", None)  # the form of the native engine
    transform = SpectralTransform(8, 8).eval()
    with ffconv.fft_backend(engine):
        transform(torch.randn(1, 8, 6, 6))
    assert set(ran) == {engine}


@pytest.mark.slow
def test_a_compiled_function_follows_the_engine(ran: list[str]) -> None:
    torch._dynamo.reset()
    compiled = torch.compile(lambda x: rfftn(x, IMAGE), fullgraph=True)
    x = torch.randn(1, 2, 6, 5)
    with ffconv.fft_backend("fft"):
        first = compiled(x)
    assert ran == ["fft"]
    with ffconv.fft_backend("matrix"):
        second = compiled(x)
    assert ran.count("fft") == 1
    torch.testing.assert_close(first, second)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_a_trace_by_another_engine_needs_no_package() -> None:
    with ffconv.fft_backend("auto"):
        traced: Any = torch.jit.trace(lambda x: rfftn(x, IMAGE), torch.randn(1, 2, 6, 5))
    assert not [node.kind() for node in traced.inlined_graph.nodes() if "ffconv" in node.kind()]
