"""What a training run is told: frozen dataclasses that check themselves.

A wrong value raises `InputError` with the field's full name, so that the command line can print it as it is.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ffconv.errors import require


@dataclass(frozen=True)
class OptimConfig:
    """Optimizer.

    Args:
        name: sgd (with momentum), adam or adamw.
        lr: Peak learning rate for a total batch of `reference_batch`; it follows the total batch linearly.
        reference_batch: Total batch that `lr` belongs to; null keeps `lr` whatever the batch.
        momentum: Momentum of sgd.
        nesterov: Nesterov's form of momentum (sgd).
        betas: Decay of the two moments (adam, adamw).
        weight_decay: Weight decay; in the loss for sgd and adam, decoupled for adamw.
        decay_all: Decay every parameter, as the paper's protocol does; false spares biases and norms.
    """

    name: Literal["sgd", "adam", "adamw"] = "sgd"
    lr: float = 0.1
    reference_batch: int | None = 256
    momentum: float = 0.9
    nesterov: bool = False
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 1e-4
    decay_all: bool = True

    def __post_init__(self) -> None:
        require(self.lr > 0, f"optim.lr={self.lr} must be above 0")
        require(
            self.reference_batch is None or self.reference_batch > 0,
            f"optim.reference_batch={self.reference_batch} must be at least 1, or null",
        )
        require(0 <= self.momentum < 1, f"optim.momentum={self.momentum} must lie in [0, 1)")
        require(not self.nesterov or self.momentum > 0, "optim.nesterov needs optim.momentum above 0")
        require(all(0 <= beta < 1 for beta in self.betas), f"optim.betas={self.betas} must lie in [0, 1)")
        require(self.weight_decay >= 0, f"optim.weight_decay={self.weight_decay} must be at least 0")


@dataclass(frozen=True)
class ScheduleConfig:
    """Learning rate over the run, set before each step.

    Args:
        name: steps (times `factor` after each of `milestones`), cosine (down to `final`) or constant.
        warmup_epochs: Epochs over which the rate rises linearly from 0, step by step.
        milestones: Epochs after which the rate is multiplied by `factor` (steps).
        factor: What each milestone multiplies by (steps).
        final: Rate at the end of the run as a share of the peak (cosine).
    """

    name: Literal["steps", "cosine", "constant"] = "steps"
    warmup_epochs: float = 5.0
    milestones: tuple[int, ...] = (30, 60, 80)
    factor: float = 0.1
    final: float = 0.0

    def __post_init__(self) -> None:
        require(self.warmup_epochs >= 0, f"schedule.warmup_epochs={self.warmup_epochs} must be at least 0")
        rising = all(a < b for a, b in zip(self.milestones, self.milestones[1:], strict=False))
        require(
            rising and all(epoch > 0 for epoch in self.milestones),
            f"schedule.milestones={list(self.milestones)} must be rising epochs above 0",
        )
        require(0 < self.factor <= 1, f"schedule.factor={self.factor} must lie in (0, 1]")
        require(0 <= self.final <= 1, f"schedule.final={self.final} must lie in [0, 1]")


@dataclass(frozen=True)
class LoopConfig:
    """The loop itself.

    Args:
        epochs: Passes over the training set.
        batch_size: Samples a step takes in total, over all processes and accumulated batches.
        accumulate: Batches whose gradients a process adds up before each step.
        precision: Mixed precision of the network: no (float32), bf16 or fp16 (with loss scaling, CUDA only).
        channels_last: Keep images and weights in channels-last order.
        compile: Run the network through torch.compile.
        clip_norm: Largest norm of all gradients together; null does not clip.
        ema_decay: Keep an exponential moving average of weights and buffers with this decay; null keeps none.
        precise_bn_samples: Training samples from which the statistics of batch norms are re-estimated before
            each evaluation (precise BN); 0 evaluates with the running averages of training, which lag behind
            in the first epochs of a short run.
        log_every: Steps between two looks at the loss; one look waits for the device.
        device: auto takes the accelerator if there is one; cpu stays on the processor.
    """

    epochs: int = 90
    batch_size: int = 256
    accumulate: int = 1
    precision: Literal["no", "bf16", "fp16"] = "no"
    channels_last: bool = False
    compile: bool = False
    clip_norm: float | None = None
    ema_decay: float | None = None
    precise_bn_samples: int = 0
    log_every: int = 10
    device: Literal["auto", "cpu"] = "auto"

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "accumulate", "log_every"):
            require(getattr(self, name) > 0, f"loop.{name}={getattr(self, name)} must be at least 1")
        require(
            self.clip_norm is None or self.clip_norm > 0,
            f"loop.clip_norm={self.clip_norm} must be above 0, or null",
        )
        require(
            self.precise_bn_samples >= 0,
            f"loop.precise_bn_samples={self.precise_bn_samples} must be at least 0",
        )
        require(
            self.ema_decay is None or 0 < self.ema_decay < 1,
            f"loop.ema_decay={self.ema_decay} must lie in (0, 1), or null",
        )


@dataclass(frozen=True)
class CheckpointConfig:
    """When the run saves what it needs to go on.

    Args:
        every: Steps between two checkpoints inside an epoch; 0 saves at the end of each epoch only.
    """

    every: int = 1000

    def __post_init__(self) -> None:
        require(self.every >= 0, f"checkpoint.every={self.every} must be at least 0")


@dataclass(frozen=True)
class TrainingConfig:
    """Options of every run.

    Args:
        output: Run folder; by default runs/ and the recipe's name, or the model's where there is no recipe.
        resume: auto goes on from the run folder's newest complete checkpoint, if it has one; no starts a new
            run and refuses a folder that holds one.
        seed: Everything random follows from it: weights, order, augmentation, mixing, dropout.
        optim: Optimizer.
        schedule: Learning rate.
        loop: Loop.
        checkpoint: Checkpoints.
    """

    output: str | None = None
    resume: Literal["no", "auto"] = "no"
    seed: int = 0
    optim: OptimConfig = field(default_factory=OptimConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    loop: LoopConfig = field(default_factory=LoopConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)

    def __post_init__(self) -> None:
        require(self.seed >= 0, f"seed={self.seed} must be at least 0")


def plain(config: Any) -> dict[str, Any]:
    """A configuration as nested dicts, lists and scalars: what YAML, JSON and checkpoints hold."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested mappings as one, with dotted names.

    Example:
        >>> flatten({"a": {"b": 1}, "c": 2})
        {'a.b': 1, 'c': 2}
    """
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat
