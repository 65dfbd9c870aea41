"""Time of exported files beside eager PyTorch, in one run."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ffconv.analysis.benchmark import Effort, Measurement, compare
from ffconv.analysis.tables import Table
from ffconv.analysis.work import Setting, Subject
from ffconv.interop.export_engines import Runner
from ffconv.interop.export_input import NetworkInput

EAGER = "eager PyTorch"


class _Exported(nn.Module):
    """An exported file as a module, not as a submodule: it stays as it is in the file, in any mode."""

    def __init__(self, run: Runner, dtype: torch.dtype) -> None:
        super().__init__()
        self._run = lambda x: run(x.to(dtype))

    def forward(self, x: Tensor) -> Tensor:
        return self._run(x)


def time_exported(
    network: nn.Module,
    given: NetworkInput,
    files: Mapping[str, tuple[Runner, torch.dtype]],
    effort: Effort | None = None,
) -> list[Measurement]:
    """Measures one sample a step, the network and its files taking turns.

    Args:
        network: in float32; it runs as it is, on the CPU.
        given: its input.
        files: what runs each, and the type that it takes, by name.
        effort: how long to measure.
    Returns:
        One measurement a subject; ratios refer to the eager network, which comes first.
    """

    def make_input(batch: int, size: tuple[int, int]) -> Tensor:
        return given.random(batch, (*given.size[1:-2], *size))

    # A copy, for each memory format that is tried has its own weights.
    subjects = [Subject(EAGER, lambda: copy.deepcopy(network), make_input)]
    for name, (run, dtype) in files.items():
        exported = _Exported(run, dtype)
        subjects.append(Subject(name, lambda exported=exported: exported, make_input))
    setting = Setting(batch_size=1, size=(given.size[-2], given.size[-1]))
    return compare(subjects, setting, effort, peer=EAGER)


def times_table(measurements: list[Measurement], given: NetworkInput) -> Table:
    """What :func:`time_exported` has measured, a line each."""
    rows = [
        (
            found.subject,
            f"{found.median:.2f}",
            "{:.2f} to {:.2f}".format(*found.quartiles),
            f"{found.time_ratio:.2f}",
        )
        for found in measurements
    ]
    size = "x".join(map(str, (1, *given.size)))
    notes = (f"{size}, {torch.get_num_threads()} threads; time / eager: median over the rounds",)
    columns = ("engine", "median (ms)", "quartiles (ms)", "time / eager")
    return Table("Time on the CPU", columns, rows, notes)
