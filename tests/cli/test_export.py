"""``ffconv export``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from commands import refused
from ffconv.cli import main
from ffconv.training.checkpoint import save_weights
from lama import Lama, save_lightning
from video_files import levels, make_video

SMALL = "ffc_resnet18,layers=[1,1,1,1],lfu=false,num_classes=3"
TRACE = ("--to", "torchscript", "--size", "64x33")


def command(model: object, path: Path, *words: str) -> list[str]:
    return ["export", str(model), "-o", str(path), *words]


def said_by(path: Path) -> dict[str, Any]:
    """What a TorchScript file says of itself."""
    extra = {"ffconv.json": ""}
    torch.jit.load(str(path), _extra_files=extra)
    return {key: json.loads(value) for key, value in json.loads(extra["ffconv.json"]).items()}


def picture(path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def checkpoint(path: Path, name: str, outputs: int, metadata: dict[str, Any], **arguments: Any) -> Path:
    network = timm.create_model(name, num_classes=outputs, **arguments)
    model = {"name": name, "arguments": arguments}
    save_weights(path, network.state_dict(), {"model": model, "metrics": {}, **metadata})
    return path


@pytest.mark.slow
def test_a_named_network_as_onnx(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    image = picture(tmp_path / "a.png")
    words = ("--size", "65x47", "--check_input", str(image), "--time", "--rounds", "1")
    assert main(command(SMALL, tmp_path / "x.onnx", *words)) == 0
    printed = capsys.readouterr()
    assert "onnx opset 18, FFT backend dft_matmul" in printed.out
    assert "classification: image 1x3x65x47 float32 -> logits" in printed.out
    assert "weights: random" in printed.out
    assert f"{image} 1x3x65x47" in printed.out
    assert "onnxruntime, dft_matmul, float32" in printed.out
    assert printed.out.splitlines()[:4] == [
        f"writing {tmp_path / 'x.onnx'}",
        "loading it in onnxruntime",
        "running network and file with random 1x3x65x47",
        f"running network and file with {image} 1x3x65x47",
    ]
    assert printed.err == ""


def test_a_named_network_is_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(command(SMALL, tmp_path / "x.pt", *TRACE)) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("random 1x3x64x33"))
    assert float(line.split()[-1]) < 1e-4


def test_random_weights_with_maps_of_one_pixel(tmp_path: Path):
    """Norms of single pixels, each divided by its own size, would leave nothing but rounding."""
    name = "ffc_resnet18,num_classes=3"
    assert main(command(name, tmp_path / "x.pt", "--to", "torchscript", "--size", "20x30")) == 0


def test_weights_of_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    network = timm.create_model("ffc_resnet18", layers=(1, 1, 1, 1), lfu=False, num_classes=3).eval()
    torch.save(network.state_dict(), tmp_path / "w.pth")
    words = (*TRACE, "--weights", str(tmp_path / "w.pth"))
    assert main(command(SMALL, tmp_path / "x.pt", *words)) == 0
    assert "weights: random" not in capsys.readouterr().out
    x = torch.randn(1, 3, 64, 33)
    torch.testing.assert_close(torch.jit.load(str(tmp_path / "x.pt"))(x), network(x), rtol=1e-4, atol=1e-4)


def test_a_checkpoint_of_classification(tmp_path: Path):
    cut = {"eval_size": 40, "mean": [0.1, 0.2, 0.3], "std": [0.5, 0.5, 0.6]}
    metadata = {"task": "classification", "classes": ["cat", "dog"], "data": {"transform": cut}}
    path = checkpoint(tmp_path / "best.safetensors", "test_resnet", 2, metadata)
    # A run folder stands for its best.
    words = ("--to", "torchscript", "--check_input", str(picture(tmp_path / "a.png")))
    assert main(command(path.parent, tmp_path / "x.pt", *words)) == 0
    said = said_by(tmp_path / "x.pt")
    assert (said["input_size"], said["classes"]) == ([3, 40, 40], ["cat", "dog"])
    assert (said["mean"], said["std"]) == (cut["mean"], cut["std"])


def test_a_checkpoint_of_action_recognition(tmp_path: Path):
    cut = {"frames": 4, "eval_size": 24, "mean": [0.5] * 3, "std": [0.5] * 3}
    metadata = {"task": "action", "classes": ["run", "jump"], "data": {"clip": cut}}
    path = checkpoint(tmp_path / "c.safetensors", "tiny_video", 2, metadata)
    video = make_video(tmp_path / "x.mp4", levels(12))
    words = ("--to", "torchscript", "--check_input", str(video))
    assert main(command(path, tmp_path / "x.pt", *words)) == 0
    said = said_by(tmp_path / "x.pt")
    assert (said["task"], said["input_size"]) == ("action", [3, 4, 24, 24])
    assert said["input_axes"] == ["batch", "channels", "time", "height", "width"]


def test_a_checkpoint_of_keypoints(tmp_path: Path):
    cut = {"input_size": [64, 96], "mean": [0.5] * 3, "std": [0.5] * 3}
    keypoints = {"names": ["head", "hand"], "skeleton": [], "flip_pairs": [], "sigmas": [0.1, 0.1]}
    metadata = {"task": "pose", "keypoints": keypoints, "data": {"transform": cut}}
    path = checkpoint(tmp_path / "c.safetensors", "pose", 2, metadata, backbone="test_resnet", width=8)
    assert main(command(path, tmp_path / "x.pt", "--to", "torchscript")) == 0
    said = said_by(tmp_path / "x.pt")
    assert (said["task"], said["classes"], said["multiple"]) == ("pose", ["head", "hand"], 32)


def test_a_checkpoint_of_lama(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = save_lightning(Lama(ngf=4, n_blocks=1).weights(torch.float32), tmp_path / "best.ckpt")
    words = ("--to", "torchscript", "--size", "48x32", "--check_input", str(picture(tmp_path / "a.png")))
    assert main(command(path, tmp_path / "x.pt", *words)) == 0
    assert "inpainting: image 1x4x48x32 float32 -> filled" in capsys.readouterr().out
    assert "mean" not in said_by(tmp_path / "x.pt")


@pytest.mark.parametrize(
    ("model", "words", "message"),
    [
        ("ffc_resnet19", (), "no network is called 'ffc_resnet19'; did you mean 'ffc_resnet1"),
        ("none.safetensors", (), "none.safetensors: no such file"),
        (SMALL, ("--size", "a"), "size 'a' must read side"),
        (SMALL, ("--time", "--rounds", "0"), "rounds=0 must be at least 1"),
        (SMALL, ("--size", "3x64x64"), "size '3x64x64' must read side or HxW"),
        (SMALL, ("--size", "3x4x64x64"), "must read side or HxW"),
        (SMALL, ("--frames", "8"), "frames=8 is for networks of clips"),
        (SMALL, ("--frames", "0"), "frames=0 must be at least 1"),
        (SMALL, ("--arguments", "{lfu: true}"), "are written ffc_resnet18"),
        ("lama_generator,width=4,blocks=0", ("--size", "60"), "takes sides that are multiples of 8"),
        (SMALL, ("--fft_backend", "torch", "--opset", "16"), "opset=16 must lie in 17 to 23"),
        (SMALL, ("--to", "tensorrt"), "tensorrt"),
        (SMALL, ("--check", "false", "--check_input", "a.png"), "check_input is for a check"),
        (SMALL, ("--check_input", "none.png"), "none.png"),
        (f"{SMALL},in_chans=1", ("--check_input", "none.png"), "takes 1 channels, not colours"),
        (SMALL, (*TRACE, "--tolerance", "0"), "is wrong and was not kept"),
    ],
)
def test_wrong_words_are_one_line_and_no_file(
    model: str, words: tuple[str, ...], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert message in refused(command(model, tmp_path / "x", *words), capsys)
    assert not list(tmp_path.iterdir())
