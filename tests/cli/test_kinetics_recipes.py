"""The recipes of Table 5: every row that is ours, by the paper's protocol."""

from __future__ import annotations

from typing import Any

import pytest

from ffconv.cli.parser import CommandParser
from ffconv.cli.recipes import recipe_names
from ffconv.cli.train import configs, parse
from ffconv.data.clip_config import ViewsConfig
from ffconv.training.optim import Schedule, peak_learning_rate

BASELINES = ("c2d_resnet50", "c2d_resnet50_nl", "i3d_resnet50", "i3d_resnet50_nl")
OURS = ("ffc_c2d_resnet50", "ffc_c2d_resnet50_nl", "ffc_i3d_resnet50_nl")
TSN = "ffc_i3d_resnet50_nl_tsn"


def configured(name: str) -> tuple[Any, Any]:
    return configs(parse(CommandParser(), ["--config", f"kinetics/{name}"]))


def test_every_row_is_there_and_no_other():
    found = {name.removeprefix("kinetics/") for name in recipe_names() if name.startswith("kinetics/")}
    assert found == {"protocol", TSN, *BASELINES, *OURS}


@pytest.mark.parametrize("name", [*BASELINES, *OURS])
def test_a_row_names_its_network(name: str):
    _, task = configured(name)
    ffc = {"ratio": 0.25, "lfu": False} if name in OURS else {}
    assert (task.model.name, task.model.arguments) == (name, {"drop_rate": 0.5, **ffc})


@pytest.mark.parametrize("name", [*BASELINES, *OURS])
def test_a_row_follows_the_protocol(name: str):
    training, task = configured(name)
    optim, clip = training.optim, task.data.clip
    assert (optim.name, optim.momentum, optim.weight_decay, optim.decay_all) == ("sgd", 0.9, 1e-4, True)
    assert (clip.frames, clip.stride, clip.rate, clip.segments) == (8, 8, None, 1)
    assert (clip.short_side, clip.train_size, clip.flip) == ((256, 320), 224, 0.5)
    assert (clip.eval_short_side, clip.eval_size, task.data.test) == (256, 224, ViewsConfig(25, 10))
    assert (training.loop.epochs, training.loop.batch_size, task.freeze_bn) == (100, 64, False)
    peak = peak_learning_rate(optim, training.loop.batch_size)
    schedule = Schedule(training.schedule, peak=peak, epochs=100, steps_per_epoch=10)
    rates = [schedule(step) for step in (0, 399, 400, 799, 800, 999)]
    assert rates == pytest.approx([0.01, 0.01, 0.001, 0.001, 0.0001, 0.0001])


def test_the_last_row_is_the_one_before_in_three_segments():
    (_, tsn), (_, single) = configured(TSN), configured("ffc_i3d_resnet50_nl")
    assert tsn.data.clip.segments == 3
    assert tsn.model == single.model
