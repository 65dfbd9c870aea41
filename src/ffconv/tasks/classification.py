"""Image classification: its batches, its loss with mixing, its evaluation, its checkpoints."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from ffconv.data.config import DataConfig, Split, open_samples
from ffconv.data.limit import limited
from ffconv.data.loading import Batches, BatchLoader, LoaderSpec, batches_per_epoch
from ffconv.data.samples import require_same_classes
from ffconv.data.seeding import borrowed_randomness, derive_seed
from ffconv.data.transforms import PrepareImage, eval_transform, train_transform
from ffconv.data.verify import refuse_unreadable, verify
from ffconv.errors import require
from ffconv.metrics.classification import ClassificationMetrics, ClassificationScores
from ffconv.tasks.networks import ModelConfig, build_network, restore_network
from ffconv.training.checkpoint import read_weights
from ffconv.training.config import plain
from ffconv.training.task import Batch, Share


@dataclass(frozen=True)
class LossConfig:
    """Cross entropy, and how images and labels are mixed before it.

    Args:
        label_smoothing: Share of the target spread over all classes.
        mixup: Alpha of mixup's Beta distribution; 0 switches it off.
        cutmix: Alpha of cutmix's; with both on, each step takes one of them.
    """

    label_smoothing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0

    def __post_init__(self) -> None:
        require(
            0 <= self.label_smoothing < 1, f"loss.label_smoothing={self.label_smoothing} must lie in [0, 1)"
        )
        for name in ("mixup", "cutmix"):
            require(getattr(self, name) >= 0, f"loss.{name}={getattr(self, name)} must be at least 0")


@dataclass(frozen=True)
class ClassificationConfig:
    """What image classification is told.

    Args:
        model: Network.
        data: Images.
        loss: Loss.
        limit: Use no more than this many images of each split, spread over all classes; null uses all.
    """

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    limit: int | None = None

    def __post_init__(self) -> None:
        require(self.limit is None or self.limit > 0, f"limit={self.limit} must be at least 1, or null")


class Classification:
    """Image classification, as `ffconv.training.task.Task` asks for it.

    Args:
        config: Network, images, loss.
        share: This process's part of the work.
        classes: Names the labels must be counted by, a checkpoint's; by default those of the training set.
    """

    main_metric = "top1"

    def __init__(self, config: ClassificationConfig, share: Share, *, classes: tuple[str, ...] | None = None):
        self.config, self.share = config, share
        self._expected_classes = classes
        self._skipped: dict[str, str] = {}
        self._sources: dict[Split, Any] = {}
        self._eval_loaders: dict[Split, BatchLoader] = {}

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes in label order."""
        return self._expected_classes or tuple(self._samples("train").classes)

    def check(self) -> None:
        for split in ("train", "val"):
            samples = self._samples(split)
            if self.config.data.verify:
                refuse_unreadable(verify(samples, workers=self.config.data.worker_processes), len(samples))

    def build_model(self) -> nn.Module:
        return build_network(self.config.model, len(self.classes))

    def batches_per_epoch(self) -> int:
        return batches_per_epoch(self._samples("train"), self._train_spec)

    def train_batches(self, epoch: int, start: int) -> Iterable[Batch]:
        batches = self._train_loader.train(epoch, start)
        try:
            yield from batches
        finally:
            self._note_skipped(batches)

    def loss(self, model: nn.Module, batch: Batch, step: int) -> Tensor:
        images, targets = self._mixed(batch["image"], batch["label"], step)
        return F.cross_entropy(model(images), targets, label_smoothing=self.config.loss.label_smoothing)

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        return self.scores(model, "val").as_dict()

    def scores(self, model: nn.Module, split: Split) -> ClassificationScores:
        """Scores of a network, in evaluation mode, over exactly the images of a split.

        Every process must call it; all get the same.
        """
        batches = self._eval_loader(split).evaluation()
        metrics = ClassificationMetrics(self.classes)
        for batch in map(self.share.move, batches):
            logits = model(batch["image"]).float()
            losses = F.cross_entropy(logits, batch["label"], reduction="none")
            metrics.update(logits, batch["label"], losses)
        self._note_skipped(batches)
        return metrics.compute()

    def metadata(self) -> dict[str, Any]:
        data = plain(self.config.data)
        del data["workers"]  # of this machine, and the same run gives the same file with any number
        return {
            "task": "classification",
            "model": {"name": self.config.model.name, "arguments": self.config.model.arguments},
            "classes": self.classes,
            "data": data,
        }

    def skipped(self) -> Iterable[tuple[str, str]]:
        return self._skipped.items()

    def _note_skipped(self, batches: Batches) -> None:
        self._skipped |= {sample.name: sample.reason for sample in batches.skipped}

    def _mixed(self, images: Tensor, labels: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """Images and targets (N, C) mixed as the step's seed says, the same way on every process."""
        from torchvision.transforms import v2

        loss, classes = self.config.loss, len(self.classes)
        mixings: list[nn.Module] = []
        if loss.mixup > 0:
            mixings.append(v2.MixUp(alpha=loss.mixup, num_classes=classes))
        if loss.cutmix > 0:
            mixings.append(v2.CutMix(alpha=loss.cutmix, num_classes=classes))
        if not mixings:
            return images, labels
        with borrowed_randomness() as seed_everything:
            seed_everything(derive_seed(self.share.seed, "mixing", step))
            return v2.RandomChoice(mixings)(images, labels)

    @cached_property
    def _train_spec(self) -> LoaderSpec:
        # A set smaller than a batch, as --limit makes it, is a batch of its own.
        together = self.share.batch_size * self.share.world_size
        return self._spec(drop_last=len(self._samples("train")) >= together)

    @cached_property
    def _train_loader(self) -> BatchLoader:
        prepare = PrepareImage(train_transform(self.config.data.transform))
        return BatchLoader(self._samples("train"), prepare, self._train_spec)

    def _eval_loader(self, split: Split) -> BatchLoader:
        if split not in self._eval_loaders:
            prepare, spec = (
                PrepareImage(eval_transform(self.config.data.transform)),
                self._spec(drop_last=False),
            )
            self._eval_loaders[split] = BatchLoader(self._samples(split), prepare, spec)
        return self._eval_loaders[split]

    def _samples(self, split: Split) -> Any:
        if split not in self._sources:  # listing a million files takes its time
            samples = open_samples(self.config.data, split)
            expected = self._expected_classes if split == "train" else self.classes
            if expected is not None:
                require_same_classes(expected, samples.classes, f"data split {split}")
            limit = self.config.limit
            self._sources[split] = samples if limit is None else limited(samples, limit)
        return self._sources[split]

    def _spec(self, *, drop_last: bool) -> LoaderSpec:
        return LoaderSpec(
            batch_size=self.share.batch_size,
            seed=self.share.seed,
            workers=self.config.data.worker_processes,
            rank=self.share.rank,
            world_size=self.share.world_size,
            pin_memory=self.share.device.type == "cuda",
            on_error=self.config.data.on_error,
            drop_last=drop_last,
        )


@dataclass(frozen=True)
class Classifier:
    """A network with all that its checkpoint says of it.

    Args:
        network: In evaluation mode, on the CPU.
        classes: Names in the order of its outputs.
        data: The data section it was trained with: sizes and normalisation among it.
        metrics: Row of metrics.csv of the epoch it was saved at.
    """

    network: nn.Module
    classes: tuple[str, ...]
    data: dict[str, Any]
    metrics: dict[str, float]


def load_classifier(path: Path) -> Classifier:
    """A trained network from its checkpoint alone.

    Raises:
        InputError: if the file is missing, truncated, or of another task or architecture.
    """
    weights, metadata = read_weights(path)
    require(
        metadata.get("task") == "classification",
        f"{path} is a checkpoint of {metadata.get('task')}, not of classification",
    )
    model, classes = metadata["model"], tuple(metadata["classes"])
    network = restore_network(model["name"], len(classes), model["arguments"], weights, source=path)
    return Classifier(network, classes, metadata["data"], metadata["metrics"])
