"""Accuracy and loss, against scikit-learn and by hand, for any batches and over real processes."""

from __future__ import annotations

import csv
import math

import pytest
import torch

import two_processes
from ffconv.metrics.classification import ClassificationMetrics, label_ranks, write_per_class

CLASSES = tuple(f"class {number}" for number in range(10))


def scored(count: int = 157) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(count, 10, generator=generator)
    labels = torch.randint(0, 9, (count,), generator=generator)  # class 9 has no samples
    logits[torch.arange(count), labels] += 1
    return logits, labels, torch.nn.functional.cross_entropy(logits, labels, reduction="none")


def scores(sizes: list[int]):
    metrics = ClassificationMetrics(CLASSES)
    for logits, labels, losses in zip(*(part.split(sizes) for part in scored()), strict=True):
        metrics.update(logits, labels, losses)
    return metrics.compute()


def test_accuracy_is_scikit_learns():
    from sklearn.metrics import top_k_accuracy_score

    result, (logits, labels, _) = scores([157]), scored()
    for k, value in ((1, result.top1), (5, result.top5)):
        expected = top_k_accuracy_score(labels, logits, k=k, labels=range(10))
        assert value == pytest.approx(100 * expected, abs=1e-12)


def test_confusion_is_scikit_learns():
    from sklearn.metrics import confusion_matrix

    result, (logits, labels, _) = scores([157]), scored()
    expected = confusion_matrix(labels, logits.argmax(1), labels=range(10))
    assert result.confusion.tolist() == expected.tolist()


def test_mean_loss():
    assert scores([157]).loss == pytest.approx(scored()[2].double().mean().item(), abs=1e-12)


def test_per_class():
    result, (logits, labels, _) = scores([157]), scored()
    for number, score in enumerate(result.per_class[:9]):
        own = labels == number
        right = logits[own].argmax(1) == number
        among_five = (logits[own].topk(5).indices == number).any(1)
        assert (score.name, score.samples) == (CLASSES[number], int(own.sum()))
        assert score.top1 == pytest.approx(100 * right.double().mean().item())
        assert score.top5 == pytest.approx(100 * among_five.double().mean().item())


def test_class_without_samples_has_no_accuracy():
    score = scores([157]).per_class[9]
    assert score.samples == 0
    assert math.isnan(score.top1)
    assert math.isnan(score.top5)


@pytest.mark.parametrize("sizes", [[1] * 157, [50, 50, 50, 7], [156, 1]])
def test_batch_size_changes_nothing(sizes):
    expected, result = scores([157]), scores(sizes)
    assert result.as_dict() == pytest.approx(expected.as_dict(), abs=1e-12)
    assert result.top1 == expected.top1
    assert result.confusion.equal(expected.confusion)


def test_plain_floats():
    assert {type(value) for value in scores([157]).as_dict().values()} == {float}


def test_fewer_classes_than_five():
    metrics = ClassificationMetrics(["no", "yes"])
    metrics.update(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([1, 1]), torch.zeros(2))
    assert metrics.compute().as_dict() == {"top1": 50.0, "loss": 0.0}


def test_no_samples():
    result = ClassificationMetrics(CLASSES).compute()
    assert result.samples == 0
    assert all(math.isnan(value) for value in result.as_dict().values())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions(dtype):
    logits, labels, losses = scored()
    metrics = ClassificationMetrics(CLASSES)
    metrics.update(logits.to(dtype), labels, losses.to(dtype))
    expected = (logits.to(dtype).argmax(1) == labels).double().mean().item()
    assert metrics.compute().top1 == pytest.approx(100 * expected)


def test_equal_logits_rank_by_class_number():
    logits = torch.tensor([[1.0, 3.0, 3.0, 2.0]]).repeat(4, 1)
    assert label_ranks(logits, torch.arange(4)).tolist() == [3, 0, 1, 2]


def test_constant_network_is_at_chance():
    metrics = ClassificationMetrics(CLASSES)
    metrics.update(torch.zeros(100, 10), torch.arange(100) % 10, torch.zeros(100))
    result = metrics.compute()
    assert (result.top1, result.top5) == (10.0, 50.0)
    assert result.confusion.sum(0).tolist() == [100] + [0] * 9


def test_nan_is_no_hit():
    logits = torch.full((3, 10), float("nan"))
    metrics = ClassificationMetrics(CLASSES)
    metrics.update(logits, torch.tensor([0, 4, 9]), torch.full((3,), float("nan")))
    result = metrics.compute()
    assert (result.top1, result.top5) == (0.0, 0.0)
    assert math.isnan(result.loss)


@pytest.mark.parametrize(
    "shapes", [((4, 9), (4,), (4,)), ((3, 10), (4,), (4,)), ((4, 10), (4,), ())], ids=str
)
def test_shapes_that_do_not_fit(shapes):
    logits, labels, losses = (torch.zeros(shape) for shape in shapes)
    with pytest.raises(ValueError, match=r"must be \(N, 10\), \(N,\), \(N,\)"):
        ClassificationMetrics(CLASSES).update(logits, labels.long(), losses)


def test_csv(tmp_path):
    names = ["an, ant", "bee", "cat", "dog", "eel", "fox"]
    for classes, last in ((names, [["top5"], ["100.0000"], ["100.0000"], [""]]), (names[:3], [[]] * 4)):
        metrics = ClassificationMetrics(classes)
        metrics.update(torch.eye(len(classes))[[0, 1, 1]], torch.tensor([0, 0, 1]), torch.zeros(3))
        write_per_class(metrics.compute(), tmp_path / "classes.csv")
        with (tmp_path / "classes.csv").open(newline="") as stream:
            rows = list(csv.reader(stream))
        assert rows[:4] == [
            ["class", "samples", "top1", *last[0]],
            ["an, ant", "2", "50.0000", *last[1]],
            ["bee", "1", "100.0000", *last[2]],
            ["cat", "0", "", *last[3]],
        ]


def _share(rank: int) -> tuple[dict[str, float], list[list[int]], list[float]]:
    """Scores of a very uneven share: rank 0 has all but three samples."""
    metrics = ClassificationMetrics(CLASSES)
    share = slice(0, 154) if rank == 0 else slice(154, None)
    for logits, labels, losses in zip(*(part[share].split(40) for part in scored()), strict=True):
        metrics.update(logits, labels, losses)
    result = metrics.compute()
    assert metrics.compute() is not result  # a second call adds nothing up twice
    again = metrics.compute()
    assert again.as_dict() == result.as_dict()
    return result.as_dict(), result.confusion.tolist(), [score.samples for score in result.per_class]


def test_two_processes_score_as_one(tmp_path):
    expected = scores([157])
    for values, confusion, samples in two_processes.results(_share, tmp_path):
        assert values == pytest.approx(expected.as_dict(), abs=1e-12)
        assert confusion == expected.confusion.tolist()
        assert samples == [score.samples for score in expected.per_class]


def _nothing_on_one(rank: int) -> dict[str, float]:
    metrics = ClassificationMetrics(CLASSES)
    if rank == 0:
        metrics.update(*scored())
    return metrics.compute().as_dict()


def test_process_without_samples(tmp_path):
    first, second = two_processes.results(_nothing_on_one, tmp_path)
    assert first == second == pytest.approx(scores([157]).as_dict(), abs=1e-12)


@pytest.mark.gpu
def test_logits_on_a_cuda_device():
    metrics = ClassificationMetrics(CLASSES)
    metrics.update(*(part.cuda() for part in scored()))
    assert metrics.compute().as_dict() == pytest.approx(scores([157]).as_dict(), abs=1e-5)
