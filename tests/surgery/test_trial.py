"""The trial forward: what it sees, and that it leaves the network alone."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from ffconv import FFC2d
from ffconv.errors import InputError
from ffconv.surgery.channels import Flow
from ffconv.surgery.trace import convolutions
from ffconv.surgery.trial import trial_forward
from small_networks import block


class Network(nn.Module):
    """Two convolutions, and what a test puts in between."""

    def __init__(self, between: Callable[[Network, Tensor], Tensor] = lambda self, x: x) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, stride=2)
        self.second = nn.Conv2d(4, 4, 1)
        self.between = between

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.between(self, self.first(x)))


def names(model: nn.Module, **arguments: object) -> list[str]:
    return [name for _, name in trial_forward(model, **arguments).calls()]


def flows(model: nn.Module) -> list[tuple[str, Flow]]:
    nodes = trial_forward(model).nodes
    return [
        (node.operation, node.flow) for node in nodes[2:-1]
    ]  # after the first and before the second convolution


def test_calls_stand_in_order_of_execution() -> None:
    model = Network()
    model.first, model.second = model._modules.pop("first"), model._modules.pop("second")
    model._modules = dict(reversed(model._modules.items()))
    assert names(model) == ["first", "second"]


def test_sizes_are_those_of_the_maps() -> None:
    trace = trial_forward(Network(), torch.ones(1, 3, 9, 7))
    index, _ = next(trace.calls())
    assert trace.sizes(index) == ((9, 7), (4, 3))


def test_the_returned_tensor_is_the_output() -> None:
    trace = trial_forward(Network())
    assert [trace.nodes[index].module for index in trace.outputs] == ["second"]


def test_inside_of_an_ffc_is_not_looked_into() -> None:
    assert list(convolutions(nn.Sequential(FFC2d(4, 4, 3), nn.Conv2d(4, 4, 1)))) == ["0", "1"]


def test_trial_leaves_the_state_as_it_is() -> None:
    model = block(3, 4).eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    trial_forward(model)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_trial_leaves_mode_and_hooks_as_they_are() -> None:
    model = block(3, 4).eval()
    trial_forward(model)
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]
    assert not any(module.training for module in model.modules())
    assert not any(hooks)


def test_trial_leaves_the_random_generators_as_they_are() -> None:
    model = Network(lambda self, x: x * random.random() + torch.rand(()))
    before = torch.get_rng_state(), random.getstate()
    trial_forward(model)
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == random.getstate()


def test_network_in_evaluation_mode_is_tried_in_training_mode() -> None:
    """Auxiliary heads are used in training only."""
    model = Network(lambda self, x: self.auxiliary(x) if self.training else x)
    model.auxiliary = nn.Conv2d(4, 4, 1)
    assert names(model.eval()) == ["first", "auxiliary", "second"]


def test_network_that_fails_in_training_mode_is_tried_in_evaluation_mode() -> None:
    def needs_targets(self: Network, x: Tensor) -> Tensor:
        if self.training:
            raise ValueError("no targets")
        return x

    assert names(Network(needs_targets)) == ["first", "second"]


def test_network_that_depends_on_values_is_run_with_data() -> None:
    model = Network(lambda self, x: x[:, :, : 1 + int((x.flatten() > 0).nonzero().numel() > 0)])
    assert names(model) == ["first", "second"]


def test_an_example_that_the_network_writes_to_stays_as_it_is() -> None:
    class Writing(Network):
        def forward(self, x: Tensor) -> Tensor:
            x += 1
            return super().forward(x) if x.sum() > 0 else x  # which only a run with data tells

    example = torch.zeros(1, 3, 8, 8)
    trial_forward(Writing(), example)
    assert not example.any()


def test_network_on_the_meta_device() -> None:
    assert names(Network().to("meta")) == ["first", "second"]


def test_example_input_on_the_meta_device() -> None:
    assert names(Network(), example_input=torch.empty(1, 3, 8, 8, device="meta")) == ["first", "second"]


def test_tuple_is_taken_as_several_arguments() -> None:
    class Two(Network):
        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return super().forward(x + y)

    assert names(Two(), example_input=(torch.ones(1, 3, 8, 8), torch.ones(1, 3, 8, 8))) == [
        "first",
        "second",
    ]


def test_image_rearranged_before_the_first_convolution() -> None:
    """Its channels are not the image's, so the default input is tried with three."""
    model = nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(12, 4, 1))
    assert names(model) == ["1"]


def test_failure_names_shape_reason_and_remedy() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Flatten(), nn.Linear(4 * 32 * 32, 10))
    with pytest.raises(InputError, match=r"\(2, 3, 224, 224\).*same reduction dim.*example_input"):
        trial_forward(model)


def test_failure_prints_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(InputError):
        trial_forward(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Linear(1, 1)))
    assert not caplog.records


def test_network_without_convolution_is_refused() -> None:
    with pytest.raises(InputError, match="Linear has no convolution"):
        trial_forward(nn.Linear(2, 2))


def test_channels_written_into_an_empty_tensor_are_followed() -> None:
    def assemble(self: Network, x: Tensor) -> Tensor:
        y = torch.empty_like(x.detach().to("cpu"))
        y[:, :2] = x[:, 2:]
        y[:, 2:] = x[:, :2]
        return y

    trace = trial_forward(Network(assemble))
    second = trace.nodes[trace.outputs[0]]
    assert trace.nodes[second.sources[0]].flow is Flow.MIXES


def test_activation_in_place_keeps_channels() -> None:
    assert flows(Network(lambda self, x: x.relu_())) == [("relu", Flow.KEEPS)]


def test_sum_into_a_full_slice_keeps_channels() -> None:
    def add(self: Network, x: Tensor) -> Tensor:
        part = x[:, :4]
        part += 1
        return x

    assert all(flow is Flow.KEEPS for _, flow in flows(Network(add)))


def test_weight_that_the_network_reads_itself_is_noted() -> None:
    trace = trial_forward(Network(lambda self, x: x.to(self.second.weight.dtype)))
    assert trace.opened == {"second"}


def test_weight_that_only_the_convolution_reads_is_not_noted() -> None:
    assert not trial_forward(Network()).opened
