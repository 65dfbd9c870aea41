from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from ffconv.errors import InputError
from ffconv.training.checkpoint import (
    PREVIOUS_STATE,
    STATE,
    load_state,
    read_metadata,
    read_safetensors,
    save_state,
    save_weights,
)
from hostile.damage import make_special


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def test_weights_and_metadata_return_as_they_were(tmp_path: Path):
    weights = {"w": torch.randn(3, 4).t(), "n": torch.tensor(7)}
    metadata = {"model": {"name": "resnet18"}, "classes": ["a", "b"], "metrics": {"top1": 51.5}}
    save_weights(tmp_path / "x.safetensors", weights, metadata)
    found = read_safetensors(tmp_path / "x.safetensors")
    assert read_metadata(tmp_path / "x.safetensors") == metadata
    assert found.keys() == weights.keys()
    assert all(torch.equal(found[name], weights[name]) for name in weights)


def test_a_missing_checkpoint_is_named(tmp_path: Path):
    with pytest.raises(InputError, match=r"no checkpoint at .*x.safetensors"):
        read_safetensors(tmp_path / "x.safetensors")


def test_a_truncated_checkpoint_is_refused(tmp_path: Path):
    save_weights(tmp_path / "x.safetensors", {"w": torch.zeros(100)}, {})
    truncate(tmp_path / "x.safetensors")
    with pytest.raises(InputError, match=r"truncated or not a safetensors file"):
        read_safetensors(tmp_path / "x.safetensors")


def test_weights_of_somebody_else_are_refused_with_the_way_to_use_them(tmp_path: Path):
    save_file({"w": torch.zeros(1)}, tmp_path / "x.safetensors")
    with pytest.raises(InputError, match=r"--model.weights"):
        read_metadata(tmp_path / "x.safetensors")


def test_a_folder_without_states_has_none(tmp_path: Path):
    assert load_state(tmp_path) is None


def test_the_newest_state_comes_back_and_the_one_before_is_kept(tmp_path: Path):
    for step in range(3):
        save_state(tmp_path, {"step": step, "w": torch.full((2,), float(step))})
    state = load_state(tmp_path)
    assert state is not None
    assert state["step"] == 2
    assert torch.equal(state["w"], torch.tensor([2.0, 2.0]))
    assert torch.load(tmp_path / PREVIOUS_STATE, weights_only=True)["step"] == 1


def test_a_truncated_state_gives_way_to_the_one_before(tmp_path: Path):
    for step in range(2):
        save_state(tmp_path, {"step": step})
    truncate(tmp_path / STATE)
    with pytest.warns(UserWarning, match="going on from the checkpoint before"):
        state = load_state(tmp_path)
    assert state == {"step": 0}


@pytest.mark.parametrize("place", ["first", "middle", "last"])
@pytest.mark.parametrize("damage", [1, 64, 0])
def test_a_damaged_value_of_a_state_gives_way_to_the_one_before(tmp_path: Path, place: str, damage: int):
    """A bit is flipped, or a block is zeroed (damage 0), in values, which torch.load takes as they are."""
    for step in range(2):
        save_state(tmp_path, {"step": step, "w": torch.full((1000,), 3.0 + step)})
    content = bytearray((tmp_path / STATE).read_bytes())
    value = torch.tensor(4.0).numpy().tobytes()
    start = content.index(value * 10) + {"first": 0, "middle": 2000, "last": 3992}[place]
    content[start : start + 8] = (
        bytes([content[start] ^ damage, *content[start + 1 : start + 8]]) if damage else bytes(8)
    )
    (tmp_path / STATE).write_bytes(content)
    with pytest.warns(UserWarning, match=r"going on from the checkpoint before.*check sum"):
        state = load_state(tmp_path)
    assert state is not None
    assert state["step"] == 0


def test_a_damaged_state_does_not_become_the_one_before(tmp_path: Path):
    for step in range(2):
        save_state(tmp_path, {"step": step})
    truncate(tmp_path / STATE)
    with pytest.warns(UserWarning, match="going on from the checkpoint before"):
        load_state(tmp_path)
    save_state(tmp_path, {"step": 2})
    truncate(tmp_path / STATE)
    with pytest.warns(UserWarning, match="going on from the checkpoint before"):
        assert load_state(tmp_path) == {"step": 0}


def test_a_state_of_other_content_gives_way_to_the_one_before(tmp_path: Path):
    save_state(tmp_path, {"step": 0})
    (tmp_path / STATE).rename(tmp_path / PREVIOUS_STATE)
    with zipfile.ZipFile(tmp_path / STATE, "w") as archive:
        archive.writestr("archive/data.pkl", b"no pickle")
    with pytest.warns(UserWarning, match="going on from the checkpoint before"):
        assert load_state(tmp_path) == {"step": 0}


@pytest.mark.parametrize("kind", ["a pipe", "a link to a device", "a folder", "a link to nothing"])
def test_a_state_that_is_no_file_gives_way_to_the_one_before(tmp_path: Path, kind: str):
    save_state(tmp_path, {"step": 0})
    (tmp_path / STATE).rename(tmp_path / PREVIOUS_STATE)
    make_special(tmp_path / STATE, kind)
    with pytest.warns(UserWarning, match="going on from the checkpoint before"):
        assert load_state(tmp_path) == {"step": 0}


@pytest.mark.parametrize("bit", [0, 7])
def test_a_flipped_bit_of_a_weight_or_of_the_metadata_is_refused(tmp_path: Path, bit: int):
    path = tmp_path / "x.safetensors"
    save_weights(path, {"w": torch.full((9,), 4.0), "n": torch.tensor(True)}, {"classes": ["cat"]})
    whole = path.read_bytes()
    for place in (whole.index(torch.tensor(4.0).numpy().tobytes() * 9), whole.index(b"cat"), len(whole) - 1):
        content = bytearray(whole)
        content[place] ^= 1 << bit
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"x\.safetensors: .*damaged|x\.safetensors: truncated or not"):
            read_safetensors(path)


def test_the_check_sum_is_no_part_of_the_metadata(tmp_path: Path):
    path = tmp_path / "x.safetensors"
    save_weights(path, {"w": torch.zeros(2)}, {"sizes": (1, 2), "by": {1: "a", 10: "b", 9: "c"}})
    assert read_metadata(path) == {"sizes": [1, 2], "by": {"1": "a", "10": "b", "9": "c"}}


def test_weights_without_metadata_have_a_check_sum_too(tmp_path: Path):
    path = tmp_path / "x.safetensors"
    save_weights(path, {"w": torch.full((9,), 4.0)}, None)
    assert torch.equal(read_safetensors(path)["w"], torch.full((9,), 4.0))
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match="check sum is wrong"):
        read_safetensors(path)


def test_truncated_states_only_are_an_error(tmp_path: Path):
    save_state(tmp_path, {"step": 0})
    truncate(tmp_path / STATE)
    with pytest.raises(InputError, match="no complete checkpoint to resume from"):
        load_state(tmp_path)


def test_a_full_disk_keeps_both_states(tmp_path: Path, fill_disk: Callable[[], None]):
    for step in range(2):
        save_state(tmp_path, {"step": step})
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    fill_disk()
    with pytest.raises(InputError, match="No space left"):
        save_state(tmp_path, {"step": 2})
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


class RunsCode:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("made_by_the_pickle",)


def test_a_state_that_would_run_code_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"step": RunsCode()}, tmp_path / STATE)
    with pytest.raises(InputError, match="no complete checkpoint"):
        load_state(tmp_path)
    assert not (tmp_path / "made_by_the_pickle").exists()
