"""Scripts of timm's find our networks by name."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from commands import SOURCES
from ffconv.errors import InputError
from ffconv.interop.timm_script import main

# What timm's train.py does as far as it matters here: options, a network by name, sizes from its
# configuration, steps; and a module beside the script.
SCRIPT = """
import argparse
import torch
from timm.data import resolve_data_config
from timm.models import create_model
from beside import LEARNING_RATE

def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model")
    parser.add_argument("--num-classes", type=int)
    parser.add_argument("--img-size", type=int)
    args = parser.parse_args()
    torch.manual_seed(0)
    model = create_model(args.model, num_classes=args.num_classes)
    size = resolve_data_config(vars(args), model=model)["input_size"]
    optimizer = torch.optim.SGD(model.parameters(), LEARNING_RATE)
    images, labels = torch.randn(4, *size), torch.arange(4) % args.num_classes
    for _ in range(3):
        loss = torch.nn.functional.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        print(f"loss {loss.item():.6f}")

if __name__ == "__main__":
    main()
"""


def run(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ffconv.interop.timm_script", *map(str, words)]
    environment = {"PYTHONPATH": str(SOURCES), "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)


@pytest.fixture
def script(tmp_path: Path) -> Path:
    (tmp_path / "beside.py").write_text("LEARNING_RATE = 0.01\n")
    (tmp_path / "train.py").write_text(SCRIPT)
    return tmp_path / "train.py"


def test_a_script_trains_our_network(script: Path):
    done = run(script, "--model", "ffc_resnet18", "--num-classes", "2", "--img-size", "32")
    assert done.returncode == 0, done.stderr
    losses = [float(line.removeprefix("loss ")) for line in done.stdout.splitlines()]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize(
    ("words", "found"), [([], "no script given"), (["none.py"], "none.py: no such file")]
)
def test_without_a_script_the_usage_is_said(words: list[str], found: str):
    with pytest.raises(InputError, match=f"{found}; usage: python -m ffconv.interop.timm_script SCRIPT"):
        main(words)
