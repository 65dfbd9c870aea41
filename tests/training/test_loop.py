from __future__ import annotations

import errno
import os
import signal
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch
from torch import Tensor, nn

import toy_task
from commands import assert_same_run, state_of
from ffconv.errors import InputError
from ffconv.training.checkpoint import read_metadata, read_safetensors
from ffconv.training.loop import Diverged, grouped


def raise_at(step: int, number: signal.Signals = signal.SIGTERM) -> Any:
    """For `ToyTask.at_step`: sends this process a signal at the step, once."""
    steps = [step]

    def at_step(now: int) -> float:
        if now in steps:
            steps.remove(now)
            os.kill(os.getpid(), number)
        return 1.0

    return at_step


def fail_at(step: int) -> Any:
    """For `ToyTask.at_step`: breaks off at the step as a crash does."""

    def at_step(now: int) -> float:
        if now == step:
            raise RuntimeError("crash")
        return 1.0

    return at_step


def weights_after(config: Any, **options: Any) -> Tensor:
    """The simple network's weights after a run."""
    trainer = toy_task.trainer(config, simple=True, **options)
    trainer.folder.start(device=torch.device("cpu"), resume=False)
    trainer.fit()
    return trainer.network.weight.detach().clone()  # pyright: ignore


def test_a_run_learns(tmp_path: Path):
    config = toy_task.config(tmp_path, loop={"epochs": 8}, optim={"momentum": 0.5})
    history = toy_task.run(config, simple=True).history
    assert history[-1]["train_loss"] < 0.01 * history[0]["train_loss"]
    assert history[-1]["score"] > -0.01


def test_rows_tell_epochs_steps_and_rates(tmp_path: Path):
    config = toy_task.config(tmp_path, schedule={"name": "steps", "milestones": [1], "factor": 0.1})
    rows = toy_task.run(config).history
    assert [(row["epoch"], row["step"], row["lr"]) for row in rows] == [
        (1, 6, 0.05),
        (2, 12, pytest.approx(0.005)),
    ]


def test_the_first_step_of_a_warm_up_changes_nothing(tmp_path: Path):
    config = toy_task.config(tmp_path, loop={"epochs": 1}, schedule={"warmup_epochs": 1})
    torch.manual_seed(config.seed)
    start = nn.Linear(4, 1).weight.detach()
    assert torch.equal(weights_after(config, batches=1), start)


def test_learning_rate_follows_the_total_batch(tmp_path: Path):
    config = toy_task.config(tmp_path, optim={"lr": 0.1, "reference_batch": 4})
    assert toy_task.run(config).history[0]["lr"] == pytest.approx(0.2)


def test_accumulated_batches_are_one_large_batch(tmp_path: Path):
    whole = weights_after(toy_task.config(tmp_path / "a"), batches=3)
    halved = toy_task.config(tmp_path / "b", loop={"accumulate": 2})
    torch.testing.assert_close(weights_after(halved, batches=3, parts=2), whole)


def test_groups_of_batches_keep_a_short_last_one():
    batches = [{"x": torch.tensor(n)} for n in range(5)]
    assert [[int(b["x"]) for b in group] for group in grouped(batches, 2)] == [[0, 1], [2, 3], [4]]


def test_steps_count_a_short_last_group(tmp_path: Path):
    config = toy_task.config(tmp_path, loop={"accumulate": 2})
    assert [row["step"] for row in toy_task.run(config, batches=5).history] == [3, 6]


def test_clipping_bounds_the_step(tmp_path: Path):
    plain_sgd = {"lr": 1.0, "momentum": 0.0, "weight_decay": 0.0}
    config = toy_task.config(tmp_path, loop={"epochs": 1, "clip_norm": 0.01}, optim=plain_sgd)
    trainer = toy_task.trainer(config, simple=True, batches=1)
    before = [p.detach().clone() for p in trainer.network.parameters()]
    trainer.folder.start(device=torch.device("cpu"), resume=False)
    trainer.fit()
    change = [p.detach() - old for p, old in zip(trainer.network.parameters(), before, strict=True)]
    norm = torch.cat([c.flatten() for c in change]).norm()
    assert norm.item() == pytest.approx(0.01, rel=1e-3)


def test_the_average_follows_weights_and_buffers(tmp_path: Path):
    trainer = toy_task.trainer(toy_task.config(tmp_path, loop={"epochs": 1, "ema_decay": 0.75}), batches=3)
    seen: list[dict[str, Tensor]] = []
    update = trainer.average.update_parameters  # pyright: ignore

    def watched(network: nn.Module) -> None:
        seen.append({name: tensor.clone() for name, tensor in network.state_dict().items()})
        update(network)

    trainer.average.update_parameters = watched  # pyright: ignore
    trainer.folder.start(device=torch.device("cpu"), resume=False)
    trainer.fit()
    average = trainer.average.module.state_dict()  # pyright: ignore
    for name in ("1.weight", "2.running_var"):
        expected = 0.75 * (0.75 * seen[0][name] + 0.25 * seen[1][name]) + 0.25 * seen[2][name]
        torch.testing.assert_close(average[name], expected)


def test_saved_weights_are_the_averaged_ones_where_there_are_some(tmp_path: Path):
    toy_task.run(toy_task.config(tmp_path, loop={"ema_decay": 0.9}))
    weights = read_safetensors(tmp_path / "last.safetensors")
    metadata = read_metadata(tmp_path / "last.safetensors")
    average = state_of(tmp_path)["average"]
    assert all(torch.equal(weights[name], average[f"module.{name}"]) for name in weights)
    assert {"score", "ema_score"} <= metadata["metrics"].keys()


@pytest.mark.parametrize("average", [False, True])
def test_precise_norms_have_the_statistics_of_the_newest_weights(tmp_path: Path, average: bool):
    loop = {"precise_bn_samples": 20, "ema_decay": 0.5 if average else None}
    trainer = toy_task.trainer(toy_task.config(tmp_path, loop=loop))
    trainer.folder.start(device=torch.device("cpu"), resume=False)
    trainer.fit()
    network = trainer.average.module if average else trainer.network  # pyright: ignore
    _, linear, norm, _ = network.eval()
    # 20 samples are three batches of 8.
    batches = list(trainer.task.train_batches(1, 0))[:3]
    with torch.no_grad():
        read = torch.stack([linear(batch["x"]) for batch in batches])
    torch.testing.assert_close(norm.running_mean, read.mean((0, 1)))
    torch.testing.assert_close(norm.running_var, read.var(1).mean(0))


def test_precise_norms_leave_training_as_it_is(tmp_path: Path):
    rows = [
        toy_task.run(toy_task.config(tmp_path / str(samples), loop={"precise_bn_samples": samples})).history
        for samples in (0, 24)
    ]
    assert [row["train_loss"] for row in rows[0]] == [row["train_loss"] for row in rows[1]]
    assert rows[0][0]["score"] != rows[1][0]["score"]


def test_a_run_with_precise_norms_goes_on_to_the_same_bits(tmp_path: Path):
    options = {"loop": {"precise_bn_samples": 20}, "checkpoint": {"every": 2}}
    toy_task.run(toy_task.config(tmp_path / "whole", **options))
    config = toy_task.config(tmp_path / "run", resume="auto", **options)
    for step in (8, 12):  # within an epoch, and while norms are re-estimated
        with pytest.raises(RuntimeError, match="crash"):
            toy_task.run(config, at_step=fail_at(step))
    toy_task.run(config)
    assert_same_run(tmp_path / "run", tmp_path / "whole")


def test_best_keeps_the_epoch_with_the_best_main_metric(tmp_path: Path):
    config = toy_task.config(tmp_path, loop={"epochs": 4})
    toy_task.run(config, scores=(1.0, 3.0, 2.0, 3.0))
    assert read_metadata(tmp_path / "best.safetensors")["metrics"]["epoch"] == 2
    assert read_metadata(tmp_path / "last.safetensors")["metrics"]["epoch"] == 4


EVERYTHING = {
    "loop": {"epochs": 3, "ema_decay": 0.9, "accumulate": 2, "clip_norm": 1.0, "log_every": 3},
    "schedule": {"name": "cosine", "warmup_epochs": 1},
    "checkpoint": {"every": 2},
}


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    toy_task.run(toy_task.config(folder, **EVERYTHING), batches=10)
    return folder


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_after_the_step_and_the_run_goes_on_to_the_same_bits(
    tmp_path: Path, whole_run: Path, number: signal.Signals
):
    config = toy_task.config(tmp_path, resume="auto", **EVERYTHING)
    stopped = toy_task.run(config, batches=10, at_step=raise_at(7, number))
    assert (stopped.stopped_by, stopped.exit_code, stopped.step) == (number, 128 + number, 8)
    assert state_of(tmp_path)["position"]["step"] == 8
    assert toy_task.run(config, batches=10).exit_code == 0
    assert_same_run(tmp_path, whole_run)


@pytest.mark.parametrize("step", [0, 3, 5, 9, 14])
def test_a_crash_anywhere_ends_in_the_same_bits(tmp_path: Path, whole_run: Path, step: int):
    config = toy_task.config(tmp_path, resume="auto", **EVERYTHING)
    with pytest.raises(RuntimeError, match="crash"):
        toy_task.run(config, batches=10, at_step=fail_at(step))
    toy_task.run(config, batches=10)
    assert_same_run(tmp_path, whole_run)


def test_many_crashes_end_in_the_same_bits(tmp_path: Path, whole_run: Path):
    config = toy_task.config(tmp_path, resume="auto", **EVERYTHING)
    for step in (2, 6, 7, 11):
        with pytest.raises(RuntimeError, match="crash"):
            toy_task.run(config, batches=10, at_step=fail_at(step))
    toy_task.run(config, batches=10)
    assert_same_run(tmp_path, whole_run)


def test_a_signal_at_the_last_step_of_an_epoch_loses_no_row(tmp_path: Path, whole_run: Path):
    config = toy_task.config(tmp_path, resume="auto", **EVERYTHING)
    toy_task.run(config, batches=10, at_step=raise_at(4))
    assert toy_task.run(config, batches=10).exit_code == 0
    assert [row["epoch"] for row in state_of(tmp_path)["position"]["history"]] == [1, 2, 3]
    assert_same_run(tmp_path, whole_run)


def test_a_crash_between_the_last_step_and_the_evaluation_loses_no_row(tmp_path: Path):
    """Also where the last step has fewer batches than the others."""

    def crash(model: nn.Module) -> dict[str, float]:
        raise RuntimeError("crash")

    fields = {"loop": {"accumulate": 2}, "checkpoint": {"every": 1}}
    toy_task.run(toy_task.config(tmp_path / "whole", **fields), batches=5)
    config = toy_task.config(tmp_path / "run", resume="auto", **fields)
    trainer = toy_task.trainer(config, batches=5)
    trainer.folder.start(device=torch.device("cpu"), resume=False)
    trainer.task.evaluate = crash
    with pytest.raises(RuntimeError, match="crash"):
        trainer.fit()
    assert state_of(tmp_path / "run")["position"]["step"] == 3
    toy_task.run(config, batches=5)
    assert_same_run(tmp_path / "run", tmp_path / "whole")


def test_a_training_set_of_another_size_is_refused(tmp_path: Path):
    config = toy_task.config(tmp_path, resume="auto")
    toy_task.run(config, batches=6, at_step=raise_at(2))
    with pytest.raises(InputError, match="had 6 steps, now it has 7: resume with the same training set"):
        toy_task.run(config, batches=7)


def test_a_state_of_another_network_is_refused(tmp_path: Path):
    toy_task.run(toy_task.config(tmp_path))
    with pytest.raises(InputError, match="is not of this network and optimizer") as caught:
        toy_task.run(toy_task.config(tmp_path, resume="auto"), simple=True)
    assert "\n" not in str(caught.value)


def test_going_on_asks_for_no_batch_twice(tmp_path: Path):
    config = toy_task.config(tmp_path, resume="auto", loop={"epochs": 2})
    toy_task.run(config, at_step=raise_at(7))
    trainer = toy_task.trainer(config)
    trainer.fit()
    assert trainer.task.asked == [(1, 2)]  # pyright: ignore


def test_a_finished_run_is_left_as_it_is(tmp_path: Path, whole_run: Path):
    config = toy_task.config(whole_run, resume="auto", **EVERYTHING)
    before = (whole_run / "state.pt").read_bytes()
    outcome = toy_task.run(config, batches=10, at_step=fail_at(0))
    assert (outcome.exit_code, len(outcome.history)) == (0, 3)
    assert (whole_run / "state.pt").read_bytes() == before


def test_nan_stops_at_its_step_and_keeps_the_checkpoint_before(tmp_path: Path):
    config = toy_task.config(tmp_path, checkpoint={"every": 2})
    with pytest.raises(Diverged, match=r"the loss is nan at step 5: .* the checkpoint of step 4 is kept"):
        toy_task.run(config, at_step=lambda step: float("nan") if step == 5 else 1.0)
    state = state_of(tmp_path)
    assert state["position"]["step"] == 4
    assert all(t.isfinite().all() for t in state["network"].values())


def test_nan_before_any_checkpoint_says_so(tmp_path: Path):
    with pytest.raises(Diverged, match="at step 0: the run is stopped before its first checkpoint"):
        toy_task.run(toy_task.config(tmp_path), at_step=lambda step: float("nan"))


def test_weights_ruined_by_a_finite_loss_are_not_saved(tmp_path: Path):
    def overflow(step: int) -> float:
        return 1e36 if step == 3 else 1.0  # a finite loss, a gradient whose step is not

    config = toy_task.config(tmp_path, checkpoint={"every": 2}, optim={"lr": 1e4, "reference_batch": None})
    with pytest.raises(Diverged, match=r"is not finite after step 3.*|nan|inf"):
        toy_task.run(config, simple=True, at_step=overflow)
    assert all(t.isfinite().all() for t in state_of(tmp_path)["network"].values())


def test_a_full_disk_stops_the_run_and_keeps_the_checkpoint_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def full(descriptor: int) -> NoReturn:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def at_step(step: int) -> float:
        if step == 4:
            monkeypatch.setattr(os, "fsync", full)
        return 1.0

    config = toy_task.config(tmp_path, resume="auto", checkpoint={"every": 2})
    with pytest.raises(InputError, match=r"cannot write .*state.pt: No space left on device"):
        toy_task.run(config, at_step=at_step)
    assert state_of(tmp_path)["position"]["step"] == 4
    monkeypatch.undo()
    assert toy_task.run(config).exit_code == 0


def test_the_folder_is_made_only_when_the_network_is_sound(tmp_path: Path):
    class Unsound(toy_task.ToyTask):
        def build_model(self) -> nn.Module:
            raise InputError("no such network")

    from ffconv.training.config import plain
    from ffconv.training.run import train_run

    config = toy_task.config(tmp_path / "run")
    with pytest.raises(InputError, match="no such network"):
        train_run(Unsound, config, record=plain(config))
    assert not (tmp_path / "run").exists()


def test_bfloat16_reaches_the_networks_forward(tmp_path: Path):
    seen = set()
    trainer = toy_task.trainer(toy_task.config(tmp_path, loop={"precision": "bf16"}))
    trainer.network[1].register_forward_hook(lambda m, i, output: seen.add(output.dtype))  # pyright: ignore
    trainer.folder.start(device=torch.device("cpu"), resume=False)
    trainer.fit()
    assert seen == {torch.bfloat16}
    assert {p.dtype for p in trainer.network.parameters()} == {torch.float32}


def test_compiling_changes_nothing_but_speed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    plain = weights_after(toy_task.config(tmp_path / "a"))
    compiled = []
    compile_ = nn.Module.compile

    def without_code_generation(module: nn.Module) -> None:
        compiled.append(module)
        compile_(module, backend="eager")

    monkeypatch.setattr(nn.Module, "compile", without_code_generation)
    assert torch.equal(weights_after(toy_task.config(tmp_path / "b", loop={"compile": True})), plain)
    assert len(compiled) == 1


def test_channels_last_reaches_weights_and_images(tmp_path: Path):
    share = toy_task.Share(batch_size=2, channels_last=True)
    moved = share.move({"image": torch.zeros(2, 3, 4, 5), "clip": torch.zeros(2, 3, 2, 4, 5)})
    assert moved["image"].is_contiguous(memory_format=torch.channels_last)
    assert moved["clip"].is_contiguous(memory_format=torch.channels_last_3d)


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["no", "bf16", "fp16"])
def test_a_gpu_learns_in_every_precision(tmp_path: Path, precision: str):
    loop = {"epochs": 8, "device": "auto", "precision": precision, "clip_norm": 10.0, "ema_decay": 0.5}
    config = toy_task.config(tmp_path, loop=loop, optim={"momentum": 0.5})
    history = toy_task.run(config, simple=True).history
    assert history[-1]["train_loss"] < 0.01 * history[0]["train_loss"]


@pytest.mark.gpu
def test_a_gpu_run_with_loss_scaling_goes_on(tmp_path: Path):
    loop = {"device": "auto", "precision": "fp16"}
    whole = toy_task.run(toy_task.config(tmp_path / "whole", loop=loop), simple=True).history
    config = toy_task.config(tmp_path / "run", loop=loop, resume="auto")
    toy_task.run(config, simple=True, at_step=raise_at(4))
    history = toy_task.run(config, simple=True).history
    assert history[-1]["train_loss"] == pytest.approx(whole[-1]["train_loss"], rel=1e-3)
