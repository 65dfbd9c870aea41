"""Image transforms."""

from __future__ import annotations

import pickle
from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms as v1

from ffconv.data.transforms import ImageTransformConfig, PrepareImage, eval_transform, train_transform
from ffconv.errors import InputError

WHOLE = {"scale": (1.0, 1.0), "ratio": (1.0, 1.0)}


def noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def test_evaluation_is_the_usual_protocol():
    """Short side, centre crop, scaling, normalisation as torchvision's first transforms do them."""
    image = noise(90, 70)
    config = ImageTransformConfig(eval_short_side=40, eval_size=32)
    usual = v1.Compose(
        [v1.Resize(40), v1.CenterCrop(32), v1.ToTensor(), v1.Normalize(list(config.mean), list(config.std))]
    )
    torch.testing.assert_close(eval_transform(config)(image), usual(image), rtol=0, atol=1e-6)


def test_evaluation_of_a_line_keeps_its_centre(monkeypatch):
    """A line of sixty thousand pixels would be resized to 61 million, of which the crop keeps a square."""
    resized_to = []
    resize = Image.Image.resize

    def noted(image: Image.Image, size: tuple[int, int], **options) -> Image.Image:
        resized_to.append(size)
        return resize(image, size, **options)

    monkeypatch.setattr(Image.Image, "resize", noted)
    pixels = np.zeros((60000, 1, 3), dtype=np.uint8)
    pixels[29992:30008] = 255
    config = ImageTransformConfig(eval_short_side=32, eval_size=32, mean=(0, 0, 0), std=(1, 1, 1))
    assert eval_transform(config)(Image.fromarray(pixels)).min() == 1
    assert resized_to == [(32, 512)]


def test_training_of_the_whole_image_is_resizing():
    image = noise(40, 40)
    config = ImageTransformConfig(train_size=20, eval_short_side=20, eval_size=20, flip=0, **WHOLE)
    torch.testing.assert_close(train_transform(config)(image), eval_transform(config)(image))


def test_flip_with_certainty():
    image = noise(16, 16)
    sizes = {"train_size": 16, "eval_short_side": 16, "eval_size": 16}
    flipped = train_transform(ImageTransformConfig(flip=1.0, **WHOLE, **sizes))(image)
    straight = train_transform(ImageTransformConfig(flip=0.0, **WHOLE, **sizes))(image)
    torch.testing.assert_close(flipped, straight.flip(-1))


def test_crop_covers_the_stated_area():
    """A crop of a quarter of the area of a ramp 0..255 spans half its range."""
    ramp = Image.fromarray(np.arange(256, dtype=np.uint8)[None].repeat(256, axis=0)).convert("RGB")
    config = ImageTransformConfig(
        train_size=128, scale=(0.25, 0.25), ratio=(1, 1), flip=0, mean=(0, 0, 0), std=(1, 1, 1)
    )
    row = 255 * train_transform(config)(ramp)[0, 0]
    assert (row.max() - row.min()).round() == 127


@pytest.mark.parametrize(
    "options",
    [{"rand_augment": 9}, {"colour_jitter": 0.4}, {"random_erasing": 1.0}],
    ids=["rand_augment", "colour_jitter", "random_erasing"],
)
def test_augmentations_change_the_image(options):
    image = noise(24, 24)
    plain = ImageTransformConfig(train_size=24, eval_short_side=24, eval_size=24, flip=0, **WHOLE)
    augmented = ImageTransformConfig(
        train_size=24, eval_short_side=24, eval_size=24, flip=0, **WHOLE, **options
    )
    assert not torch.equal(train_transform(augmented)(image), train_transform(plain)(image))


def test_interpolation_is_used():
    image = noise(50, 50)
    outputs = [
        eval_transform(ImageTransformConfig(eval_short_side=20, eval_size=20, interpolation=name))(image)
        for name in ("nearest", "bilinear", "bicubic", "lanczos")
    ]
    assert all(not torch.equal(a, b) for a, b in pairwise(outputs))


def test_transforms_can_be_sent_to_spawned_workers():
    prepare = PrepareImage(eval_transform(ImageTransformConfig(eval_short_side=8, eval_size=8)))
    item = (noise(9, 8), 3)
    assert torch.equal(pickle.loads(pickle.dumps(prepare))(item, 0)["image"], prepare(item, 0)["image"])


def test_prepare_keeps_label_and_index():
    prepare = PrepareImage(eval_transform(ImageTransformConfig(eval_short_side=8, eval_size=8)))
    sample = prepare((noise(8, 8), 3), 17)
    assert (sample["label"], sample["index"], sample["image"].dtype) == (3, 17, torch.float32)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("train_size", 0),
        ("eval_size", 300),
        ("scale", (0.0, 1.0)),
        ("scale", (0.5, 0.2)),
        ("scale", (0.5, 2.0)),
        ("ratio", (0.0, 1.0)),
        ("flip", 1.5),
        ("rand_augment", 31),
        ("rand_augment_layers", 0),
        ("colour_jitter", -0.1),
        ("random_erasing", -1.0),
        ("interpolation", "cubic"),
        ("std", (0.0, 1.0, 1.0)),
    ],
)
def test_values_outside_their_range(field, value):
    named = "eval_short_side" if field == "eval_size" else field
    with pytest.raises(InputError, match=rf"^data\.transform\.{named}="):
        ImageTransformConfig(**{field: value})
