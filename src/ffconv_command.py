"""The ``ffconv`` script: what commands there are is said at once, the rest is :func:`ffconv.cli.main`.

It stands beside the package because whatever is imported from the package imports torch, and timm, whose
registry our networks enter: seconds, for a list of ten lines.
"""

from __future__ import annotations

import sys

COMMANDS = {
    "train": "train a network, or go on with a stopped run",
    "evaluate": "score a checkpoint: accuracy of classes, AP of keypoints",
    "predict": "name what is in images and videos, or find keypoints in them",
    "inpaint": "fill the holes of images",
    "ablate": "train a list of variants with several seeds and print the paper's Tables 2 and 3",
    "export": "write a network as ONNX, torch.export or TorchScript, checked against it",
    "package": "write a checkpoint as a folder for model hubs and timm, and push it",
    "shards": "pack a folder of images or videos into webdataset shards",
    "complexity": "parameters and multiply-adds of networks, and the paper's tables beside ours",
    "explain": "which implementation runs each FFC of a network, and why",
    "benchmark": "speed and memory of layers and networks, speed of reading videos",
    "plot": "receptive fields, spectra and training curves",
    "demo": "train a small FFC network and its plain twin within minutes",
}


def asks_for_overview(words: list[str]) -> bool:
    """Return True if a command line names no command, or wants to know them."""
    return not words or words[0] in ("-h", "--help")


def overview() -> str:
    """The commands, a line each."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {text}" for name, text in COMMANDS.items()]
    return "\n".join(
        [
            "usage: ffconv COMMAND [OPTIONS]",
            "",
            "Fast Fourier Convolution: train, evaluate and look into FFC networks.",
            "",
            *lines,
            "",
            "ffconv COMMAND --help tells a command's options; ffconv --version the version.",
        ]
    )


def main() -> int:
    """Runs the process's command line; returns the exit code."""
    if asks_for_overview(sys.argv[1:]):
        sys.stdout.write(f"{overview()}\n")
        return 0
    from ffconv.cli import main as run

    return run()
