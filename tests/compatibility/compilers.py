"""Rows of the matrix: compilers, exporters and tracers."""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch._dynamo.utils import counters
from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

from compatibility.families import Family


def compiled_evaluation(family: Family) -> None:
    """One graph without a break, of the function."""
    network, x = family.network().eval(), family.input()
    torch.compiler.reset()
    compiled = torch.compile(network, fullgraph=True, backend="eager")
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), network(x), rtol=1e-4, atol=1e-4)


def compiled_training(family: Family) -> None:
    """Output, gradients and statistics of a step are those of the network."""
    network, x = family.network(), family.input()
    twin = copy.deepcopy(network)
    torch.compiler.reset()
    y, expected = torch.compile(network, fullgraph=True, backend="aot_eager")(x), twin(x)
    torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-4)
    _backward(y)
    _backward(expected)
    _assert_close_gradients(network, twin)
    for ours, theirs in zip(network.buffers(), twin.buffers(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def compiled_once_for_all_sizes(family: Family) -> None:
    """One graph for all sizes, odd and even, and as many images."""
    network = family.network().eval()
    torch.compiler.reset()
    counters.clear()
    compiled = torch.compile(network, fullgraph=True, dynamic=True, backend="eager")
    with torch.no_grad():
        for batch, size in enumerate((*family.other_sizes, family.size[1:]), start=2):
            x = family.input(size, batch=batch)
            torch.testing.assert_close(compiled(x), network(x), rtol=1e-4, atol=1e-4)
    assert counters["stats"]["unique_graphs"] == 1


def trained_by_one_graph_for_all_sizes(family: Family) -> None:
    """The same for training, of two sizes: outputs and gradients are the network's."""
    network = family.network()
    twin = copy.deepcopy(network)
    torch.compiler.reset()
    counters.clear()
    compiled = torch.compile(network, fullgraph=True, dynamic=True, backend="aot_eager")
    for batch, size in enumerate((family.other_sizes[0], family.size[1:]), start=2):
        x = family.input(size, batch=batch)
        network.zero_grad()
        twin.zero_grad()
        y, expected = compiled(x), twin(x)
        torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-4)
        _backward(y)
        _backward(expected)
        _assert_close_gradients(network, twin)
    assert counters["stats"]["unique_graphs"] == 1


def exported(family: Family) -> None:
    """The program of torch.export computes the function."""
    network, x = family.network().eval(), family.input()
    program = torch.export.export(network, (x,))
    with torch.no_grad():
        torch.testing.assert_close(program.module()(x), network(x), rtol=1e-4, atol=1e-4)


def exported_with_dynamic_batch(family: Family) -> None:
    """The same, for other numbers of images."""
    network = family.network().eval()
    axes = {0: torch.export.Dim.DYNAMIC}
    program = torch.export.export(network, (family.input(),), dynamic_shapes=(axes,))
    x = family.input(batch=3)
    with torch.no_grad():
        torch.testing.assert_close(program.module()(x), network(x), rtol=1e-4, atol=1e-4)


def traced(family: Family) -> None:
    """torch.jit.trace."""
    network, x = family.network().eval(), family.input()
    with torch.no_grad():
        torch.testing.assert_close(torch.jit.trace(network, x)(x), network(x), rtol=1e-4, atol=1e-4)


def symbolically_traced(family: Family) -> None:
    """A graph of torch.fx, for other sizes than it was made with."""
    network = family.network().eval()
    graph = torch.fx.symbolic_trace(network)
    with torch.no_grad():
        for size in (family.size[1:], *family.other_sizes):
            x = family.input(size)
            torch.testing.assert_close(graph(x), network(x), rtol=1e-4, atol=1e-4)


def features_extracted(family: Family) -> None:
    """torchvision's feature extractor gives the function, and its gradients."""
    network, x = family.network().eval(), family.input()
    last = get_graph_node_names(network)[1][-1]
    extractor = create_feature_extractor(network, [last]).eval()
    y, expected = extractor(x)[last], network(x)
    torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-4)
    _backward(expected)
    wanted = {name: p.grad for name, p in network.named_parameters()}
    network.zero_grad()
    _backward(y)
    for name, p in extractor.named_parameters():
        torch.testing.assert_close(p.grad, wanted[name], rtol=1e-4, atol=1e-4)


def _backward(y: torch.Tensor) -> None:
    y.square().mean().backward()


def _assert_close_gradients(network: nn.Module, twin: nn.Module) -> None:
    """To a thousandth of the largest one: those before a norm nearly vanish."""
    scale = max(float(p.grad.abs().max()) for p in twin.parameters() if p.grad is not None)
    for p, q in zip(network.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-3, atol=1e-3 * scale)
