"""Reading weights files: what is in them, and what must not run."""

from __future__ import annotations

import argparse
import collections
import datetime
import os
import pathlib
import subprocess
import sys
import types
import zipfile

import numpy
import pytest
import torch
from safetensors.torch import save_file

from ffconv.errors import InputError
from ffconv.interop.reading import find_weights, read_checkpoint

WEIGHTS = {"conv.weight": torch.arange(6.0).reshape(2, 3), "conv.bias": torch.tensor([1.0, -1.0])}
OTHER_WEIGHTS = {name: tensor + 1 for name, tensor in WEIGHTS.items()}


class Calls:
    """Pickles as a call of ``function(*arguments)``."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.fixture
def trainer(monkeypatch):
    """A training framework that the reader of its checkpoints does not have."""
    module = types.ModuleType("absent_trainer")
    source = """
import enum
class Callback:
    def __init__(self): self.best = 0.5
class Mode(enum.Enum):
    MAX = "max"
class AttributeDict(dict):
    pass
class Results(list):
    pass
def rebuild(value):
    return value
class Network:
    pass
"""
    exec(source, module.__dict__)
    monkeypatch.setitem(sys.modules, "absent_trainer", module)
    return module


def save(content, path, **options):
    torch.save(content, path, **options)
    sys.modules.pop("absent_trainer", None)
    return path


def same(tensors, expected=WEIGHTS):
    return tensors.keys() == expected.keys() and all(
        torch.equal(tensors[name], expected[name]) for name in tensors
    )


class TestReads:
    def test_safetensors(self, tmp_path):
        save_file(WEIGHTS, tmp_path / "w.safetensors")
        assert same(read_checkpoint(tmp_path / "w.safetensors"))

    def test_safetensors_by_another_name(self, tmp_path):
        save_file(WEIGHTS, tmp_path / "w.bin")
        assert same(read_checkpoint(tmp_path / "w.bin"))

    def test_torch_archive(self, tmp_path):
        assert same(read_checkpoint(save(WEIGHTS, tmp_path / "w.pth")))

    def test_torch_before_1_6(self, tmp_path):
        path = save({"state_dict": WEIGHTS}, tmp_path / "w.pth.tar", _use_new_zipfile_serialization=False)
        assert same(read_checkpoint(path)["state_dict"])


class TestForeignObjects:
    @pytest.mark.parametrize(
        "make",
        [
            pytest.param(lambda trainer: {trainer.Callback: {"best": 0.5}}, id="class as key"),
            pytest.param(lambda trainer: [trainer.Callback(), trainer.Callback()], id="instances"),
            pytest.param(lambda trainer: trainer.Mode.MAX, id="enum"),
            pytest.param(lambda trainer: trainer.AttributeDict(lr=0.1, batch=[1, 2]), id="dict subclass"),
            pytest.param(lambda trainer: trainer.rebuild, id="function that is named only"),
            pytest.param(lambda trainer: argparse.Namespace(lr=0.1), id="namespace"),
            pytest.param(lambda trainer: pathlib.PurePosixPath("runs/1"), id="path"),
            pytest.param(lambda trainer: datetime.datetime(2020, 10, 22), id="date"),
            pytest.param(lambda trainer: numpy.float64(0.776), id="numpy number"),
            pytest.param(lambda trainer: numpy.arange(3), id="numpy array"),
            pytest.param(lambda trainer: collections.defaultdict(list, {"loss": [1.0]}), id="defaultdict"),
            pytest.param(lambda trainer: {"slice": slice(0, 3), "range": range(3)}, id="builtins"),
        ],
    )
    def test_are_read_past(self, make, trainer, tmp_path):
        path = save({"state_dict": WEIGHTS, "more": make(trainer)}, tmp_path / "last.ckpt")
        assert same(read_checkpoint(path)["state_dict"])
        assert "absent_trainer" not in sys.modules

    def test_hold_nothing(self, trainer, tmp_path):
        path = save({"callback": trainer.Callback()}, tmp_path / "last.ckpt")
        assert not hasattr(read_checkpoint(path)["callback"], "best")

    def test_are_forgotten_afterwards(self, trainer, tmp_path):
        before = set(torch.serialization.get_safe_globals())
        read_checkpoint(save({"callback": trainer.Callback()}, tmp_path / "last.ckpt"))
        assert set(torch.serialization.get_safe_globals()) == before


class TestRefusesCode:
    @pytest.mark.parametrize("old", [False, True], ids=["archive", "before 1.6"])
    @pytest.mark.parametrize(
        ("function", "argument", "named"),
        [
            (os.system, "touch {}", "system"),
            (exec, "open('{}', 'w')", "exec"),
            (eval, "open('{}', 'w')", "eval"),
            (subprocess.Popen, ["touch", "{}"], "Popen"),
            (pathlib.Path.touch, "{}", "getattr"),
        ],
    )
    def test_calls(self, function, argument, named, old, tmp_path):
        marker = tmp_path / "ran"
        is_list = isinstance(argument, list)
        argument = [part.format(marker) for part in argument] if is_list else argument.format(marker)
        content = {"state_dict": WEIGHTS, "bad": Calls(function, argument)}
        path = save(content, tmp_path / "bad.pth", _use_new_zipfile_serialization=not old)
        with pytest.raises(InputError, match=rf"bad\.pth: refused, reading it would run code: it .*{named}"):
            read_checkpoint(path)
        assert not marker.exists()

    def test_call_of_a_foreign_function(self, trainer, tmp_path):
        path = save({"conv.weight": Calls(trainer.rebuild, WEIGHTS["conv.weight"])}, tmp_path / "w.pth")
        with pytest.raises(InputError, match=r"would run code: it calls absent_trainer\.rebuild"):
            read_checkpoint(path)

    @pytest.mark.parametrize("old", [False, True], ids=["archive", "before 1.6"])
    def test_container_of_a_foreign_class(self, old, trainer, tmp_path):
        content = {"state_dict": WEIGHTS, "results": trainer.Results([0.5, 0.6])}
        path = save(content, tmp_path / "w.pth", _use_new_zipfile_serialization=not old)
        with pytest.raises(InputError, match=r"would run code: .*absent_trainer\.Results"):
            read_checkpoint(path)

    @pytest.mark.parametrize("wrap", [lambda network: network, lambda network: {"model": network}])
    def test_pickled_network(self, wrap, trainer, tmp_path):
        content = read_checkpoint(save(wrap(trainer.Network()), tmp_path / "w.pth"))
        with pytest.raises(InputError, match=r"absent_trainer\.Network; reading it would run code"):
            find_weights(content, source="w.pth")


class TestDamagedFiles:
    @pytest.mark.parametrize("share", [0.01, 0.3, 0.7, 0.99])
    @pytest.mark.parametrize("kind", ["safetensors", "archive", "before 1.6"])
    def test_truncated(self, kind, share, tmp_path):
        path = tmp_path / "cut.safetensors" if kind == "safetensors" else tmp_path / "cut.pth"
        weights = {"conv.weight": torch.randn(40, 40)}
        if kind == "safetensors":
            save_file(weights, path)
        else:
            save(weights, path, _use_new_zipfile_serialization=kind == "archive")
        data = path.read_bytes()
        path.write_bytes(data[: int(len(data) * share)])
        with pytest.raises(InputError, match=rf"{path.name}: "):
            read_checkpoint(path)

    @pytest.mark.parametrize("name", ["notes.pth", "notes.txt", "notes.safetensors"])
    @pytest.mark.parametrize("text", ["The weights are in the other folder.\n", "{}", "(lp0\n."])
    def test_text(self, name, text, tmp_path):
        (tmp_path / name).write_text(text)
        with pytest.raises(InputError, match=rf"{name}: (not a file of weights|truncated or not a)"):
            read_checkpoint(tmp_path / name)

    def test_other_archive(self, tmp_path):
        with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
            archive.writestr("photos/1.txt", "a cat")
        with pytest.raises(InputError, match=r"photos\.zip: truncated or not a file of weights"):
            read_checkpoint(tmp_path / "photos.zip")

    def test_pickle_of_protocol_3(self, tmp_path):
        assert same(read_checkpoint(save(WEIGHTS, tmp_path / "w.pth", pickle_protocol=3)))

    def test_pickle_of_protocol_4(self, tmp_path):
        with pytest.raises(InputError, match=r"w\.pth: its pickle cannot be checked"):
            read_checkpoint(save(WEIGHTS, tmp_path / "w.pth", pickle_protocol=4))

    @pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
    def test_empty(self, name, tmp_path):
        (tmp_path / name).touch()
        with pytest.raises(InputError, match=rf"{name}: the file is empty"):
            read_checkpoint(tmp_path / name)

    def test_missing(self, tmp_path):
        with pytest.raises(InputError, match=r"w\.pth: no such file"):
            read_checkpoint(tmp_path / "w.pth")

    def test_folder(self, tmp_path):
        with pytest.raises(InputError, match="is a folder"):
            read_checkpoint(tmp_path)

    @pytest.mark.parametrize(
        "make", [lambda trainer: Calls(os.system, "true"), lambda trainer: trainer.Results([1])]
    )
    @pytest.mark.parametrize("old", [False, True], ids=["archive", "before 1.6"])
    def test_message_is_one_line_without_advice_to_trust_the_file(self, old, make, trainer, tmp_path):
        path = save({"bad": make(trainer)}, tmp_path / "bad.pth", _use_new_zipfile_serialization=not old)
        with pytest.raises(InputError) as caught:
            read_checkpoint(path)
        assert "\n" not in str(caught.value)
        assert "weights_only" not in str(caught.value)


class TestFindWeights:
    @pytest.mark.parametrize(
        ("content", "entry", "found_in"),
        [
            (WEIGHTS, None, ""),
            ({"state_dict": WEIGHTS, "epoch": 3}, None, "state_dict"),
            ({"model": WEIGHTS, "step": torch.tensor(3)}, None, "model"),
            ({"ema": {"decay": 0.999, "module": WEIGHTS}, "model": OTHER_WEIGHTS}, None, "ema.module"),
            ({"model_ema": WEIGHTS, "model": OTHER_WEIGHTS}, None, "model_ema"),
            ({"state_dict": WEIGHTS, "state_dict_ema": None}, None, "state_dict"),
            ({"ema": {"decay": 0.999}, "model": WEIGHTS}, None, "model"),
            ({"model_ema": OTHER_WEIGHTS, "model": WEIGHTS}, "model", "model"),
            ({"student": {"state_dict": WEIGHTS}, "model": OTHER_WEIGHTS}, "student", "student.state_dict"),
        ],
    )
    def test_finds(self, content, entry, found_in):
        tensors, where = find_weights(content, source="w.pth", entry=entry)
        assert same(tensors)
        assert where == found_in

    def test_ignores_what_is_no_tensor(self):
        tensors, _ = find_weights({**WEIGHTS, "epoch": 3, 7: torch.zeros(1)}, source="w.pth")
        assert same(tensors)

    @pytest.mark.parametrize(
        ("content", "named"),
        [
            ({}, "nothing at all"),
            ([torch.zeros(1)], "a list"),
            (None, "a NoneType"),
            ({"epoch": 3, "loss": 0.5}, "the entries 'epoch', 'loss'"),
        ],
    )
    def test_nothing_there(self, content, named):
        with pytest.raises(InputError, match=rf"w\.pth: holds no weights by name, but {named}"):
            find_weights(content, source="w.pth")

    def test_no_such_entry(self):
        with pytest.raises(InputError, match=r"w\.pth: has no entry 'ema', but the entries 'model'"):
            find_weights({"model": WEIGHTS}, source="w.pth", entry="ema")
