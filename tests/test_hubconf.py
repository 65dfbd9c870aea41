"""torch.hub finds the networks and the predictor in a checkout."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import timm
import torch

import ffconv
from ffconv.data.transforms import ImageTransformConfig
from ffconv.interop.checkpoint_info import ImageInfo
from ffconv.training.checkpoint import save_weights

REPO = Path(__file__).parents[1]


def loaded(name: str, *words: Any, **options: Any) -> Any:
    return torch.hub.load(str(REPO), name, *words, source="local", **options)


def test_a_network_is_the_registrys():
    network = loaded("ffc_resnet18", num_classes=3, ratio=0.25)
    torch.manual_seed(0)
    expected = timm.create_model("ffc_resnet18", num_classes=3, ratio=0.25)
    network.load_state_dict(expected.state_dict())
    x = torch.randn(1, 3, 64, 64)
    assert torch.equal(network.eval()(x), expected.eval()(x))


def test_the_entry_points_are_the_networks_and_the_predictor():
    spec = importlib.util.spec_from_file_location("hubconf", REPO / "hubconf.py")
    assert spec is not None
    assert spec.loader is not None
    hubconf = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hubconf)
    found = {name: value for name, value in vars(hubconf).items() if callable(value) and name[0] != "_"}
    ours = {name for name in found if timm.is_model(name)}
    assert found.keys() - ours == {"predictor"}
    assert {"ffc_resnet50", "lama_generator", "ffc_pose_resnet50", "ffc_i3d_resnet50_nl"} <= ours
    assert all(timm.model_entrypoint(name).__module__.startswith("ffconv.") for name in ours)
    assert 'timm.create_model("ffc_resnet50"' in found["ffc_resnet50"].__doc__
    assert all(importlib.util.find_spec(name) for name in hubconf.dependencies)


def test_the_predictor_predicts(tmp_path: Path):
    sizes = ImageTransformConfig(train_size=32, eval_short_side=32, eval_size=32)
    network = timm.create_model("test_resnet", num_classes=2)
    info = ImageInfo("test_resnet", {}, ("cat", "dog"), sizes)
    save_weights(tmp_path / "best.safetensors", network.state_dict(), info.metadata())
    image = torch.rand(3, 40, 40)
    found = loaded("predictor", str(tmp_path), device="cpu")(image)
    assert found == ffconv.Predictor(tmp_path, device="cpu")(image)


@pytest.mark.slow
def test_the_checkouts_own_package_is_used():
    code = (
        f"import sys, torch; path = list(sys.path); torch.hub.load({str(REPO)!r}, 'lama_generator',"
        " source='local', width=4, blocks=1);"
        "import ffconv; print(ffconv.__file__); assert sys.path == path"
    )
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd="/", env=environment, capture_output=True, text=True, check=True
    )
    assert Path(done.stdout.strip()) == REPO / "src" / "ffconv" / "__init__.py"
