"""Runs a script of timm's repository, or any other, with our networks in timm's registry.

    python -m ffconv.interop.timm_script pytorch-image-models/train.py --model ffc_resnet18 --data-dir DIR
    torchrun --nproc_per_node 4 -m ffconv.interop.timm_script pytorch-image-models/train.py ...

timm's ``train.py`` and ``validate.py`` take a network by its name in the registry, and cannot be told what to
import before. The words behind the script are its own.
"""

from __future__ import annotations

import runpy
import sys
from collections.abc import Sequence
from pathlib import Path

import ffconv.models  # noqa: F401  enters our networks in timm's registry
from ffconv.errors import InputError
from ffconv.wording import say


def main(argv: Sequence[str]) -> None:
    """Runs a script as ``python SCRIPT ...`` does.

    Args:
        argv: the script and its words.
    Raises:
        InputError: if there is no such file.
    """
    script = Path(argv[0]) if argv else None
    if script is None or not script.is_file():
        found = f"{script}: no such file" if script else "no script given"
        raise InputError(f"{found}; usage: python -m ffconv.interop.timm_script SCRIPT [WORDS OF THE SCRIPT]")
    sys.argv = [str(script), *argv[1:]]
    sys.path.insert(0, str(script.resolve().parent))  # where Python looks first for what a script imports
    runpy.run_path(str(script), run_name="__main__")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except InputError as error:
        say(f"ffconv: {error}", file=sys.stderr)
        sys.exit(2)
