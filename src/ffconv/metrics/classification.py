"""Accuracy and loss over a whole set, exact for any batch size and any number of processes."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ffconv.files import write_atomically
from ffconv.metrics.reduction import sum_over_processes

TOP = 5


@dataclass(frozen=True)
class ClassScore:
    """One class: its name, number of samples, and top-1 and top-5 accuracy in percent (NaN without
    samples)."""

    name: str
    samples: int
    top1: float
    top5: float


@dataclass(frozen=True)
class ClassificationScores:
    """Scores of a whole set; all NaN where it has no samples.

    Args:
        samples: number of samples counted.
        top1, top5: accuracy in percent; with five classes or fewer top5 is 100, and nowhere reported.
        loss: mean loss per sample.
        per_class: one entry a class, in label order.
        confusion: (C, C) int64, rows the true class, columns the predicted one.
    """

    samples: int
    top1: float
    top5: float
    loss: float
    per_class: tuple[ClassScore, ...]
    confusion: Tensor

    def as_dict(self) -> dict[str, float]:
        """``{"top1", "top5", "loss"}``, without top5 where there are five classes or fewer."""
        scores = {"top1": self.top1, "top5": self.top5, "loss": self.loss}
        return scores if len(self.per_class) > TOP else {"top1": self.top1, "loss": self.loss}


class ClassificationMetrics:
    """Counts over batches; ``compute`` adds the counts up over the processes of torch.distributed.

    Args:
        classes: the class names, in label order.

    Example:
        >>> metrics = ClassificationMetrics(["cat", "dog"])
        >>> logits, labels = torch.tensor([[2.0, 1.0], [3.0, 0.0]]), torch.tensor([0, 1])
        >>> metrics.update(logits, labels, losses=torch.tensor([0.25, 3.25]))
        >>> metrics.compute().as_dict()
        {'top1': 50.0, 'loss': 1.75}
    """

    def __init__(self, classes: Sequence[str]) -> None:
        count = len(classes)
        self._classes = tuple(classes)
        self._confusion = torch.zeros(count, count, dtype=torch.int64)
        self._hits = torch.zeros(TOP, count, dtype=torch.int64)  # by rank of the true class
        self._loss = torch.zeros((), dtype=torch.float64)

    def update(self, logits: Tensor, labels: Tensor, losses: Tensor) -> None:
        """Adds a batch.

        Args:
            logits: (N, C), scores of any kind; views of a video are averaged before.
            labels: (N,), in [0, C).
            losses: (N,), each sample's own loss.

        Raises:
            ValueError: for shapes that do not fit each other or the classes.
        """
        count = len(self._classes)
        if logits.shape != (len(labels), count) or losses.shape != labels.shape:
            shapes = ", ".join(str(tuple(tensor.shape)) for tensor in (logits, labels, losses))
            raise ValueError(f"logits, labels and losses of shapes {shapes} must be (N, {count}), (N,), (N,)")
        ranks, predicted = label_ranks(logits, labels).cpu(), logits.argmax(dim=1).cpu()
        labels = labels.cpu()
        pairs = torch.bincount(labels * count + predicted, minlength=count * count)
        self._confusion += pairs.view(count, count)
        for rank in range(TOP):
            self._hits[rank] += torch.bincount(labels[ranks == rank], minlength=count)
        self._loss += losses.detach().cpu().double().sum()

    def compute(self) -> ClassificationScores:
        """The scores over all processes' batches; every process calls it and gets the same."""
        confusion, hits, loss = sum_over_processes([self._confusion, self._hits, self._loss])
        samples = confusion.sum(dim=1).tolist()
        first, any_of_top = hits[0].tolist(), hits.sum(dim=0).tolist()
        per_class = tuple(
            ClassScore(name, number, _percent(one, number), _percent(five, number))
            for name, number, one, five in zip(self._classes, samples, first, any_of_top, strict=True)
        )
        total = sum(samples)
        return ClassificationScores(
            samples=total,
            top1=_percent(sum(first), total),
            top5=_percent(sum(any_of_top), total),
            loss=loss.item() / total if total else math.nan,
            per_class=per_class,
            confusion=confusion,
        )


def label_ranks(logits: Tensor, labels: Tensor) -> Tensor:
    """How many classes are ranked before the true one: (N, C), (N,) -> (N,) int64; top-k means rank < k.

    Among equal logits the lower class number comes first, as in ``argmax``; NaN comes before everything,
    and a true class that is NaN is never a hit.
    """
    own = logits.gather(1, labels[:, None])
    before = torch.arange(logits.shape[1], device=logits.device) < labels[:, None]
    ahead = ~(logits <= own) | ((logits == own) & before)
    return ahead.sum(dim=1)


def write_per_class(scores: ClassificationScores, path: str | Path) -> None:
    """Write the per-class table as CSV: class, samples, top1 and top5 in percent (empty without samples).

    With five classes or fewer there is no top5.
    """
    ranks = ("top1", "top5") if len(scores.per_class) > TOP else ("top1",)
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["class", "samples", *ranks])
    for score in scores.per_class:
        percents = [f"{getattr(score, rank):.4f}" if score.samples else "" for rank in ranks]
        writer.writerow([score.name, score.samples, *percents])
    write_atomically(Path(path), table.getvalue().encode())


def _percent(part: int, whole: int) -> float:
    return 100.0 * part / whole if whole else math.nan
