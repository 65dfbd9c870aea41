"""Means over views: the softmax scores', whatever the batches."""

from __future__ import annotations

import pytest
import torch

from ffconv.metrics.views import ViewMeans


@pytest.mark.parametrize("size", [1, 2, 5, 12])
def test_means_are_those_of_softmax_scores_however_batched(size):
    logits, owners = torch.randn(12, 5), [0] * 4 + [1] * 4 + [2] * 4
    means, found = ViewMeans(4), []
    for first in range(0, 12, size):
        found += means.add(owners[first : first + size], logits[first : first + size])
    expected = logits.double().softmax(1).view(3, 4, 5).mean(1)
    torch.testing.assert_close(torch.stack(found), expected, rtol=0, atol=1e-7)


def test_scores_are_not_averaged_before_the_softmax():
    (mean,) = ViewMeans(2).add([0, 0], torch.tensor([[50.0, 0.0], [0.0, 10.0]]))
    assert mean.tolist() == pytest.approx([0.5, 0.5], abs=1e-4)
