"""The tutorial runs as it stands in the documentation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import ffconv
from documents import DOCS, code_blocks


@pytest.fixture(scope="module")
def tutorial(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The folder the tutorial ran in, and the names it left."""
    folder, names = tmp_path_factory.mktemp("tutorial"), {"__name__": "tutorial"}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for block in code_blocks(DOCS / "tutorial.md", "python"):
            exec(compile(block, "tutorial.md", "exec"), names)
    return folder, names


def test_only_the_converted_network_learns(tutorial: tuple[Path, dict[str, Any]]):
    accuracy = tutorial[1]["accuracy"]
    assert accuracy["fourier"] > 0.95
    assert accuracy["plain"] < 0.7


def test_a_trained_network_is_converted_and_learns(tutorial: tuple[Path, dict[str, Any]]):
    names = tutorial[1]
    assert not ffconv.conversion_report(names["trained"]).outdated_norms
    assert names["tuned_accuracy"] > 0.7


def test_the_printed_report_is_the_pages(tutorial: tuple[Path, dict[str, Any]]):
    report = str(ffconv.conversion_report(tutorial[1]["networks"]["fourier"]))
    assert "".join(f"    {line}\n" for line in report.splitlines()) in (DOCS / "tutorial.md").read_text()


def test_the_picture_the_package_and_the_program_are_written(tutorial: tuple[Path, dict[str, Any]]):
    folder, names = tutorial
    assert (folder / "receptive_field.png").read_bytes().startswith(b"\x89PNG")
    assert "| accuracy | " in (folder / "small-cnn" / "README.md").read_text()
    assert names["difference"] < 1e-4
