"""The run folder: what was asked, where it ran, how it went.

config.yaml        the configuration as resolved; `ffconv train --config` takes it back
environment.json   versions, device and command line of each start
metrics.csv        a row an epoch
curves.png         the same, drawn
*.png              what else the task draws, such as samples.png of inpainting
tensorboard/       the same and the loss between, for TensorBoard
skipped.csv        unreadable samples that were left out, and why
best.safetensors   weights of the best epoch so far, averaged ones where an average is kept
last.safetensors   weights of the last complete epoch, likewise
state.pt           what the run needs to go on; state.previous.pt is the one before
state.damaged.pt   a state that was damaged when the run went on from the one before
run.lock           the process that works here, while it does
"""

from __future__ import annotations

import contextlib
import csv
import errno
import fcntl
import io
import json
import os
import socket
import warnings
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ffconv.environment import describe_environment
from ffconv.errors import InputError, require
from ffconv.files import make_folder, read_json, read_yaml, write_atomically
from ffconv.training.checkpoint import PREVIOUS_STATE, STATE
from ffconv.training.config import flatten

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

BEST = "best.safetensors"
LAST = "last.safetensors"
CONFIG = "config.yaml"
ENVIRONMENT = "environment.json"
METRICS = "metrics.csv"
SKIPPED = "skipped.csv"
LOCK = "run.lock"

# What may change between two starts of one run without changing its result.
_FREE = frozenset(
    {"output", "resume", "checkpoint.every", "loop.log_every", "data.path", "data.workers", "data.verify"}
)


class ProcessLock:
    """A file that one process holds; the system lets go of it when the process ends, however it does.

    Args:
        path: The file, made by `acquire` and removed by `release`; what a killed process left is taken over.
    """

    def __init__(self, path: Path):
        self.path = path
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Hold the file, and write into it who does.

        Raises:
            InputError: If another process holds it.
        """
        while self._descriptor is None:
            try:
                descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
            except OSError as error:
                raise InputError(f"cannot write {self.path}: {error.strerror}") from error
            try:
                # Unlike flock's, such a lock is not handed to forked data workers, which may outlive a kill.
                fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                holder = os.read(descriptor, 1000)
                os.close(descriptor)
                if error.errno in (errno.EACCES, errno.EAGAIN):
                    raise InputError(self._held_by(holder)) from error
                warnings.warn(
                    f"{self.path} cannot be locked ({error.strerror}): start no second run there",
                    stacklevel=2,
                )
                return
            if self._is_current(descriptor):
                self._descriptor = descriptor
            else:  # its holder removed the file after it was opened here
                os.close(descriptor)
        who = {"process": os.getpid(), "host": socket.gethostname(), "started": _now()}
        os.ftruncate(self._descriptor, 0)
        os.write(self._descriptor, json.dumps(who).encode())

    def release(self) -> None:
        """Remove the file and let go of it."""
        if self._descriptor is not None:
            with contextlib.suppress(OSError):
                self.path.unlink()
            os.close(self._descriptor)
            self._descriptor = None

    def _is_current(self, descriptor: int) -> bool:
        try:
            return os.path.samestat(os.fstat(descriptor), self.path.stat())
        except FileNotFoundError:
            return False

    def _held_by(self, content: bytes) -> str:
        try:
            who = json.loads(content)
            holder = f"process {who['process']} on {who['host']}, started {who['started']}"
        except (ValueError, KeyError, TypeError):  # read before it was written
            holder = "another process"
        return f"{self.path.parent} is in use by {holder}: wait for it, or choose another folder by --output"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


class RunFolder:
    """A run's files; only the main process of a run writes to it.

    Args:
        path: The folder.
        config: The whole configuration as plain values, see `ffconv.training.config.plain`.
    """

    def __init__(self, path: Path, config: Mapping[str, Any]):
        self.path = path
        self.config = dict(config)
        self._tensorboard: SummaryWriter | None = None
        self._lock = ProcessLock(path / LOCK)

    def check(self, *, resume: bool) -> None:
        """Check that the folder is free, or holds this run and may go on with it. Writes nothing.

        Raises:
            InputError: If it holds a run and `resume` is off, a run with another configuration, or one whose
                files are damaged or missing.
        """
        if not (self.path / CONFIG).is_file():
            state = next((name for name in (STATE, PREVIOUS_STATE) if (self.path / name).is_file()), None)
            require(
                state is None,
                f"{self.path} holds {state} of a run, but no {CONFIG} to compare with: put it back, remove"
                f" {state}, or choose another folder by --output",
            )
            return
        if not resume:
            raise InputError(
                f"{self.path} already holds a run: go on with it by --resume auto,"
                " or choose another folder by --output"
            )
        self._check_same(read_yaml(self.path / CONFIG))
        self._starts()

    def start(self, *, device: torch.device, resume: bool) -> None:
        """Make the folder, keep other processes out of it and write what this start is.

        Raises:
            InputError: If another process works in the folder, or as `check`: a run may have begun since.
        """
        import yaml

        make_folder(self.path)
        self._lock.acquire()
        self.check(resume=resume)
        self._write(CONFIG, yaml.safe_dump(self.config, sort_keys=False))
        starts = [*self._starts(), describe_environment(device)]
        self._write(ENVIRONMENT, json.dumps(starts, indent=2))

    def _check_same(self, earlier: Mapping[str, Any]) -> None:
        before, now = flatten(earlier), flatten(self.config)
        for name in sorted(before.keys() | now.keys()):
            if name not in _FREE and before.get(name) != now.get(name):
                raise InputError(
                    f"{name} is {now.get(name)!r}, but the run in {self.path} was started with"
                    f" {before.get(name)!r}: resume with the same, or choose another --output"
                )

    def _starts(self) -> list[Any]:
        """What environment.json says of the starts so far."""
        path = self.path / ENVIRONMENT
        starts = read_json(path) if path.is_file() else []
        require(isinstance(starts, list), f"{path}: must hold a list of starts")
        return starts

    def write_history(self, rows: list[dict[str, float]]) -> None:
        """Write metrics.csv and curves.png from all epochs so far.

        The rows come from the run's state, so that no row is lost or doubled however often it was stopped.
        """
        from ffconv.training.curves import draw_curves

        if not rows:
            return
        table = io.StringIO()
        writer = csv.DictWriter(table, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        self._write(METRICS, table.getvalue())
        write_atomically(self.path / "curves.png", draw_curves({self.path.name: rows}))

    def write_skipped(self, reasons: Mapping[str, str]) -> None:
        """Write skipped.csv, the samples left out and why; nothing where there are none."""
        if not reasons:
            return
        table = io.StringIO()
        csv.writer(table, lineterminator="\n").writerows([("name", "reason"), *sorted(reasons.items())])
        self._write(SKIPPED, table.getvalue())

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Add values to TensorBoard's log; those a stopped start wrote for later steps are superseded."""
        if self._tensorboard is None:
            from torch.utils.tensorboard import SummaryWriter

            self._tensorboard = SummaryWriter(str(self.path / "tensorboard"), purge_step=step)
        for name, value in values.items():
            self._tensorboard.add_scalar(name, value, step)

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, *error: object) -> None:
        if self._tensorboard is not None:
            self._tensorboard.close()
            self._tensorboard = None
        self._lock.release()

    def _write(self, name: str, text: str) -> None:
        write_atomically(self.path / name, text.encode())
