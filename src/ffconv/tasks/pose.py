"""Human (and other) keypoints: batches, loss on heatmaps, evaluation by OKS, checkpoints."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

from torch import Tensor, nn

from ffconv.data.embedded import Split
from ffconv.data.heatmaps import flip_average
from ffconv.data.keypoint_sets import KeypointSet, require_same_keypoints
from ffconv.data.pose_config import PoseDataConfig, open_persons
from ffconv.data.pose_samples import PersonSamples, left_out_words
from ffconv.data.pose_transforms import PoseTestConfig, PoseTransformConfig, PreparePose, to_image
from ffconv.errors import require
from ffconv.interop.checkpoint_info import PoseInfo
from ffconv.metrics.keypoints import PoseMetrics, PoseScores, require_coco_evaluation
from ffconv.tasks.heatmap_loss import heatmap_loss
from ffconv.tasks.loaders import SplitLoaders
from ffconv.tasks.networks import ModelConfig, build_network, require_output
from ffconv.tasks.split_task import SplitTask
from ffconv.training.task import Batch, Share


@dataclass(frozen=True)
class PoseLossConfig:
    """Half the mean squared error of the heatmaps.

    Args:
        hardest: Online hard keypoint mining: of each person only this many keypoints count, those with the
            largest errors; null counts all.
    """

    hardest: int | None = None

    def __post_init__(self) -> None:
        require(
            self.hardest is None or self.hardest > 0,
            f"loss.hardest={self.hardest} must be at least 1, or null",
        )


@dataclass(frozen=True)
class PoseConfig:
    """Options of keypoint estimation.

    Args:
        model: Network, one output map a keypoint.
        data: Images and persons.
        loss: Loss.
        test: Evaluation.
        limit: Use about this many persons of each split, whole images spread over the set; null uses all.
    """

    model: ModelConfig = field(default_factory=lambda: ModelConfig("ffc_pose_resnet50"))
    data: PoseDataConfig = field(default_factory=PoseDataConfig)
    loss: PoseLossConfig = field(default_factory=PoseLossConfig)
    test: PoseTestConfig = field(default_factory=PoseTestConfig)
    limit: int | None = None

    def __post_init__(self) -> None:
        require(self.limit is None or self.limit > 0, f"limit={self.limit} must be at least 1, or null")


@dataclass(frozen=True)
class PoseEstimator:
    """From crops of persons to their keypoints.

    Args:
        network: (N, 3, H, W) -> (N, K, h, w) heatmaps.
        keypoint_set: The K keypoints.
        transform: How crops and heatmaps are made.
        test: How heatmaps are averaged.
    """

    network: nn.Module
    keypoint_set: KeypointSet
    transform: PoseTransformConfig
    test: PoseTestConfig

    def __call__(self, images: Tensor, matrices: Tensor) -> tuple[Tensor, Tensor]:
        """Keypoints and their scores.

        Args:
            images: Normalised crops (N, 3, H, W).
            matrices: (N, 2, 3), from pixels of a crop to those of its image.

        Returns:
            (N, K, 2) x, y in pixels of the image, and (N, K).
        """
        keypoints, scores = self.transform.heatmap_codec.decode(self.heatmaps(images))
        return to_image(keypoints, matrices), scores

    def heatmaps(self, images: Tensor) -> Tensor:
        """Heatmaps (N, K, h, w) in float32."""
        heatmaps = self.network(images).float()
        if not self.test.flip:
            return heatmaps
        shift = self.test.flip_shift
        if shift is None:
            shift = self.transform.heatmap_codec.flip_shift
        mirrored = self.network(images.flip(-1)).float()
        return flip_average(heatmaps, mirrored, self.keypoint_set.flip_order, shift=shift)


class Pose(SplitTask):
    """Keypoint estimation, as `ffconv.training.task.Task` asks for it.

    Args:
        config: Network, persons, loss, evaluation.
        share: This process's part of the work.
        keypoints: Those the outputs must be counted by, a checkpoint's; by default the training set's.
    """

    noun = "persons"
    main_metric = "AP"

    def __init__(self, config: PoseConfig, share: Share, *, keypoints: KeypointSet | None = None) -> None:
        super().__init__(config, share)
        self.config = config
        self._expected = keypoints
        transform = config.data.transform
        self._loaders = SplitLoaders(
            self._open,
            for_training=lambda samples: PreparePose(transform, samples.keypoint_set, augment=True),
            for_evaluation=lambda samples: PreparePose(transform, samples.keypoint_set, augment=False),
            reading=config.data,
            share=share,
        )

    @cached_property
    def keypoints(self) -> KeypointSet:
        """The keypoints in the order of the network's outputs."""
        return self._expected or self._loaders.samples("train").keypoint_set

    def check(self) -> None:
        hardest = self.config.loss.hardest
        require_coco_evaluation()
        super().check()
        require(
            hardest is None or hardest <= len(self.keypoints),
            f"loss.hardest={hardest} must not exceed the {len(self.keypoints)} keypoints of a person",
        )

    def build_model(self) -> nn.Module:
        network = build_network(self.config.model, len(self.keypoints))
        transform = self.config.data.transform
        require_output(
            network,
            self.config.model.name,
            input_size=(3, *transform.input_size),
            output_size=(len(self.keypoints), *transform.heatmap_codec.size),
            advice="take a pose network, and input sides that are multiples of its stride",
        )
        return network

    def loss(self, model: nn.Module, batch: Batch, step: int) -> Tensor:
        heatmaps = model(batch["image"])
        return heatmap_loss(
            heatmaps, batch["target"], batch["target_weight"], hardest=self.config.loss.hardest
        )

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        return self.scores(model, "val").as_dict()

    def scores(self, model: nn.Module, split: Split) -> PoseScores:
        """Scores of a network, in evaluation mode, over exactly the persons of a split.

        Every process must call it; all get the same.
        """
        estimate = PoseEstimator(model, self.keypoints, self.config.data.transform, self.config.test)
        metrics = PoseMetrics(self._loaders.samples(split), self.config.data.transform)
        for batch in map(self.share.move, self._loaders.evaluation(split)):
            keypoints, scores = estimate(batch["image"], batch["to_image"])
            metrics.update(keypoints, scores, batch["index"])
        return metrics.compute()

    def describe(self) -> str:
        reasons = {split: left_out_words(self.left_out(split)) for split in ("train", "val")}
        listed = "; ".join(f"{split} {words}" for split, words in reasons.items() if words)
        return super().describe() + (f"\nannotations left out: {listed}" if listed else "")

    def left_out(self, split: Split) -> dict[str, int]:
        """Return the number of annotations of a split that are not samples, by reason."""
        return dict(self._loaders.samples(split).left_out)

    def info(self) -> PoseInfo:
        model, transform = self.config.model, self.config.data.transform
        return PoseInfo(model.name, model.arguments, self.keypoints, transform, self.config.test)

    def _open(self, split: Split) -> PersonSamples:
        samples = open_persons(self.config.data, split)
        expected = self._expected if split == "train" else self.keypoints
        if expected is not None:
            require_same_keypoints(expected, samples.keypoint_set, f"data split {split}")
        return samples if self.config.limit is None else samples.limited(self.config.limit)
