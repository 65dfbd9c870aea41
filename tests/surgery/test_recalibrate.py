"""Batch norms of converted networks get the statistics of their maps."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn
from torch.utils.data import DataLoader, TensorDataset

import oracles
from ffconv.errors import InputError
from ffconv.surgery import conversion_report, convert, recalibrate
from small_networks import block


def images(count: int = 32, size: int = 8) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(0)) + 0.5


def network() -> nn.Sequential:
    """A trained network, converted."""
    torch.manual_seed(0)
    plain = nn.Sequential(block(3, 8), block(8, 8), block(8, 8), nn.Conv2d(8, 2, 1))
    oracles.randomise_norms(plain)
    return convert(plain, 0.5, zero_init_spectral=False, example_input=images(2))


def statistics(model: nn.Module) -> dict[str, Tensor]:
    return {name: buffer.clone() for name, buffer in model.named_buffers() if "running" in name}


def assert_statistics(model: nn.Module, expected: dict[str, Tensor], **tolerance: float) -> None:
    for name, buffer in statistics(model).items():
        torch.testing.assert_close(
            buffer, expected[name], msg=lambda text, name=name: f"{name}: {text}", **tolerance
        )


def statistics_one_after_another(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """Measure each norm while those before it already use their new statistics, in evaluation mode."""
    model = copy.deepcopy(model).eval()
    order: list[nn.Module] = []
    handles = [
        module.register_forward_pre_hook(lambda module, inputs: order.append(module))
        for module in model.modules()
        if isinstance(module, nn.BatchNorm2d)
    ]
    with torch.no_grad():
        model(x)
        for handle in handles:
            handle.remove()
        for norm in order:
            read: list[Tensor] = []
            handle = norm.register_forward_pre_hook(lambda module, inputs, read=read: read.append(inputs[0]))
            model(x)
            handle.remove()
            norm.running_mean.copy_(read[0].mean((0, 2, 3)))  # pyright: ignore
            norm.running_var.copy_(read[0].var((0, 2, 3)))  # pyright: ignore
    return statistics(model)


def test_one_batch_gives_the_statistics_of_one_norm_after_another():
    model = network().double()
    expected = statistics_one_after_another(model, images().double())
    recalibrate(model, images().double())
    # In training mode norms divide by the biased deviation, in evaluation by the stored, unbiased one.
    assert_statistics(model, expected, rtol=5e-3, atol=1e-3)


def test_statistics_are_the_plain_average_over_the_batches():
    model, batches = network(), images(30).split(10)
    parts = [statistics(recalibrate(copy.deepcopy(model), batch)) for batch in batches]
    recalibrate(model, list(batches))
    assert_statistics(model, {name: torch.stack([part[name] for part in parts]).mean(0) for name in parts[0]})


def test_without_dropout_they_are_those_of_torch():
    model, twin = network(), network()
    update_bn(images().split(8), twin)
    recalibrate(model, images().split(8))
    assert_statistics(model, statistics(twin))


def test_output_of_a_recalibrated_network_is_normalised():
    model = nn.Sequential(*network()[:3], nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8))
    y = recalibrate(model, images()).eval()(images())
    torch.testing.assert_close(y.mean((0, 2, 3)), torch.zeros(8), atol=1e-2, rtol=0)
    torch.testing.assert_close(y.std((0, 2, 3)), torch.ones(8), atol=1e-2, rtol=0)


def by_name(batch: Tensor) -> dict[str, Any]:
    return {"index": torch.arange(len(batch)), "pixel_values": batch, "label": torch.zeros(len(batch))}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda batch: (batch, torch.zeros(len(batch))),
        lambda batch: [batch],
        by_name,
        lambda batch: (torch.arange(len(batch)), {"image": batch}),
    ],
)
def test_batches_with_labels(wrap: Callable[[Tensor], Any]):
    model, twin = network(), network()
    recalibrate(model, [wrap(batch) for batch in images().split(8)])
    recalibrate(twin, images().split(8))
    assert_statistics(model, statistics(twin))


def test_a_data_loader_and_a_limit():
    loader = DataLoader(TensorDataset(images(), torch.arange(32)), batch_size=8)
    model, twin = network(), network()
    recalibrate(model, loader, max_batches=2)
    recalibrate(twin, images()[:16].split(8))
    assert_statistics(model, statistics(twin))


def test_a_limit_takes_no_batch_too_many():
    def endless() -> Iterator[Tensor]:
        yield from images().split(8)
        raise AssertionError("one batch too many")

    recalibrate(network(), endless(), max_batches=4)


def test_images_are_cut_into_equal_batches():
    sizes: list[int] = []
    recalibrate(network(), images(65), forward=lambda model, batch: (sizes.append(len(batch)), model(batch)))
    assert sizes == [33, 32]


def test_forward_calls_the_network():
    model, twin = network(), network()
    batches = [{"clip": batch.unsqueeze(0)} for batch in images().split(8)]
    recalibrate(model, batches, forward=lambda model, batch: model(batch["clip"].squeeze(0)))
    recalibrate(twin, images().split(8))
    assert_statistics(model, statistics(twin))


@pytest.mark.parametrize(
    ("conv", "norm", "shape"),
    [(nn.Conv1d, nn.BatchNorm1d, (32, 3, 60)), (nn.Conv3d, nn.BatchNorm3d, (4, 3, 4, 8, 8))],
)
def test_sequences_and_clips(conv: Any, norm: Any, shape: tuple[int, ...]):
    layers = [nn.Sequential(conv(c, 8, 3, padding=1), norm(8), nn.ReLU()) for c in (3, 8, 8)]
    x = torch.randn(shape)
    model = convert(nn.Sequential(*layers, conv(8, 8, 1), norm(8)), 0.5, example_input=x)
    y = recalibrate(model, x).eval()(x)
    torch.testing.assert_close(y.transpose(0, 1).flatten(1).mean(1), torch.zeros(8), atol=1e-2, rtol=0)


def test_a_compiled_network_is_not_compiled_again():
    model, twin = network(), network()

    def refuse(graph: Any, inputs: Any) -> Any:
        raise AssertionError("compiled")

    recalibrate(torch.compile(model, backend=refuse), images())  # pyright: ignore
    recalibrate(twin, images())
    assert_statistics(model, statistics(twin))
    assert not conversion_report(model).outdated_norms


def test_all_else_stays_as_it_was():
    model = network()
    model.insert(3, nn.Dropout(0.5))
    model.train()
    model[1][1].eval()  # a frozen norm
    model[2][1].momentum = 0.3
    modes = [module.training for module in model.modules()]
    weights = copy.deepcopy(dict(model.named_parameters()))
    state = torch.get_rng_state()
    assert recalibrate(model, images()) is model
    assert [module.training for module in model.modules()] == modes
    assert (model[1][1].momentum, model[2][1].momentum) == (0.1, 0.3)
    assert torch.equal(torch.get_rng_state(), state)
    for name, weight in model.named_parameters():
        assert torch.equal(weight, weights[name])
        assert weight.grad is None


def test_a_norm_that_is_not_reached_keeps_its_statistics():
    model = network()
    model.add_module("spare", nn.Identity())
    model.spare.norm = nn.BatchNorm2d(4)  # pyright: ignore
    model.spare.norm.running_var.fill_(3)  # pyright: ignore
    model.spare.norm.num_batches_tracked.fill_(7)  # pyright: ignore
    recalibrate(model, images())
    assert model.spare.norm.running_var.tolist() == [3] * 4  # pyright: ignore
    assert model.spare.norm.num_batches_tracked == 7  # pyright: ignore


def test_report_says_that_a_trained_network_needs_it():
    model = network()
    note = "batch norms hold statistics from before: call ffconv.recalibrate(model, images)"
    assert str(conversion_report(model)).endswith(note)
    recalibrate(model, images())
    assert note not in str(conversion_report(model))


def test_report_of_a_new_network_does_not():
    model = convert(nn.Sequential(block(3, 8), block(8, 8), nn.Conv2d(8, 2, 1)), example_input=images(2))
    assert not conversion_report(model).outdated_norms


def test_report_of_a_trained_network_without_ffcs_does_not():
    plain = nn.Sequential(block(3, 8), block(8, 8), nn.Conv2d(8, 2, 1))
    oracles.randomise_norms(plain)
    with pytest.warns(UserWarning, match="convert changed nothing"):
        convert(plain, rules={"*": None}, example_input=images(2))
    assert not conversion_report(plain).outdated_norms


def bad(position: int) -> list[Tensor]:
    batches = list(images().split(8))
    batches[position] = torch.full_like(batches[position], float("nan"))
    return batches


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "images holds no batch"),
        (images()[:0], r"images of shape \(0, 3, 8, 8\) holds no image"),
        ([(images(), 0), ("name", 1)], r"a batch of type tuple \(no tensor\) has no floating-point tensor"),
        ((images() * 9).to(torch.uint8).split(8), r"\(uint8 \(8, 3, 8, 8\)\) has no floating-point tensor"),
        (
            [images(), images()[:, :2]],
            r"does not run on batch 1 \(float32 \(32, 2, 8, 8\)\): .*channels",
        ),
        (bad(2), r"the statistics of 0\.1 are not finite"),
    ],
)
def test_what_fails_changes_nothing(given: Any, message: str):
    model = network().train()
    before = statistics(model)
    with pytest.raises(InputError, match=message):
        recalibrate(model, given)
    assert all(torch.equal(buffer, before[name]) for name, buffer in statistics(model).items())
    assert all(module.training for module in model.modules())
    assert model[0][1].momentum == 0.1
    assert conversion_report(model).outdated_norms


def test_single_values_are_refused():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(8))
    with pytest.raises(InputError, match=r"does not run on batch 1 .*pass batches of at least 2 images"):
        recalibrate(model, images(9).split(8))


def test_a_network_without_batch_norms_is_refused():
    with pytest.raises(InputError, match="Sequential has no batch norm with running statistics"):
        recalibrate(nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8, track_running_stats=False)), images())


def test_max_batches_below_1_is_refused():
    with pytest.raises(InputError, match="max_batches=0 must be at least 1"):
        recalibrate(network(), images(), max_batches=0)


@pytest.mark.slow
def test_accuracy_comes_back():
    """A digits network is worthless once converted, and good again without any label."""
    from torchvision.transforms.v2.functional import pil_to_tensor

    from ffconv.data.embedded import Digits

    def load(split: Any) -> tuple[Tensor, Tensor]:
        digits = Digits(split, 16)
        pixels = torch.stack([pil_to_tensor(digits[index][0]) for index in range(len(digits))])
        return pixels.float() / 127.5 - 1, torch.tensor(digits.labels)

    def accuracy(model: nn.Module) -> float:
        with torch.no_grad():
            return (model.eval()(x_val).argmax(1) == y_val).float().mean().item()

    (x, y), (x_val, y_val) = load("train"), load("val")
    torch.manual_seed(0)
    stages = [block(3, 16), *(block(16, 16) for _ in range(4)), block(16, 32, stride=2)]
    model = nn.Sequential(*stages, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10))
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.01, epochs=3, steps_per_epoch=46)
    for _ in range(3):
        for chosen in torch.randperm(len(x)).split(32):
            optimizer.zero_grad()
            F.cross_entropy(model(x[chosen]), y[chosen]).backward()
            optimizer.step()
            schedule.step()
    trained = accuracy(model)
    converted = accuracy(convert(model, 0.25, example_input=x[:2]))
    recalibrated = accuracy(recalibrate(model, x[:256]))
    assert trained > 0.95
    assert converted < 0.9
    assert recalibrated > 0.95


@pytest.mark.gpu
def test_batches_of_the_processor_go_to_the_networks_device():
    model, twin = network().cuda(), network()
    recalibrate(model, images())
    recalibrate(twin, images())
    assert_statistics(model.cpu(), statistics(twin))
