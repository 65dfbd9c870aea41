"""``ffconv explain``: which implementation runs each FFC of a network, and why each faster one does not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace

HELP = "Which implementation runs each FFC of a network, and why each faster one does not."


def add_arguments(parser: ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument(
        "network",
        type=str,
        metavar="MODEL",
        help="name[,argument=value,...] of a timm, torchvision or ffconv network",
    )
    parser.add_argument("--batch_size", type=int, default=1, help="images of the example (default: 1)")
    parser.add_argument(
        "--size", type=int, default=224, help="height and width of the example (default: 224)"
    )
    parser.add_argument("--device", type=str, default="cpu", help="device of the network (default: cpu)")
    parser.add_argument(
        "--mode", type=Literal["inference", "training"], default="inference", help="inference or training"
    )
    parser.add_argument("--fuse", action="store_true", help="fold norms first, as ffconv.fuse does")


def run(arguments: Namespace) -> None:
    """Print one line for each FFC."""
    import torch

    import ffconv
    from ffconv.analysis.networks import NetworkSpec
    from ffconv.errors import require
    from ffconv.wording import say

    require(arguments.batch_size > 0, f"batch_size={arguments.batch_size} must be positive")
    require(arguments.size > 0, f"size={arguments.size} must be positive")
    training = arguments.mode == "training"
    require(not (training and arguments.fuse), "--fuse folds norms, which leaves nothing to train")
    network: Any = NetworkSpec.parse(arguments.network).build().train(training).to(arguments.device)
    if arguments.fuse:
        network = ffconv.fuse(network)
    images = torch.randn(arguments.batch_size, 3, arguments.size, arguments.size, device=arguments.device)
    with torch.set_grad_enabled(training):
        explanations = ffconv.explain(network, images)
    for line in str(explanations).splitlines():
        say(line)
