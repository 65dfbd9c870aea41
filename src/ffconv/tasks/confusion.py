"""The confusion matrix as a picture."""

from __future__ import annotations

from collections.abc import Sequence

from ffconv.metrics.classification import ClassificationScores
from ffconv.pictures import new_figure, png
from ffconv.wording import counted

_MOST_NAMES = 60  # more would overlap
_MOST_FIGURES = 20


def draw_confusion(scores: ClassificationScores, titles: Sequence[str]) -> bytes:
    """Draw the confusion matrix, each row in percent of its class; names and figures where they fit.

    Args:
        scores: of the whole set.
        titles: names of the classes for people; of several words for one class the first is shown.

    Returns:
        A PNG picture.
    """
    names = _short(titles)
    counts = scores.confusion.double()
    percent = 100 * counts / counts.sum(1, keepdim=True).clamp(min=1)
    side = min(12.0, 4.5 + 0.25 * len(names))
    figure = new_figure(side + 1, side)
    axes = figure.add_subplot()
    picture = axes.imshow(percent.numpy(), vmin=0, vmax=100, cmap="Blues")
    figure.colorbar(picture, ax=axes, label="% of the true class's samples", shrink=0.8)
    axes.set(
        xlabel="predicted class",
        ylabel="true class",
        title=f"top-1 {scores.top1:.2f} % over {counted(scores.samples, 'sample')}",
    )
    if len(names) <= _MOST_NAMES:
        axes.set_xticks(range(len(names)), names, rotation=90, fontsize="small")
        axes.set_yticks(range(len(names)), names, fontsize="small")
    if len(names) <= _MOST_FIGURES:
        for row, column in counts.nonzero().tolist():
            share = float(percent[row, column])
            colour = "white" if share > 50 else "black"
            axes.text(column, row, f"{share:.0f}", ha="center", va="center", fontsize="small", color=colour)
    return png(figure)


def _short(titles: Sequence[str]) -> list[str]:
    """Return the first of the words for each class, or all of them where two classes share the first.

    Example:
        >>> _short(["tench, Tinca tinca", "crane, bird", "crane, machine"])
        ['tench', 'crane, bird', 'crane, machine']
    """
    first = [title.split(", ")[0] for title in titles]
    return [one if first.count(one) == 1 else whole for one, whole in zip(first, titles, strict=True)]
