"""Time of ONNX files of one network, by each engine that takes them, beside eager PyTorch in the same run.

ffconv export ffc_resnet50 -o fft.onnx --fft_backend torch
ffconv export ffc_resnet50 -o matrix.onnx --fft_backend dft_matmul
python benchmarks/exported_files.py ffc_resnet50 fft.onnx matrix.onnx
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from ffconv.analysis.benchmark import Effort
from ffconv.analysis.tables import print_table
from ffconv.cli.complexity import map_size
from ffconv.errors import InputError
from ffconv.interop.export_engines import open_exported
from ffconv.interop.export_timing import time_exported, times_table
from ffconv.tasks.exporting import Wanted, network_by_name


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="name[,argument=value,...], as the files were exported from")
    parser.add_argument("files", nargs="+", type=Path, help="ONNX files in float32")
    parser.add_argument("--size", default="224", help="side or HxW the files were exported with")
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    network, given, _ = network_by_name(options.model, Wanted(map_size(options.size)))
    files = {}
    for path in options.files:
        for engine in ("onnxruntime", "openvino"):
            try:
                files[f"{path.name}, {engine}"] = (open_exported(path, "onnx", engine), torch.float32)
            except InputError as error:
                print(error)
    print_table(times_table(time_exported(network, given, files, Effort(rounds=options.rounds)), given))


if __name__ == "__main__":
    main()
