"""The README.md of a package: what the network is, what it costs, what it scores, how it is loaded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from ffconv.analysis.complexity import count_complexity
from ffconv.analysis.networks import takes_clips
from ffconv.errors import InputError
from ffconv.interop.checkpoint_info import CheckpointInfo
from ffconv.interop.export_input import task_of
from ffconv.nn import FFC1d, FFC2d, FFC3d
from ffconv.surgery import conversion_report

# The Hub's names of what our tasks do.
_PIPELINES = {
    "classification": "image-classification",
    "action": "video-classification",
    "pose": "keypoint-detection",
    "inpainting": "image-to-image",
}
_CITATION = """```bibtex
@inproceedings{chi2020fast,
  title={Fast Fourier Convolution},
  author={Chi, Lu and Jiang, Borui and Mu, Yadong},
  booktitle={Advances in Neural Information Processing Systems},
  year={2020}
}
```"""


@dataclass(frozen=True)
class About:
    """What a package says of a network beside its architecture and weights.

    Args:
        classes: names of the outputs, in their order.
        preprocessing: by timm's names: ``input_size`` (C, H, W), ``mean``, ``std``, ``interpolation``,
            ``crop_pct``; what is not given is the network's own.
        frames: of a clip, where the network takes clips.
        metrics: names and values for the card.
        data: what the network was trained on, in words.
        license: of the weights, by the Hub's names.
        checkpoint: what a checkpoint of ``ffconv train`` says of its network. With it the commands on
            checkpoints take the package, too.
    """

    classes: tuple[str, ...] = ()
    preprocessing: Mapping[str, Any] = field(default_factory=dict)
    frames: int = 8
    metrics: Mapping[str, float] = field(default_factory=dict)
    data: str = ""
    license: str = "apache-2.0"
    checkpoint: CheckpointInfo | None = None


def model_card(network: nn.Module, config: Mapping[str, Any], *, name: str, about: About) -> str:
    """The card's text, with the header that the Hub reads.

    Args:
        network: is counted.
        config: content of config.json.
        name: of the repository or folder.
        about: the rest.
    """
    from huggingface_hub import ModelCardData

    task = _task(network, config, about)
    header = ModelCardData(
        library_name="timm" if "architecture" in config else "ffconv",
        license=about.license,
        pipeline_tag=_PIPELINES.get(task or ""),
        tags=["ffconv", "fast-fourier-convolution", "pytorch"],
    )
    parts = [
        f"---\n{header.to_yaml()}\n---",
        f"# {name}",
        _introduction(network, config, about),
        _table(("", ""), _figures(network, config, about, task)),
    ]
    if about.metrics:
        rows = [(metric, f"{value:.6g}") for metric, value in about.metrics.items()]
        parts += ["## Metrics", _table(("metric", "value"), rows)]
    if task == "pose" and about.checkpoint is None:  # config.json does not say how heatmaps are read
        task = None
    parts += ["## Use", _use(network, config, name, task), "## Cite", _CITATION]
    return "\n\n".join(parts) + "\n"


def _task(network: nn.Module, config: Mapping[str, Any], about: About) -> str | None:
    """What the network does, as far as its checkpoint or its kind tells."""
    if about.checkpoint is not None:
        return about.checkpoint.task
    known = "architecture" in config and getattr(network, "num_classes", 0)
    return task_of(network) if known else None


def _introduction(network: nn.Module, config: Mapping[str, Any], about: About) -> str:
    architecture = config.get("architecture", config["ffconv"]["class"])
    layers = sum(isinstance(module, (FFC1d, FFC2d, FFC3d)) for module in network.modules())
    fourier = f" with {layers} Fast Fourier Convolutions (Chi, Jiang, Mu, NeurIPS 2020)" if layers else ""
    trained = f", trained on {about.data}" if about.data else ""
    return f"`{architecture}`{fourier}{trained}. Saved by ffconv {config['ffconv']['version']}."


def _figures(
    network: nn.Module, config: Mapping[str, Any], about: About, task: str | None
) -> Iterable[tuple[str, str]]:
    yield "parameters", f"{sum(p.numel() for p in network.parameters()) / 1e6:.2f} M"
    preprocessing = {**config.get("pretrained_cfg", {}), **about.preprocessing}
    if "input_size" in preprocessing:
        channels, *sides = preprocessing["input_size"]
        size = (channels, about.frames, *sides) if takes_clips(network) else (channels, *sides)
        yield f"multiply-adds at {'x'.join(map(str, size))}", _multiply_adds(network, size)
    for key in ("mean", "std", "interpolation", "crop_pct"):
        if key in preprocessing and task != "inpainting":  # whose images stay as they are
            yield key, str(preprocessing[key])
    arguments = config.get("model_args", {})
    if arguments:  # rules have a line for each convolution: config.json tells them
        shown = (f"{k}={v}" for k, v in arguments.items() if v is not None and k != "rules")
        yield "arguments", ", ".join(shown)
    if about.classes:
        yield "classes", str(len(about.classes))


def _multiply_adds(network: nn.Module, size: tuple[int, ...]) -> str:
    try:
        return f"{count_complexity(network, size).total().multiply_adds / 1e9:.3f} G"
    except InputError:
        return "not counted: the network does not take such an input"


def _use(network: nn.Module, config: Mapping[str, Any], name: str, task: str | None) -> str:
    if "architecture" not in config:
        return _use_of_own(network, config, name)
    source = "hf-hub" if "/" in name else "local-dir"
    lines = [
        "```python",
        "import ffconv, timm",
        "",
        f'network = ffconv.from_pretrained("{name}")',
        f'network = timm.create_model("{source}:{name}", pretrained=True)  # the same by timm',
    ]
    if "label_names" in config:
        lines.append('classes = network.pretrained_cfg["label_names"]')
    lines.append("```")
    commands = {
        "classification": "predict FOLDER photo.jpg",
        "action": "predict FOLDER clip.mp4",
        "pose": "predict FOLDER photo.jpg",
        "inpainting": "inpaint photo.png mask.png -o filled.png --checkpoint FOLDER",
    }
    if task in commands:
        lines += ["", "or, with the files in FOLDER,", "", f"```sh\nffconv {commands[task]}\n```"]
    return "\n".join(lines)


def _use_of_own(network: nn.Module, config: Mapping[str, Any], name: str) -> str:
    """How the weights of a network are read that timm's registry does not have."""
    made = f"a {config['ffconv']['class']}, built as for training"
    try:
        report = conversion_report(network)
        made += f", then ffconv.convert(network, ratio={report.ratio:g}, lfu={report.lfu})"
    except InputError:
        pass  # it was not converted
    lines = [
        "timm's registry does not have the architecture: build the network, then",
        "",
        "```python",
        "import ffconv",
        "",
        f"network = ...  # {made}",
        f'network = ffconv.from_pretrained("{name}", network=network)',
    ]
    if "label_names" in config:
        lines.append('classes = network.pretrained_cfg["label_names"]')
    return "\n".join([*lines, "```"])


def _table(head: tuple[str, str], rows: Iterable[tuple[str, str]]) -> str:
    return "\n".join(f"| {left} | {right} |" for left, right in (head, ("---", "---"), *rows))
