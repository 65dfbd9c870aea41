"""What networks see of moving digits: speed, axis and direction, each by itself.

python benchmarks/moving_digits.py runs/digits_c2d runs/digits_i3d
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from ffconv.analysis.tables import Table, print_table
from ffconv.cli.checkpoints import checkpoint_file
from ffconv.data.video_config import VideoDataConfig
from ffconv.interop.checkpoint_info import ClipInfo
from ffconv.tasks.action import Action, ActionConfig
from ffconv.tasks.networks import load_trained
from ffconv.training.task import Share


def row(path: Path) -> tuple[str, ...]:
    """The figures of a checkpoint; classes are ordered by speed, then axis, then direction."""
    network, info = load_trained(checkpoint_file(path, "last"), ClipInfo)
    config = ActionConfig(data=VideoDataConfig(format="moving_digits", clip=info.clip, test=info.views))
    with torch.no_grad():
        scores = Action(config, Share(batch_size=64), classes=info.classes).scores(network, "val")
    counts = scores.confusion.double().view(2, 4, 2, 2, 4, 2)  # speed, axis, direction: true, then said
    speed = torch.einsum("sadsbe->", counts)
    axis = torch.einsum("sadtae->", counts)
    same_axis = torch.einsum("sadsae->", counts)
    right = torch.einsum("sadsad->", counts)
    shares = (right / counts.sum(), speed / counts.sum(), axis / counts.sum(), right / same_axis)
    return (path.name, *(f"{100 * float(share):.1f}" for share in shares))


def main() -> None:
    """Prints a line for each run folder or checkpoint named on the command line."""
    columns = ("run", "top-1 (%)", "speed (%)", "axis (%)", "direction, speed and axis being right (%)")
    print_table(Table("Moving digits", columns, [row(Path(word)) for word in sys.argv[1:]]))


if __name__ == "__main__":
    main()
