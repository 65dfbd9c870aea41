"""``ffconv package``: a checkpoint as a folder that model hubs, timm and our commands read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ffconv.cli.checkpoints import checkpoint_file
from ffconv.errors import require
from ffconv.wording import say

if TYPE_CHECKING:
    from ffconv.cli.parser import CommandParser

HELP = (
    "Writes a checkpoint as a folder of weights, configuration and model card, as the Hugging Face Hub, timm"
    " and the commands of ffconv read it. Nothing leaves the machine without --push."
)


def add_arguments(parser: CommandParser) -> None:
    """The options of the command."""
    parser.add_argument(
        "checkpoint",
        type=Path,
        help="a .safetensors checkpoint, a run folder, package, or LaMa's best.ckpt",
    )
    parser.add_argument("folder", type=Path, help="where to write")
    parser.add_argument(
        "--weights", type=Literal["best", "last"], default="best", help="which of a run folder"
    )
    parser.add_argument(
        "--data", type=str, default="", help="what the network was trained on, as the model card calls it"
    )
    parser.add_argument("--license", type=str, default="apache-2.0", help="of the weights")
    parser.add_argument(
        "--push", type=str | None, default=None, help="repository of the Hub to upload to, as in user/name"
    )
    parser.add_argument("--private", type=bool, default=False, help="make a new repository a private one")


def run(arguments: Any) -> None:
    """Writes the folder, uploads it where asked to, and says where it is."""
    import dataclasses

    from ffconv.interop.hub import save_pretrained, upload
    from ffconv.tasks.packaging import open_for_hub

    path, folder = checkpoint_file(arguments.checkpoint, arguments.weights), arguments.folder
    require(path.resolve().parent != folder.resolve(), f"{folder} holds the checkpoint: choose another")
    network, about = open_for_hub(path)
    about = dataclasses.replace(about, license=arguments.license, data=arguments.data)
    save_pretrained(network, folder, about, name=arguments.push)
    say(f"{folder} holds the package: ffconv.from_pretrained({str(folder)!r}) reads it")
    if arguments.push:
        say(upload(folder, arguments.push, private=arguments.private))
