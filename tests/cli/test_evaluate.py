from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import pytest
import torch

from commands import QUICK_TRAIN, evaluated, finish, image_folder, refused, start, torchrun
from ffconv.cli import main
from ffconv.data.config import DataConfig, open_samples
from ffconv.data.transforms import PrepareImage, eval_transform
from ffconv.interop.checkpoint_info import ImageInfo
from ffconv.metrics.classification import ClassificationMetrics
from ffconv.tasks.class_prediction import class_titles
from ffconv.tasks.confusion import draw_confusion
from ffconv.tasks.networks import load_trained
from ffconv.training.checkpoint import read_metadata, read_safetensors, save_weights

IMAGES = 355  # of the evaluation split
DIGITS = ("--data.format", "digits")


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evaluate") / "run"
    assert main([*QUICK_TRAIN, "--limit", "200", "--loop.epochs", "4", "--output", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def by_hand(run_folder: Path) -> dict[str, float]:
    """Accuracy and loss of the best checkpoint, image by image."""
    classifier = load_trained(run_folder / "best.safetensors", ImageInfo)
    transform = classifier.info.transform
    samples = open_samples(DataConfig(format="digits", transform=transform), "val")
    prepare = PrepareImage(eval_transform(transform))
    items = [prepare(samples[index], index) for index in range(len(samples))]  # pyright: ignore
    images, labels = torch.stack([i["image"] for i in items]), torch.tensor([i["label"] for i in items])
    with torch.no_grad():
        logits = classifier.network(images)
    hits = logits.topk(5).indices == labels[:, None]
    return {
        "images": len(items),
        "top1": 100 * hits[:, 0].double().mean().item(),
        "top5": 100 * hits.any(1).double().mean().item(),
        "loss": torch.nn.functional.cross_entropy(logits, labels).item(),
    }


@pytest.mark.parametrize("batch_size", ["7", "64", "1000"])
def test_scores_are_those_counted_by_hand(
    batch_size: str, run_folder: Path, by_hand: dict[str, float], tmp_path: Path
):
    scores = evaluated(tmp_path, str(run_folder), *DIGITS, "--batch_size", batch_size)
    assert by_hand["images"] == IMAGES
    assert scores.pop("skipped") == {}
    assert scores.pop("evaluation")["checkpoint"] == "best.safetensors"
    assert scores == pytest.approx(by_hand, rel=1e-5)


@pytest.mark.slow
def test_two_processes_score_each_image_once(run_folder: Path, by_hand: dict[str, float], tmp_path: Path):
    words = ("evaluate", str(run_folder), *DIGITS, "--device", "cpu", "--data.workers", "0")
    code, printed = finish(start(*words, "--output", str(tmp_path), launcher=torchrun(2)))
    assert code == 0, printed
    scores = json.loads((tmp_path / "scores.json").read_text())
    del scores["skipped"], scores["evaluation"]
    assert scores == pytest.approx(by_hand, rel=1e-5)
    assert printed.count(f"over {IMAGES} images") == 1


def test_each_class_has_a_row(run_folder: Path, by_hand: dict[str, float], tmp_path: Path):
    evaluated(tmp_path, str(run_folder), *DIGITS)
    with (tmp_path / "per_class.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["class"] for row in rows] == list("0123456789")
    right = sum(float(row["top1"]) / 100 * int(row["samples"]) for row in rows)
    assert right == pytest.approx(by_hand["top1"] / 100 * IMAGES, abs=0.01)


def test_the_confusion_matrix_is_drawn(run_folder: Path, tmp_path: Path):
    evaluated(tmp_path, str(run_folder), *DIGITS)
    assert (tmp_path / "confusion.png").read_bytes().startswith(b"\x89PNG")


def test_the_confusion_matrix_has_the_classes_names(monkeypatch: pytest.MonkeyPatch):
    import matplotlib.axes

    names: list[str] = []
    monkeypatch.setattr(
        matplotlib.axes.Axes, "set_yticks", lambda axes, places, labels, **_: names.extend(labels)
    )
    metrics = ClassificationMetrics(["n01440764", "n02979186"])
    draw_confusion(metrics.compute(), class_titles(["n01440764", "n02979186"]))
    assert names == ["tench", "cassette player"]


def test_a_checkpoint_alone_is_enough(run_folder: Path, tmp_path: Path, by_hand: dict[str, float]):
    (tmp_path / "alone.safetensors").write_bytes((run_folder / "best.safetensors").read_bytes())
    scores = evaluated(tmp_path / "out", str(tmp_path / "alone.safetensors"), *DIGITS)
    assert scores["top1"] == pytest.approx(by_hand["top1"])


def test_the_last_epoch_can_be_asked_for(run_folder: Path, tmp_path: Path):
    scores = evaluated(tmp_path, str(run_folder), *DIGITS, "--weights", "last", "--limit", "200")
    assert scores["top1"] == read_metadata(run_folder / "last.safetensors")["metrics"]["top1"]


def test_results_lie_beside_the_checkpoint_by_default(run_folder: Path):
    words = ["evaluate", str(run_folder), "--config", str(run_folder / "config.yaml"), "--device", "cpu"]
    assert main([*words, "--data.workers", "0"]) == 0
    assert (run_folder / "best-val-digits" / "scores.json").exists()


def test_evaluations_of_other_data_have_folders_of_their_own(run_folder: Path, tmp_path: Path):
    image_folder(tmp_path / "other set" / "val", "0123456789", images=2)
    data = ["--data.format", "folder", "--data.path", str(tmp_path / "other set"), "--data.workers", "0"]
    for words in (data, [*data, "--limit", "10"]):
        assert main(["evaluate", str(run_folder), "--device", "cpu", *words]) == 0
    images = [
        json.loads((run_folder / name / "scores.json").read_text())["images"]
        for name in ("best-val-other_set", "best-val-other_set-10")
    ]
    assert images == [20, 10]


def test_scores_of_another_evaluation_are_not_overwritten(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    evaluated(tmp_path, str(run_folder), *DIGITS, "--limit", "10")
    evaluated(tmp_path, str(run_folder), *DIGITS, "--limit", "10")  # the same one may be repeated
    before = (tmp_path / "scores.json").read_bytes()
    monkeypatch.setattr("ffconv.tasks.classification.Classification.scores", None)  # before the work
    words = ["evaluate", str(run_folder), *DIGITS, "--device", "cpu", "--limit", "11"]
    words += ["--output", str(tmp_path)]
    assert "another evaluation (limit is 10 there and 11 here): choose another" in refused(words, capsys)
    assert (tmp_path / "scores.json").read_bytes() == before


def test_skipped_images_are_counted_and_named(run_folder: Path, tmp_path: Path):
    image_folder(tmp_path / "data" / "val", "0123456789", images=2)
    bad = tmp_path / "data" / "val" / "7" / "1.png"
    bad.write_bytes(b"")
    data = ("--data.format", "folder", "--data.path", str(tmp_path / "data"), "--data.on_error", "skip")
    scores = evaluated(tmp_path / "out", str(run_folder), *data)
    assert (scores["images"], list(scores["skipped"])) == (19, [str(bad)])


def test_other_classes_than_the_checkpoints_are_refused_by_name(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    image_folder(tmp_path / "val", "012345678x")
    words = ["evaluate", str(run_folder), "--data.format", "folder", "--data.path", str(tmp_path)]
    printed = refused(words, capsys)
    assert "without 9" in printed
    assert "with x" in printed


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--data.wokers", "0"], "did you mean data.workers?"),
        (["--split", "test"], "test"),
        (["--batch_size", "0"], "batch_size=0 must be at least 1"),
        (["--precision", "fp16"], "fp16 needs a CUDA device"),
    ],
)
def test_wrong_options_are_one_line(
    words: list[str], message: str, run_folder: Path, capsys: pytest.CaptureFixture[str]
):
    assert message in refused(["evaluate", str(run_folder), *DIGITS, "--device", "cpu", *words], capsys)


@pytest.mark.parametrize("name", ["file", "file/below"])
def test_an_output_that_cannot_be_made_is_one_line_before_the_work(
    name: str, run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):  # fmt: skip
    (tmp_path / "file").touch()
    monkeypatch.setattr("ffconv.tasks.classification.Classification.scores", None)
    words = ["evaluate", str(run_folder), *DIGITS, "--device", "cpu", "--output", str(tmp_path / name)]
    assert f"cannot make the folder {tmp_path / name}: " in refused(words, capsys)


def test_a_truncated_checkpoint_is_one_line(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    path = tmp_path / "x.safetensors"
    path.write_bytes((run_folder / "best.safetensors").read_bytes())
    os.truncate(path, 100_000)
    assert "x.safetensors: truncated or not a safetensors file" in refused(["evaluate", str(path)], capsys)


def test_a_checkpoint_of_another_architecture_is_one_line(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    weights = read_safetensors(run_folder / "best.safetensors")
    metadata = read_metadata(run_folder / "best.safetensors")
    metadata["model"]["name"] = "resnet18"
    save_weights(tmp_path / "x.safetensors", weights, metadata)
    printed = refused(["evaluate", str(tmp_path / "x.safetensors")], capsys)
    assert "the weights do not fit resnet18" in printed


def test_a_missing_checkpoint_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert "no checkpoint at" in refused(["evaluate", str(tmp_path)], capsys)


def test_a_checkpoint_does_not_say_where_the_data_is(run_folder: Path, capsys: pytest.CaptureFixture[str]):
    printed = refused(["evaluate", str(run_folder), "--device", "cpu"], capsys)
    assert "data.path is not given: say where the data is by --data.path FOLDER" in printed
    assert "--data.format" in printed


def test_the_data_section_of_a_recipe_says_where_the_data_is(
    run_folder: Path, by_hand: dict[str, float], tmp_path: Path
):
    (tmp_path / "other.yaml").write_text("data: {format: digits, transform: {eval_size: 8}}")
    for recipe in (run_folder / "config.yaml", tmp_path / "other.yaml"):
        scores = evaluated(tmp_path, str(run_folder), "--config", str(recipe))
        assert scores["top1"] == pytest.approx(by_hand["top1"])  # sizes are those of the checkpoint
