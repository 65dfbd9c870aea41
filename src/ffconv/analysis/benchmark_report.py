"""Measurements laid out to be printed or written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from ffconv.analysis.benchmark import Measurement
from ffconv.analysis.memory import METHOD
from ffconv.analysis.tables import Table

_COLUMNS = (
    "subject",
    "mode",
    "dtype",
    "engine",
    "FFT backend",
    "memory format",
    "size (px)",
    "batch",
    "median (ms)",
    "quartiles (ms)",
    "time / peer",
    "peak memory (MiB)",
    "memory / peer",
)


def as_table(measurements: Sequence[Measurement], environment: Mapping[str, Any]) -> Table:
    """One line a measurement."""
    versions = environment["packages"]
    notes = (
        f"{environment['processor']}, {environment['threads']} threads, device {environment['device']}, "
        f"torch {versions['torch']}, ffconv {versions['ffconv']}",
        f"command: {' '.join(environment['command'])}",
        "time / peer: median over the rounds of the ratio within a round",
        f"peak memory: {METHOD}",
    )
    return Table("Benchmark", _COLUMNS, [_cells(measurement) for measurement in measurements], notes, left=6)


def _cells(measurement: Measurement) -> tuple[str, ...]:
    setting = measurement.setting
    low, high = measurement.quartiles
    return (
        measurement.subject,
        setting.mode,
        setting.dtype,
        setting.engine,
        setting.fft_backend,
        measurement.memory_format,
        f"{setting.size[0]}x{setting.size[1]}",
        str(setting.batch_size),
        f"{measurement.median:.3f}",
        f"{low:.3f} to {high:.3f}",
        f"{measurement.time_ratio:.3f}",
        f"{measurement.peak_mib:.1f}",
        f"{measurement.memory_ratio:.3f}",
    )


def as_json(measurements: Sequence[Measurement], environment: Mapping[str, Any]) -> dict[str, Any]:
    """The same with the machine and the time of every round."""
    return {
        "environment": dict(environment),
        "peak_memory": METHOD,
        "measurements": [_record(measurement) for measurement in measurements],
    }


def _record(measurement: Measurement) -> dict[str, Any]:
    return {
        "subject": measurement.subject,
        "peer": measurement.peer,
        **asdict(measurement.setting),
        "memory_format": measurement.memory_format,
        "median_ms": measurement.median,
        "quartiles_ms": measurement.quartiles,
        "time_over_peer": measurement.time_ratio,
        "peak_mib": measurement.peak_mib,
        "memory_over_peer": measurement.memory_ratio,
        "milliseconds": measurement.milliseconds,
    }
