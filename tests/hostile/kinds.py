"""The kinds of files that are read: how a sound one is made, how it is read, and what must come of it."""

from __future__ import annotations

import gzip
import json
import random
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file

from coco_files import content, write
from ffconv.cli.parser import CommandParser
from ffconv.cli.plot import _metrics
from ffconv.cli.train import parse
from ffconv.data.coco_format import read_annotations, read_detections
from ffconv.data.coco_keypoints import CocoKeypoints
from ffconv.data.config import DataConfig
from ffconv.data.decoding import read_image
from ffconv.data.image_masks import hole_of_mask, masked_images
from ffconv.data.images import ImageFolder
from ffconv.data.shard_index import read_index
from ffconv.data.shard_writing import write_shards
from ffconv.data.shards import LocalShards
from ffconv.data.streaming import ShardStream
from ffconv.data.transforms import ImageTransformConfig
from ffconv.data.video_reading import open_with_pyav
from ffconv.data.videos import class_names, listed_videos, read_list
from ffconv.interop.hub import save_pretrained
from ffconv.interop.reading import find_weights, read_checkpoint
from ffconv.tasks.classification import Classification, ClassificationConfig
from ffconv.tasks.networks import ModelConfig, load_trained
from ffconv.tasks.packaging import open_for_hub
from ffconv.tasks.person_boxes import BoxFile, Picture
from ffconv.training.checkpoint import load_state, read_metadata, read_safetensors, save_state, save_weights
from ffconv.training.folder import RunFolder
from ffconv.training.task import Share
from hostile.damage import (
    broken_bytes,
    broken_json,
    broken_values,
    broken_yaml,
    lying_pickle,
    lying_png,
    lying_safetensors,
    lying_tar,
)
from video_files import make_video

Variants = Callable[[bytes, random.Random], Iterator[tuple[str, bytes]]]


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Args:
        make: Writes a sound file, and what belongs to it, into a folder; returns the file that is broken.
        read: Reads it as the package does.
        exact: Whether the format has check sums, so that what is read must be what was written.
        sound: Whether something that was read is well-formed.
        variants: Generators of damages.
    """

    make: Callable[[Path], Path]
    read: Callable[[Path], Any]
    exact: bool = False
    sound: Callable[[Any], bool] = lambda found: True
    variants: tuple[Variants, ...] = field(default=(broken_bytes,))


def _picture(number: int = 0, size: tuple[int, int] = (48, 40)) -> Image.Image:
    noise = np.random.default_rng(number).integers(0, 256, (size[1] // 4, size[0] // 4, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)


# Images


def _image(extension: str, *variants: Variants) -> Kind:
    def make(folder: Path) -> Path:
        _picture().save(path := folder / f"x.{extension}")
        return path

    return Kind(make, read_image, sound=_is_picture, variants=(broken_bytes, *variants))


def _is_picture(image: Any) -> bool:
    return image.mode == "RGB" and 0 < image.width * image.height <= Image.MAX_IMAGE_PIXELS


def _folder_of_images(folder: Path) -> Path:
    for name in ("a", "b"):
        (folder / name).mkdir()
        for number in range(2):
            _picture(number).save(folder / name / f"{number}.png")
    return folder / "a" / "0.png"


def _read_folder(path: Path) -> list[Any]:
    samples = ImageFolder(path.parents[1])
    return [samples[index] for index in range(len(samples))]


def _image_and_mask(folder: Path) -> Path:
    _picture().save(folder / "x.png")
    mask = np.zeros((40, 48), np.uint8)
    mask[10:20, 10:20] = 255
    Image.fromarray(mask).save(folder / "x_mask.png")
    return folder / "x_mask.png"


def _read_mask(path: Path) -> Any:
    (pair,) = masked_images(path.parent / "x.png", path)
    mask = pair.read_mask()
    return None if mask is None else hole_of_mask(mask, (48, 40))


# Videos


def _video(name: str, codec: str) -> Kind:
    return Kind(lambda folder: make_video(folder / name, codec=codec), _read_video, sound=_are_frames)


def _read_video(path: Path) -> list[Any]:
    with open_with_pyav(path, str(path)) as video:
        pictures = list(video.read([0.0, 0.2, video.seconds / 2]).pictures)
        return pictures + [frame.picture for frame in video.frames()]


def _are_frames(pictures: list[Any]) -> bool:
    return all(picture.dtype == np.uint8 and picture.shape[-1] == 3 for picture in pictures)


def _video_list(folder: Path) -> Path:
    (folder / "x.txt").write_text("".join(f"videos/{number}.mp4 {number % 3}\n" for number in range(20)))
    return folder / "x.txt"


def _kinetics_list(folder: Path) -> Path:
    rows = [f"run {number % 3},id{number},{number},{number + 10},train" for number in range(20)]
    (folder / "x.csv").write_text("\n".join(["label,youtube_id,time_start,time_end,split", *rows]))
    return folder / "x.csv"


def _read_videos(path: Path) -> Any:
    videos, _ = read_list(path, path.parent)
    samples = listed_videos(videos, class_names({video.label for video in videos}), path)
    return [samples[index] for index in range(len(samples))]


# Shards


def _shards(folder: Path) -> Path:
    sound = folder / "images"
    sound.mkdir()
    _folder_of_images(sound)
    write_shards(ImageFolder(sound), folder / "shards", progress=False)
    return folder / "shards" / "000000.tar"


def _bare_shard(folder: Path) -> Path:
    path = _shards(folder)
    for name in ("samples.npy", "shards.json"):
        path.with_name(name).unlink()
    return path


def _packed_shard(folder: Path) -> Path:
    path = _shards(folder)
    packed = path.with_suffix(".tar.gz")
    packed.write_bytes(gzip.compress(path.read_bytes(), mtime=0))
    return packed


def _read_shard(path: Path) -> list[Any]:
    samples = LocalShards([path.with_name("000000.tar")])
    return [samples[index] for index in range(len(samples))]


def _read_stream(path: Path) -> list[Any]:
    index = read_index(str(path.with_name("shards.json")))
    return [tuple(raw) for raw in ShardStream([str(path)], index).read(0)]


# Annotations


def _annotations(folder: Path) -> Path:
    return write(folder, content())


def _read_annotations(path: Path) -> Any:
    persons = CocoKeypoints(path, path.parent / "images")
    return [persons[index] for index in range(len(persons))], persons.ground_truth()


def _detections(folder: Path) -> Path:
    write(folder, content())
    boxes = [{"image_id": 7, "category_id": 5, "bbox": [1, 1, 20, 20], "score": 0.5} for _ in range(5)]
    (folder / "boxes.json").write_text(json.dumps(boxes))
    return folder / "boxes.json"


def _read_detections(path: Path) -> Any:
    return read_detections(path, read_annotations(path.with_name("annotations.json")))


def _read_boxes(path: Path) -> Any:
    return BoxFile(path, threshold=0.0, category=5)(Picture("7.png", 7, Image.new("RGB", (64, 48))))


# Recipes and run folders


def _recipe(folder: Path) -> Path:
    fields = {
        "model": {"name": "test_resnet", "arguments": {"drop_rate": 0.1}},
        "data": {"format": "digits", "transform": {"eval_size": 32, "eval_short_side": 32, "train_size": 32}},
        "loop": {"epochs": 3, "batch_size": 8},
        "optim": {"lr": 0.1, "betas": [0.9, 0.99]},
        "limit": 10,
    }
    (folder / "x.yaml").write_text(yaml.safe_dump(fields))
    return folder / "x.yaml"


def _read_recipe(path: Path) -> Any:
    return parse(CommandParser(), ["--config", str(path)])


_CONFIG: dict[str, Any] = {"output": "x", "loop": {"epochs": 5, "log_every": 10}, "data": {"path": "/a"}}


def _run_folder(name: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        with RunFolder(folder / "run", _CONFIG) as run:
            run.start(device=torch.device("cpu"), resume=False)
            run.write_history([{"epoch": n, "train_loss": 1 / n, "top1": 10.0 * n} for n in range(1, 4)])
        return folder / "run" / name

    return make


def _check_run(path: Path) -> None:
    RunFolder(path.parent, _CONFIG).check(resume=True)


# Weights


def _state(folder: Path) -> Path:
    for step in range(2):
        weights = torch.randn(50, 40, generator=torch.Generator().manual_seed(step))
        save_state(folder, {"position": {"step": step}, "network": {"w": weights}})
    return folder / "state.pt"


def _read_state(path: Path) -> Any:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        return load_state(path.parent), [str(warning.message) for warning in said]


def _is_newest_or_announced(found: Any) -> bool:
    state, said = found
    step = state["position"]["step"]
    drawn = torch.randn(50, 40, generator=torch.Generator().manual_seed(step))
    announced = any("going on from the checkpoint before" in line for line in said)
    return torch.equal(state["network"]["w"], drawn) and (step == 1 or announced)


def _checkpoint(folder: Path) -> Path:
    sizes = ImageTransformConfig(train_size=32, eval_short_side=32, eval_size=32)
    config = ClassificationConfig(ModelConfig("test_resnet"), DataConfig(format="digits", transform=sizes))
    task = Classification(config, Share(batch_size=1), classes=("cat", "dog", "owl"))
    torch.manual_seed(0)
    metadata = {**task.metadata(), "metrics": {"top1": 50.0}}
    save_weights(folder / "x.safetensors", task.build_model().state_dict(), metadata)
    return folder / "x.safetensors"


def _read_trained(path: Path) -> Any:
    found = load_trained(path)
    return found.network.state_dict(), found.info.metadata()


def _lying_metadata(content: bytes, chance: random.Random) -> Iterator[tuple[str, bytes]]:
    """Yield checkpoints with damaged metadata and the right check sum."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "x.safetensors"
        path.write_bytes(content)
        weights, metadata = read_safetensors(path), read_metadata(path)
        for name, fields in broken_values(metadata, chance):
            save_weights(path, weights, fields)
            yield name, path.read_bytes()


def _package(name: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        network, about = open_for_hub(_checkpoint(folder))
        save_pretrained(network, folder / "package", replace(about, checkpoint=None))
        return folder / "package" / name

    return make


def _read_package(path: Path) -> Any:
    found = load_trained(path.with_name("model.safetensors"))
    return found.network.state_dict(), found.info.metadata()


def _torch_file(**options: Any) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        generator = torch.Generator().manual_seed(0)
        weights = {f"layer{n}.weight": torch.randn(20, 30, generator=generator) for n in range(3)}
        torch.save({"state_dict": weights, "epoch": 3}, folder / "x.pth", **options)
        return folder / "x.pth"

    return make


def _torchscript(folder: Path) -> Path:
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(20, 30), torch.nn.Linear(30, 4))
    torch.jit.script(network).save(str(folder / "x.pt"))
    return folder / "x.pt"


def _safetensors(folder: Path) -> Path:
    save_file({f"layer{n}.weight": torch.ones(20, 30) for n in range(3)}, folder / "x.safetensors")
    return folder / "x.safetensors"


def _are_tensors(found: dict[str, torch.Tensor]) -> bool:
    return all(isinstance(tensor, torch.Tensor) for tensor in found.values())


def _read_weights(path: Path) -> Any:
    return find_weights(read_checkpoint(path), source=str(path))[0]


KINDS: dict[str, Kind] = {
    **{f"image {name}": _image(name) for name in ("jpg", "gif", "bmp", "tif", "webp", "ppm")},
    "image png": _image("png", lying_png),
    "folder of images": Kind(_folder_of_images, _read_folder, sound=lambda samples: len(samples) >= 3),
    "mask": Kind(_image_and_mask, _read_mask, sound=lambda hole: hole.any() and not hole.all()),
    "video mp4": _video("x.mp4", "libx264"),
    "video mkv": _video("x.mkv", "ffv1"),
    "video webm": _video("x.webm", "libvpx-vp9"),
    "video avi": _video("x.avi", "mpeg4"),
    "video ts": _video("x.ts", "mpeg2video"),
    "video list": Kind(_video_list, _read_videos),
    "kinetics list": Kind(_kinetics_list, _read_videos),
    "shard": Kind(_shards, _read_shard, sound=lambda samples: len(samples) == 4),
    "shard without index": Kind(_bare_shard, _read_shard, sound=lambda samples: len(samples) == 4),
    "tar": Kind(_bare_shard, _read_shard, variants=(lying_tar,)),
    "packed shard": Kind(_packed_shard, _read_stream, exact=True),
    "shards.json": Kind(
        lambda folder: _shards(folder).with_name("shards.json"),
        _read_shard,
        sound=lambda samples: len(samples) == 4,
        variants=(broken_bytes, broken_json),
    ),
    "samples.npy": Kind(lambda folder: _shards(folder).with_name("samples.npy"), _read_shard),
    "annotations": Kind(_annotations, _read_annotations, variants=(broken_bytes, broken_json)),
    "detections": Kind(_detections, _read_detections, variants=(broken_bytes, broken_json)),
    "boxes": Kind(_detections, _read_boxes, variants=(broken_bytes, broken_json)),
    "recipe": Kind(_recipe, _read_recipe, variants=(broken_bytes, broken_yaml)),
    "config.yaml": Kind(_run_folder("config.yaml"), _check_run, variants=(broken_bytes, broken_yaml)),
    "environment.json": Kind(
        _run_folder("environment.json"), _check_run, variants=(broken_bytes, broken_json)
    ),
    "metrics.csv": Kind(_run_folder("metrics.csv"), lambda path: _metrics(path.parent)),
    "state.pt": Kind(_state, _read_state, sound=_is_newest_or_announced),
    "checkpoint": Kind(_checkpoint, _read_trained, exact=True),
    "metadata of a checkpoint": Kind(_checkpoint, _read_trained, variants=(_lying_metadata,)),
    "config.json": Kind(_package("config.json"), _read_package, variants=(broken_bytes, broken_json)),
    "model.safetensors": Kind(_package("model.safetensors"), _read_package, exact=True),
    "torch archive": Kind(_torch_file(), _read_weights, exact=True),
    "pickle": Kind(_torch_file(), _read_weights, sound=_are_tensors, variants=(lying_pickle,)),
    "safetensors": Kind(
        _safetensors, _read_weights, sound=_are_tensors, variants=(broken_bytes, lying_safetensors)
    ),
    "torch file before 1.6": Kind(_torch_file(_use_new_zipfile_serialization=False), _read_weights),
    "torchscript": Kind(_torchscript, _read_weights, exact=True),
}
