"""A run from its configuration to its end: the one call behind ``ffconv train``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from accelerate.utils import broadcast_object_list

from ffconv.errors import InputError, require
from ffconv.training.config import TrainingConfig
from ffconv.training.folder import RunFolder
from ffconv.training.loop import Outcome, Trainer
from ffconv.training.processes import batch_per_process, share_of, start_accelerator
from ffconv.training.task import Share, Task
from ffconv.wording import say


def train_run(
    make_task: Callable[[Share], Task],
    config: TrainingConfig,
    *,
    record: Mapping[str, Any],
    later_runs: int = 0,
) -> Outcome:
    """Train, or go on with, the run in the folder `config.output`.

    The folder is made only when data and network have proved sound.

    Args:
        make_task: Makes the task for this process's share of the work.
        config: How to train.
        record: The whole configuration as plain values: what config.yaml will hold, and what a resumed run
            is compared with.
        later_runs: Runs of the same length that follow this one, for the time that is left.

    Raises:
        InputError: for wrong data or options, a folder that holds another run, a full disk, or divergence.
    """
    require(config.output is not None, "output: a run needs a folder")
    folder = RunFolder(Path(str(config.output)), record)
    folder.check(resume=config.resume == "auto")
    accelerator = start_accelerator(config.loop)
    share = share_of(
        accelerator,
        batch_per_process(accelerator, config.loop),
        seed=config.seed,
        channels_last=config.loop.channels_last,
    )
    task = make_task(share)
    if accelerator.is_main_process:
        say("opening the data")
    task.check()
    if accelerator.is_main_process:
        say("building the network")
    trainer = Trainer(task, config, accelerator=accelerator, folder=folder, later_runs=later_runs)
    # Every process must have looked at the folder before the first one writes to it.
    accelerator.wait_for_everyone()
    with folder:
        refusals = [""]
        if accelerator.is_main_process:
            try:
                folder.start(device=accelerator.device, resume=config.resume == "auto")
            except InputError as error:
                refusals = [str(error)]
        broadcast_object_list(refusals)  # else the others would wait for the first one's end
        require(not refusals[0], refusals[0])
        return trainer.fit()
