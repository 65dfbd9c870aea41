"""The recipes of Table 6."""

from __future__ import annotations

from typing import Any

import pytest

from ffconv.cli.parser import CommandParser
from ffconv.cli.recipes import recipe_names
from ffconv.cli.train import configs, parse
from ffconv.training.optim import Schedule, peak_learning_rate

SIZES = {"256x192": ((256, 192), 2.0), "384x288": ((384, 288), 3.0)}
FFC = {"ratio": 0.25, "lfu": False}
PAPER = {
    f"{kind}pose_resnet{depth}_{size}": (f"{kind}pose_resnet{depth}", arguments, *SIZES[size])
    for kind, arguments in (("", {}), ("ffc_", FFC))
    for depth in (50, 101, 152)
    for size in SIZES
}


def configured(name: str) -> tuple[Any, Any]:
    return configs(parse(CommandParser(), ["--config", f"coco/{name}"]))


def test_every_row_of_the_table_is_there_and_no_other():
    names = {name.removeprefix("coco/") for name in recipe_names() if name.startswith("coco/")}
    assert names == PAPER.keys() | {"protocol", "protocol_384x288"}


@pytest.mark.parametrize("name", PAPER)
def test_recipe_names_its_network_and_size(name: str):
    _, task = configured(name)
    transform = task.data.transform
    assert (task.model.name, task.model.arguments, transform.input_size, transform.sigma) == PAPER[name]


@pytest.mark.parametrize("name", PAPER)
def test_recipe_follows_the_protocol(name: str):
    training, task = configured(name)
    optim, loop, crop = training.optim, training.loop, task.data.transform
    assert (optim.name, optim.weight_decay, loop.epochs, loop.batch_size) == ("adam", 0, 140, 4 * 32)
    assert (crop.enlarge, crop.scale_factor, crop.flip, crop.codec) == (1.25, 0.3, 0.5, "protocol")
    assert (crop.rotation, crop.rotation_probability) == (40, 0.6)
    assert (task.test.flip, task.test.flip_shift, task.loss.hardest) == (True, None, None)
    # The rate stays what it is with other batches, as Adam's does in the protocol.
    for batch in (32, 128):
        schedule = Schedule(
            training.schedule, peak=peak_learning_rate(optim, batch), epochs=140, steps_per_epoch=10
        )
        rates = [schedule(step) for step in (0, 899, 900, 1199, 1200, 1399)]
        assert rates == pytest.approx([1e-3, 1e-3, 1e-4, 1e-4, 1e-5, 1e-5])
