"""What heatmaps lose: annotated keypoints through crop, heatmaps, decoding, way back and COCO's evaluation.

python benchmarks/pose_codecs.py COCO_FOLDER    (train2017, val2017, annotations; without: drawn figures)
"""

from __future__ import annotations

import sys

import numpy as np
import torch

from ffconv.analysis.tables import Table, print_table
from ffconv.data.embedded import Split
from ffconv.data.pose_config import PoseDataConfig, open_persons
from ffconv.data.pose_samples import PersonSamples
from ffconv.data.pose_transforms import PoseTransformConfig, box_crop
from ffconv.metrics.keypoints import PoseMetrics

#: Input sizes with the sigma of their heatmaps.
SIZES = (((64, 48), 1.0), ((128, 96), 1.5), ((256, 192), 2.0), ((384, 288), 3.0))


def through(samples: PersonSamples, config: PoseTransformConfig) -> tuple[float, float]:
    """Return the AP in percent and the median error of the labelled keypoints in pixels of the input."""
    metrics, errors = PoseMetrics(samples, config), []
    for number in range(len(samples)):
        person = samples.person(number)
        matrix = box_crop(person.box, config).to_input(config.input_size)
        keypoints = person.keypoints @ matrix[:, :2].T + matrix[:, 2]
        labelled = torch.from_numpy(person.visibility > 0)
        target, _ = config.heatmap_codec.encode(torch.from_numpy(keypoints), labelled)
        found, scores = config.heatmap_codec.decode(target[None])
        errors.append(np.linalg.norm(found[0].numpy() - keypoints, axis=1)[labelled.numpy()])
        back = (found[0].double().numpy() - matrix[:, 2]) @ np.linalg.inv(matrix[:, :2]).T
        metrics.update(torch.from_numpy(back)[None], scores, torch.tensor([number]))
    return metrics.compute().ap, float(np.median(np.concatenate(errors)))


def main() -> None:
    folder = sys.argv[1] if len(sys.argv) > 1 else ""
    data = PoseDataConfig(folder, format="coco" if folder else "figures")
    rows = []
    splits: tuple[Split, ...] = ("train", "val")
    for split in splits:
        samples = open_persons(data, split)
        for size, sigma in SIZES:
            row = [split, str(len(samples)), f"{size[0]}x{size[1]}"]
            for codec in ("protocol", "unbiased"):
                config = PoseTransformConfig(input_size=size, sigma=sigma, codec=codec)
                ap, error = through(samples, config)
                row += [f"{ap:.1f}", f"{error:.2f}"]
            rows.append(tuple(row))
    columns = ("split", "persons", "input", "protocol AP", "error (px)", "unbiased AP", "error (px)")
    print_table(Table("Truth through heatmaps (median error in pixels of the input)", columns, rows))


if __name__ == "__main__":
    main()
