"""Top-down crops of persons."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from ffconv.data.keypoint_sets import COCO_PERSON, KeypointSet
from ffconv.data.pose_samples import Person
from ffconv.data.pose_transforms import (
    Crop,
    PoseTransformConfig,
    PreparePose,
    box_crop,
    crop_image,
    random_crop,
    to_image,
)
from ffconv.errors import InputError

#: No normalisation: pixels in [0, 1].
PLAIN = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
SMALL = PoseTransformConfig(input_size=(64, 48), sigma=1.0, codec="unbiased", **PLAIN)


def noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def applied(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    return points @ matrix[:, :2].T + matrix[:, 2]


@pytest.mark.parametrize(
    ("box", "sides"),
    [((10, 20, 60, 80), (75, 100)), ((10, 20, 90, 80), (112.5, 150)), ((10, 20, 30, 80), (75, 100))],
    ids=["of the aspect", "too wide", "too high"],
)
def test_box_is_extended_to_the_aspect_and_enlarged(box, sides):
    crop = box_crop(box, PoseTransformConfig())
    np.testing.assert_allclose(crop.sides, sides)
    np.testing.assert_allclose(crop.centre, (box[0] + box[2] / 2, box[1] + box[3] / 2))


def test_crop_s_rectangle_becomes_the_input():
    matrix = Crop(np.array([100.0, 50.0]), np.array([96.0, 128.0])).to_input((256, 192))
    corners = np.array([[52, -14], [148, 114], [100, 50]])
    np.testing.assert_allclose(applied(matrix, corners), [[0, 0], [192, 256], [96, 128]])


def test_crop_turned_clockwise():
    """What lies to the right and above the centre, on the turned rectangle's axis, comes to its top."""
    matrix = Crop(np.array([100.0, 50.0]), np.array([96.0, 128.0]), rotation=30).to_input((256, 192))
    upward = np.array([100 + 10 * math.sin(math.radians(30)), 50 - 10 * math.cos(math.radians(30))])
    np.testing.assert_allclose(applied(matrix, upward), (96, 128 - 20))


def test_mirrored_crop_is_the_crop_of_the_mirrored_image():
    """The protocol mirrors the image, its keypoints and the box's centre, then turns."""
    centre, sides, points = (
        np.array([30.0, 50.0]),
        np.array([96.0, 128.0]),
        np.random.default_rng(0).uniform(0, 100, (9, 2)),
    )

    def mirror(at: np.ndarray) -> np.ndarray:
        return np.stack([199 - at[..., 0], at[..., 1]], axis=-1)

    ours = applied(Crop(centre, sides, 25, True).to_input((256, 192)), points)
    theirs = applied(Crop(mirror(centre), sides, 25).to_input((256, 192)), mirror(points))
    np.testing.assert_allclose(ours, theirs)


def sampled(image: Image.Image, back: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """The same crop by torch's own bilinear sampling."""
    rows, columns = torch.meshgrid(torch.arange(size[0]), torch.arange(size[1]), indexing="ij")
    points = torch.stack([columns, rows], dim=2).double().flatten(0, 1)
    places = to_image(points[None], back[None].double())[0].view(1, *size, 2)
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].double() / 255
    scale = 2 / torch.tensor([image.width, image.height])
    return F.grid_sample(pixels, (places + 0.5) * scale - 1, align_corners=False)[0]


@pytest.mark.parametrize("mirrored", [False, True])
def test_crop_is_bilinear_sampling(mirrored):
    image = noise(90, 80)
    crop = Crop(np.array([44.3, 41.8]), np.array([36.0, 48.0]), rotation=20, mirrored=mirrored)
    pixels, back = crop_image(image, crop, SMALL)
    torch.testing.assert_close(pixels, sampled(image, back, (64, 48)).float(), rtol=0, atol=1.01 / 255)


def test_what_lies_outside_the_image_is_black():
    crop = Crop(np.array([0.0, 0.0]), np.array([48.0, 64.0]))
    pixels, _ = crop_image(Image.new("RGB", (100, 100), "white"), crop, SMALL)
    assert pixels[:, :32, :].max() == pixels[:, :, :24].max() == 0
    assert pixels[:, 33:, 25:].min() == 1


def test_normalisation():
    config = PoseTransformConfig(input_size=(32, 32), mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 0.2))
    pixels, _ = crop_image(
        Image.new("RGB", (99, 99), (255, 0, 51)), box_crop((40, 40, 20, 20), config), config
    )
    torch.testing.assert_close(pixels[:, 9, 9], torch.tensor([1.8, -0.8, -0.5]))


def test_channels_in_the_other_order():
    config = PoseTransformConfig(input_size=(32, 32), channel_order="bgr", **PLAIN)
    pixels, _ = crop_image(
        Image.new("RGB", (99, 99), (255, 0, 51)), box_crop((40, 40, 20, 20), config), config
    )
    torch.testing.assert_close(pixels[:, 9, 9], torch.tensor([0.2, 0.0, 1.0]))


def test_far_shrunk_image_is_averaged():
    """A fine checkerboard becomes even grey, which sampling alone would miss."""
    board = np.indices((800, 600)).sum(axis=0) % 2 * 255
    image = Image.fromarray(board.astype(np.uint8)).convert("RGB")
    pixels, _ = crop_image(image, Crop(np.array([300.0, 400.0]), np.array([600.0, 800.0])), SMALL)
    inner = pixels[:, 2:-2, 2:-2]
    assert (inner - 0.5).abs().max() < 0.02


def test_far_shrunk_image_keeps_its_place():
    """The centre of a bright disc stays where the matrix says."""
    rows, columns = np.indices((900, 800))
    disc = (np.hypot(rows - 371.0, columns - 423.0) < 60) * 255
    image = Image.fromarray(disc.astype(np.uint8)).convert("RGB")
    pixels, back = crop_image(image, Crop(np.array([380.0, 410.0]), np.array([450.0, 600.0])), SMALL)
    rows, columns = torch.meshgrid(torch.arange(64.0), torch.arange(48.0), indexing="ij")
    mass = torch.stack([(pixels[0] * columns).sum(), (pixels[0] * rows).sum()]) / pixels[0].sum()
    found = to_image(mass.view(1, 1, 2), back[None])
    torch.testing.assert_close(found.flatten(), torch.tensor([423.0, 371.0]), rtol=0, atol=0.5)


def test_there_and_back_is_exact():
    crop = Crop(np.array([333.3, 222.2]), np.array([300.0, 400.0]), rotation=-37, mirrored=True)
    points = np.random.default_rng(0).uniform(0, 640, (1, 17, 2))
    there = torch.from_numpy(applied(crop.to_input((256, 192)), points)).float()
    _, back = crop_image(noise(640, 480), crop, PoseTransformConfig())
    assert (to_image(there, back[None]) - torch.from_numpy(points)).abs().max() < 1e-3


def test_way_back_is_exact_under_autocast():
    points, back = 200 * torch.rand(2, 17, 2), torch.tensor([[[2.6, 0.4, 333.3], [-0.4, 2.6, 111.1]]] * 2)
    with torch.autocast("cpu", torch.bfloat16):
        found = to_image(points, back)
    torch.testing.assert_close(found, to_image(points.double(), back.double()).float(), rtol=0, atol=1e-3)


def drawn(count: int = 4000, **changes) -> list[Crop]:
    config = PoseTransformConfig(**changes)
    return [random_crop((0, 0, 60, 80), config) for _ in range(count)]


def test_random_size_is_normal_and_clipped():
    factors = np.array([crop.sides[0] / 75 for crop in drawn()])
    assert (factors.min(), factors.max()) == pytest.approx((0.7, 1.3))
    assert np.mean(np.isclose(factors, 0.7)) == pytest.approx(0.159, abs=0.02)
    assert np.mean(np.abs(factors - 1) < 0.15) == pytest.approx(0.383, abs=0.03)


def test_random_rotation_is_normal_clipped_and_not_always():
    angles = np.array([crop.rotation for crop in drawn()])
    turned = angles[angles != 0]
    assert len(turned) / len(angles) == pytest.approx(0.6, abs=0.03)
    assert (turned.min(), turned.max()) == (-80, 80)
    assert np.mean(np.abs(turned) < 40) == pytest.approx(0.683, abs=0.03)


def test_half_of_the_crops_are_mirrored():
    assert np.mean([crop.mirrored for crop in drawn()]) == pytest.approx(0.5, abs=0.03)


def test_augmentation_can_be_switched_off():
    crop = drawn(1, scale_factor=0.0, rotation=0.0, flip=0.0)[0]
    plain = box_crop((0, 0, 60, 80), PoseTransformConfig())
    np.testing.assert_allclose(crop.to_input((256, 192)), plain.to_input((256, 192)))


def lights(count: int) -> tuple[Image.Image, Person, KeypointSet]:
    """Black, with a bright spot of another colour at each keypoint; the last one is not labelled."""
    rows, columns = np.indices((100, 120))
    random = np.random.default_rng(1)
    places = np.array([[40, 30], [80, 30], [45, 70], [76, 66]], dtype=float)[:count]
    picture = np.zeros((100, 120, 3))
    for (x, y), colour in zip(places, random.uniform(0.3, 1, (count, 3)), strict=True):
        picture += np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / 18)[..., None] * colour
    image = Image.fromarray((picture.clip(0, 1) * 255).astype(np.uint8))
    visibility = np.array([2, 1, 2, 0])[:count]
    person = Person(1, np.array([30.0, 20.0, 60.0, 60.0]), 1.0, places, visibility)
    names = ("left a", "right a", "left b", "right b")[:count]
    return image, person, KeypointSet(names, (), ((0, 1), (2, 3)), (0.1,) * count)


def test_targets_lie_on_what_they_mark():
    """Whatever the augmentation, the image's colour at a target is that of the keypoint's spot."""
    image, person, keypoint_set = lights(4)
    prepare = PreparePose(SMALL, keypoint_set, augment=True)
    colours = [np.array(image.getpixel((int(x), int(y)))) / 255 for x, y in person.keypoints]
    mirrored = 0
    for seed in range(30):
        torch.manual_seed(seed)
        sample = prepare((image, person), 3)
        flipped = torch.linalg.det(sample["to_image"][:, :2]) < 0
        mirrored += int(flipped)
        order = keypoint_set.flip_order if flipped else range(4)
        found, _ = SMALL.heatmap_codec.decode(sample["target"][None])
        for place, original in enumerate(order):
            assert sample["target_weight"][place] == (person.visibility[original] > 0)
            x, y = found[0, place].round().int().tolist()
            if sample["target_weight"][place] and 0 <= x < 48 and 0 <= y < 64:
                colour = sample["image"][:, y, x].numpy()
                np.testing.assert_allclose(colour, colours[original], atol=0.15)
    assert 5 < mirrored < 25


def test_batch_has_what_the_way_back_needs():
    image, person, keypoint_set = lights(4)
    sample = PreparePose(SMALL, keypoint_set, augment=False)((image, person), 17)
    found, _ = SMALL.heatmap_codec.decode(sample["target"][None])
    back = to_image(found, sample["to_image"][None])[0]
    torch.testing.assert_close(back[:3], torch.from_numpy(person.keypoints[:3]).float(), rtol=0, atol=1e-3)
    assert sample["index"] == 17


def test_spawned_workers_can_have_it():
    image, person, keypoint_set = lights(4)
    prepare = PreparePose(SMALL, keypoint_set, augment=False)
    again = pickle.loads(pickle.dumps(prepare))((image, person), 0)
    assert torch.equal(again["image"], prepare((image, person), 0)["image"])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("input_size", (250, 192)),
        ("input_size", (256, 28)),
        ("enlarge", 0.0),
        ("scale_factor", 1.0),
        ("rotation", -1.0),
        ("rotation_probability", 1.5),
        ("flip", -0.5),
        ("codec", "dark"),
        ("channel_order", "rbg"),
        ("sigma", 0.0),
        ("std", (1.0, 0.0, 1.0)),
    ],
)
def test_values_outside_their_range(field, value):
    with pytest.raises(InputError, match=rf"^data\.transform\.{field}="):
        PoseTransformConfig(**{field: value})


@pytest.mark.parametrize(
    ("size", "sigma", "shape"), [((256, 192), 2.0, (64, 48)), ((384, 288), 3.0, (96, 72))]
)
def test_heatmaps_of_the_protocol(size, sigma, shape):
    codec = PoseTransformConfig(input_size=size, sigma=sigma).heatmap_codec
    targets, _ = codec.encode(torch.full((len(COCO_PERSON), 2), 90.0), torch.ones(17, dtype=torch.bool))
    assert tuple(targets.shape) == (17, *shape)
