"""The one training loop, for every task: read `Trainer.fit` first, then downwards.

Everything random is a function of (seed, step) or (seed, epoch, sample), never of a generator's history,
and everything else the run depends on is in its state. So a run that was stopped anywhere, by a signal, a
crash or kill -9, goes on from its newest state as if nothing had happened: on a CPU it ends with the same
bits.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ffconv.batch_norms import reestimate_statistics
from ffconv.data.seeding import derive_seed
from ffconv.errors import InputError, require
from ffconv.files import write_atomically
from ffconv.training.checkpoint import load_state, save_state, save_weights
from ffconv.training.config import TrainingConfig
from ffconv.training.folder import BEST, LAST, RunFolder
from ffconv.training.optim import Schedule, build_optimizer, peak_learning_rate
from ffconv.training.progress import Reporter, folded
from ffconv.training.signals import StopSignals
from ffconv.training.task import Batch, DrawsPictures, Task, channels_last
from ffconv.wording import counted

# Columns of an epoch's row that its line shows otherwise or not at all.
_UNSHOWN = ("epoch", "step", "samples_per_second")


class Diverged(InputError):
    """The loss or a weight is no longer finite."""


@dataclass
class Position:
    """Where the run is, and what it has gathered on the way; all of it is saved.

    Args:
        step: Optimizer steps done.
        losses: Sum of the losses of the steps of this epoch.
        samples: Samples of this epoch so far, over all processes.
        seconds: Time spent on them.
        history: A row of metrics for each complete epoch.
        skipped: Reason for each sample left out, by name.
    """

    step: int = 0
    losses: float = 0.0
    samples: int = 0
    seconds: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Args:
        history: Metrics of each complete epoch.
        step: Optimizer steps done.
        stopped_by: Number of the signal that stopped the run early, None for a complete run.
    """

    history: list[dict[str, float]]
    step: int
    stopped_by: int | None

    @property
    def exit_code(self) -> int:
        """0, or 128 and the signal's number, as shells have it."""
        return 0 if self.stopped_by is None else 128 + self.stopped_by


class Trainer:
    """Trains a task's network.

    Args:
        task: What is trained.
        config: How.
        accelerator: Devices and processes, see `ffconv.training.processes.start_accelerator`.
        folder: Where the run is kept.
        later_runs: Runs of the same length that follow this one, for the time that is left.
    """

    def __init__(
        self,
        task: Task,
        config: TrainingConfig,
        *,
        accelerator: Accelerator,
        folder: RunFolder,
        later_runs: int = 0,
    ):
        loop = config.loop
        self.task, self.config, self.accelerator, self.folder = task, config, accelerator, folder
        torch.manual_seed(config.seed)
        network = task.build_model().to(accelerator.device)
        if loop.channels_last:
            for weight in network.parameters():  # of images (4 axes) and of clips (5)
                weight.data = weight.data.contiguous(memory_format=channels_last(weight))
        # The copy is made of the bare network, before anything is wrapped around its forward.
        self.average = _moving_average(network, loop.ema_decay)
        if loop.compile:
            network.compile()
        # Evaluation and saving use the bare network: its forward calls no other process.
        self.network: nn.Module = network
        self.model, self.optimizer = accelerator.prepare(network, build_optimizer(network, config.optim))

        self.batches_per_epoch = task.batches_per_epoch()
        self.steps_per_epoch = math.ceil(self.batches_per_epoch / loop.accumulate)
        self.schedule = Schedule(
            config.schedule,
            peak=peak_learning_rate(config.optim, loop.batch_size),
            epochs=loop.epochs,
            steps_per_epoch=self.steps_per_epoch,
        )
        self.at = Position()
        self.pending: list[Tensor] = []  # losses not yet looked at, one a step, on the device
        self.running_loss = math.nan  # before the first look
        self.reporter = Reporter(
            total_steps=loop.epochs * self.steps_per_epoch,
            steps_per_epoch=self.steps_per_epoch,
            active=accelerator.is_main_process,
            unit=task.unit,
            later_runs=later_runs,
        )
        task.watch_evaluation(self.reporter.evaluation)

    def fit(self) -> Outcome:
        """Trains from the folder's newest state to the end of the run, or until SIGTERM or SIGINT.

        Raises:
            Diverged: at a loss that is not finite; the last good checkpoint is kept.
            InputError: if a checkpoint cannot be written; the earlier one is kept.
        """
        self._restore()
        epochs = self.config.loop.epochs
        self._announce()
        with StopSignals() as self.signals, self.reporter, self.folder:
            for epoch in range(len(self.at.history), epochs):
                if self._train_epoch(epoch):
                    self._finish_epoch(epoch)
                else:
                    self._save()
                    return self._outcome(self.signals.received)
        return self._outcome(None)

    def _announce(self) -> None:
        """Say what is about to run, and why its first step takes long."""
        loop, device = self.config.loop, self.accelerator.device
        parameters = sum(parameter.numel() for parameter in self.network.parameters())
        batches = f"{counted(self.steps_per_epoch, 'step')} of {loop.batch_size} {self.task.unit}"
        self.reporter.say(self.task.describe())
        size = f"{parameters / 1e6:.2f} M parameters"
        self.reporter.say(f"{size} on {device}, {counted(loop.epochs, 'epoch')} of {batches}")
        if self.at.step == loop.epochs * self.steps_per_epoch:
            return
        begun = f"after {self.at.step} steps: " if self.at.step else ""
        self.reporter.say(f"{begun}first step: workers start, kernels and graphs are compiled if need be")

    def _outcome(self, stopped_by: int | None) -> Outcome:
        return Outcome(self.at.history, self.at.step, stopped_by)

    def _train_epoch(self, epoch: int) -> bool:
        """The rest of an epoch, from the step the run is at; False if it was asked to stop before the end."""
        every, log_every = self.config.checkpoint.every, self.config.loop.log_every
        accumulate = self.config.loop.accumulate
        steps_done = self.at.step - epoch * self.steps_per_epoch
        # The last step of an epoch may have had fewer batches than the others.
        start = min(steps_done * accumulate, self.batches_per_epoch)
        self.model.train()
        started = time.perf_counter()
        for batches in grouped(self.task.train_batches(epoch, start), accumulate):
            samples = self._train_step(batches)
            seconds, started = time.perf_counter() - started, time.perf_counter()
            self.at.samples += samples
            self.at.seconds += seconds
            due = every > 0 and self.at.step % every == 0
            if due or self.at.step % log_every == 0 or math.isnan(self.running_loss):
                self._look_at_losses()
            if due:
                self._save()
            self.reporter.step(self.at.step, samples=samples, seconds=seconds, loss=self.running_loss)
            if self._asked_to_stop():
                self._look_at_losses()
                return False
        self._look_at_losses()
        return True

    def _train_step(self, batches: list[Batch]) -> int:
        """One optimizer step; returns the number of samples it took over all processes."""
        loop, step, rank = self.config.loop, self.at.step, self.accelerator.process_index
        for group in self.optimizer.param_groups:
            group["lr"] = self.schedule(step)
        losses = []
        for number, batch in enumerate(batches):
            torch.manual_seed(derive_seed(self.config.seed, "step", step, number, rank))
            is_last = number == len(batches) - 1
            with nullcontext() if is_last else self.accelerator.no_sync(self.model):
                loss = self.task.loss(self.model, self.task.share.move(batch), step)
                self.accelerator.backward(loss / len(batches))
            losses.append(loss.detach())
        if loop.clip_norm is not None:
            self.accelerator.clip_grad_norm_(self.model.parameters(), loop.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.average is not None:
            self.average.update_parameters(self.network)
        self.pending.append(torch.stack(losses).float().mean())
        self.at.step += 1
        samples = sum(len(next(iter(batch.values()))) for batch in batches)
        return samples * self.accelerator.num_processes

    def _look_at_losses(self) -> None:
        """Brings the losses since the last look to the processor; the device is waited for only here."""
        if not self.pending:
            return
        mean = self.accelerator.reduce(torch.stack(self.pending), reduction="mean")
        losses: list[float] = mean.tolist()  # pyright: ignore[reportAttributeAccessIssue]
        self.pending.clear()
        for step, loss in enumerate(losses, start=self.at.step - len(losses)):
            if not math.isfinite(loss):
                raise Diverged(f"the loss is {loss} at step {step}: {self._kept()}")
            self.at.losses += loss
            smooth = loss if math.isnan(self.running_loss) else self.running_loss
            self.running_loss = 0.9 * smooth + 0.1 * loss
        if self.accelerator.is_main_process:
            shown = {"step/loss": sum(losses) / len(losses), "step/lr": self.schedule(self.at.step - 1)}
            self.folder.log(self.at.step, shown)

    def _asked_to_stop(self) -> bool:
        """Return True if the run stops after this step; processes agree on it every `log_every` steps."""
        if self.accelerator.num_processes == 1:
            return self.signals.received is not None
        if self.at.step % self.config.loop.log_every != 0:
            return False
        mine = torch.tensor([self.signals.received or 0], device=self.accelerator.device)
        of_all: Tensor = self.accelerator.gather(mine)  # pyright: ignore[reportAssignmentType]
        self.signals.received = int(of_all.max()) or None
        return self.signals.received is not None

    def _finish_epoch(self, epoch: int) -> None:
        """Evaluates, writes the epoch's row, its weights and the state from which the next one starts."""
        at, started = self.at, time.perf_counter()
        row = {
            "epoch": epoch + 1,
            "step": at.step,
            "lr": self.schedule(at.step - 1),
            "train_loss": at.losses / self.steps_per_epoch,
            "samples_per_second": round(at.samples / max(at.seconds, 1e-9), 1),
            **self._evaluate(),
        }
        at.history.append(row)
        at.losses, at.samples, at.seconds = 0.0, 0, 0.0
        at.skipped |= dict(gather_object(list(self.task.skipped())))
        if self.accelerator.is_main_process:
            self._write_epoch()
            if isinstance(self.task, DrawsPictures):
                self._draw(self.task)
        self._save()
        self.reporter.epoch_ended(time.perf_counter() - started)

    def _evaluate(self) -> dict[str, float]:
        """The task's metrics; those of the averaged weights have "ema_" before their names."""
        metrics: dict[str, float] = {}
        for prefix, network in (("", self.network), ("ema_", self.average)):
            if network is None:
                continue
            if self.config.loop.precise_bn_samples:
                self._reestimate_norms(network)
            # Batch statistics differ between the processes of a run; the saved ones are the first process's.
            if self.accelerator.num_processes > 1:
                for buffer in network.buffers():
                    torch.distributed.broadcast(buffer, src=0)
            network.eval()
            with torch.no_grad(), self.accelerator.autocast():
                found = self.task.evaluate(network)
            metrics |= {prefix + name: value for name, value in found.items()}
        return metrics

    def _reestimate_norms(self, network: nn.Module) -> None:
        """Give batch norms the statistics of the weights as they are, from this epoch's first batches.

        Running averages lag behind weights that change fast. Variances that are too small by a third in
        each layer grow into a loss of hundreds over a network.
        Reference: Wu, Johnson: Rethinking "Batch" in BatchNorm, 2021, Sec. 3 (precise BN).
        """
        count = math.ceil(self.config.loop.precise_bn_samples / self.task.share.batch_size)
        epoch = len(self.at.history)
        with reestimate_statistics(network), self.accelerator.autocast():
            for batch in itertools.islice(self.task.train_batches(epoch, 0), count):
                self.task.loss(network, self.task.share.move(batch), self.at.step)

    def _write_epoch(self) -> None:
        """The tables, the curves, and the weights to use: the averaged ones where an average is kept."""
        *earlier, row = self.at.history
        # Two runs with the same weights have the same file, however fast each was.
        metrics = {name: value for name, value in row.items() if name != "samples_per_second"}
        metadata = {**self.task.metadata(), "metrics": metrics}
        if self.average is None:
            weights, main = self.network.state_dict(), self.task.main_metric
        else:
            weights, main = self.average.module.state_dict(), f"ema_{self.task.main_metric}"
        self._refuse_unfinite(weights)
        save_weights(self.folder.path / LAST, weights, metadata)
        if all(row[main] > other[main] for other in earlier):
            save_weights(self.folder.path / BEST, weights, metadata)
        self.folder.write_history(self.at.history)
        self.folder.write_skipped(self.at.skipped)
        self.folder.log(self.at.step, {f"epoch/{name}": value for name, value in row.items()})
        rate = f"{row['samples_per_second']:.4g} {self.task.unit}/s"
        values = [f"{name} {value:.4g}" for name, value in row.items() if name not in _UNSHOWN]
        self.reporter.say(folded(f"epoch {row['epoch']}/{self.config.loop.epochs} done", [*values, rate]))

    def _draw(self, task: DrawsPictures) -> None:
        """The task's pictures, of the weights the epoch's file has."""
        network = self.network if self.average is None else self.average
        with torch.no_grad(), self.accelerator.autocast():
            for name, picture in task.pictures(network).items():
                write_atomically(self.folder.path / name, picture)

    def _save(self) -> None:
        """Writes the state the run can go on from."""
        if not self.accelerator.is_main_process:
            return
        weights = self.network.state_dict()
        self._refuse_unfinite(weights)
        scaler = self.accelerator.scaler
        state = {
            "network": weights,
            "average": None if self.average is None else self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": None if scaler is None else scaler.state_dict(),
            "position": vars(self.at),
            "steps_per_epoch": self.steps_per_epoch,
        }
        save_state(self.folder.path, state)

    def _restore(self) -> None:
        """Go to the newest complete state in the folder, if there is one.

        Raises:
            InputError: If the training set has another size, or the state is of another network.
        """
        state = load_state(self.folder.path)
        if state is None:
            return
        try:
            before = state["steps_per_epoch"]
            require(
                before == self.steps_per_epoch,
                f"an epoch of the run in {self.folder.path} had {before} steps, now it has"
                f" {self.steps_per_epoch}: resume with the same training set",
            )
            self.network.load_state_dict(state["network"])
            self.optimizer.load_state_dict(state["optimizer"])
            if self.average is not None:
                self.average.load_state_dict(state["average"])
            if self.accelerator.scaler is not None:
                self.accelerator.scaler.load_state_dict(state["scaler"])
            self.at = Position(**state["position"])
        except InputError:
            raise
        except Exception as error:  # a state of other contents fails anywhere
            raise InputError(
                f"the checkpoint in {self.folder.path} is not of this network and optimizer"
                f" ({type(error).__name__}): resume with the same configuration, or choose another --output"
            ) from error

    def _refuse_unfinite(self, weights: dict[str, Tensor]) -> None:
        # A step can ruin the weights while its own loss was still finite.
        for name, tensor in weights.items():
            if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
                raise Diverged(f"{name} is not finite after step {self.at.step - 1}: {self._kept()}")

    def _kept(self) -> str:
        kept = load_state(self.folder.path) if self.accelerator.is_main_process else None
        if kept is None:
            return "the run is stopped before its first checkpoint"
        return f"the run is stopped; the checkpoint of step {kept['position']['step']} is kept"


def grouped(batches: Iterable[Batch], size: int) -> Iterator[list[Batch]]:
    """The batches in lists of the given size, the last one as long as it comes.

    Example:
        >>> [len(group) for group in grouped([{}, {}, {}], 2)]
        [2, 1]
    """
    iterator = iter(batches)
    while group := list(itertools.islice(iterator, size)):
        yield group


def _moving_average(network: nn.Module, decay: float | None) -> AveragedModel | None:
    if decay is None:
        return None
    return AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)
