"""The report of a GPU, of small sizes and on the CPU: that the command holds, not what it measures."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

SCRIPTS = Path(__file__).parents[2] / "benchmarks"
FIGURES = ("inference", "training", "units", "lama", "generator", "growth", "engines")


@pytest.fixture
def gpu_report(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(SCRIPTS)
    return importlib.import_module("gpu_report")


@pytest.fixture
def plan(gpu_report: Any) -> Any:
    small = gpu_report.plan_for("cpu", quick=True)
    one_engine = {"transforms": ("torch",), "engines": ("eager",), "peer": small.network}
    return replace(small, network="ffc_resnet18,layers=[1,1,1,1]", **one_engine)


def lines_of(gpu_report: Any, plan: Any, *names: str) -> list[str]:
    said: list[str] = []
    assert gpu_report.report(plan, names, said.append)
    return said


@pytest.mark.slow
@pytest.mark.parametrize("name", FIGURES)
def test_a_section_of_figures(gpu_report: Any, plan: Any, name: str) -> None:
    rows = [line for line in lines_of(gpu_report, plan, name) if line.startswith("| ")]
    assert len(rows) > 2  # heads, rule, figures
    assert len({row.count("|") for row in rows}) == 1


def _errors(row: str) -> list[float]:
    return [float(cell) for cell in row.split("|") if "e-" in cell or "e+" in cell]


def test_errors_of_transforms(gpu_report: Any, plan: Any) -> None:
    double, single = lines_of(gpu_report, plan, "transforms")[-2:]
    assert max(_errors(double)) < 1e-12
    assert 1e-9 < max(_errors(single)) < 1e-5


@pytest.mark.slow
def test_errors_of_networks(gpu_report: Any, plan: Any) -> None:
    rows = [line for line in lines_of(gpu_report, plan, "networks") if " float32 " in line]
    assert len(rows) == 3
    assert max(max(_errors(row)) for row in rows) < 1e-3
    assert min(min(_errors(row)) for row in rows) > 1e-9


def test_a_section_that_fails_does_not_stop_the_others(
    gpu_report: Any, plan: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(plan: Any) -> None:
        raise torch.OutOfMemoryError("no memory is left")

    sections: dict[str, tuple[str, Callable]] = {"first": ("First", failing), "second": ("Second", iter_of)}
    monkeypatch.setattr(gpu_report, "SECTIONS", sections)
    said: list[str] = []
    assert not gpu_report.report(plan, list(sections), said.append)
    assert "no memory is left" in said[1]
    assert said[-1] == "done"


def iter_of(plan: Any) -> list[str]:
    return ["done"]


def test_on_cuda_everything_is_asked_for(gpu_report: Any) -> None:
    plan = gpu_report.plan_for("cuda", quick=False)
    assert plan.transforms == ("torch", "dft_matmul", "triton")
    assert {"eager", "compile", "compile+graphs", "fused+compile+graphs"} <= set(plan.engines)
