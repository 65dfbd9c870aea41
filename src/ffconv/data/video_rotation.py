"""Upright frames: what a file's display matrix says."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from av.video.frame import VideoFrame


def upright(picture: np.ndarray, frame: VideoFrame) -> np.ndarray:
    """Turns and mirrors a decoded picture (H, W, 3) as its frame's display matrix says.

    Only quarter turns and mirrorings are done; what else a matrix may say does not occur in cameras' files.
    """
    side_data = frame.side_data.get("DISPLAYMATRIX")
    if side_data is None:
        return picture
    # A point (x, y) of the picture is shown at (a x + c y, b x + d y); only the signs matter here.
    a, b, _, c, d = np.sign(np.frombuffer(bytes(side_data), "<i4")[:5])
    if a == 0 and d == 0:
        picture, a, d = picture.transpose(1, 0, 2), c, b
    if a < 0:
        picture = picture[:, ::-1]
    if d < 0:
        picture = picture[::-1]
    return np.ascontiguousarray(picture)
