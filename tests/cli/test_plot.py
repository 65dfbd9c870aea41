"""``ffconv plot``."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from PIL import Image

from ffconv.cli import main
from ffconv.training.checkpoint import save_weights

METRICS = "epoch,step,loss,top1,lr\n1,10,2.0,40.0,0.1\n2,20,1.5,50.0,0.1\n"


def is_picture(path: Path) -> bool:
    with Image.open(path) as picture:
        return picture.format == "PNG"


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "image.png"
    Image.effect_noise((80, 70), 50).convert("RGB").save(path)
    return path


def test_receptive_fields_of_two_networks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "field.png"
    words = ["plot", "receptive-field", "resnet18,zero_init_last=false", "ffc_resnet18", "--size", "64"]
    assert main([*words, "--layers", "layer1", "--output", str(output)]) == 0
    assert is_picture(output)
    assert capsys.readouterr().out == f"{output}\n"


@pytest.mark.parametrize("kind", ["receptive-field", "spectrum"])
def test_networks_of_clips_are_refused(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plot", kind, "ffc_c2d_resnet18", "--size", "32"]) == 2
    assert "ffc_c2d_resnet18 takes clips: these plots are of networks of images" in capsys.readouterr().err


def test_the_seed_decides_the_picture(tmp_path: Path) -> None:
    pictures = []
    for seed in (0, 0, 1):
        output = tmp_path / "field.png"
        words = ["plot", "receptive-field", "ffc_resnet18", "--size", "32", "--layers", "layer1"]
        assert main([*words, "--seed", str(seed), "--output", str(output)]) == 0
        pictures.append(output.read_bytes())
    assert pictures[0] == pictures[1] != pictures[2]


def test_receptive_field_over_given_images(tmp_path: Path, image: Path) -> None:
    output = tmp_path / "field.png"
    words = [
        "plot",
        "receptive-field",
        "resnet18",
        "--size",
        "64",
        "--layers",
        "layer1",
        "--images",
        str(image),
    ]
    assert main([*words, "--output", str(output)]) == 0
    assert is_picture(output)


def test_spectrum_of_weights_and_of_features(tmp_path: Path, image: Path) -> None:
    for features in ([], ["--features"]):
        output = tmp_path / "spectrum.png"
        words = ["plot", "spectrum", "ffc_resnet18", "--size", "64", "--images", str(image), *features]
        assert main([*words, "--output", str(output)]) == 0
        assert is_picture(output)
        output.unlink()


def test_a_run_folder_stands_for_its_best_checkpoint(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = timm.create_model("ffc_resnet18", num_classes=2)
    metadata = {
        "task": "classification",
        "model": {"name": "ffc_resnet18", "arguments": {}},
        "classes": ["a", "b"],
        "data": {"transform": {"eval_size": 32}},
        "metrics": {},
    }
    save_weights(tmp_path / "best.safetensors", model.state_dict(), metadata)
    output = tmp_path / "spectrum.png"
    assert main(["plot", "spectrum", str(tmp_path), "--size", "32", "--output", str(output)]) == 0
    assert is_picture(output)


def test_curves_of_several_runs(tmp_path: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.csv").write_text(METRICS)
    output = tmp_path / "curves.png"
    runs = [str(tmp_path / name) for name in ("first", "second")]
    assert main(["plot", "curves", *runs, "--output", str(output)]) == 0
    assert is_picture(output)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], 'expected "picture" to be one of'),
        (["receptive-field", "resnet18", "--size", "0"], "size=0 must be positive"),
        (["receptive-field", "resnet18", "--size", "32", "--layers", "no"], "has no layer 'no'"),
        (["receptive-field", "resnet18", "--images", "missing.png"], "missing.png"),
        (["spectrum", "resnet18", "--size", "32"], "has no Fourier Unit"),
        (
            ["spectrum", "ffc_resnet18", "--layers", "layer1"],
            "--layers chooses among the layers of --features",
        ),
        (["curves", "missing"], "missing is no run folder"),
    ],
)
def test_wrong_words_get_one_line(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plot", *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [("", "has no row yet"), ("epoch,loss\n1,much\n", "is damaged"), ("epoch\n1,2\n", "is damaged")],
)
def test_a_damaged_history_is_named(
    tmp_path: Path, content: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "metrics.csv").write_text(content)
    assert main(["plot", "curves", str(tmp_path), "--output", str(tmp_path / "curves.png")]) == 2
    assert message in capsys.readouterr().err
