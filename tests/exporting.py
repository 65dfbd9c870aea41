"""A small network to export, and other programs that run the files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import openvino
import torch
from torch import Tensor, nn

import oracles
from ffconv.interop.export_input import NetworkInput
from ffconv.nn import FFC2d

#: Of what stands in every ONNX runtime: no transform, no complex number, no control flow.
ORDINARY = frozenset(
    """
    Add AveragePool BatchNormalization Cast Clip Concat ConstantOfShape Conv ConvTranspose Cos Div Equal
    Expand Gather Gemm HardSigmoid HardSwish LayerNormalization Less MatMul MaxPool Mod Mul Or Pad Pow Range
    Reciprocal ReduceMean Relu Reshape Resize Shape Sigmoid Slice Softmax Sqrt Squeeze Sub Tanh Tile
    Transpose Unsqueeze Where
    """.split()  # noqa: SIM905 (forty lines otherwise)
)


class TinyNetwork(nn.Module):
    """A stem, one FFC with both Fourier Units, and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.ffc = FFC2d(8, 16, 3, stride=2, padding=1, ratio=0.5, bias=False)
        self.bn = nn.BatchNorm2d(16)
        self.fc = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(torch.relu(self.bn(self.ffc(self.stem(x)))).mean((2, 3)))


#: Sides of 33 and 22 give the FFC a map of 17 x 11, and its Local Fourier Unit one of 5 x 3.
TINY_INPUT = NetworkInput(
    "classification", (3, 33, 22), mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.3), classes=("a", "b", "ü", "d")
)


def trained(network: nn.Module) -> nn.Module:
    """The network with norms that do something, in evaluation mode."""
    oracles.randomise_norms(network)
    return network.eval()


def by_onnxruntime(path: Path, x: Tensor) -> Tensor:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (y,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    return torch.from_numpy(y)


def by_openvino(path: Path, x: Tensor) -> Tensor:
    compiled = openvino.Core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return torch.from_numpy(np.array(compiled(x.numpy())[0]))


def relative_difference(found: Tensor, expected: Tensor) -> float:
    """The largest difference as a share of the largest value expected."""
    assert found.shape == expected.shape
    return ((found.float() - expected).abs().max() / expected.abs().max()).item()
