"""``ffconv inpaint``, and training and evaluation of inpainting from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from commands import SHORT, evaluated, finish, refused, run_of, start, torchrun
from ffconv.cli import main
from ffconv.data.decoding import read_image
from ffconv.training.checkpoint import read_metadata
from lama import Lama, save_lightning

TRAIN = (
    *("train", "--config", "small/textures", "--limit", "24", "--loop.batch_size", "8"),
    *("--model.arguments", "{width: 4, downsamplings: 2, blocks: 1}", *SHORT),
    *("--data.transform.train_size", "32", "--data.transform.eval_size", "32"),
    *("--data.transform.eval_short_side", "32"),
)
TEXTURES = ("--data.format", "textures")


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_of(TRAIN, tmp_path_factory)


@pytest.fixture(scope="module")
def lama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    weights = Lama(ngf=4, n_blocks=1).weights(torch.float32)
    return save_lightning(weights, tmp_path_factory.mktemp("lama") / "best.ckpt")


def picture(path: Path, size: tuple[int, int] = (37, 29), seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def mask(path: Path, size: tuple[int, int] = (37, 29), box: tuple[int, ...] = (5, 6, 20, 18)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("L", size)
    image.paste(255, box)
    image.save(path)
    return path


def pixels(path: Path) -> np.ndarray:
    return np.asarray(read_image(path))


def command(*words: object, checkpoint: Path) -> list[str]:
    return ["inpaint", *map(str, words), "--checkpoint", str(checkpoint), "--device", "cpu"]


def inpaint(*words: object, checkpoint: Path) -> int:
    return main(command(*words, checkpoint=checkpoint))


def test_known_pixels_are_kept_to_the_bit(lama: Path, tmp_path: Path):
    image, hole = picture(tmp_path / "a.png"), mask(tmp_path / "hole.png")
    assert inpaint(image, hole, "-o", tmp_path / "out.png", checkpoint=lama) == 0
    inside = pixels(hole)[..., 0] > 0
    before, after = pixels(image), pixels(tmp_path / "out.png")
    assert np.array_equal(before[~inside], after[~inside])
    assert not np.array_equal(before[inside], after[inside])


def test_lamas_published_folder_stands_for_its_checkpoint(lama: Path, tmp_path: Path):
    image, hole = picture(tmp_path / "a.png"), mask(tmp_path / "m.png")
    published = tmp_path / "big-lama" / "models" / "best.ckpt"
    published.parent.mkdir(parents=True)
    published.write_bytes(lama.read_bytes())
    for checkpoint, output in ((lama, "file.png"), (tmp_path / "big-lama", "folder.png")):
        assert inpaint(image, hole, "-o", tmp_path / output, checkpoint=checkpoint) == 0
    assert np.array_equal(pixels(tmp_path / "file.png"), pixels(tmp_path / "folder.png"))


def test_what_was_in_the_hole_does_not_matter(lama: Path, tmp_path: Path):
    image, hole = picture(tmp_path / "a.png"), mask(tmp_path / "hole.png")
    other = pixels(image).copy()
    other[pixels(hole)[..., 0] > 0] = 7
    Image.fromarray(other).save(tmp_path / "b.png")
    for name in "ab":
        assert inpaint(tmp_path / f"{name}.png", hole, "-o", tmp_path / "out" / name, checkpoint=lama) == 0
    assert np.array_equal(pixels(tmp_path / "out/a/a.png"), pixels(tmp_path / "out/b/b.png"))


def test_folders_with_a_run_of_ours(run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for number, name in enumerate(("a", "deep/b")):
        picture(tmp_path / "img" / f"{name}.png", seed=number)
        mask(tmp_path / "mask" / f"{name}_mask.png")
    out = tmp_path / "out"
    assert inpaint(tmp_path / "img", tmp_path / "mask", "-o", out, checkpoint=run_folder) == 0
    assert (pixels(out / "a.png").shape, pixels(out / "deep" / "b.png").shape) == ((29, 37, 3),) * 2
    assert f"2 filled images in {out}" in capsys.readouterr().out


def test_a_large_image_is_filled_smaller_and_said_so(
    lama: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    image, hole = picture(tmp_path / "a.png"), mask(tmp_path / "hole.png")
    words = (image, hole, "-o", tmp_path / "out.png", "--max_pixels", 400, "--strategy", "resize")
    assert inpaint(*words, checkpoint=lama) == 0
    assert "a.png: 37x29 px is above max_pixels 400: filled at 400 pixels" in capsys.readouterr().out
    inside = pixels(hole)[..., 0] > 0
    assert np.array_equal(pixels(image)[~inside], pixels(tmp_path / "out.png")[~inside])


def test_bad_masks_are_named_after_the_others_are_filled(
    lama: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    for name in "abc":
        picture(tmp_path / "img" / f"{name}.png")
    mask(tmp_path / "mask/a.png"), mask(tmp_path / "mask/b.png", box=(0, 0, 0, 0))
    mask(tmp_path / "mask/c.png", size=(29, 37))
    assert inpaint(tmp_path / "img", tmp_path / "mask", "-o", tmp_path / "out", checkpoint=lama) == 2
    printed = capsys.readouterr().err
    assert "b.png: has no hole" in printed
    assert "c.png: is 29x37 px, but its image" in printed
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["a.png"]


def test_images_without_mask_are_listed(lama: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    picture(tmp_path / "img/a.png"), picture(tmp_path / "img/b.png"), mask(tmp_path / "mask/b.png")
    printed = refused(
        command(tmp_path / "img", tmp_path / "mask", "-o", tmp_path / "out", checkpoint=lama), capsys
    )
    assert "has no mask for 1 image: " in printed
    assert "a.png" in printed


def test_wrong_outputs_are_refused(lama: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    image, hole = picture(tmp_path / "a.png"), mask(tmp_path / "hole.png")
    assert "out.xyz: images are written as .jpg" in refused(
        command(image, hole, "-o", tmp_path / "out.xyz", checkpoint=lama), capsys
    )
    assert "would be overwritten" in refused(command(image, hole, "-o", image, checkpoint=lama), capsys)
    assert "would be overwritten" in refused(command(image, hole, "-o", hole, checkpoint=lama), capsys)
    picture(tmp_path / "twice/a.png"), picture(tmp_path / "twice/a.gif")
    words = command(tmp_path / "twice", hole, "-o", tmp_path / "out", checkpoint=lama)
    assert "several images would be written to" in refused(words, capsys)
    words = command(image, hole, "-o", tmp_path / "o", "--sheet", tmp_path / "s.gif", checkpoint=lama)
    assert "s.gif: a contact sheet is a .png or .jpg file" in refused(words, capsys)


def test_a_jpeg_stays_one(lama: Path, tmp_path: Path):
    rows, columns = np.indices((48, 64))
    photo = Image.fromarray(np.stack([4 * columns, 5 * rows, 100 + columns], axis=-1).astype(np.uint8))
    photo.save(tmp_path / "a.jpg", quality=55, icc_profile=b"profile")
    hole = mask(tmp_path / "hole.png", (64, 48))
    assert inpaint(tmp_path / "a.jpg", hole, "-o", tmp_path / "out", checkpoint=lama) == 0
    with Image.open(tmp_path / "a.jpg") as before, Image.open(tmp_path / "out/a.jpg") as after:
        assert after.format == "JPEG"
        assert after.info["icc_profile"] == b"profile"
        assert after.quantization == before.quantization
    # Blocks beside the hole that are encoded anew by the same tables change by rounding only.
    far = np.s_[32:, 32:]
    difference = np.abs(pixels(tmp_path / "a.jpg")[far].astype(int) - pixels(tmp_path / "out/a.jpg")[far])
    assert difference.mean() < 1


def test_boxes_and_polygons_need_no_mask(lama: Path, tmp_path: Path):
    image = picture(tmp_path / "a.png")
    shapes = ("--box", 2, 3, 9, 8, "--box", 20, 20, 30, 25, "--polygon", 25, 2, 35, 2, 35, 12)
    assert inpaint(image, "-o", tmp_path / "out.png", *shapes, checkpoint=lama) == 0
    changed = (pixels(image) != pixels(tmp_path / "out.png")).any(-1)
    expected = np.zeros((29, 37), dtype=bool)
    expected[3:8, 2:9] = expected[20:25, 20:30] = True
    assert np.array_equal(changed[:, :20], expected[:, :20])
    assert changed[4, 33]
    assert not changed[11, 26]


def test_a_hole_must_be_given(lama: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    words = command(picture(tmp_path / "a.png"), "-o", tmp_path / "out.png", checkpoint=lama)
    assert "there is no hole to fill: give a mask, --box or --polygon" in refused(words, capsys)
    assert "--box 1 2 x 4 must be numbers" in refused([*words, "--box", "1", "2", "x", "4"], capsys)
    assert "expected 4 arguments" in refused([*words, "--box", "1", "2"], capsys)


def test_dilated_and_feathered_holes(lama: Path, tmp_path: Path):
    image = picture(tmp_path / "a.png")
    words = (image, "-o", tmp_path / "out.png", "--box", 15, 10, 20, 15, "--dilate", 4, "--feather", 2)
    assert inpaint(*words, checkpoint=lama) == 0
    changed = np.argwhere((pixels(image) != pixels(tmp_path / "out.png")).any(-1))
    assert (changed.min(0).tolist(), changed.max(0).tolist()) == ([6, 11], [18, 23])


def test_a_stopped_folder_goes_on(lama: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for number, name in enumerate("abc"):
        picture(tmp_path / "img" / f"{name}.png", seed=number)
    picture(tmp_path / "out" / "b.png", seed=9)
    kept = (tmp_path / "out" / "b.png").read_bytes()
    words = (tmp_path / "img", mask(tmp_path / "hole.png"), "-o", tmp_path / "out", "--resume")
    assert inpaint(*words, checkpoint=lama) == 0
    printed = capsys.readouterr().out
    assert "1 image skipped: the filled ones are there" in printed
    assert "2 filled images in" in printed
    assert (tmp_path / "out" / "b.png").read_bytes() == kept
    # With nothing left to do the network is not even read.
    assert inpaint(*words, checkpoint=tmp_path / "gone") == 0


def test_a_contact_sheet_shows_photographs_holes_and_results(lama: Path, tmp_path: Path):
    for number, name in enumerate("ab"):
        picture(tmp_path / "img" / f"{name}.png", (300, 200), seed=number)
    box = ("--box", 100, 50, 200, 150)
    words = (tmp_path / "img", "-o", tmp_path / "out", *box, "--sheet", tmp_path / "sheet.png")
    assert inpaint(*words, checkpoint=lama) == 0
    sheet = pixels(tmp_path / "sheet.png")
    assert sheet.shape == (16 + 2 * (171 + 16 + 4) + 4, 3 * 260 + 4, 3)
    first, marked, result = (sheet[32 : 32 + 171, 4 + 260 * k : 4 + 260 * k + 256] for k in range(3))
    thumbnail = read_image(tmp_path / "img/a.png")
    thumbnail.thumbnail((256, 256))
    assert np.array_equal(first, np.asarray(thumbnail))
    assert marked[85, 128, 0] > 150 > marked[85, 128, 1]
    assert np.array_equal(marked[:30], first[:30])
    assert np.array_equal(result[:30], first[:30])
    assert not np.array_equal(result[80:90], first[80:90])


def test_refinement_runs(lama: Path, tmp_path: Path):
    image, hole = picture(tmp_path / "a.png"), mask(tmp_path / "hole.png")
    words = (image, hole, "-o", tmp_path / "out.png", "--refine", "--refinement.min_side", 12)
    assert inpaint(*words, "--refinement.steps", 2, checkpoint=lama) == 0
    inside = pixels(hole)[..., 0] > 0
    assert np.array_equal(pixels(image)[~inside], pixels(tmp_path / "out.png")[~inside])


def test_other_weights_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    image, hole = picture(tmp_path / "a.png"), mask(tmp_path / "hole.png")
    torch.save({"fc.weight": torch.zeros(2, 2)}, tmp_path / "net.pth")
    printed = refused(
        command(image, hole, "-o", tmp_path / "out.png", checkpoint=tmp_path / "net.pth"), capsys
    )
    assert "not of LaMa's generator" in printed


def test_training_writes_samples(run_folder: Path):
    assert (run_folder / "samples.png").read_bytes().startswith(b"\x89PNG")


def test_evaluation_repeats_the_last_epochs_scores(run_folder: Path, tmp_path: Path):
    scores = evaluated(tmp_path, str(run_folder), *TEXTURES, "--weights", "last", "--limit", "24")
    metrics = read_metadata(run_folder / "last.safetensors")["metrics"]
    assert scores["all"]["samples"] == 24
    assert scores["all"]["hole_psnr"] == pytest.approx(metrics["hole_psnr"], rel=1e-6)
    assert scores["thick"]["hole_psnr"] == pytest.approx(metrics["hole_psnr_thick"], rel=1e-6)
    assert (tmp_path / "samples.png").exists()


def test_evaluation_takes_other_holes(run_folder: Path, tmp_path: Path):
    scores = evaluated(tmp_path, str(run_folder), *TEXTURES, "--limit", "6", "--masks.kinds", "[thin]")
    assert list(scores) == ["all", "thin", "skipped", "evaluation"]


@pytest.mark.slow
def test_two_processes_evaluate_as_one(run_folder: Path, tmp_path: Path):
    words = ["evaluate", str(run_folder), *TEXTURES, "--limit", "23", "--device", "cpu"]
    assert main([*words, "--output", str(tmp_path / "one")]) == 0
    code, printed = finish(start(*words, "--output", str(tmp_path / "two"), launcher=torchrun(2)))
    assert code == 0, printed
    one, two = (json.loads((tmp_path / name / "scores.json").read_text()) for name in ("one", "two"))
    assert two["all"] == pytest.approx(one["all"], rel=1e-5)
