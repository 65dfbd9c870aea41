"""The paper's Table 1, formulas for the cost of one layer, evaluated beside what we count."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from ffconv.analysis.complexity import Complexity, count_complexity
from ffconv.analysis.definition import Part
from ffconv.errors import InputError
from ffconv.nn import FFC2d

NOTES = (
    "Multiply-adds of g -> g: the paper's a^2/2 C1 C2 HW + 13/16 a^2 C2^2 HW cannot be derived from its "
    "figures 2 and 3. There the units cost a^2 C2^2 HW times 1/2 (Fourier Unit), 1/8 (Local Fourier Unit) "
    "and 1/2 (last 1x1 convolution): 1 without the Local Fourier Unit and 9/8 with it.",
    "Parameters of g -> g: the paper's a^2/2 C2 (C1 + 3 C2) is the form without Local Fourier Unit; with it "
    "the sum is a^2/2 C2 (C1 + 5 C2). What we count beyond that are scales and shifts of norms.",
    "Our half spectrum has W // 2 + 1 columns where the formula takes W / 2.",
)


@dataclass(frozen=True)
class LayerShape:
    """The layer for which the formulas are evaluated: a = ratio on both sides, stride 1.

    Args:
        in_channels: C1.
        out_channels: C2.
        kernel_size: K, odd.
        ratio: a.
        side: H = W.
    """

    in_channels: int = 128
    out_channels: int = 128
    kernel_size: int = 3
    ratio: float = 0.25
    side: int = 28

    def __post_init__(self) -> None:
        if self.kernel_size % 2 == 0:
            raise InputError(f"kernel_size={self.kernel_size} must be odd, or the map would change its size")


@dataclass(frozen=True)
class FormulaRow:
    """One row of Table 1.

    Args:
        part: its name; the paper's g -> g and FFC come twice, against the forms without and with LFU.
        parameters: by the paper's formula.
        multiply_adds: by the paper's formula.
        ours: our count of the same part.
    """

    part: str
    parameters: float
    multiply_adds: float
    ours: Part


def compare_formulas(shape: LayerShape | None = None) -> tuple[FormulaRow, ...]:
    """Evaluate Table 1 for one layer and count the same layer."""
    shape = shape or LayerShape()
    formulas = _formulas(shape)
    plain, without, with_lfu = _counted(shape)
    rows = (
        ("vanilla", "vanilla", plain, ""),
        ("l -> l", "l2l", without, "l2l"),
        ("l -> g", "l2g", without, "l2g"),
        ("g -> l", "g2l", without, "g2l"),
        ("g -> g", "g2g", without, "spectral"),
        ("g -> g, LFU", "g2g", with_lfu, "spectral"),
        ("FFC", "ffc", without, ""),
        ("FFC, LFU", "ffc", with_lfu, ""),
    )
    return tuple(
        FormulaRow(part, *formulas[formula], _sum_of(complexity, prefix))
        for part, formula, complexity, prefix in rows
    )


def _formulas(shape: LayerShape) -> dict[str, tuple[float, float]]:
    """(parameters, multiply-adds) of each part, as printed."""
    a, c1, c2 = shape.ratio, shape.in_channels, shape.out_channels
    taps, positions = c1 * c2 * shape.kernel_size**2, shape.side**2
    shares = {"vanilla": 1.0, "l2l": (1 - a) ** 2, "l2g": a * (1 - a), "g2l": a * (1 - a)}
    spectral = a**2 * c2 * (c1 / 2 + 3 / 2 * c2), a**2 * c2 * (c1 / 2 + 13 / 16 * c2) * positions
    whole = (1 - a**2) * taps
    return {
        **{part: (share * taps, share * taps * positions) for part, share in shares.items()},
        "g2g": spectral,
        "ffc": (whole + spectral[0], whole * positions + spectral[1]),
    }


def _counted(shape: LayerShape) -> tuple[Complexity, Complexity, Complexity]:
    """The plain convolution, the FFC without and the FFC with Local Fourier Unit."""
    channels, kernel = (shape.in_channels, shape.out_channels), shape.kernel_size
    layers = (
        nn.Conv2d(*channels, kernel, padding=kernel // 2, bias=False),
        *(
            FFC2d(*channels, kernel, padding=kernel // 2, bias=False, ratio=shape.ratio, lfu=lfu)
            for lfu in (False, True)
        ),
    )
    size = (shape.in_channels, shape.side, shape.side)
    plain, without, with_lfu = (count_complexity(layer, size) for layer in layers)
    return plain, without, with_lfu


def _sum_of(complexity: Complexity, prefix: str) -> Part:
    return Complexity(tuple(part for part in complexity.parts if part.name.startswith(prefix))).total()
