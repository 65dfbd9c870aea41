"""The paper's Tables 2 to 6 beside what we count: Chi, Jiang, Mu, Fast Fourier Convolution, NeurIPS 2020."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any, Literal

import yaml

from ffconv.analysis.complexity import count_complexity
from ffconv.analysis.definition import Part
from ffconv.analysis.networks import NetworkSpec

NOT_AVAILABLE = "model not available yet"
# Less the mean, over the deviation, times the scale, plus the shift.
OPERATIONS_PER_NORMALISED_VALUE = 4


@dataclass(frozen=True)
class PaperRow:
    """A row as the paper prints it.

    Args:
        method: the row's name.
        source: "ours" (the paper's own result), "baseline" (theirs too) or "quoted" (other people's).
        input: (C, H, W) or (C, T, H, W).
        model: the network to count, or None where there is none to compare with.
        readings: further networks the row may mean.
        parameters: in millions.
        multiply_adds: in 10^9.
        public: multiply-adds that others print for the same network, in units of 2^30.
        accuracy: in percent, by metric.
        why: why the printed figure cannot be derived; "" where it can.
    """

    method: str
    source: Literal["ours", "baseline", "quoted"]
    input: tuple[int, ...]
    model: str | None = None
    readings: tuple[str, ...] = ()
    parameters: float | None = None
    multiply_adds: float | None = None
    public: float | None = None
    accuracy: Mapping[str, float] = field(default_factory=dict)
    why: str = ""


@dataclass(frozen=True)
class PaperTable:
    """One of Tables 2 to 6."""

    number: int
    title: str
    rows: tuple[PaperRow, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Comparison:
    """A printed row, or one reading of it, and our count.

    Args:
        row: as printed.
        model: the network counted, "" where the row has none.
        ours: None where no network of that name can be built.
    """

    row: PaperRow
    model: str
    ours: Part | None

    @property
    def with_norms(self) -> int | None:
        """Multiply-adds plus four operations a normalised value: what fits the paper's Tables 2 and 3."""
        if self.ours is None:
            return None
        return self.ours.multiply_adds + OPERATIONS_PER_NORMALISED_VALUE * self.ours.normalised

    @property
    def with_transposed(self) -> int | None:
        """Multiply-adds with those of transposed convolutions at their output: SimpleBaseline's count."""
        return None if self.ours is None else self.ours.multiply_adds + self.ours.transposed


def paper_tables() -> tuple[PaperTable, ...]:
    """Tables 2 to 6 as printed."""
    text = files("ffconv.analysis").joinpath("paper_tables.yaml").read_text(encoding="utf-8")
    return tuple(_table(entry) for entry in yaml.safe_load(text))


def _table(entry: Mapping[str, Any]) -> PaperTable:
    rows = tuple(_row({"input": entry["input"], **row}) for row in entry["rows"])
    return PaperTable(entry["number"], entry["title"], rows, tuple(entry.get("notes", ())))


def _row(entry: Mapping[str, Any]) -> PaperRow:
    return PaperRow(**{**entry, "input": tuple(entry["input"]), "readings": tuple(entry.get("readings", ()))})


def compare(table: PaperTable) -> Iterator[Comparison]:
    """Count the networks of a table, row by row; a row with several readings comes once for each."""
    for row in table.rows:
        for model in ((row.model or ""), *row.readings):
            yield Comparison(row, model, _count(model, row.input) if model else None)


@cache
def _count(model: str, size: tuple[int, ...]) -> Part | None:
    spec = NetworkSpec.parse(model)
    return count_complexity(spec.build("meta"), size).total() if spec.available else None
