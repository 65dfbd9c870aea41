"""Complexity counts laid out to be printed or written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ffconv.analysis.complexity import Complexity
from ffconv.analysis.definition import FFT_FORMULA, Part
from ffconv.analysis.tables import Record, Report, Table

MEGA, GIGA = 1e6, 1e9
_NOTES = (
    "Multiply-adds: convolutions, linear layers and matrix products for one input; an FFC by its definition.",
    f"FFT: {FFT_FORMULA}, not among the multiply-adds.",
    "With zero block: multiply-adds where the paths of an FFC run as one convolution, its g -> g block zero.",
)


def networks_report(counts: Mapping[str, Complexity], size: Sequence[int]) -> Report:
    """One line a network."""
    columns = ("network", "parameters\n(M)", "multiply-adds\n(G)", "FFT (G)", "with zero\nblock (G)")
    totals = [count.total(kind="network") for count in counts.values()]
    rows = [
        (
            name,
            f"{total.parameters / MEGA:.2f}",
            f"{total.multiply_adds / GIGA:.3f}",
            f"{total.fft / GIGA:.3f}",
            f"{total.executed / GIGA:.3f}",
        )
        for name, total in zip(counts, totals, strict=True)
    ]
    table = Table(f"Complexity for an input of {size_text(size)}", columns, rows, _NOTES)
    return Report(table, [_record(name, total, size) for name, total in zip(counts, totals, strict=True)])


def layers_report(network: str, complexity: Complexity, size: Sequence[int]) -> Report:
    """One line a part and, in the table, their sum."""
    columns = (
        "layer",
        "kind",
        "output",
        "parameters",
        "multiply-adds\n(M)",
        "FFT (M)",
        "with zero\nblock (M)",
    )
    rows = [
        (
            part.name or "(network)",
            part.kind,
            size_text(part.output),
            f"{part.parameters:,}",
            f"{part.multiply_adds / MEGA:.2f}",
            f"{part.fft / MEGA:.2f}",
            f"{part.executed / MEGA:.2f}",
        )
        for part in (*complexity.parts, complexity.total("sum"))
    ]
    table = Table(f"{network} for an input of {size_text(size)}", columns, rows, _NOTES, left=3)
    return Report(table, [_record(network, part, size) for part in complexity.parts])


def _record(network: str, part: Part, size: Sequence[int]) -> Record:
    location = {"network": network, "input": size_text(size), "layer": part.name, "kind": part.kind}
    return {**location, "output": size_text(part.output), **figures(part)}


def figures(part: Part) -> Record:
    """The exact counts of a part."""
    return {
        "parameters": part.parameters,
        "multiply_adds": part.multiply_adds,
        "fft_multiply_adds": part.fft,
        "multiply_adds_with_zero_block": part.executed,
        "normalised_values": part.normalised,
    }


def size_text(size: Sequence[int]) -> str:
    """(3, 224, 224) -> "3x224x224"."""
    return "x".join(map(str, size))
