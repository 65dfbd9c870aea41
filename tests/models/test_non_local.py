"""Non-local blocks against the sum over all pairs."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import oracles
from ffconv import NonLocalBlock
from ffconv.errors import InputError

PAIRWISE = ("embedded_gaussian", "gaussian", "dot_product", "concatenation")


def trained(*arguments, **options) -> NonLocalBlock:
    """In float64, with weights and statistics as after some training."""
    block = NonLocalBlock(*arguments, **options).double().eval()
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.5)
    oracles.randomise_norms(block)
    return block


def position_by_position(block: NonLocalBlock, x: Tensor) -> Tensor:
    """The definition, one pair of positions at a time."""

    def embed(conv: nn.Module, source: Tensor) -> Tensor:
        if isinstance(conv, nn.Identity):
            return source
        return torch.einsum("oc,ncthw->nothw", conv.weight[..., 0, 0, 0], source) + conv.bias.reshape(
            -1, 1, 1, 1
        )

    def pooled(y: Tensor) -> Tensor:
        if isinstance(block.pool, nn.Identity):
            return y.flatten(2)
        return torch.stack([F.max_pool2d(frame, 2, ceil_mode=True) for frame in y.unbind(2)], 2).flatten(2)

    query, key, value = (
        embed(block.theta, x).flatten(2),
        pooled(embed(block.phi, x)),
        pooled(embed(block.g, x)),
    )
    y = torch.zeros(x.shape[0], value.shape[1], query.shape[2], dtype=x.dtype)
    for sample in range(x.shape[0]):
        for i in range(query.shape[2]):
            pairs = [_pair(block, query[sample, :, i], key[sample, :, j]) for j in range(key.shape[2])]
            weights = torch.stack(pairs)
            weights = weights.softmax(0) if "gaussian" in block.pairwise else weights / key.shape[2]
            y[sample, :, i] = value[sample] @ weights
    return x + oracles.batch_norm(embed(block.out, y.unflatten(2, x.shape[2:])), block.bn)


def _pair(block: NonLocalBlock, a: Tensor, b: Tensor) -> Tensor:
    if block.pairwise == "concatenation":
        return F.relu(block.pair.weight[0] @ torch.cat([a, b]))
    return a @ b / (a.shape[0] ** 0.5 if block.pairwise == "embedded_gaussian" else 1)


@pytest.mark.parametrize("pairwise", PAIRWISE)
@pytest.mark.parametrize("subsample", [True, False])
@pytest.mark.parametrize("size", [(2, 4, 2), (1, 3, 3), (2, 1, 1)])
def test_oracle(pairwise, subsample, size):
    block = trained(6, 4, pairwise, subsample=subsample)
    x = torch.randn(2, 6, *size, dtype=torch.float64)
    torch.testing.assert_close(block(x), position_by_position(block, x), rtol=0, atol=1e-10)


@pytest.mark.parametrize("pairwise", PAIRWISE)
@pytest.mark.parametrize("training", [True, False])
def test_a_fresh_block_changes_nothing(pairwise, training):
    x = torch.randn(2, 8, 2, 4, 4)
    torch.testing.assert_close(NonLocalBlock(8, pairwise=pairwise).train(training)(x), x, rtol=0, atol=0)


def test_initialisation():
    block = NonLocalBlock(512)
    assert block.theta.out_channels == 256
    for conv in (block.theta, block.phi, block.g, block.out):
        assert conv.weight.std().item() == pytest.approx(0.01, rel=0.02)
        assert not conv.bias.any()
    assert not block.bn.weight.any()


@pytest.mark.parametrize("pairwise", PAIRWISE)
def test_gradcheck(pairwise):
    block = trained(2, pairwise=pairwise)
    assert torch.autograd.gradcheck(
        block, torch.randn(1, 2, 2, 2, 3, dtype=torch.float64, requires_grad=True)
    )


def test_after_the_norms_scale_has_moved_every_parameter_learns():
    block = NonLocalBlock(4, pairwise="concatenation")
    nn.init.ones_(block.bn.weight)
    nn.init.ones_(block.pair.weight)
    nn.init.ones_(block.phi.bias)
    block(torch.randn(2, 4, 2, 4, 4)).square().sum().backward()
    # A norm takes away what a bias before it adds.
    dead = {name for name, p in block.named_parameters() if p.grad is None or not p.grad.abs().max() > 1e-7}
    assert dead <= {"out.bias", "g.bias"}


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
def test_attention_keeps_no_map_of_all_pairs(layout):
    from torch.utils.flop_counter import FlopCounterMode

    x = torch.randn(1, 16, 2, 8, 8).to(memory_format=layout)
    with FlopCounterMode(display=False) as counter:
        NonLocalBlock(16)(x)
    operations = {str(operation) for operation in counter.get_flop_counts()["Global"]}
    assert not any("bmm" in operation for operation in operations)


@pytest.mark.slow
@pytest.mark.parametrize("size", [(2, 4, 6), (3, 5, 7)])
def test_compile(size):
    block, x = trained(4), torch.randn(1, 4, *size, dtype=torch.float64, requires_grad=True)
    expected = block(x)
    y = torch.compile(block, fullgraph=True)(x)
    torch.testing.assert_close(y, expected)
    (grad,) = torch.autograd.grad(y.square().sum(), x)
    torch.testing.assert_close(grad, torch.autograd.grad(expected.square().sum(), x)[0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0,), "channels=0 and inner_channels=1 must be positive"),
        ((4, 0), "inner_channels=0 must be positive"),
        ((4, 2, "cosine"), "pairwise='cosine' must be one of"),
    ],
)
def test_raises(arguments, message):
    with pytest.raises(InputError, match=message):
        NonLocalBlock(*arguments)
