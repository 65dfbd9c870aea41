"""``ffconv evaluate`` for networks that find keypoints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ffconv.cli.checkpoints import checkpoint_file
from ffconv.cli.parser import CommandParser, from_plain
from ffconv.cli.recipes import merged

if TYPE_CHECKING:
    from ffconv.metrics.keypoints import PoseScores


def add_arguments(parser: CommandParser, task: str) -> None:
    """The options of the data and of the evaluation."""
    from ffconv.data.pose_config import PoseDataConfig
    from ffconv.tasks.pose import PoseTestConfig

    parser.add_class_arguments(PoseDataConfig, "data")
    parser.add_class_arguments(PoseTestConfig, "test")


def run(arguments: Any) -> int:
    """Prints the scores and writes them with the keypoints."""
    import torch

    from ffconv.data.pose_config import PoseDataConfig
    from ffconv.tasks.pose import Pose, PoseConfig, PoseTestConfig, load_pose
    from ffconv.training.config import LoopConfig
    from ffconv.training.processes import share_of, start_accelerator

    path = checkpoint_file(arguments.checkpoint, arguments.weights)
    trained, given = load_pose(path), arguments.given
    data = from_plain(PoseDataConfig, merged(trained.data, given.get("data", {})), section="data")
    test = from_plain(PoseTestConfig, merged(trained.test, given.get("test", {})), section="test")
    accelerator = start_accelerator(LoopConfig(precision=arguments.precision, device=arguments.device))
    task = Pose(
        PoseConfig(data=data, test=test, limit=arguments.limit),
        share_of(accelerator, arguments.batch_size),
        keypoints=trained.keypoint_set,
    )
    with torch.no_grad(), accelerator.autocast():
        scores = task.scores(trained.network.to(accelerator.device), arguments.split)
    if accelerator.is_main_process:
        output = arguments.output or path.parent / f"{path.stem}-{arguments.split}"
        _report(scores, output, dict(task.skipped()))
    return 0


def _report(scores: PoseScores, output: Path, skipped: dict[str, str]) -> None:
    from ffconv.metrics.keypoints import write_results
    from ffconv.training.checkpoint import write_atomically

    output.mkdir(parents=True, exist_ok=True)
    write_results(scores.results, output / "keypoints.json")
    summary = {"persons": len(scores.results), **scores.as_dict(), "skipped": skipped}
    write_atomically(output / "scores.json", json.dumps(summary, indent=2).encode())
    values = "  ".join(f"{name} {100 * value:.1f}" for name, value in scores.as_dict().items())
    left_out = f", {len(skipped)} unreadable ones left out" if skipped else ""
    print(f"{values}  over {len(scores.results)} persons found{left_out}")
    print(f"keypoints.json (COCO's result format) and scores.json are in {output}")
