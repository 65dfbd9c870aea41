"""Image classification: its batches, its loss with mixing, its evaluation, its checkpoints."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

from torch import Tensor, nn
from torch.nn import functional as F

from ffconv.data.config import DataConfig, Split, open_samples
from ffconv.data.seeding import borrowed_randomness, derive_seed
from ffconv.data.transforms import PrepareImage, eval_transform, train_transform
from ffconv.errors import require
from ffconv.interop.checkpoint_info import ImageInfo
from ffconv.metrics.classification import ClassificationMetrics, ClassificationScores
from ffconv.tasks.labelled import LabelledTask
from ffconv.tasks.loaders import SplitLoaders
from ffconv.tasks.networks import ModelConfig, build_network
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
    """Options of image classification.

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


class Classification(LabelledTask):
    """Image classification, as `ffconv.training.task.Task` asks for it.

    Args:
        config: Network, images, loss.
        share: This process's part of the work.
        classes: Names the labels must be counted by, a checkpoint's; by default those of the training set.
    """

    def __init__(self, config: ClassificationConfig, share: Share, *, classes: tuple[str, ...] | None = None):
        super().__init__(config, share, classes=classes, open_split=partial(open_samples, config.data))
        self.config = config
        transform = config.data.transform
        self._loaders = SplitLoaders(
            self._opened,
            for_training=lambda _: PrepareImage(train_transform(transform)),
            for_evaluation=lambda _: PrepareImage(eval_transform(transform)),
            reading=config.data,
            share=share,
        )

    def build_model(self) -> nn.Module:
        return build_network(self.config.model, len(self.classes))

    def info(self) -> ImageInfo:
        model, transform = self.config.model, self.config.data.transform
        return ImageInfo(model.name, model.arguments, self.classes, transform)

    def loss(self, model: nn.Module, batch: Batch, step: int) -> Tensor:
        images, targets = self._mixed(batch["image"], batch["label"], step)
        return F.cross_entropy(model(images), targets, label_smoothing=self.config.loss.label_smoothing)

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        return self.scores(model, "val").as_dict()

    def scores(self, model: nn.Module, split: Split) -> ClassificationScores:
        """Scores of a network, in evaluation mode, over exactly the images of a split.

        Every process must call it; all get the same.
        """
        metrics = ClassificationMetrics(self.classes)
        for batch in map(self.share.move, self._loaders.evaluation(split)):
            logits = model(batch["image"]).float()
            losses = F.cross_entropy(logits, batch["label"], reduction="none")
            metrics.update(logits, batch["label"], losses)
        return metrics.compute()

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
