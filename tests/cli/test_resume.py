"""Real processes, killed: what they leave goes on to the same bits as a run that was never stopped."""

from __future__ import annotations

import csv
import os
import signal
import time
from pathlib import Path

import pytest

from commands import QUICK_TRAIN, assert_same_run, finish, start, state_of

pytestmark = pytest.mark.slow

# All that has a memory: averaged weights, mixing, random augmentation, drop path, accumulation, warm-up.
WORDS = (
    *QUICK_TRAIN,
    *("--loop.epochs", "3", "--loop.ema_decay", "0.9", "--loop.accumulate", "2", "--checkpoint.every", "3"),
    *("--loss.mixup", "0.2", "--loss.cutmix", "1.0", "--data.transform.rand_augment", "5"),
    *("--model.arguments.drop_path_rate", "0.2", "--limit", "128", "--resume", "auto"),
)


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "run"
    code, printed = finish(start(*WORDS, "--output", str(folder)))
    assert code == 0, printed
    return folder


def stopped_by(number: signal.Signals, folder: Path) -> tuple[int, str]:
    """Starts the run with a data worker and signals the whole group as soon as there is a checkpoint."""
    process = start(*WORDS, "--output", str(folder), "--data.workers", "1")
    while process.poll() is None and not (folder / "state.pt").exists():
        time.sleep(0.01)
    os.killpg(process.pid, number)
    return finish(process)


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open() as file:
        return [{k: v for k, v in row.items() if k != "samples_per_second"} for row in csv.DictReader(file)]


def assert_goes_on_to_the_same(folder: Path, whole: Path) -> None:
    # Other workers than before: their number is no part of a run.
    code, printed = finish(start(*WORDS, "--output", str(folder), "--data.workers", "2"))
    assert code == 0, printed
    assert_same_run(folder, whole)
    assert rows(folder) == rows(whole)
    assert [row["epoch"] for row in rows(folder)] == ["1", "2", "3"]


def test_a_killed_run_goes_on_to_the_same_bits(tmp_path: Path, whole_run: Path):
    code, _ = stopped_by(signal.SIGKILL, tmp_path / "run")
    assert code == -signal.SIGKILL
    assert state_of(tmp_path / "run")["position"]["step"] < state_of(whole_run)["position"]["step"]
    assert_goes_on_to_the_same(tmp_path / "run", whole_run)


def test_a_terminated_run_saves_says_so_and_goes_on_to_the_same_bits(tmp_path: Path, whole_run: Path):
    code, printed = stopped_by(signal.SIGTERM, tmp_path / "run")
    step = state_of(tmp_path / "run")["position"]["step"]
    assert code == 143
    said = f"stopped by SIGTERM after step {step}, saved: the same command with --resume auto goes on"
    assert printed.splitlines()[-1] == said
    assert_goes_on_to_the_same(tmp_path / "run", whole_run)


def test_of_two_runs_into_one_folder_the_second_is_refused(tmp_path: Path):
    """Both see a free folder first; the loser says who has it and changes nothing."""
    words = (*WORDS, "--limit", "1024", "--output", str(tmp_path / "run"))
    first, second = (start(*words) for _ in range(2))
    ends = [finish(first), finish(second)]
    refusals = [(code, printed) for code, printed in ends if code != 0]
    assert [code for code, _ in refusals] == [2], ends
    (line,) = (line for line in refusals[0][1].splitlines() if line.startswith("ffconv: "))
    assert f"{tmp_path / 'run'} is in use by process" in line
    assert [row["epoch"] for row in rows(tmp_path / "run")] == ["1", "2", "3"]
    assert not (tmp_path / "run" / "run.lock").exists()
