"""FFC layers under compilers, exporters, tracers, checkpointing and several processes."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint
from torchvision.models.feature_extraction import create_feature_extractor

from ffconv.nn import FFC2d, FFC3d


class Network(nn.Module):
    """Local, then both, then local again, as in the paper's networks."""

    def __init__(self, **options):
        super().__init__()
        self.first = FFC2d(3, 16, 3, padding=1, bias=False, ratio_in=0, ratio_out=0.5)
        self.norm = nn.BatchNorm2d(16)
        self.middle = FFC2d(16, 16, 3, stride=2, padding=1, ratio=0.5, **options)
        self.last = FFC2d(16, 4, 1, ratio_in=0.5, ratio_out=0)

    def forward(self, x):
        x = F.relu(self.norm(self.first(x)))
        return self.last(F.relu(self.middle(x)))


@pytest.fixture(params=[{}, {"groups": 4}, {"padding_mode": "reflect"}], ids=["plain", "groups", "reflect"])
def network(request):
    torch._dynamo.reset()
    return Network(**request.param).eval()


@pytest.mark.parametrize("size", [(8, 8), (9, 7)])
def test_symbolic_trace(network, size):
    network, x = network.double(), torch.randn(2, 3, *size, dtype=torch.float64)
    torch.testing.assert_close(torch.fx.symbolic_trace(network)(x), network(x), rtol=0, atol=1e-13)


@pytest.mark.parametrize("size", [(8, 8), (9, 7)])
def test_feature_extractor_gives_the_features(network, size):
    network, x = network.double(), torch.randn(2, 3, *size, dtype=torch.float64)
    features = create_feature_extractor(network, ["middle", "last"])(x)
    torch.testing.assert_close(features["last"], network(x), rtol=0, atol=1e-13)


def test_feature_extractor_backward(network):
    extractor = create_feature_extractor(network.double(), ["last"])
    x = torch.randn(2, 3, 7, 6, dtype=torch.float64)
    network.train()(x).square().sum().backward()
    expected = {name: p.grad.clone() for name, p in network.named_parameters()}
    network.zero_grad()
    extractor.train()(x)["last"].square().sum().backward()
    for name, p in extractor.named_parameters():
        torch.testing.assert_close(p.grad, expected[name])


@pytest.mark.slow
def test_compile_fullgraph_forward_and_backward(network):
    x = torch.randn(2, 3, 9, 7)
    twin = copy.deepcopy(network).train()
    compiled = torch.compile(network.train(), fullgraph=True)
    y, expected = compiled(x), twin(x)
    torch.testing.assert_close(y, expected)
    y.square().sum().backward()
    expected.square().sum().backward()
    for p, q in zip(network.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_compile_with_dynamic_sizes(network):
    compiled = torch.compile(network, fullgraph=True, dynamic=True)
    for size in ((9, 7), (12, 16), (5, 31)):
        x = torch.randn(2, 3, *size)
        with torch.no_grad():
            torch.testing.assert_close(compiled(x), network(x))


def test_export_with_dynamic_sizes(network):
    axes = {
        0: torch.export.Dim("n", max=64),
        2: torch.export.Dim("h", min=7),
        3: torch.export.Dim("w", min=7),
    }
    program = torch.export.export(network, (torch.randn(2, 3, 9, 7),), dynamic_shapes=(axes,))
    for size in ((9, 7), (12, 16), (7, 31)):
        x = torch.randn(3, 3, *size)
        torch.testing.assert_close(program.module()(x), network(x))


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_jit_trace(network):
    x = torch.randn(2, 3, 9, 7)
    traced = torch.jit.trace(network, x)
    torch.testing.assert_close(traced(x), network(x))


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_gradient_checkpointing(network, use_reentrant):
    x = torch.randn(2, 3, 9, 7, requires_grad=True)
    network(x).square().sum().backward()
    expected, x.grad = x.grad, None
    checkpoint(network, x, use_reentrant=use_reentrant).square().sum().backward()
    torch.testing.assert_close(x.grad, expected)


def _train_one_step(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2
    )
    torch.manual_seed(0)
    network = Network()
    x = torch.randn(4, 3, 9, 7)[2 * rank : 2 * rank + 2]
    parallel = nn.parallel.DistributedDataParallel(
        network
    )  # find_unused_parameters would hide what this tests
    for _ in range(2):
        parallel(x).square().sum().backward()
    torch.save([p.grad for p in network.parameters()], f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


def test_distributed_data_parallel_has_no_unused_parameter(tmp_path):
    torch.multiprocessing.spawn(_train_one_step, (str(tmp_path),), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    assert all(torch.equal(p, q) and p.any() for p, q in zip(first, second, strict=True))


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_cuda_equals_cpu(network, dtype):
    x = torch.randn(2, 3, 9, 7)
    expected = network(x)
    with torch.autocast("cuda", dtype, enabled=dtype != torch.float32):
        y = copy.deepcopy(network).cuda()(x.cuda()).cpu().float()
    tolerance = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}[dtype]
    torch.testing.assert_close(y, expected, rtol=tolerance, atol=tolerance)


class VideoNetwork(nn.Module):
    """As :class:`Network`, with time, and the transform over time in the middle."""

    def __init__(self):
        super().__init__()
        self.first = FFC3d(3, 16, 3, padding=1, bias=False, ratio_in=0, ratio_out=0.5)
        self.norm = nn.BatchNorm3d(16)
        self.middle = FFC3d(
            16, 16, 3, (2, 2, 1), padding=1, ratio=0.5, padding_mode=("replicate", "zeros", "zeros")
        )
        self.whole = FFC3d(16, 16, 1, ratio=0.5, spectral_dims=("t", "h", "w"))
        self.last = FFC3d(16, 4, (3, 1, 1), padding=(1, 0, 0), ratio_in=0.5, ratio_out=0)

    def forward(self, x):
        x = F.relu(self.norm(self.first(x)))
        return self.last(F.relu(self.whole(F.relu(self.middle(x)))))


@pytest.fixture
def video_network():
    torch._dynamo.reset()
    return VideoNetwork().eval()


@pytest.mark.parametrize("size", [(4, 8, 8), (3, 9, 7)])
def test_feature_extractor_of_a_video_network(video_network, size):
    x = torch.randn(2, 3, *size)
    features = create_feature_extractor(video_network, ["middle", "last"])(x)
    torch.testing.assert_close(features["last"], video_network(x), rtol=0, atol=0)


@pytest.mark.slow
def test_compile_of_a_video_network_with_dynamic_sizes(video_network):
    compiled = torch.compile(video_network, fullgraph=True, dynamic=True)
    for size in ((3, 9, 7), (4, 6, 8)):
        x = torch.randn(2, 3, *size, requires_grad=True)
        y, expected = compiled(x), video_network(x)
        torch.testing.assert_close(y, expected)
        (grad,) = torch.autograd.grad(y.square().sum(), x)
        torch.testing.assert_close(grad, torch.autograd.grad(expected.square().sum(), x)[0])


def test_export_of_a_video_network_with_dynamic_sizes(video_network):
    names = {0: "n", 2: "t", 3: "h", 4: "w"}
    axes = {axis: torch.export.Dim(name, min=1 if name == "n" else 5, max=64) for axis, name in names.items()}
    program = torch.export.export(video_network, (torch.randn(2, 3, 8, 9, 7),), dynamic_shapes=(axes,))
    for size in ((8, 9, 7), (5, 8, 10)):
        x = torch.randn(3, 3, *size)
        torch.testing.assert_close(program.module()(x), video_network(x))


def test_gradient_checkpointing_of_a_video_network(video_network):
    x = torch.randn(1, 3, 3, 6, 5, requires_grad=True)
    expected = torch.autograd.grad(video_network(x).square().sum(), x)[0]
    y = checkpoint(video_network, x, use_reentrant=False)
    torch.testing.assert_close(torch.autograd.grad(y.square().sum(), x)[0], expected)
