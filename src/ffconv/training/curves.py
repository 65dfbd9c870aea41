"""Drawing of a run's metrics, or of several runs side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ffconv.pictures import COLOURS, new_figure, png

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Rows = Sequence[Mapping[str, float]]

_TITLES = {
    "lr": "learning rate",
    "top1": "top-1 (%)",
    "top5": "top-5 (%)",
    "hole_l1": "hole_l1 (%)",
    **{name: f"{name} (%)" for name in ("AP", "AP50", "AP75", "APM", "APL", "AR")},
}
_SETTINGS = {"epoch", "step", "samples_per_second"}
_DASHES = ("-", "--", ":", "-.")
_DECADE = 10


def draw_curves(runs: Mapping[str, Rows]) -> bytes:
    """Losses, the learning rate and each other metric over the epochs, one panel each.

    Args:
        runs: Rows of metrics.csv, numbers as numbers, by the run's name; every row has "epoch".

    Returns:
        A PNG picture.
    """
    from matplotlib.ticker import MaxNLocator

    panels = _panels(runs)
    columns = min(3, len(panels))
    lines = -(-len(panels) // columns)
    figure = new_figure(4.6 * columns, 3.4 * lines)
    for place, (title, names) in enumerate(panels.items(), start=1):
        axes = figure.add_subplot(lines, columns, place)
        for number, (run, rows) in enumerate(runs.items()):
            for position, name in enumerate(names):
                points = [(row["epoch"], row[name]) for row in rows if name in row]
                axes.plot(
                    *zip(*points, strict=True),
                    marker="." if len(points) < 40 else "",
                    clip_on=False,  # at 100 % a line lies on the frame
                    # A run has its colour, a quantity its dashes; one run alone has colours for quantities.
                    color=COLOURS[(number if len(runs) > 1 else position) % len(COLOURS)],
                    linestyle=_DASHES[position % len(_DASHES)] if len(runs) > 1 else "-",
                    label=name if len(runs) == 1 else f"{run}: {name}",
                )
        axes.set(xlabel="epochs done", ylabel=title)
        _scale(axes, title)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        if len(runs) * len(names) > 1:
            axes.legend(fontsize="small")
    return png(figure)


def _scale(axes: Axes, title: str) -> None:
    """Show losses of several decades on a log scale, and percents from 0 to at most 100."""
    low, high = axes.dataLim.intervaly
    if title == "loss" and low > 0 and high > _DECADE * low:
        axes.set_yscale("log")
    elif title.endswith("(%)"):
        axes.set_ylim(0, min(100, max(1, 1.05 * high)))
    else:
        axes.ticklabel_format(axis="y", scilimits=(-3, 4))


def _panels(runs: Mapping[str, Rows]) -> dict[str, list[str]]:
    """Which columns share a panel: all losses one, a metric and its averaged twin one."""
    names = dict.fromkeys(name for rows in runs.values() for row in rows for name in row)
    panels: dict[str, list[str]] = {}
    for name in names:
        if name in _SETTINGS:
            continue
        panels.setdefault(_title(name.removeprefix("ema_")), []).append(name)
    return panels


def _title(kind: str) -> str:
    """With its unit, if the quantity has one."""
    if kind.endswith("loss"):
        return "loss"
    return f"{kind} (dB)" if "psnr" in kind else _TITLES.get(kind, kind)
