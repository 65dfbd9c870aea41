"""What comes with weights is data: it starts no process, opens no connection and chooses no file."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import socket
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from PIL import Image

import ffconv
from commands import image_folder
from ffconv.cli import main
from ffconv.data.clip_config import ClipConfig, ViewsConfig
from ffconv.data.keypoint_sets import COCO_PERSON
from ffconv.data.moving_digits import MovingDigits
from ffconv.data.pose_transforms import PoseTransformConfig
from ffconv.data.transforms import ImageTransformConfig
from ffconv.errors import InputError
from ffconv.interop.checkpoint_info import CheckpointInfo, ClipInfo, ImageInfo, InpaintingInfo, PoseInfo
from ffconv.tasks.networks import ModelConfig, build_network, load_trained
from ffconv.training.checkpoint import save_weights
from video_files import levels, make_video

IMAGES = ImageTransformConfig(train_size=32, eval_size=32, eval_short_side=32)
HOLES = ImageTransformConfig(
    train_size=32, eval_size=32, eval_short_side=32, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)
)
CLIPS = ClipConfig(frames=4, train_size=24, short_side=(24, 24), eval_size=24, eval_short_side=24, flip=0.0)
INFOS: dict[str, CheckpointInfo] = {
    "classification": ImageInfo("test_resnet", {"drop_rate": 0.1}, ("a", "b"), IMAGES),
    "action": ClipInfo("tiny_video", {"width": 4}, MovingDigits("val").classes, CLIPS, ViewsConfig(1, 1)),
    "pose": PoseInfo("pose", {"backbone": "test_resnet"}, COCO_PERSON, PoseTransformConfig((64, 32))),
    "inpainting": InpaintingInfo("lama_generator", {"width": 4, "blocks": 1}, HOLES),
}
# What checkpoints said of a run and its machine, and what timm.create_model would take.
OTHERS = {
    "data": {
        "path": "set",
        "format": "auto",
        "train": "train",
        "val": "val",
        "train_index": "",
        "val_index": "",
        "train_annotations": "",
        "val_annotations": "",
        "detections": "",
        "category": "",
        "classes": "",
        "workers": 0,
        "on_error": "raise",
        "verify": False,
        "shuffle_buffer": 9,
        "decoder": "pyav",
        "allow_commands": True,
        "keypoints": {"names": None},
        "validation": {"clips": 1, "crops": 1},
    },
    "model": {
        "weights": None,
        "arguments": {
            "pretrained": False,
            "checkpoint_path": None,
            "cache_dir": None,
            "pretrained_cfg": None,
            "pretrained_cfg_overlay": {"url": "", "file": "", "hf_hub_id": "", "source": ""},
        },
    },
    "output": "out",
    "device": "cpu",
    "resume": "no",
    "loop": {"device": "cpu"},
    "import": "os",
    "metrics": {"top1": 1.0},
}


def with_others(content: Mapping[str, Any], others: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(content)
    for name, value in others.items():
        inner = merged.get(name)
        merged[name] = with_others(inner, value) if isinstance(inner, dict) else copy.deepcopy(value)
    return merged


def leaves(content: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The places of all values and, as a whole may be replaced too, of all tables and lists."""
    if place:
        yield place
    if isinstance(content, dict):
        for name, value in content.items():
            yield from leaves(value, (*place, name))
    elif isinstance(content, (list, tuple)) and content:
        yield from leaves(content[0], (*place, 0))


def replaced(content: Any, place: tuple[Any, ...], value: Any) -> Any:
    content = copy.deepcopy(content)
    inner = content
    for step in place[:-1]:
        inner = inner[step]
    inner[place[-1]] = value
    return content


ORDERS = {"command": "pipe:touch {mark}", "address": "http://127.0.0.1:9/{mark}", "hub": "hf-hub:someone/net"}


@pytest.fixture(scope="module")
def weights() -> dict[str, dict[str, torch.Tensor]]:
    """Of a network of each task, which has run once, as the first run compiles what it needs."""
    found = {}
    for task, info in INFOS.items():
        outputs = len(info.names) or info.output_size[0]
        network = timm.create_model(info.name, num_classes=outputs, **info.arguments).eval()
        with torch.no_grad():
            network(torch.zeros(1, *info.input_size))
        found[task] = network.state_dict()
    return found


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Input of the commands."""
    folder = tmp_path_factory.mktemp("files")
    Image.new("RGB", (40, 36)).save(folder / "a.png")
    mask = Image.new("L", (40, 36))
    mask.paste(255, (5, 5, 20, 20))
    mask.save(folder / "mask.png")
    make_video(folder / "a.mp4", levels(12))
    image_folder(folder / "set" / "val", "ab", images=1)
    return folder


@pytest.fixture
def attempts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Takes note of each process and connection that is tried, and lets none be."""
    tried: list[str] = []

    def refusing(what: str) -> Any:
        def refuse(*arguments: Any, **options: Any) -> Any:
            tried.append(f"{what} {arguments[-1:]}")
            raise OSError(f"{what} in a test")

        return refuse

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refusing(f"socket.{name}"))
    for name in ("getaddrinfo", "create_connection"):
        monkeypatch.setattr(socket, name, refusing(name))
    monkeypatch.setattr(subprocess.Popen, "__init__", refusing("Popen"))
    for name in ("system", "popen", "posix_spawn", "posix_spawnp", "execv", "execve", "fork"):
        monkeypatch.setattr(os, name, refusing(name))
    monkeypatch.chdir(tmp_path)
    return tried


def commands(task: str, checkpoint: Path, files: Path) -> dict[str, list[str]]:
    """Every command that takes a checkpoint of the task, in as little time as it can take."""
    here, out = str(checkpoint), str(checkpoint.parent / "result")
    few = ["--limit", "2", "--device", "cpu", "--data.workers", "0", "--output", out]
    words = {
        "package": ["package", here, out],
        "export": ["export", here, "-o", f"{out}.pt", "--to", "torchscript", "--check", "false"],
        "plot": ["plot", "receptive-field", here, "--size", "32", "--output", f"{out}.png"],
    }
    match task:
        case "classification":
            words["predict"] = ["predict", here, str(files / "a.png"), "--device", "cpu"]
            words["evaluate"] = ["evaluate", here, "--data.path", str(files / "set"), *few]
        case "action":
            words["predict"] = ["predict", here, str(files / "a.mp4"), "--device", "cpu", "--clips", "1"]
            words["evaluate"] = ["evaluate", here, "--data.format", "moving_digits", *few]
        case "pose":
            words["predict"] = ["predict", here, str(files / "a.png"), "--device", "cpu"]
            words["predict"] += ["--boxes", "whole", "--output", out]
            words["evaluate"] = ["evaluate", here, "--data.format", "figures", *few]
        case "inpainting":
            words["inpaint"] = ["inpaint", str(files / "a.png"), str(files / "mask.png"), "-o", f"{out}.png"]
            words["inpaint"] += ["--checkpoint", here, "--device", "cpu"]
            words["evaluate"] = ["evaluate", here, "--data.format", "textures", *few]
    return words


def run_all(words: Mapping[str, list[str]]) -> dict[str, int]:
    """The exit code of each command; any exception is a failure of the test."""
    return {name: main(command) for name, command in words.items()}


def assert_nothing_happened(attempts: list[str], folder: Path) -> None:
    assert attempts == []
    made = {path.name for path in folder.rglob("*")}
    assert "mark" not in made
    assert made <= {path for path in made if path.startswith(("x.", "result"))} | WRITTEN


# What the commands write where the user told them to.
WRITTEN = {
    *("model.safetensors", "config.json", "README.md", "scores.json", "per_class.csv", "confusion.png"),
    *("keypoints.json", "samples.png", "a.png"),
}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("task", INFOS)
def test_what_is_not_used_is_dropped_by_every_command(
    task: str, order: str, weights: Any, files: Path, tmp_path: Path, attempts: list[str],
    caplog: pytest.LogCaptureFixture,
):  # fmt: skip
    """All fields that say something of a machine at once; the commands do their work."""
    others = {
        name: orders_everywhere(value, ORDERS[order].format(mark=tmp_path / "mark"))
        for name, value in OTHERS.items()
    }
    path = tmp_path / "x.safetensors"
    save_weights(path, weights[task], with_others(INFOS[task].metadata(), others))
    codes = run_all(commands(task, path, files))
    assert codes == {name: 2 if name == "plot" and task != "classification" else 0 for name in codes}
    assert_nothing_happened(attempts, tmp_path)
    lines = [record.getMessage() for record in caplog.records if "fields not used" in record.getMessage()]
    assert lines
    assert all("model.arguments.checkpoint_path" in line and "data.val_index" in line for line in lines)


def orders_everywhere(content: Any, order: str) -> Any:
    return (
        {name: orders_everywhere(value, order) for name, value in content.items()}
        if isinstance(content, dict)
        else order
    )


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("task", INFOS)
def test_no_field_gives_an_order(
    task: str, order: str, weights: Any, tmp_path: Path, attempts: list[str]
):  # fmt: skip
    """Each field alone: the network comes back, or is refused in one line."""
    order = ORDERS[order].format(mark=tmp_path / "mark")
    content = json.loads(json.dumps(with_others(INFOS[task].metadata(), OTHERS)))
    for place in leaves(content):
        save_weights(tmp_path / "x.safetensors", weights[task], replaced(content, place, order))
        with contextlib.suppress(InputError):
            load_trained(tmp_path / "x.safetensors")
    assert_nothing_happened(attempts, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("task", INFOS)
def test_no_field_gives_an_order_to_any_command(
    task: str, order: str, weights: Any, files: Path, tmp_path: Path, attempts: list[str]
):  # fmt: skip
    order = ORDERS[order].format(mark=tmp_path / "mark")
    content = json.loads(json.dumps(INFOS[task].metadata()))
    for number, place in enumerate(leaves(content)):
        path = tmp_path / f"x.{number}" / "x.safetensors"
        path.parent.mkdir()
        save_weights(path, weights[task], replaced(content, place, order))
        assert set(run_all(commands(task, path, files)).values()) <= {0, 2}
        with pytest.raises(InputError, match=r"do not fit"):
            build_network(ModelConfig("test_vit", weights=str(path)), 2)
    assert_nothing_happened(attempts, tmp_path)


@pytest.fixture(scope="module")
def package(weights: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package of weights that say nothing of themselves."""
    folder = tmp_path_factory.mktemp("package") / "bare"
    about = ffconv.About(("a", "b"), {"input_size": (3, 32, 32)})
    ffconv.save_pretrained(timm.create_model("test_resnet", num_classes=2), folder, about)
    return folder


CONFIG = {
    "architecture": "test_resnet",
    "num_classes": 2,
    "num_features": 96,
    "global_pool": "avg",
    "label_names": ["a", "b"],
    "model_args": {
        "num_classes": 2,
        "in_chans": 3,
        "global_pool": "avg",
        "block_args": {"act_layer": "relu"},
    },
    "pretrained_cfg": {
        "input_size": [3, 32, 32],
        "fixed_input_size": False,
        "interpolation": "bicubic",
        "crop_pct": 0.9,
        "crop_mode": "center",
        "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5],
        "num_classes": 2,
        "pool_size": [1, 1],
        "first_conv": "conv1.0",
        "classifier": "fc",
        "license": "mit",
        "tag": "x",
        "url": "",
        "file": "",
        "hf_hub_id": "",
        "hf_hub_filename": "",
        "source": "",
        "state_dict": {},
        "custom_load": False,
    },
    "ffconv": {"version": "0.1.0", "class": "ResNet", "frames": 8},
}


def bare(package: Path, folder: Path, config: Any) -> Path:
    folder.mkdir()
    (folder / "model.safetensors").write_bytes((package / "model.safetensors").read_bytes())
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize("order", ORDERS)
def test_no_field_of_a_package_gives_an_order(
    order: str, package: Path, tmp_path: Path, attempts: list[str]
):  # fmt: skip
    order = ORDERS[order].format(mark=tmp_path / "mark")
    for number, place in enumerate(leaves(CONFIG)):
        folder = bare(package, tmp_path / f"x.{number}", replaced(CONFIG, place, order))
        for read in (ffconv.from_pretrained, lambda folder: load_trained(folder / "model.safetensors")):
            with contextlib.suppress(InputError):
                read(folder)
    assert_nothing_happened(attempts, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("order", ORDERS)
def test_no_field_of_a_package_gives_an_order_to_any_command(
    order: str, package: Path, files: Path, tmp_path: Path, attempts: list[str]
):  # fmt: skip
    order = ORDERS[order].format(mark=tmp_path / "mark")
    for number, place in enumerate(leaves(CONFIG)):
        folder = bare(package, tmp_path / f"x.{number}", replaced(CONFIG, place, order))
        assert set(run_all(commands("classification", folder, files)).values()) <= {0, 2}
    assert_nothing_happened(attempts, tmp_path)
