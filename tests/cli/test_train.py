from __future__ import annotations

import csv
import errno
import json
import os
from pathlib import Path

import pytest
import yaml

from commands import QUICK_TRAIN, image_folder, refused, state_of
from ffconv.cli import main
from ffconv.tasks import TASKS


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("train") / "run"
    assert main([*QUICK_TRAIN, "--loop.ema_decay", "0.5", "--output", str(folder)]) == 0
    return folder


def test_a_run_folder_holds_what_it_should(run_folder: Path):
    assert {path.name for path in run_folder.iterdir()} == {
        *("config.yaml", "environment.json", "metrics.csv", "curves.png", "tensorboard"),
        *("best.safetensors", "last.safetensors", "state.pt", "state.previous.pt"),
    }


def test_the_configuration_is_resolved_and_can_be_used_again(
    run_folder: Path, capsys: pytest.CaptureFixture[str]
):
    config = yaml.safe_load((run_folder / "config.yaml").read_text())
    assert (config["loop"]["epochs"], config["schedule"]["name"], config["limit"]) == (2, "cosine", 64)
    with pytest.raises(SystemExit):
        main(["train", "--config", str(run_folder / "config.yaml"), "--print_config"])
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed["data"].pop("allow_commands") is False  # said at each start, and not kept
    assert printed == config


def test_metrics_have_a_row_an_epoch_with_the_averaged_weights_beside(run_folder: Path):
    with (run_folder / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["epoch"], row["step"]) for row in rows] == [("1", "4"), ("2", "8")]
    assert {"lr", "train_loss", "top1", "top5", "loss", "ema_top1", "ema_loss"} <= rows[0].keys()


def test_environment_tells_command_and_versions(run_folder: Path):
    (start,) = json.loads((run_folder / "environment.json").read_text())
    assert start["packages"].keys() >= {"torch", "timm", "accelerate"}
    assert start["processes"] == 1


def test_progress_is_a_plain_line_an_epoch_without_a_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    main([*QUICK_TRAIN, "--output", str(tmp_path / "run")])
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["opening the data", "building the network"]
    assert lines[2] == "test_resnet: 64 training and 64 validation images"
    assert lines[3].endswith(" M parameters on cpu, 2 epochs of 4 steps of 16 images")
    assert lines[4].startswith("first step: ")
    assert lines[5].startswith("epoch 1/2  step 1/4  loss 2.")
    assert lines[6].startswith("epoch 1/2 done  lr ")
    assert max(map(len, lines[:-1])) <= 100
    assert lines[-1] == f"finished: {tmp_path}/run/best.safetensors holds the best weights"


def test_the_output_folder_is_named_by_the_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert main([*QUICK_TRAIN, "--loop.epochs", "1"]) == 0
    assert (tmp_path / "runs" / "digits" / "last.safetensors").exists()


def test_the_same_seed_gives_the_same_weights_and_another_does_not(tmp_path: Path):
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        assert main([*QUICK_TRAIN, "--seed", seed, "--output", str(tmp_path / name)]) == 0
    a, b, c = ((tmp_path / name / "last.safetensors").read_bytes() for name in "abc")
    assert a == b != c


def test_a_folder_with_a_run_is_refused(run_folder: Path, capsys: pytest.CaptureFixture[str]):
    assert "already holds a run" in refused([*QUICK_TRAIN, "--output", str(run_folder)], capsys)


def test_another_configuration_is_refused(run_folder: Path, capsys: pytest.CaptureFixture[str]):
    words = [*QUICK_TRAIN, "--output", str(run_folder), "--resume", "auto", "--optim.lr", "0.3"]
    assert "optim.lr is 0.3, but the run" in refused([*words, "--loop.ema_decay", "0.5"], capsys)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model.name", "ffc_resnet18", "--model.arguments.ratio", "1.5"], "ratio=1.5 must lie in [0, 1]"),
        (["--model.name", "ffc_resnet18", "--model.arguments.cardinality", "3"], "cardinality"),
        (["--model.name", "resnet81"], "did you mean resnet"),
        (["--model.arguments.rato", "1"], "'rato'"),
        (["--loop.accumulate", "3"], "loop.batch_size=16 must divide by 1 process x 3"),
        (
            ["--data.format", "folder", "--data.path", "/no/such/folder"],
            "/no/such/folder/train: no such folder",
        ),
        (["--data.format", "folder"], "path is not given"),
        (["--loop.precision", "fp16"], "fp16 needs a CUDA device"),
        (["--task", "poes"], "poes"),
        (["--model.weights", "/no/such/file"], "/no/such/file"),
    ],
)
def test_wrong_input_is_one_line(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    printed = refused([*QUICK_TRAIN, "--output", str(tmp_path / "run"), *words], capsys)
    assert message in printed
    assert not (tmp_path / "run").exists()


def test_an_empty_class_folder_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    image_folder(tmp_path / "data" / "train", "ab")
    (tmp_path / "data" / "train" / "c").mkdir()
    words = ["--data.format", "folder", "--data.path", str(tmp_path / "data")]
    assert "c: class folder without images" in refused([*QUICK_TRAIN, *words], capsys)


def test_a_bad_image_is_named_and_can_be_skipped(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for split in ("train", "val"):
        image_folder(tmp_path / "data" / split, "ab", images=8)
    bad = tmp_path / "data" / "train" / "b" / "3.png"
    bad.write_bytes(bad.read_bytes()[:40])
    words = [*QUICK_TRAIN, "--data.format", "folder", "--data.path", str(tmp_path / "data")]
    assert str(bad) in refused([*words, "--output", str(tmp_path / "a")], capsys)
    assert str(bad) in refused([*words, "--output", str(tmp_path / "b"), "--data.verify", "true"], capsys)
    assert not (tmp_path / "b").exists()
    assert main([*words, "--output", str(tmp_path / "c"), "--data.on_error", "skip"]) == 0
    assert str(bad) in (tmp_path / "c" / "skipped.csv").read_text()


def test_a_full_disk_is_one_line_and_the_run_can_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    words = [*QUICK_TRAIN, "--output", str(tmp_path / "run"), "--checkpoint.every", "1"]
    write, times = os.fsync, iter(range(100))

    def full_from_the_fifth_file_on(descriptor: int) -> None:
        if next(times) >= 5:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(descriptor)

    monkeypatch.setattr(os, "fsync", full_from_the_fifth_file_on)
    assert "No space left on device; what was saved before is kept" in refused(words, capsys)
    monkeypatch.undo()
    assert state_of(tmp_path / "run")["position"]["step"] == 3
    assert main([*words, "--resume", "auto"]) == 0


def test_divergence_is_one_line_with_the_step(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    words = [*QUICK_TRAIN, "--output", str(tmp_path / "run"), "--optim.lr", "1e30"]
    printed = refused([*words, "--schedule.warmup_epochs", "0", "--checkpoint.every", "1"], capsys)
    assert "step" in printed
    assert "the run is stopped" in printed


def helped(words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> str:
    """What a command prints on a terminal of 80 columns before it ends with code 0."""
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit, match="0"):
        main(words)
    return capsys.readouterr().out


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("command", ["train", "ablate"])
def test_help_is_short_and_lists_all_tasks(
    command: str, task: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    printed = helped([command, "--task", task, "--help"], capsys, monkeypatch)
    assert len(printed.splitlines()) < 60
    assert "--task {action,classification,inpainting,pose}" in printed
    assert f"(default: {task})" in " ".join(printed.split())
    assert all(option in printed for option in ("--data.path", "--loop.epochs", "--output", "--help-all"))
    assert "--optim.momentum" not in printed


@pytest.mark.parametrize(
    ("task", "option"),
    [("classification", "--loss.mixup"), ("pose", "--data.transform.input_size"), ("action", "--freeze_bn")],
)
def test_all_options_of_the_task_are_listed(
    task: str, option: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    printed = helped(["train", "--task", task, "--help-all"], capsys, monkeypatch)
    assert option in printed
    assert "--optim.momentum" in printed


def test_types_are_in_words(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    printed = " ".join(helped(["train", "--help-all"], capsys, monkeypatch).split())
    assert "uses all. (type: integer or null, default: null)" in printed
    assert "adamw). (type: 2 numbers, default: (0.9, 0.999))" in printed
    assert "(steps). (type: integers, default: (30, 60, 80))" in printed
    assert not any(word in printed for word in ("Literal[", "type: str", "type: float", "dict["))


def test_help_follows_the_recipe(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    printed = helped(["train", "--config", "small/figures", "--help"], capsys, monkeypatch)
    assert "(default: pose)" in " ".join(printed.split())


def test_a_task_other_than_the_recipes_is_refused(capsys: pytest.CaptureFixture[str]):
    printed = refused(["train", "--config", "small/digits", "--task", "pose"], capsys)
    assert "--task pose: the recipe is of classification" in printed


def test_a_task_without_a_recipe_has_its_own_options(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit, match="0"):
        main(["train", "--task", "pose", "--data.format", "figures", "--print_config"])
    config = yaml.safe_load(capsys.readouterr().out)
    assert (config["task"], config["model"]["name"]) == ("pose", "ffc_pose_resnet50")
