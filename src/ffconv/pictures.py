"""Pictures as the content of files: figures drawn without a screen, and images.

The colours can be told apart with any common form of colour blindness (Okabe and Ito's palette).
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL import Image

BLUE, VERMILLION, GREEN, ORANGE, PURPLE, SKY, GREY = COLOURS = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#E69F00",
    "#CC79A7",
    "#56B4E9",
    "#777777",
)


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of so many inches that lays itself out; made without pyplot, which would keep it."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def encoded(image: Image.Image, form: str = "PNG") -> bytes:
    """An image as the content of a PNG or, nearly without loss, a JPEG file."""
    picture = io.BytesIO()
    image.save(picture, format=form, **({"quality": 92} if form == "JPEG" else {}))
    return picture.getvalue()


def png(figure: Figure) -> bytes:
    """The figure as the content of a PNG file."""
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=120)
    return picture.getvalue()
