"""Heatmaps of keypoints and keypoints of heatmaps."""

from __future__ import annotations

import math

import pytest
import torch

from ffconv.data.heatmaps import HeatmapCodec, flip_average

PROTOCOL = HeatmapCodec((64, 48), 2.0, "protocol")
UNBIASED = HeatmapCodec((64, 48), 2.0, "unbiased")
BOTH = pytest.mark.parametrize("codec", [PROTOCOL, UNBIASED], ids=["protocol", "unbiased"])


def spread(count: int = 200, size: tuple[int, int] = (192, 256)) -> torch.Tensor:
    """Keypoints (count, 2) anywhere in the input."""
    return torch.rand(count, 2, dtype=torch.float64) * torch.tensor(size) - 0.5


def encoded(codec: HeatmapCodec, keypoints: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return codec.encode(keypoints, torch.ones(len(keypoints), dtype=torch.bool))


def errors(codec: HeatmapCodec, keypoints: torch.Tensor) -> torch.Tensor:
    """Distances in input pixels between keypoints and what their heatmaps say."""
    found, _ = codec.decode(encoded(codec, keypoints)[0][None])
    return (found[0] - keypoints).norm(dim=1)


def test_protocol_stands_on_the_nearest_pixel():
    x, y = 57.9, 201.7  # 14.475 and 50.425 heatmap pixels
    heatmap = encoded(PROTOCOL, torch.tensor([[x, y]]))[0][0]
    for row in range(64):
        for column in range(48):
            near = max(abs(row - 50), abs(column - 14)) <= 6
            expected = math.exp(-((row - 50) ** 2 + (column - 14) ** 2) / 8) if near else 0
            assert heatmap[row, column] == pytest.approx(expected, abs=1e-7)


def test_unbiased_stands_on_the_keypoint():
    x, y = 57.9, 201.7  # whose heatmap pixels cover four input pixels each: (57.9 - 1.5) / 4 = 14.1
    heatmap = encoded(UNBIASED, torch.tensor([[x, y]]))[0][0]
    for row, column in ((50, 14), (51, 14), (50, 16), (47, 12)):
        squares = (row - (y - 1.5) / 4) ** 2 + (column - 14.1) ** 2
        assert heatmap[row, column] == pytest.approx(math.exp(-squares / 8), abs=1e-6)


@BOTH
def test_unlabelled_keypoints_have_neither_weight_nor_heatmap(codec):
    heatmaps, weights = codec.encode(torch.full((2, 2), 50.0), torch.tensor([True, False]))
    assert weights.tolist() == [1, 0]
    assert heatmaps.flatten(1).amax(dim=1).tolist() == pytest.approx([1, 0], abs=0.1)


@pytest.mark.parametrize(
    ("x", "weight"),
    [(-24.0, 1), (-27.0, 0), (188.0 + 24, 1), (188.0 + 27, 0)],
)
def test_weight_ends_where_the_gaussian_ends(x, weight):
    """At 3 sigma, 24 input pixels, outside the first or the last pixel."""
    heatmaps, weights = encoded(PROTOCOL, torch.tensor([[x, 100.0]]))
    assert weights.item() == weight
    assert (heatmaps.max() > 0) == bool(weight)


def quarter(heatmap: torch.Tensor) -> tuple[float, float]:
    """Where the protocol finds a keypoint in one heatmap (H, W), by its rule."""
    place = int(heatmap.argmax())
    y, x = divmod(place, heatmap.shape[1])
    dx = dy = 0.0
    if 1 < x < heatmap.shape[1] - 1 and 1 < y < heatmap.shape[0] - 1:
        dx = 0.25 * math.copysign(1, heatmap[y, x + 1] - heatmap[y, x - 1])
        dy = 0.25 * math.copysign(1, heatmap[y + 1, x] - heatmap[y - 1, x])
    return 4 * (x + dx), 4 * (y + dy)


def test_protocol_decodes_by_its_rule():
    heatmaps = torch.randn(3, 40, 9, 7)
    found, scores = HeatmapCodec((9, 7)).decode(heatmaps)
    for n in range(3):
        for k in range(40):
            assert found[n, k].tolist() == pytest.approx(quarter(heatmaps[n, k]))
            assert scores[n, k] == heatmaps[n, k].max()


def test_protocol_takes_no_step_between_equals():
    heatmap = torch.zeros(1, 1, 9, 7)
    heatmap[0, 0, 4, 3] = 1
    assert HeatmapCodec((9, 7)).decode(heatmap)[0].flatten().tolist() == [12, 16]


@BOTH
def test_nothing_positive_is_at_the_first_pixel(codec):
    found, scores = codec.decode(torch.full((1, 1, 64, 48), -0.5))
    assert found.flatten().tolist() == [codec.decode(torch.zeros(1, 1, 64, 48))[0].flatten()[0].item()] * 2
    assert scores.item() == -0.5


def test_protocol_loses_up_to_half_a_heatmap_pixel_each_way():
    lost = errors(PROTOCOL, spread())
    assert 1.4 < lost.mean() < 1.7
    assert lost.max() <= 2 * math.sqrt(2) + 2  # at the far borders no pixel is near


@pytest.mark.parametrize("sigma", [1.0, 1.5, 2.0, 3.0])
def test_unbiased_loses_nothing(sigma):
    assert errors(HeatmapCodec((64, 48), sigma, "unbiased"), spread()).max() < 1e-3


def test_unbiased_finds_what_lies_outside():
    outside = torch.tensor([[-8.0, 100.0], [199.0, 100.0], [90.0, -12.0], [90.0, 266.0], [-6.0, -6.0]])
    assert errors(UNBIASED, outside).max() < 1e-2


def test_unbiased_withstands_noise():
    """Noise of 3 % of the height moves it by less than a tenth of what the protocol's rounding does."""
    keypoints = spread(1000)
    heatmaps = encoded(UNBIASED, keypoints)[0]
    noisy = heatmaps + 0.03 * torch.randn_like(heatmaps)
    found, _ = UNBIASED.decode(noisy[None])
    assert (found[0] - keypoints).norm(dim=1).mean() < 0.2


def test_unbiased_stays_near_the_peak_of_any_heatmap():
    heatmaps = torch.rand(2, 30, 64, 48)
    heatmaps[:, :, 30, 20] = 1.5
    found, _ = UNBIASED.decode(heatmaps)
    distances = (found - (4 * torch.tensor([20, 30]) + 1.5)).abs()
    assert distances.max() <= 4 * 2.0 + 1e-4


def test_unbiased_is_exact_under_autocast():
    with torch.autocast("cpu", torch.bfloat16):
        assert errors(UNBIASED, spread()).max() < 1e-3


@pytest.mark.parametrize("value", [0.0, 1.0, float("nan"), float("inf")])
def test_unbiased_of_constant_heatmaps_is_a_number(value):
    found, _ = UNBIASED.decode(torch.full((1, 2, 64, 48), value))
    assert found.isfinite().all()


@BOTH
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_any_precision_is_decoded(codec, dtype):
    heatmaps = encoded(codec, spread(20))[0][None]
    found, _ = codec.decode(heatmaps.to(dtype))
    expected, _ = codec.decode(heatmaps)
    torch.testing.assert_close(found, expected, rtol=0, atol={torch.float64: 1e-3}.get(dtype, 2.5))


def test_flip_average_undoes_the_mirror():
    """A network whose maps of a mirrored image are mirrored, its keypoints exchanged, averages to itself."""
    heatmaps = torch.randn(2, 3, 5, 6)
    mirrored = heatmaps[:, [0, 2, 1]].flip(-1)
    torch.testing.assert_close(flip_average(heatmaps, mirrored, (0, 2, 1), shift=0), heatmaps)


def test_flip_average_moves_right():
    maps = torch.arange(5.0).expand(1, 1, 1, 5)
    moved = flip_average(torch.zeros_like(maps), maps.flip(-1), (0,), shift=1)
    assert (2 * moved).flatten().tolist() == [0, 0, 1, 2, 3]


@BOTH
def test_flip_average_of_exact_maps_keeps_the_keypoints(codec):
    """With each codec's own shift, maps of an image and of its mirror image agree to its precision."""
    keypoints = spread(100, (160, 224)) + 16
    mirrored = torch.stack([191 - keypoints[:, 0], keypoints[:, 1]], dim=1)
    maps, mirror_maps = (encoded(codec, points)[0][None] for points in (keypoints, mirrored))
    average = flip_average(maps, mirror_maps, range(100), shift=codec.flip_shift)
    lost = (codec.decode(average)[0][0] - keypoints).norm(dim=1)
    assert lost.max() < (1e-3 if codec is UNBIASED else 4)
    assert lost.mean() < (1e-3 if codec is UNBIASED else 1.8)


@pytest.mark.gpu
@BOTH
def test_decoding_on_a_cuda_device(codec):
    heatmaps = encoded(codec, spread(50))[0][None]
    torch.testing.assert_close(
        codec.decode(heatmaps.cuda())[0].cpu(), codec.decode(heatmaps)[0], rtol=0, atol=1e-3
    )
