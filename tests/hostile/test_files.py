"""Every kind of file that is read, broken in many ways: it is read right, or refused in a line."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest

from hostile.attempts import SECONDS, Result, attempt
from hostile.kinds import KINDS

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def processes() -> multiprocessing.context.ForkServerContext:
    """Makes processes that have imported all they need."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["hostile.attempts"])
    return context


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_file_is_read_right_or_refused(
    kind: str, tmp_path: Path, processes: multiprocessing.context.ForkServerContext
):
    (tmp_path / "data").mkdir()
    ours, theirs = processes.Pipe(duplex=False)
    process = processes.Process(target=attempt, args=(kind, tmp_path / "data", theirs))
    process.start()
    theirs.close()
    results: list[Result] = []
    variant = "the sound file"
    try:
        while (said := ours.recv() if ours.poll(6 * SECONDS) else "silence") is not None:
            if said == "silence":
                pytest.fail(f"{variant}: hangs")
            if isinstance(said, Result):
                results.append(said)
            else:
                variant = said
    except EOFError:
        process.join()
        pytest.fail(f"{variant}: the process ends with {process.exitcode}")
    finally:
        process.kill()
        process.join()
    wrong = [result for result in results if result.outcome not in ("right", "refused")]
    assert len(results) >= 50
    assert not wrong, "\n".join(f"{result.variant}: {result.outcome}" for result in wrong)
    assert not (tmp_path / "data" / "owned").exists()
