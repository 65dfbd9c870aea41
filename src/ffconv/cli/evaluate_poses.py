"""``ffconv evaluate`` for networks that find keypoints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ffconv.cli.checkpoints import checkpoint_file, load_checkpoint
from ffconv.cli.evaluation import Evaluated, evaluate, section_of
from ffconv.cli.parser import CommandParser
from ffconv.wording import counted, say

if TYPE_CHECKING:
    from ffconv.metrics.keypoints import PoseScores


def add_arguments(parser: CommandParser, task: str) -> None:
    """The options of the data and of the evaluation."""
    from ffconv.data.pose_config import PoseDataConfig
    from ffconv.data.pose_transforms import PoseTestConfig

    parser.add_class_arguments(PoseDataConfig, "data")
    parser.add_class_arguments(PoseTestConfig, "test")


def run(arguments: Any) -> int:
    """Prints the scores and writes them with the keypoints."""
    from ffconv.data.pose_config import PoseDataConfig
    from ffconv.data.pose_transforms import PoseTestConfig
    from ffconv.interop.checkpoint_info import PoseInfo
    from ffconv.tasks.pose import Pose, PoseConfig
    from ffconv.training.config import plain

    network, info = load_checkpoint(checkpoint_file(arguments.checkpoint, arguments.weights), PoseInfo)
    prepared = {"transform": plain(info.transform)}
    config = PoseConfig(
        data=section_of(arguments, PoseDataConfig, prepared, section="data"),
        test=section_of(arguments, PoseTestConfig, plain(info.test), section="test"),
        limit=arguments.limit,
    )
    return evaluate(
        arguments,
        network,
        config,
        lambda share: Pose(config, share, keypoints=info.keypoints),
        lambda task, network: (task.scores(network, arguments.split), task.left_out(arguments.split)),
        report=_report,
    )


def _report(found: Evaluated) -> None:
    from ffconv.data.pose_samples import left_out_words
    from ffconv.metrics.keypoints import write_results

    scores: PoseScores = found.scores[0]
    left_out = found.scores[1]
    write_results(scores.results, found.output / "keypoints.json")
    found.write_scores({"persons": len(scores.results), **scores.as_dict(), "annotations_left_out": left_out})
    values = "  ".join(f"{name} {value:.1f}" for name, value in scores.as_dict().items())
    say(f"{values} (%)  over {counted(len(scores.results), 'person')} found{found.left_out('one')}")
    if words := left_out_words(left_out):
        say(f"annotations left out: {words}")
    say(f"keypoints.json (COCO's result format) and scores.json are in {found.output}")
