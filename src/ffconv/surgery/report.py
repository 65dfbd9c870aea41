"""What a conversion did, to be read by people and programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from torch import nn

from ffconv.errors import InputError
from ffconv.surgery.mixing import Mixing
from ffconv.surgery.trace import Convolution

_ATTRIBUTE = "_ffconv_report"


@dataclass(frozen=True)
class ConversionRow:
    """One convolution.

    Args:
        name: its name in the network; the first one, if it has several.
        layer: its kind and geometry.
        size_in: size of the map it read in the trial forward; None if it was not reached.
        size_out: the same for the map it made.
        ratio_in: share of global channels in what it reads.
        ratio_out: the same for what it makes.
        reason: why it was left; None if it is an FFC now.
        hooks: number of its forward and backward hooks; they move to the FFC.
    """

    name: str
    layer: str
    size_in: tuple[int, ...] | None
    size_out: tuple[int, ...] | None
    ratio_in: float
    ratio_out: float
    reason: str | None
    hooks: int

    @property
    def converted(self) -> bool:
        """Return True if the convolution became an FFC."""
        return self.reason is None

    def cells(self) -> tuple[str, str, str, str]:
        """The row of the printed table."""
        outcome = f"left: {self.reason}"
        if self.converted:
            outcome = f"FFC {self.ratio_in:g} -> {self.ratio_out:g}"
        if self.hooks:
            outcome += f", {self.hooks} hook(s){' moved' if self.converted else ''}"
        return self.name, self.layer, f"{_size(self.size_in)} -> {_size(self.size_out)}", outcome


@dataclass(frozen=True)
class ConversionReport:
    """What :func:`ffconv.convert` did; ``str`` gives a table.

    Args:
        ratio: the ratio asked for.
        lfu: whether the FFCs have a Local Fourier Unit.
        local_to_global: as :func:`ffconv.convert` was told.
        global_to_local: likewise.
        spectral_dims: likewise.
        rows: all convolutions in order of execution; those that were not reached at the end.
        mixings: where local and global channels are mixed between FFCs.
        outdated_norms: True if the network was trained, and its batch norms hold statistics from before the
            conversion; :func:`ffconv.recalibrate` ends that.
    """

    ratio: float
    lfu: bool
    local_to_global: bool
    global_to_local: bool
    spectral_dims: tuple[str, ...] | None
    rows: tuple[ConversionRow, ...]
    mixings: tuple[Mixing, ...]
    outdated_norms: bool = False

    def __getitem__(self, name: str) -> ConversionRow:
        """The row of a convolution, by name."""
        for row in self.rows:
            if row.name == name:
                return row
        raise KeyError(name)

    def to_dict(self) -> dict[str, Any]:
        """The same in dictionaries, tuples, strings and numbers, as ``json.dumps`` takes them."""
        return asdict(self)

    def arguments(self) -> dict[str, Any]:
        """Arguments by which :func:`ffconv.convert` does the same again, convolution by convolution.

        They do not rest on the policy, which may become another; all are values that JSON can hold.
        """
        decisions = {row.name: (row.ratio_in, row.ratio_out) for row in self.rows if row.converted}
        return {
            "ratio": self.ratio,
            "lfu": self.lfu,
            "local_to_global": self.local_to_global,
            "global_to_local": self.global_to_local,
            "spectral_dims": self.spectral_dims,
            "rules": {**decisions, "*": None},
        }

    def __str__(self) -> str:
        table = [("convolution", "layer", "map", "outcome"), *(row.cells() for row in self.rows)]
        widths = [max(len(cell) for cell in column) for column in zip(*table, strict=True)]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()
            for cells in table
        ]
        lines.append(f"{sum(row.converted for row in self.rows)} of {len(self.rows)} convolutions converted")
        if self.mixings:
            lines.append("local and global channels mixed between FFCs, each of which splits by position:")
            lines.extend(f"  {mixing}" for mixing in self.mixings)
        if self.outdated_norms:
            lines.append("batch norms hold statistics from before: call ffconv.recalibrate(model, images)")
        return "\n".join(lines)


def attach_report(model: nn.Module, report: ConversionReport) -> None:
    """Store the report with a network; it goes along when the network is copied or pickled."""
    setattr(model, _ATTRIBUTE, report)


def conversion_report(model: nn.Module) -> ConversionReport:
    """Return what :func:`ffconv.convert` did to a network.

    Raises:
        InputError: If the network was not converted.
    """
    report = getattr(model, _ATTRIBUTE, None)
    if report is None:
        raise InputError(f"{type(model).__name__} was not converted by ffconv.convert")
    return report


def mark_recalibrated(model: nn.Module) -> None:
    """Record in a network's report, if it has one, that its norms are up to date."""
    report = getattr(model, _ATTRIBUTE, None)
    if report is not None:
        attach_report(model, replace(report, outdated_norms=False))


def describe(module: Convolution) -> str:
    """Kind and geometry of a convolution in a few words."""
    words = [
        f"{type(module).__name__} {module.in_channels} -> {module.out_channels}",
        _size(module.kernel_size),
    ]
    words += [
        f"{name} {_size(getattr(module, name))}"
        for name in ("stride", "dilation")
        if max(getattr(module, name)) > 1
    ]
    if module.groups > 1:
        words.append(f"groups {module.groups}")
    return ", ".join(words)


def _size(size: Sequence[int] | None) -> str:
    return "?" if size is None else "x".join(map(str, size))
