"""train, evaluate and predict with keypoints, on the embedded figures."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from commands import SHORT, evaluated, refused, run_of
from ffconv.cli import main
from ffconv.data.figures import write_figures
from ffconv.data.video_writing import video_writer
from ffconv.interop.checkpoint_info import PoseInfo
from ffconv.tasks.networks import load_trained

TRAIN = (
    *("train", "--config", "small/figures", "--model.name", "pose", "--model.arguments"),
    *("{backbone: test_resnet}", "--data.transform.input_size", "[64, 64]", "--limit", "12"),
    *("--loop.batch_size", "4", *SHORT),
)
FIGURES = ("--data.format", "figures")


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_of(TRAIN, tmp_path_factory)


@pytest.fixture(scope="module")
def coco(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six figures' pictures of either split in COCO's format."""
    folder = tmp_path_factory.mktemp("coco")
    for split in ("train", "val"):
        write_figures(folder, split, 6)
    return folder


def in_coco(folder: Path) -> tuple[str, ...]:
    return ("--data.format", "coco", "--data.path", str(folder), "--data.train", "train", "--data.val", "val")


def test_training_leaves_a_checkpoint_that_knows_what_it_is(run_folder: Path):
    trained = load_trained(run_folder / "best.safetensors", PoseInfo)
    assert len(trained.info.keypoints) == 17
    assert {"AP", "AP50", "AR", "train_loss"} <= trained.info.metrics.keys()


def test_evaluation_gives_what_training_gave(run_folder: Path, tmp_path: Path):
    scores = evaluated(tmp_path, str(run_folder), *FIGURES, "--weights", "last", "--limit", "12")
    metrics = load_trained(run_folder / "last.safetensors").info.metrics
    assert {name: scores[name] for name in ("AP", "AR")} == pytest.approx(
        {name: metrics[name] for name in ("AP", "AR")}
    )


def test_results_are_what_the_server_takes(run_folder: Path, tmp_path: Path):
    scores = evaluated(tmp_path, str(run_folder), *FIGURES, "--limit", "12")
    results = json.loads((tmp_path / "keypoints.json").read_text())
    assert len(results) == scores["persons"] > 0
    assert all(result.keys() == {"image_id", "category_id", "keypoints", "score"} for result in results)
    assert {len(result["keypoints"]) for result in results} == {3 * 17}


def test_options_of_the_evaluation_win_over_the_checkpoints(run_folder: Path, tmp_path: Path):
    keypoints = []
    for flip in ("true", "false"):
        evaluated(tmp_path / flip, str(run_folder), *FIGURES, "--limit", "12", "--test.flip", flip)
        keypoints.append((tmp_path / flip / "keypoints.json").read_text())
    assert keypoints[0] != keypoints[1]


def test_a_detectors_boxes_take_the_annotated_ones_place(run_folder: Path, coco: Path, tmp_path: Path):
    truth = json.loads((coco / "annotations" / "person_keypoints_val.json").read_text())
    boxes = [
        {"image_id": one["image_id"], "category_id": 1, "bbox": one["bbox"], "score": score}
        for one, score in zip(truth["annotations"], (0.9, 0.8, 0.2), strict=False)
    ]
    (tmp_path / "boxes.json").write_text(json.dumps(boxes))
    words = ("--data.detections", str(tmp_path / "boxes.json"), "--data.detection_threshold", "0.5")
    scores = evaluated(tmp_path / "out", str(run_folder), *in_coco(coco), *words)
    assert scores["persons"] <= 2


@pytest.mark.parametrize("bad", ["missing", "json", "none", "nan", "outside", "keypoints"])
def test_bad_annotations_are_one_line(
    bad: str, run_folder: Path, coco: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    shutil.copytree(coco, tmp_path / "data")
    file = tmp_path / "data" / "annotations" / "person_keypoints_val.json"
    content = json.loads(file.read_text())
    message = {
        "missing": "6 of 6 images are missing: ",
        "json": "is not JSON",
        "none": "has no keypoints",
        "nan": "must be finite numbers",
        "outside": "lies outside its image",
        "keypoints": "2 keypoints, but the network has 17",
    }[bad]
    if bad == "missing":
        shutil.rmtree(tmp_path / "data" / "val")
        (tmp_path / "data" / "val").mkdir()
    elif bad == "none":
        del content["categories"][0]["keypoints"]
    elif bad == "nan":
        content["annotations"][0]["keypoints"][0] = float("nan")
    elif bad == "outside":
        content["annotations"][0]["bbox"] = [9999, 9999, 5, 5]
    elif bad == "keypoints":
        content["categories"][0].update(keypoints=["head", "foot"], skeleton=[])
        for annotation in content["annotations"]:
            annotation["keypoints"] = annotation["keypoints"][:6]
    file.write_text("{" if bad == "json" else json.dumps(content))
    assert message in refused(["evaluate", str(run_folder), *in_coco(tmp_path / "data")], capsys)


def test_weights_for_other_keypoints_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    torch.save(
        timm.create_model("pose", backbone="test_resnet", num_classes=3).state_dict(), tmp_path / "w.pt"
    )
    words = [*TRAIN, "--output", str(tmp_path / "run"), "--model.weights", str(tmp_path / "w.pt")]
    assert "final_layer.weight ((3, 256, 1, 1) in the file, (17," in refused(words, capsys)
    assert main([*words, "--model.new_classifier", "true"]) == 0


def predicted(run_folder: Path, given: Path, output: Path, *words: str) -> dict[str, Any]:
    command = ["predict", str(run_folder), str(given), "--output", str(output), "--device", "cpu", *words]
    assert main(command) == 0
    return json.loads((output / "keypoints.json").read_text())


def test_predict_of_a_photo_by_the_whole_picture(run_folder: Path, coco: Path, tmp_path: Path):
    photo = min((coco / "val").iterdir())
    content = predicted(run_folder, photo, tmp_path, "--boxes", "whole", "--keypoint_threshold", "-1")
    (found,) = content["annotations"]
    with Image.open(photo) as image, Image.open(tmp_path / photo.name) as drawn:
        assert found["bbox"] == [0, 0, *image.size]
        assert drawn.size == image.size
        assert (np.asarray(drawn.convert("RGB")) != np.asarray(image.convert("RGB"))).any()
    assert found["num_keypoints"] == 17
    assert content["images"][0]["file_name"] == photo.name


def test_predict_of_a_folder_by_an_annotation_file(run_folder: Path, coco: Path, tmp_path: Path):
    boxes = coco / "annotations" / "person_keypoints_val.json"
    content = predicted(
        run_folder, coco / "val", tmp_path, "--boxes", str(boxes), "--keypoint_threshold", "0"
    )
    names = sorted(path.name for path in (coco / "val").iterdir())
    assert [image["file_name"] for image in content["images"]] == names
    assert sorted(path.name for path in tmp_path.glob("*.*")) == sorted([*names, "keypoints.json"])
    annotated = json.loads(boxes.read_text())["annotations"]
    asked = {tuple(np.round(one["bbox"], 2)) for one in annotated}
    assert {tuple(one["bbox"]) for one in content["annotations"]} <= asked
    assert len(content["annotations"]) > len(names)


def test_predict_finds_the_boxes_of_pictures_of_one_name_by_their_folders(
    run_folder: Path, coco: Path, tmp_path: Path
):
    photo = min((coco / "val").iterdir())
    images = [{"id": number, "file_name": f"cam{number}/0001.png"} for number in (1, 2)]
    boxes = [{"image_id": n, "category_id": 1, "bbox": [10 * n, 10, 30, 40]} for n in (1, 2)]
    (tmp_path / "boxes.json").write_text(json.dumps({"images": images, "annotations": boxes}))
    for number in (1, 2):
        (tmp_path / "in" / f"cam{number}").mkdir(parents=True)
        shutil.copy(photo, tmp_path / "in" / f"cam{number}" / "0001.png")
    words = ("--boxes", str(tmp_path / "boxes.json"))
    for given, expected in (("in", {(1, 10.0), (2, 20.0)}), ("in/cam2", {(1, 20.0)})):
        content = predicted(run_folder, tmp_path / given, tmp_path / "out", *words)
        found = [(one["image_id"], one["bbox"][0]) for one in content["annotations"]]
        assert sorted(found) == sorted(expected)


def test_predict_refuses_boxes_that_may_be_of_several_pictures(
    run_folder: Path, coco: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    content = {
        "images": [{"id": 1, "file_name": "0001.png"}],
        "annotations": [{"image_id": 1, "category_id": 1, "bbox": [10, 10, 30, 40]}],
    }
    (tmp_path / "boxes.json").write_text(json.dumps(content))
    for name in ("cam1", "cam2"):
        (tmp_path / "in" / name).mkdir(parents=True)
        shutil.copy(min((coco / "val").iterdir()), tmp_path / "in" / name / "0001.png")
    words = ["--boxes", str(tmp_path / "boxes.json"), "--output", str(tmp_path / "out"), "--device", "cpu"]
    printed = refused(["predict", str(run_folder), str(tmp_path / "in"), *words], capsys)
    assert "image 1 may be cam1/0001.png or cam2/0001.png" in printed
    assert not (tmp_path / "out").exists()


def test_predict_writes_what_predict_reads(run_folder: Path, coco: Path, tmp_path: Path):
    photo = min((coco / "val").iterdir())
    predicted(run_folder, photo, tmp_path / "1", "--boxes", "whole")
    again = predicted(
        run_folder, photo, tmp_path / "2", "--boxes", str(tmp_path / "1" / "keypoints.json"),
        "--box_threshold", "-1",
    )  # fmt: skip
    first = json.loads((tmp_path / "1" / "keypoints.json").read_text())
    assert again["annotations"][0]["bbox"] == first["annotations"][0]["bbox"]


def test_predict_of_a_video_is_a_video(run_folder: Path, tmp_path: Path):
    pytest.importorskip("av")
    from ffconv.data.video_reading import open_with_pyav

    with video_writer(tmp_path / "clip.avi", rate=10) as writer:
        for value in (60, 120, 180):
            writer.write(np.full((48, 64, 3), value, np.uint8), value / 600)
    content = predicted(run_folder, tmp_path / "clip.avi", tmp_path / "out", "--boxes", "whole")
    assert [image["id"] for image in content["images"]] == [0, 1, 2]
    with open_with_pyav(tmp_path / "out" / "clip.avi.mp4", "clip") as video:
        assert [frame.picture.shape for frame in video.frames()] == [(48, 64, 3)] * 3
        assert video.rate == pytest.approx(10)


def test_predict_names_an_unreadable_image_after_the_others(
    run_folder: Path, coco: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    shutil.copytree(coco / "val", tmp_path / "in")
    (tmp_path / "in" / "bad.png").write_bytes(b"no image")
    capsys.readouterr()
    words = ["--boxes", "whole", "--output", str(tmp_path / "out"), "--device", "cpu"]
    assert main(["predict", str(run_folder), str(tmp_path / "in"), *words]) == 2
    printed = capsys.readouterr()
    assert "bad.png" in printed.err
    assert printed.out.startswith("6 persons in 6 images")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--boxes", "none.json"], "none.json: No such file"),
        (["--boxes", "whole", "--batch_size", "0"], "batch_size=0 must be at least 1"),
        (["--detector", "none.pth"], "none.pth: no such file"),
    ],
)
def test_wrong_options_are_one_line(
    words: list[str], message: str, run_folder: Path, coco: Path, capsys: pytest.CaptureFixture[str]
):
    assert message in refused(
        ["predict", str(run_folder), str(coco / "val"), "--device", "cpu", *words], capsys
    )


def test_predict_leaves_no_half_written_picture(
    run_folder: Path, coco: Path, tmp_path: Path, fill_disk: Callable[[], None],
    capsys: pytest.CaptureFixture[str],
):  # fmt: skip
    photo, output = min((coco / "val").iterdir()), tmp_path / "out"
    words = ["predict", str(run_folder), str(photo), "--boxes", "whole", "--output", str(output)]
    fill_disk()
    assert "No space left on device" in refused([*words, "--device", "cpu"], capsys)
    assert not list(output.iterdir())


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg", ".png", ".bmp"])
def test_predict_writes_what_the_pictures_name_says(
    suffix: str, run_folder: Path, coco: Path, tmp_path: Path
):
    with Image.open(min((coco / "val").iterdir())) as image:
        image.save(tmp_path / f"a{suffix}")
    predicted(run_folder, tmp_path / f"a{suffix}", tmp_path / "out", "--boxes", "whole")
    (drawn,) = (path for path in (tmp_path / "out").iterdir() if path.suffix != ".json")
    assert drawn.name == ("a.bmp.png" if suffix == ".bmp" else f"a{suffix}")
    with Image.open(drawn) as image:
        assert image.format == ("JPEG" if suffix.startswith(".jp") else "PNG")


def test_predict_counts_in_words(
    run_folder: Path, coco: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    predicted(run_folder, min((coco / "val").iterdir()), tmp_path, "--boxes", "whole")
    assert capsys.readouterr().out.startswith("1 person in 1 image;")


def test_predict_does_not_overwrite_its_input(
    run_folder: Path, coco: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    shutil.copytree(coco / "val", tmp_path / "in")
    words = ["predict", str(run_folder), str(tmp_path / "in"), "--boxes", "whole", "--device", "cpu"]
    assert "would overwrite" in refused([*words, "--output", str(tmp_path / "in")], capsys)


def test_the_documentations_recipe_trains_on_a_folder(
    coco: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    text = (Path(__file__).parents[2] / "docs" / "keypoints.md").read_text()
    recipe = text.partition("```yaml\n")[2].partition("```")[0]
    assert len(recipe.splitlines()) <= 10
    (tmp_path / "mine.yaml").write_text(recipe)
    shutil.copytree(coco, tmp_path / "mydata")
    monkeypatch.chdir(tmp_path)
    quick = TRAIN[TRAIN.index("--model.name") :]
    assert main(["train", "--config", "mine.yaml", *quick]) == 0
    evaluated(tmp_path / "out", "runs/mine", "--config", "mine.yaml")
