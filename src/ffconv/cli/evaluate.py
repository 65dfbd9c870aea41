"""``ffconv evaluate``: what a checkpoint is worth on exactly the samples of a set."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from ffconv.cli.checkpoints import add_device, parse_by_task
from ffconv.cli.parser import CommandParser
from ffconv.cli.recipes import refuse_commands, take_recipes
from ffconv.errors import require

HELP = (
    "What a checkpoint is worth: for classes top-1, top-5, accuracy per class and confusion matrix, for"
    " keypoints COCO's AP and AR, for filled holes PSNR and SSIM."
    " Where the data is, is said by --data.path, --data.format or --config; the options are those of the"
    " checkpoint's task: ffconv evaluate CHECKPOINT --help."
)
PARALLEL = True

MODULES = {
    "classification": "ffconv.cli.evaluate_classes",
    "inpainting": "ffconv.cli.evaluate_inpainting",
    "action": "ffconv.cli.evaluate_classes",
    "pose": "ffconv.cli.evaluate_poses",
}


def parse(parser: CommandParser, argv: Sequence[str]) -> Any:
    """Parse the options; ``given`` holds those that are given, ``recipe`` the fields of ``--config``."""
    recipe, _, words = take_recipes(argv)
    refuse_commands(recipe)
    parser.add_argument(
        "--config",
        type=str | None,
        help="recipe, or config.yaml of a run, whose data section says where the data is",
    )
    parser.add_argument(
        "--weights", type=Literal["best", "last"], default="best", help="which of a run folder"
    )
    parser.add_argument("--split", type=Literal["train", "val"], default="val", help="which samples")
    parser.add_argument("--batch_size", type=int, default=64, help="samples per batch and process")
    parser.add_argument(
        "--precision", type=Literal["no", "bf16", "fp16"], default="no", help="mixed precision"
    )
    add_device(parser)
    parser.add_argument("--limit", type=int | None, default=None, help="no more than this many samples")
    parser.add_argument("--output", type=Path | None, default=None, help="folder of what is written")
    arguments = parse_by_task(parser, words, MODULES)
    arguments.given = parser.parse_args(words, defaults=False).as_dict()
    arguments.recipe = recipe
    return arguments


def run(arguments: Any) -> int:
    """Evaluates; under torchrun or accelerate launch the processes share the samples."""
    require(arguments.batch_size > 0, f"batch_size={arguments.batch_size} must be at least 1")
    return importlib.import_module(MODULES[arguments.task]).run(arguments)
