"""Holes filled in PIL images, arrays and tensors."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import ffconv
from ffconv.data.holes import Box
from ffconv.errors import InputError
from ffconv.models import LamaGenerator
from ffconv.tasks.filling import Refinement
from ffconv.tasks.inpaint import InpaintConfig, read_hole

BOX = (10, 8, 20, 16)
ORANGE = (255, 128, 0)


class Paints(nn.Module):
    """Draws one colour everywhere, and keeps the inputs it was given."""

    def __init__(self, colour: tuple[int, int, int] = ORANGE) -> None:
        super().__init__()
        self.register_buffer("colour", torch.tensor(colour).div(255)[None, :, None, None])
        self.given: list[Tensor] = []
        self.modes: list[bool] = []

    def forward(self, x: Tensor) -> Tensor:
        self.given.append(x)
        self.modes.append(self.training)
        return self.colour.expand(len(x), -1, *x.shape[-2:])


def random_array(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    random = np.random.default_rng(0)
    if np.issubdtype(dtype, np.floating):
        return random.random(shape).astype(dtype)
    return random.integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)


def inside(size: tuple[int, int] = (40, 30), box: tuple[int, int, int, int] = BOX) -> np.ndarray:
    return read_hole(None, size, boxes=[box])


ARRAYS = [
    pytest.param((30, 40, 3), np.uint8, ORANGE, id="rgb"),
    pytest.param((30, 40, 4), np.uint8, (*ORANGE, 255), id="rgba"),
    pytest.param((30, 40), np.uint8, 151, id="grey"),
    pytest.param((30, 40, 1), np.uint8, 151, id="grey with a channel"),
    pytest.param((30, 40), np.uint16, round(151.381 * 257), id="16 bit"),
    pytest.param((30, 40, 3), np.uint16, tuple(257 * level for level in ORANGE), id="16 bit rgb"),
    pytest.param((30, 40, 3), np.float32, tuple(level / 255 for level in ORANGE), id="float"),
    pytest.param((30, 40, 3), np.float64, tuple(level / 255 for level in ORANGE), id="double"),
    pytest.param((30, 40, 3), np.float16, tuple(level / 255 for level in ORANGE), id="half"),
]


@pytest.mark.parametrize(("shape", "dtype", "colour"), ARRAYS)
def test_arrays_keep_kind_and_known_values(shape: tuple[int, ...], dtype: Any, colour: Any):
    image = random_array(shape, dtype)
    before = image.copy()
    filled = ffconv.inpaint(image, inside(), model=Paints())
    assert (type(filled), filled.dtype, filled.shape) == (np.ndarray, image.dtype, shape)
    assert np.array_equal(image, before)
    assert np.array_equal(filled[~inside()], image[~inside()])
    tolerance = 0 if dtype == np.uint8 else 1e-3 * float(image.max())
    np.testing.assert_allclose(
        filled[inside()].astype(float),
        np.broadcast_to(colour, filled[inside()].shape),
        atol=tolerance,
        rtol=0,
    )


def test_read_only_and_strided_arrays_are_taken():
    image = random_array((30, 80, 3), np.uint8)[:, ::-2]
    image.flags.writeable = False
    filled = ffconv.inpaint(image, inside(), model=Paints())
    assert np.array_equal(filled[~inside()], image[~inside()])


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(3, 30, 40), (1, 30, 40), (4, 30, 40), (2, 3, 30, 40)])
def test_tensors_keep_kind_and_known_values(shape: tuple[int, ...], dtype: torch.dtype):
    image = (torch.rand(shape) * (255 if dtype == torch.uint8 else 1)).to(dtype)
    hole = torch.from_numpy(inside())
    filled = ffconv.inpaint(image, hole, model=Paints())
    assert (filled.dtype, filled.shape) == (dtype, image.shape)
    assert torch.equal(filled[..., ~hole], image[..., ~hole])
    assert not torch.equal(filled[..., hole], image[..., hole])


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "I;16", "P", "1", "CMYK", "YCbCr", "HSV"])
def test_pil_images_keep_mode_and_known_values(mode: str):
    colours = Image.fromarray(random_array((30, 40, 3), np.uint8))
    image = Image.fromarray(random_array((30, 40), np.uint16)) if mode == "I;16" else colours.convert(mode)
    image.info["icc_profile"] = b"profile"
    filled = ffconv.inpaint(image, inside(), model=Paints())
    assert filled.mode == ("RGB" if mode == "P" else mode)
    assert filled.info["icc_profile"] == b"profile"
    before, after = (np.asarray(one.convert(filled.mode)) for one in (image, filled))
    assert np.array_equal(before[~inside()], after[~inside()])
    assert not np.array_equal(before[inside()], after[inside()])


def test_a_palette_with_transparency_becomes_rgba():
    image = Image.fromarray(random_array((30, 40, 4), np.uint8)).quantize(16)
    filled = ffconv.inpaint(image, inside(), model=Paints())
    assert np.array_equal(np.asarray(filled)[~inside()], np.asarray(image.convert("RGBA"))[~inside()])


def test_each_image_of_a_batch_has_its_own_mask():
    images, masks = torch.rand(2, 3, 30, 40), torch.zeros(2, 1, 30, 40)
    masks[0, 0, 3:5, 3:9] = masks[1, 0, 20:25, 30:33] = 1
    filled = ffconv.inpaint(images, masks, model=Paints())
    assert torch.equal((filled != images).any(1, keepdim=True), masks > 0)


@pytest.mark.parametrize("mask", ["bool", "0 and 1", "white", "float", "channel", "tensor", "pil"])
def test_masks_of_any_kind(mask: str):
    hole = inside()
    kinds = {
        "bool": hole,
        "0 and 1": hole.astype(np.int64),
        "white": hole.astype(np.uint8) * 255,
        "float": hole.astype(np.float32),
        "channel": hole[..., None],
        "tensor": torch.from_numpy(hole)[None, None].float(),
        "pil": Image.fromarray(hole),
    }
    assert np.array_equal(read_hole(kinds[mask], (40, 30)), hole)


def test_mask_boxes_and_polygons_are_joined():
    hole = read_hole(inside(), (40, 30), boxes=[(0, 0, 2, 2)], polygons=[(30, 20, 38, 20, 30, 28)])
    assert hole[9, 11]
    assert hole[1, 1]
    assert hole[21, 31]


def test_a_mask_of_another_size_is_resized():
    doubled = np.kron(inside(), np.ones((2, 2), dtype=bool))
    assert np.array_equal(read_hole(doubled, (40, 30)), inside())


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (None, "there is no hole to fill"),
        (np.zeros((30, 40)), "there is no hole to fill"),
        (np.ones((30, 40)), "covers the whole image"),
        (np.zeros((30, 40, 3)), r"mask of shape \(30, 40, 3\) must be"),
        (np.full((30, 40), 255.0), r"mask of floats must lie in \[0, 1\], not in \[255, 255\]"),
        (np.ones((40, 30)), "is 30x40 px, but its image 40x30 px"),
    ],
)
def test_masks_that_do_not_fit_are_refused(mask: Any, message: str):
    with pytest.raises(InputError, match=message):
        ffconv.inpaint(Image.new("RGB", (40, 30)), mask, model=Paints())


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((30, 40, 3), np.int32), "image of torch.int32 must be uint8, uint16 or floating point"),
        (np.full((30, 40, 3), 200.0), r"must lie in \[0, 1\], not in \[200, 200\]"),
        (np.full((30, 40, 3), np.nan), r"must lie in \[0, 1\]"),
        (np.zeros((30, 40, 5)), "5 channels must have 1, 3 or 4"),
        (torch.zeros(30, 40), r"image Tensor of shape \(30, 40\) must be a PIL image"),
        (Image.new("F", (40, 30)), "mode F"),
        ([[0]], "image list must be a PIL image"),
    ],
)
def test_images_of_other_kinds_are_refused(image: Any, message: str):
    with pytest.raises(InputError, match=message):
        ffconv.inpaint(image, inside(), model=Paints())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"strategy": "tiles"}, "strategy='tiles' must be one of auto, whole, crop, resize"),
        ({"max_pixels": 0}, "max_pixels=0"),
        ({"margin": -1}, "margin=-1"),
        ({"dilate": -2}, "dilate=-2"),
        ({"dilate": 2, "feather": 3}, "feather=3 must be at most dilate=2"),
    ],
)
def test_values_out_of_range_are_refused(values: dict[str, Any], message: str):
    with pytest.raises(InputError, match=message):
        ffconv.inpaint(Image.new("RGB", (40, 30)), inside(), model=Paints(), **values)


@pytest.mark.parametrize("values", [{}, {"dilate": 3}, {"feather": 4}, {"dilate": 6, "feather": 2}])
def test_only_pixels_of_the_dilated_hole_change(values: dict[str, int]):
    image = random_array((30, 40, 3), np.uint8)
    filled = ffconv.inpaint(image, inside(), model=Paints(), **values)
    grown, weight = InpaintConfig(**values).grow(inside())
    assert np.array_equal(filled[~grown], image[~grown])
    assert (filled[inside()] == ORANGE).all()
    exact = image + weight[..., None] * (np.array(ORANGE) - image.astype(float))
    assert np.abs(filled - exact).max() <= 0.5 + 1e-3


def test_a_dilated_hole_must_leave_something():
    with pytest.raises(InputError, match="the dilated hole covers the whole image"):
        ffconv.inpaint(Image.new("RGB", (40, 30)), inside(), model=Paints(), dilate=40)


def test_the_network_is_not_shown_the_dilated_hole():
    network = Paints()
    ffconv.inpaint(Image.new("RGB", (40, 32), "white"), inside((40, 32)), model=network, dilate=4)
    grown, _ = InpaintConfig(dilate=4).grow(inside((40, 32)))
    assert np.array_equal(network.given[0][0, 3].numpy() > 0, grown)
    assert np.array_equal(network.given[0][0, :3].numpy().max(0) > 0, ~grown)


def test_a_large_image_is_filled_in_crops():
    image = random_array((600, 900, 3), np.uint8)
    hole = inside((900, 600), (300, 200, 330, 220)) | inside((900, 600), (800, 500, 810, 520))
    network = Paints()
    filled = ffconv.inpaint(image, hole, model=network, max_pixels=200_000, margin=50)
    assert [tuple(x.shape[-2:]) for x in network.given] == [(120, 130), (120, 110)]
    expected = image[150:270, 250:380] * ~hole[150:270, 250:380, None]
    assert np.array_equal((network.given[0][0, :3] * 255).round().numpy(), np.moveaxis(expected, -1, 0))
    assert np.array_equal(filled[~hole], image[~hole])
    assert (filled[hole] == ORANGE).all()


@pytest.mark.parametrize(
    ("strategy", "given"),
    [("auto", (96, 112)), ("whole", (200, 320)), ("crop", (96, 112)), ("resize", (136, 216))],
)
def test_strategies(strategy: Any, given: tuple[int, int]):
    class Eight(Paints):
        multiple = 8

    network = Eight()
    image = random_array((200, 320, 3), np.uint8)
    hole = inside((320, 200), (100, 80, 120, 90))
    ffconv.inpaint(image, hole, model=network, strategy=strategy, max_pixels=29_000, margin=43)
    assert [tuple(x.shape[-2:]) for x in network.given] == [given]


def test_an_image_of_the_largest_size_is_given_whole():
    network = Paints()
    ffconv.inpaint(random_array((30, 40, 3), np.uint8), inside(), model=network, max_pixels=1200)
    assert network.given[0].shape[-2:] == (30, 40)


def test_a_crop_above_the_bound_is_scaled_down():
    network = Paints()
    image, hole = random_array((200, 300, 3), np.uint8), inside((300, 200), (100, 50, 200, 150))
    filled = ffconv.inpaint(image, hole, model=network, max_pixels=5000, margin=20)
    assert network.given[0].shape[-2:] == (70, 70)
    assert np.array_equal(filled[~hole], image[~hole])


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, ""),
        (
            {"max_pixels": 50_000},
            "300x200 px is above max_pixels 50000: filled in 1 crop of 266x200 px (margin",
        ),
        ({"strategy": "crop", "margin": 9}, "300x200 px: filled in 1 crop of 28x28 px (margin 9)"),
        ({"strategy": "resize", "max_pixels": 900}, "above max_pixels 900: filled at 900 pixels"),
        (
            {"max_pixels": 900},
            "px (margin half the hole's longer side, at least 128); 1 crop scaled down to 900",
        ),
        ({"refinement": Refinement(max_pixels=800)}, "300x200 px: filled at 800 pixels"),
    ],
)
def test_the_rule_is_said(values: dict[str, Any], said: str):
    found = InpaintConfig(**values).describe(inside((300, 200), (128, 90, 138, 100)))
    assert said in found
    assert bool(said) == bool(found)


def test_regions_of_a_whole_image():
    assert InpaintConfig(strategy="whole", max_pixels=1).regions(inside()) == [Box(0, 0, 40, 30)]


def test_the_network_is_evaluated_and_left_as_it_was():
    network = Paints().train()
    ffconv.inpaint(Image.new("RGB", (40, 30)), inside(), model=network)
    assert network.modes == [False]
    assert network.training


def test_an_image_with_gradients_gives_one_without():
    image = torch.rand(3, 30, 40, requires_grad=True)
    assert not ffconv.inpaint(image, inside(), model=LamaGenerator(width=4, blocks=1)).requires_grad


def test_a_checkpoint_is_a_model(tmp_path: Path):
    from lama import Lama, save_lightning

    torch.manual_seed(0)
    (tmp_path / "models").mkdir()
    save_lightning(Lama(ngf=4, n_blocks=1).weights(torch.float32), tmp_path / "models" / "best.ckpt")
    filled = ffconv.inpaint(Image.new("RGB", (40, 30)), inside(), model=tmp_path, device="cpu")
    assert filled.size == (40, 30)


@pytest.mark.slow
def test_importing_the_package_does_not_import_tasks():
    code = "import ffconv, sys; print('ffconv.tasks' in sys.modules, callable(ffconv.inpaint))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["False", "True"]


def test_an_unknown_name_of_the_package_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'outpaint'"):
        ffconv.outpaint  # noqa: B018


@pytest.mark.parametrize("refine", [True, Refinement(steps=2, min_side=16)])
def test_refinement_is_asked_for_by_a_flag_or_its_details(refine: Any):
    image = Image.new("RGB", (40, 32))
    with pytest.raises(InputError, match="features of LaMa's generator; Paints has none"):
        ffconv.inpaint(image, inside((40, 32)), model=Paints(), refine=refine)
    network = LamaGenerator(width=4, downsamplings=2, blocks=1)
    assert ffconv.inpaint(image, inside((40, 32)), model=network, refine=refine).size == image.size
