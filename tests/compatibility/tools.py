"""Rows of the matrix: what PyTorch's other tools do with a network."""

from __future__ import annotations

import copy
import io
import pickle
import tempfile
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.func import functional_call, grad, vmap
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

import ffconv
from compatibility.families import Family


def other_sizes(family: Family) -> None:
    """Maps of other sizes than the network has seen, odd ones where it has no stride of its own to divide."""
    network = family.network()
    for size in family.other_sizes:
        x = family.input(size).requires_grad_()
        (gradient,) = torch.autograd.grad(network(x).square().sum(), x)
        assert gradient.isfinite().all()
        assert gradient.flatten(2).any(dim=2).all()


def channels_last(family: Family) -> None:
    """The function does not depend on the memory format."""
    layout = {3: torch.contiguous_format, 4: torch.channels_last, 5: torch.channels_last_3d}
    network, x = family.network().eval(), family.input()
    expected = network(x)
    y = network.to(memory_format=layout[x.dim()])(x.to(memory_format=layout[x.dim()]))
    torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-4)


def state_dict(family: Family) -> None:
    """Saved and loaded without unpickling code, it computes the same."""
    network, x = family.network().eval(), family.input()
    file = io.BytesIO()
    torch.save(network.state_dict(), file)
    file.seek(0)
    twin = family.build().eval()
    twin.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(twin(x), network(x))


def copied(family: Family) -> None:
    """Deep copies and pickles compute the same."""
    network, x = family.network().eval(), family.input()
    expected = network(x)
    assert torch.equal(copy.deepcopy(network)(x), expected)
    assert torch.equal(pickle.loads(pickle.dumps(network))(x), expected)


def meta_device(family: Family) -> None:
    """On the meta device it gives the shape of its output, and of its gradients."""
    expected = family.network()(family.input())
    with torch.device("meta"):
        network = family.build()
        y = network(torch.empty(2, *family.size))
    assert y.shape == expected.shape
    y.sum().backward()
    assert all(p.grad is not None and p.grad.shape == p.shape for p in network.parameters())


def checkpointed(family: Family) -> None:
    """Recomputed in the backward pass, the gradient is the same."""
    network, x = family.network().eval(), family.input().requires_grad_()
    expected = torch.autograd.grad(network(x).square().mean(), x)[0]
    y = checkpoint(network, x, use_reentrant=False)
    torch.testing.assert_close(torch.autograd.grad(y.square().mean(), x)[0], expected)


def in_parallel(family: Family) -> None:
    """In DistributedDataParallel every parameter gets its gradient."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "rendezvous").as_uri()
        torch.distributed.init_process_group("gloo", init_method=file, rank=0, world_size=1)
        try:
            network = DistributedDataParallel(family.network())
            for _ in range(2):  # a parameter without a gradient is an error of the second step
                network(family.input()).square().mean().backward()
        finally:
            torch.distributed.destroy_process_group()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


def gradient_of_gradient(family: Family) -> None:
    """The gradient's gradient, as penalties on gradients need it, is that of a finite difference."""
    network = family.network().eval().double()
    x = family.input().double().requires_grad_()
    direction = torch.randn(x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(2))

    def slope(at: Tensor) -> Tensor:
        (gradient,) = torch.autograd.grad(network(at).square().mean(), at, create_graph=True)
        return gradient.square().sum()

    (second,) = torch.autograd.grad(slope(x), x)
    step = 1e-7
    with torch.no_grad():
        ahead, behind = x + step * direction, x - step * direction
    difference = (slope(ahead.requires_grad_()) - slope(behind.requires_grad_())) / (2 * step)
    torch.testing.assert_close((second * direction).sum(), difference.detach(), rtol=1e-3, atol=1e-9)


def function_of_parameters(family: Family) -> None:
    """torch.func.grad of functional_call gives the gradient of the parameters."""
    network, x = family.network().eval(), family.input()
    network(x).square().mean().backward()
    parameters = dict(network.named_parameters())
    gradients = grad(lambda values: functional_call(network, values, (x,)).square().mean())(parameters)
    for name, p in parameters.items():
        torch.testing.assert_close(gradients[name], p.grad, rtol=1e-4, atol=1e-4)


def mapped_over_examples(family: Family) -> None:
    """torch.func.vmap over the images of a batch."""
    network, x = family.network().eval(), family.input()
    with torch.no_grad():
        y = vmap(lambda image: network(image.unsqueeze(0)).squeeze(0))(x)
        torch.testing.assert_close(y, network(x), rtol=1e-4, atol=1e-4)


def gradients_by_example(family: Family) -> None:
    """torch.func.vmap of torch.func.grad gives the gradient of the parameters for each image of a batch."""
    network, x = family.network().eval(), family.input()
    parameters = dict(network.named_parameters())

    def gradients(values: dict[str, Tensor], image: Tensor) -> dict[str, Tensor]:
        return grad(lambda v: functional_call(network, v, (image[None],)).square().mean())(values)

    by_example = vmap(gradients, in_dims=(None, 0))(parameters, x)
    for number, image in enumerate(x):
        expected = torch.autograd.grad(network(image[None]).square().mean(), list(parameters.values()))
        for (name, of_all), own in zip(by_example.items(), expected, strict=True):
            torch.testing.assert_close(of_all[number], own, rtol=1e-3, atol=1e-4, msg=name)


def forward_derivative(family: Family) -> None:
    """The derivative along a direction, of dual numbers, is the gradient's product with it."""
    network, x = family.network().eval().double(), family.input().double().requires_grad_()
    direction = torch.randn(x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(2))
    (gradient,) = torch.autograd.grad(network(x).square().sum(), x)
    with torch.no_grad(), forward_ad.dual_level():
        slope = forward_ad.unpack_dual(network(forward_ad.make_dual(x, direction)).square().sum()).tangent
    torch.testing.assert_close(slope, (gradient * direction).sum())


def fused(family: Family) -> None:
    """``ffconv.fuse`` gives an equivalent network with fewer norms."""
    network, x = family.network().eval(), family.input()
    fused = ffconv.fuse(network)
    with torch.no_grad():
        torch.testing.assert_close(fused(x), network(x), rtol=1e-3, atol=1e-3)

    assert _foldable(fused) < _foldable(network) or not _foldable(network)


def _foldable(network: nn.Module) -> int:
    """Batch norms outside of Spectral Transforms."""
    return sum(
        isinstance(module, _BatchNorm) and ".spectral." not in name
        for name, module in network.named_modules()
    )
