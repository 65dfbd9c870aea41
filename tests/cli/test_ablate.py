from __future__ import annotations

import csv
from pathlib import Path

import pytest

from commands import QUICK_TRAIN
from ffconv.cli import main
from ffconv.training.checkpoint import read_metadata
from ffconv.training.loop import Outcome

pytestmark = pytest.mark.slow

WORDS = (
    *("ablate", *QUICK_TRAIN[1:], "--model.name", "ffc_resnet18", "--limit", "32", "--loop.epochs", "1"),
    *("--variants", "[plain, ratio0.5]", "--seeds", "2"),
)


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ablate")
    assert main([*WORDS, "--output", str(folder)]) == 0
    return folder


def test_each_variant_and_seed_has_a_run(output: Path):
    runs = {path.parent.relative_to(output).as_posix() for path in output.rglob("state.pt")}
    assert runs == {"plain/seed0", "plain/seed1", "ratio0.5/seed0", "ratio0.5/seed1"}


def test_the_table_has_what_the_last_epochs_reached(output: Path):
    with (output / "ablation.csv").open() as file:
        rows = {row["variant"]: row for row in csv.DictReader(file)}
    for variant, row in rows.items():
        for seed in (0, 1):
            metrics = read_metadata(output / variant / f"seed{seed}" / "last.safetensors")["metrics"]
            assert float(row[f"seed_{seed}"]) == metrics["top1"]
    assert rows.keys() == {"plain", "ratio0.5"}


def test_runs_are_numbered_and_finished_ones_take_no_time(
    output: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    later = []
    monkeypatch.setattr(
        "ffconv.cli.ablate.train", lambda *_, later_runs: later.append(later_runs) or Outcome([], 0, None)
    )
    assert main([*WORDS, "--variants", "[plain, ratio0.25, ratio0.5]", "--output", str(output)]) == 2
    printed = capsys.readouterr().out
    assert f"run 3 of 6: ratio0.25, seed 0: {output}/ratio0.25/seed0" in printed
    assert later == [2, 2, 1, 0, 0, 0]  # of six only the two of ratio 0.25 are to be trained


def test_finished_runs_are_not_trained_again(output: Path, capsys: pytest.CaptureFixture[str]):
    before = {path: path.stat().st_mtime_ns for path in output.rglob("state.pt")}
    assert main([*WORDS, "--output", str(output)]) == 0
    assert {path: path.stat().st_mtime_ns for path in output.rglob("state.pt")} == before
    printed = capsys.readouterr().out
    assert "Table 2" in printed
    assert "0 (plain)" in printed
    assert "multiply-adds (G)" in printed  # the words of ffconv complexity
    assert "epoch 1/1 done" not in printed


def test_a_misspelt_variant_is_refused_before_any_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    words = [*WORDS, "--variants", "[plain, ratio2]", "--output", str(tmp_path / "x")]
    assert main(words) == 2
    assert "ratio=2 must lie in [0, 1]" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_another_task_is_refused_before_any_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["ablate", "--config", "small/figures", "--output", str(tmp_path / "x")]) == 2
    assert "task=pose: variants are compared by the top-1" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()
