"""Surgery on existing networks: convolutions become Fast Fourier Convolutions, images become clips."""

from ffconv.surgery.convert import convert
from ffconv.surgery.fuse import fuse
from ffconv.surgery.inflate import inflate
from ffconv.surgery.inflate_layers import Temporal
from ffconv.surgery.mixing import Mixing
from ffconv.surgery.recalibrate import recalibrate
from ffconv.surgery.report import ConversionReport, ConversionRow, conversion_report
from ffconv.surgery.rules import Plan

__all__ = [
    "ConversionReport",
    "ConversionRow",
    "Mixing",
    "Plan",
    "Temporal",
    "conversion_report",
    "convert",
    "fuse",
    "inflate",
    "recalibrate",
]
