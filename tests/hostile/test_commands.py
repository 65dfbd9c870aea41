"""The command line on a folder of hostile files."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from commands import finish, start
from hostile.damage import SPECIALS, broken_bytes, make_special
from hostile.kinds import KINDS

pytestmark = pytest.mark.slow


def test_predict_names_each_hostile_file_in_a_line_and_reads_the_others(tmp_path: Path):
    folder = tmp_path / "images"
    folder.mkdir()
    sound = KINDS["image png"].make(folder)
    content = sound.read_bytes()
    cut = [
        damaged for name, damaged in broken_bytes(content, random.Random(0)) if name.startswith("cut at 0.")
    ]
    for number, damaged in enumerate(cut):
        (folder / f"cut{number}.png").write_bytes(damaged)
    for special in SPECIALS:
        if special != "a folder":  # is looked into
            make_special(folder / f"{special}.png", special)
    checkpoint = KINDS["checkpoint"].make(tmp_path)
    code, printed = finish(start("predict", str(checkpoint), str(folder), "--device", "cpu"))
    named = [line for line in printed.splitlines() if line.startswith("ffconv: ")]
    assert code == 2, printed
    assert len(named) == len(cut) + len(SPECIALS) - 1, printed
    assert all(str(folder) in line for line in named)
    assert f"{sound}" in printed
    assert "Traceback" not in printed
