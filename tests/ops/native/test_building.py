"""Compiling the transforms, and doing without."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch

from ffconv.nn import fourier, native
from ffconv.ops.native import building

build = building.library.__wrapped__


@pytest.mark.skipif(not native.available(), reason="no C++ compiler on this machine")
def test_built_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FFCONV_CACHE", str(tmp_path / "cache"))
    built = build()
    assert built is not None
    assert built.ffconv_largest_factor() == 31
    (file,) = (tmp_path / "cache").iterdir()  # and nothing half done beside it
    written = file.stat().st_mtime_ns
    assert build() is not None
    assert file.stat().st_mtime_ns == written


def test_no_compiler(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    assert build() is None
    assert "no C++ compiler was found: set CXX, or install g++" in caplog.text


@pytest.mark.skipif(not native.available(), reason="no C++ compiler on this machine")
@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("unknown flag", "unknown flag"),
        (r"ld: cannot find -lgomp\ncollect2: error: ld returned 1", "ld: cannot find -lgomp"),
        (r"\nIn file a.cpp:\na.cpp:3: error: no x\n  3 | x;\na.cpp:4: error: no y", "a.cpp:3: error: no x"),
    ],
)
def test_failing_compiler(
    said: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    compiler = tmp_path / "c++"
    compiler.write_text(f"#!/bin/sh\n[ \"$1\" = --version ] || {{ printf '{said}' >&2; exit 1; }}\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    monkeypatch.setenv("FFCONV_CACHE", str(tmp_path / "cache"))
    assert build() is None
    assert caplog.messages[0].endswith(f"torch.fft takes their place: {told}")
    assert not list((tmp_path / "cache").iterdir())


def test_switched_off(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("FFCONV_NATIVE", "0")
    with caplog.at_level(logging.WARNING):
        assert build() is None
    assert not caplog.records


@pytest.mark.parametrize(("axes", "size"), [((2, 3), (6, 7)), ((3, 4), (2, 6, 5)), ((2,), (9,))])
def test_the_same_without(
    axes: tuple[int, ...], size: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    x = torch.randn(2, 3, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    there = fourier.rfftn(x, axes)
    noise = torch.randn(there.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    back = fourier.irfftn(noise, axes, size[-1])
    monkeypatch.setattr(native, "suits", lambda x, H, W: False)
    torch.testing.assert_close(fourier.rfftn(x, axes), there)
    torch.testing.assert_close(fourier.irfftn(noise, axes, size[-1]), back)
