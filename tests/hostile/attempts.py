"""Reads the damaged files of a kind in a process of its own, with limits, and says what came of each."""

from __future__ import annotations

import itertools
import random
import resource
import signal
import sys
import traceback
import warnings
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from PIL import Image

from ffconv.errors import InputError
from hostile.damage import SPECIALS, make_special
from hostile.kinds import KINDS, Kind

SECONDS = 10
GIGABYTES = 3
SEED = 20

#: Python's own events of what no file may make us do.
ORDERS = (
    *("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork"),
    *("socket.connect", "socket.getaddrinfo"),
)


class _TimeoutError(BaseException):
    """Not an Exception: no handler of the package may take it for a damaged file."""


class _OrderError(BaseException):
    """A file gave an order."""


@dataclass(frozen=True)
class Result:
    """What came of a damaged file: "right", "refused", or what is wrong."""

    variant: str
    outcome: str


def attempt(name: str, folder: Path, connection: Connection) -> None:
    """Break the file of a kind in all ways, read each, and send a `Result` for each, None in the end.

    Before each file its name is sent, so that a crash or a hang can be told from others.
    """
    kind = KINDS[name]
    path = kind.make(folder)
    _limit()
    for outside in (folder, folder.parent):
        Image.new("RGB", (8, 8)).save(outside / "outside.png")
    content, expected = path.read_bytes(), kind.read(path)
    chance = random.Random(f"{SEED} {name}")
    for variant, damaged in itertools.chain(*(variants(content, chance) for variants in kind.variants)):
        connection.send(variant)
        path.write_bytes(damaged)
        connection.send(Result(variant, _outcome(kind, path, expected)))
    for special in SPECIALS:
        connection.send(special)
        _remove(path)
        make_special(path, special)
        connection.send(Result(special, _outcome(kind, path, expected)))
    connection.send(None)


def _limit() -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    size = pages * resource.getpagesize() + GIGABYTES * 2**30
    resource.setrlimit(resource.RLIMIT_AS, (size, size))
    signal.signal(signal.SIGPROF, _late)
    sys.addaudithook(_refuse_orders)


def _late(number: int, frame: object) -> NoReturn:
    raise _TimeoutError


def _refuse_orders(event: str, arguments: tuple[Any, ...]) -> None:
    outside = event == "open" and str(arguments[0]).endswith("outside.png") and "r" in str(arguments[1])
    if event in ORDERS or outside:
        raise _OrderError(f"{event} {arguments[:2]}")


def _outcome(kind: Kind, path: Path, expected: Any) -> str:
    # Of the processor, so that a busy machine makes no difference; the parent process waits for longer.
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        found = kind.read(path)
    except InputError as error:  # the command line joins lines, cuts long ones off and escapes controls
        return "refused" if str(error).strip() else "is refused without a word"
    except _TimeoutError:
        return f"works for more than {SECONDS} s"
    except BaseException:
        return f"raises {traceback.format_exc(limit=-3)}"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    if kind.exact and not same(found, expected):
        return "gives other values without a word"
    return "right" if kind.sound(found) else f"gives {str(found)[:200]}"


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        path.rmdir()
    else:
        path.unlink(missing_ok=True)  # a damaged state is set aside


def same(a: Any, b: Any) -> bool:
    """Return True if two values, nested ones too, are equal to the last bit."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, np.ndarray):
        return isinstance(b, np.ndarray) and np.array_equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)
