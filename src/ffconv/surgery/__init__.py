"""Surgery on existing networks: their convolutions become Fast Fourier Convolutions."""

from ffconv.surgery.convert import conversion_report, convert
from ffconv.surgery.fuse import fuse
from ffconv.surgery.mixing import Mixing
from ffconv.surgery.report import ConversionReport, ConversionRow
from ffconv.surgery.rules import Plan

__all__ = ["ConversionReport", "ConversionRow", "Mixing", "Plan", "conversion_report", "convert", "fuse"]
