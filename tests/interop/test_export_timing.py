"""Every kind of exported file is measured beside its network, as it is in the file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from exporting import TINY_INPUT, TinyNetwork, trained
from ffconv.analysis.benchmark import Effort
from ffconv.interop.export import ExportConfig, export
from ffconv.interop.export_engines import Format, open_exported
from ffconv.interop.export_input import NetworkInput
from ffconv.interop.export_timing import EAGER, time_exported

ONCE = Effort(rounds=1, warmup=0, block=0)


@pytest.mark.parametrize("form", ["torch-export", "torchscript"])
def test_torchs_files_are_measured(form: Format, tmp_path: Path):
    network = trained(TinyNetwork())
    export(network, tmp_path / "x", TINY_INPUT, ExportConfig(to=form), check=None)
    files = {"file": (open_exported(tmp_path / "x", form), torch.float32)}
    found = time_exported(network, TINY_INPUT, files, ONCE)
    assert [row.subject for row in found] == [EAGER, "file"]


def test_a_file_gets_clips_of_the_exported_length_in_its_type():
    seen: list[tuple[tuple[int, ...], torch.dtype]] = []

    def run(x: Tensor) -> Tensor:
        seen.append((tuple(x.shape), x.dtype))
        return x

    given = NetworkInput("action", (3, 4, 6, 8))
    time_exported(nn.Conv3d(3, 2, 1), given, {"file": (run, torch.float16)}, ONCE)
    assert set(seen) == {((1, 3, 4, 6, 8), torch.float16)}
