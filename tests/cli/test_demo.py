"""``ffconv demo``."""

from __future__ import annotations

import json

import pytest

from ffconv.cli import main


@pytest.mark.slow
def test_demo_trains_four_networks_and_ends_with_a_table_and_a_picture(tmp_path, capsys):
    assert main(["demo", "--output", str(tmp_path), "--epochs", "1"]) == 0
    printed = capsys.readouterr().out
    for network in ("digits     plain", "digits     FFC", "far marks  plain", "far marks  FFC"):
        assert network in printed
    assert (tmp_path / "demo.png").read_bytes().startswith(b"\x89PNG")
    environment = json.loads((tmp_path / "far_marks-ffc" / "environment.json").read_text())
    assert environment
