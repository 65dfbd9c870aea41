"""Read what the config.json of a package says of its network, see :mod:`.checkpoint_info`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import nn

from ffconv.data.clip_config import ClipConfig
from ffconv.errors import InputError, require
from ffconv.files import read_json
from ffconv.interop.typed_fields import (
    MOST_CLASSES,
    log_dropped,
    read_arguments,
    read_section,
    read_table,
    read_value,
    require_name,
    shown,
)
from ffconv.models.registry import create_network

#: Files of a package, see :mod:`ffconv.interop.hub`.
CONFIG, WEIGHTS = "config.json", "model.safetensors"

Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming", "random"]

# Fields of timm's config.json that are read, or say nothing of how the network is used.
_KNOWN = frozenset(
    (
        *("architecture", "num_classes", "num_features", "global_pool", "label_names", "label_descriptions"),
        *("model_args", "pretrained_cfg", "ffconv", "tag", "custom_load", "first_conv", "classifier"),
        *("license", "description", "paper_name", "paper_ids", "origin_url", "notes"),
    )
)


@dataclass(frozen=True)
class PackageInfo:
    """What the config.json of a package says of its network, by timm's names.

    Args:
        name: in timm's registry.
        arguments: of the network.
        num_classes: number of its outputs.
        classes: names of the outputs; empty where they have none.
        frames: of a clip, where it takes clips.
        preprocessing: sizes and normalisation.
    """

    name: str
    arguments: dict[str, Any]
    num_classes: int | None
    classes: tuple[str, ...]
    frames: int
    preprocessing: TimmPreprocessing

    def create(self, weights: Path) -> nn.Module:
        """Make the network of a file of weights, what is known of it in ``pretrained_cfg``.

        Raises:
            InputError: if it refuses an argument, or is far larger than the file.
        """
        about = {name: value for name, value in vars(self.preprocessing).items() if value is not None}
        # What the registry says of other weights of this name is not of these.
        of_others = ("url", "file", "hf_hub_id", "hf_hub_filename", "source", "tag", "test_input_size")
        cfg = {
            **dict.fromkeys((*of_others, "test_crop_pct", "test_pool_size", "label_offset")),
            "custom_load": False,
            **about,
            "label_names": list(self.classes) or None,
        }
        if self.num_classes is not None:
            cfg["num_classes"] = self.num_classes
        arguments = {**self.arguments, "pretrained_cfg_overlay": cfg}
        return create_network(self.name, arguments, weights=weights)


@dataclass(frozen=True)
class TimmPreprocessing:
    """The fields of timm's ``pretrained_cfg`` that say how inputs are prepared."""

    input_size: tuple[int, int, int] | None = None
    test_input_size: tuple[int, int, int] | None = None
    min_input_size: tuple[int, int, int] | None = None
    fixed_input_size: bool | None = None
    pool_size: tuple[int, ...] | None = None
    test_pool_size: tuple[int, ...] | None = None
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming", "random"] | None = (
        None
    )
    crop_pct: float | None = None
    test_crop_pct: float | None = None
    crop_mode: Literal["center", "squash", "border"] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None


def read_package(folder: Path, *, log: bool = True) -> PackageInfo:
    """Return what the config.json of a package says of a network that timm's registry has.

    Raises:
        InputError: in one line, if it is missing or damaged, its network is none of the registry's, or a
            field is of another type or out of bounds.
    """
    dropped: list[str] = []
    path = folder / CONFIG
    config = read_config(path)
    ours = read_table(config.get("ffconv") or {}, f"{path}: ffconv")
    require(
        "architecture" in config,
        f"{folder} has the weights of {shown(ours.get('class'))}, which timm's registry does not have: build"
        " it, and give it as network= to ffconv.from_pretrained",
    )
    try:
        info = _read_timm_config(config, ours, dropped)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    if log:
        log_dropped(path, dropped)
    return info


def describe_inputs(classes: Sequence[str], preprocessing: Mapping[str, Any]) -> dict[str, Any]:
    """Return what :func:`read_inputs` reads: classes and preprocessing of a network of one's own, for JSON.

    Raises:
        InputError: for a field of preprocessing that timm does not have, or of another type.
    """
    dropped: list[str] = []
    plain = {
        name: list(value) if isinstance(value, tuple) else value for name, value in preprocessing.items()
    }
    read_section(TimmPreprocessing, plain, "preprocessing", dropped)
    known = ", ".join(each.name for each in dataclasses.fields(TimmPreprocessing))
    require(not dropped, f"{', '.join(dropped)}: preprocessing has the fields {known}")
    described: dict[str, Any] = {"label_names": list(classes), "pretrained_cfg": plain}
    return {name: value for name, value in described.items() if value}


def read_inputs(folder: Path) -> dict[str, Any]:
    """Return classes and preprocessing of a package, by the names of timm's ``pretrained_cfg``.

    Raises:
        InputError: in one line, if config.json is missing or damaged, or a field is of another type.
    """
    path, dropped = folder / CONFIG, list[str]()
    config = read_config(path)
    try:
        known = read_table(config.get("pretrained_cfg") or {}, "pretrained_cfg")
        names = {each.name for each in dataclasses.fields(TimmPreprocessing)}
        about = {name: value for name, value in known.items() if name in names}
        found = vars(read_section(TimmPreprocessing, about, "pretrained_cfg", dropped))
        classes = _read_label_names(config.get("label_names", known.get("label_names")))
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    described = {**found, "label_names": list(classes)}
    return {name: value for name, value in described.items() if value is not None and value != []}


def read_config(path: Path) -> dict[str, Any]:
    """Return the fields of a package's config.json.

    Raises:
        InputError: if it is missing, damaged, or of another library.
    """
    config = read_json(path)
    require(isinstance(config, dict), f"{path}: must hold fields and values")
    kind = (
        f", but of a {shown(config['model_type'])}" if "model_type" in config else ""
    )  # as transformers has it
    require("architecture" in config or "ffconv" in config, f"{path} is not of timm or ffconv{kind}")
    return config


def _read_timm_config(config: Mapping[str, Any], ours: Mapping[str, Any], dropped: list[str]) -> PackageInfo:
    name = config["architecture"]
    require_name(name, "architecture")
    known = read_table(config.get("pretrained_cfg", config), "pretrained_cfg")  # older ones have one level
    count = config.get("num_classes", known.get("num_classes"))
    used = {each.name for each in dataclasses.fields(TimmPreprocessing)}
    about = {each: value for each, value in known.items() if each in used}
    dropped += [f"ffconv.{each}" for each in ours if each not in ("version", "class", "frames")]
    dropped += [each for each in config if each not in _KNOWN | used]
    if known is not config:
        dropped += [f"pretrained_cfg.{each}" for each in known if each not in _KNOWN | used]
    return PackageInfo(
        name,
        read_arguments(config.get("model_args") or {}, "model_args", dropped),
        read_value(int | None, count, "num_classes", dropped, largest=MOST_CLASSES),
        _read_label_names(config.get("label_names", known.get("label_names"))),
        read_value(int, ours.get("frames", ClipConfig.frames), "ffconv.frames", dropped),
        read_section(TimmPreprocessing, about, "pretrained_cfg", dropped),
    )


def _read_label_names(names: Any) -> tuple[str, ...]:
    """Names of the outputs, which timm keeps as a list, or as a table by number."""
    if isinstance(names, Mapping):
        numbers = [str(number) for number in range(len(names))]
        require(set(numbers) == set(map(str, names)), "label_names must have a name for each number from 0")
        names = [dict(zip(map(str, names), names.values(), strict=True))[number] for number in numbers]
    return read_value(tuple[str, ...] | None, names, "label_names", []) or ()
