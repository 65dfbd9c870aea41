from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from commands import image_folder, predicted
from ffconv.cli import main
from ffconv.data.config import DataConfig
from ffconv.data.transforms import ImageTransformConfig
from ffconv.tasks.class_prediction import class_titles
from ffconv.tasks.classification import Classification, ClassificationConfig
from ffconv.tasks.networks import ModelConfig, load_trained
from ffconv.training.checkpoint import read_metadata, read_safetensors, save_weights
from ffconv.training.task import Share

CLASSES = ("cat", "dog", "owl")


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A network that always says owl (2/4), cat (1/4), dog (1/4)."""
    transform = ImageTransformConfig(train_size=32, eval_short_side=32, eval_size=32)
    data = DataConfig(format="digits", transform=transform)
    config = ClassificationConfig(ModelConfig("test_resnet"), data)
    task = Classification(config, Share(batch_size=1), classes=CLASSES)
    network = task.build_model()
    head: nn.Linear = network.get_classifier()  # pyright: ignore
    nn.init.zeros_(head.weight)
    head.bias = nn.Parameter(torch.tensor([1.0, 1.0 - 1e-3, 2.0]).log())
    path = tmp_path / "x.safetensors"
    save_weights(path, network.state_dict(), {**task.metadata(), "metrics": {}})
    return path


def test_json_holds_the_likeliest_classes_in_order(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    image_folder(tmp_path / "images", "a", images=1)
    (record,) = predicted(capsys, str(checkpoint), str(tmp_path / "images" / "a" / "0.png"), "--top", "2")
    assert record["image"] == str(tmp_path / "images" / "a" / "0.png")
    assert [(p["class"], p["name"]) for p in record["predictions"]] == [("owl", "owl"), ("cat", "cat")]
    assert [p["probability"] for p in record["predictions"]] == pytest.approx([0.5, 0.25], abs=1e-3)


def test_probabilities_are_the_networks(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    image_folder(tmp_path / "images", "a", images=1)
    (record,) = predicted(capsys, str(checkpoint), str(tmp_path / "images"))
    with torch.no_grad():
        chances = load_trained(checkpoint).network(torch.zeros(1, 3, 32, 32)).softmax(1)[0]
    found = {p["class"]: p["probability"] for p in record["predictions"]}
    assert found == pytest.approx(dict(zip(CLASSES, chances.tolist(), strict=True)), abs=1e-5)


def test_names_give_no_orders_to_the_terminal(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """Neither those of classes, nor those of images, also of unreadable ones."""
    folder = image_folder(tmp_path / "images", "a", images=1) / "a"
    (folder / "0.png").rename(folder / "\x1b]0;owned\x07.png")
    (folder / "\x1b[2J\nffconv: all is well.png").write_text("no image")
    weights, metadata = read_safetensors(checkpoint), read_metadata(checkpoint)
    save_weights(checkpoint, weights, {**metadata, "classes": ["\x1b[31mcat", "dog", "o\u202ewl"]})
    assert main(["predict", str(checkpoint), str(folder), "--device", "cpu"]) == 2
    printed = capsys.readouterr()
    both = printed.out + printed.err
    assert r"\x1b]0;owned\x07.png" in both
    assert r"o\u202ewl" in both
    assert not any(character in both for character in "\x1b\x07\u202e")
    assert len(printed.err.splitlines()) == 1


@pytest.mark.parametrize("batch_size", ["1", "4"])
def test_each_image_below_a_folder_has_a_record(
    batch_size: str, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    folder = image_folder(tmp_path / "images", "ab", images=3)
    records = predicted(capsys, str(checkpoint), str(folder), "--batch_size", batch_size)
    assert [record["image"] for record in records] == sorted(map(str, folder.rglob("*.png")))


def test_a_table_names_class_and_percent(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    folder = image_folder(tmp_path / "images", "a", images=1)
    assert main(["predict", str(checkpoint), str(folder), "--device", "cpu"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].split() == [str(folder / "a" / "0.png"), "owl", "50.01"]
    assert [line.split() for line in lines[3:5]] == [["cat", "25.01"], ["dog", "24.98"]]


def test_a_bad_image_is_named_after_the_others_predictions(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    folder = image_folder(tmp_path / "images", "a", images=3)
    (folder / "a" / "1.png").write_bytes(b"no image")
    assert main(["predict", str(checkpoint), str(folder), "--format", "json", "--device", "cpu"]) == 2
    printed = capsys.readouterr()
    assert [Path(record["image"]).name for record in json.loads(printed.out)] == ["0.png", "2.png"]
    assert printed.err.startswith(f"ffconv: {folder}/a/1.png: ")


@pytest.mark.parametrize(
    ("images", "message"), [("none", "none: no such file or folder"), ("empty", "empty: holds no image")]
)
def test_a_missing_or_empty_folder_is_one_line(
    images: str, message: str, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "empty").mkdir()
    assert main(["predict", str(checkpoint), str(tmp_path / images)]) == 2
    assert message in capsys.readouterr().err


def test_wordnet_ids_get_their_words():
    assert class_titles(["n01440764", "n99999999"]) == ["tench, Tinca tinca", "n99999999"]


def test_other_names_stay():
    assert class_titles(["n01440764", "cat"]) == ["n01440764", "cat"]
