"""Tensors of TorchScript files, read without their programs."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from ffconv import load_weights
from ffconv.errors import InputError
from ffconv.interop.lama import load_lama
from ffconv.interop.reading import read_checkpoint
from lama import Lama, save_torchscript


class Several(nn.Module):
    """Parameters and buffers of several types, one of them tied, one a view, one absent, and plain values."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3))
        self.tied = self.layers[0].weight
        self.low = nn.Parameter(torch.randn(2).bfloat16())
        self.empty = nn.Parameter(torch.zeros(0))
        self.register_buffer("columns", torch.arange(6).reshape(2, 3).T)
        self.register_buffer("row", torch.arange(12.0)[4:8])
        self.register_buffer("none", None)
        self.count = 3

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x) + self.columns.sum() + self.row.sum() + self.low.float().sum() * 2.5


def rewritten(source: Path, target: Path, **changed: bytes) -> Path:
    """Copy an archive with other content in the entries that end with these names (``_`` for a dot)."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for entry in old.namelist():
            short = entry.rpartition("/")[2].replace(".", "_")
            new.writestr(entry, changed.get(short, old.read(entry)))
    return target


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    torch.jit.script(nn.Linear(2, 2)).save(tmp_path / "good.pt")
    return tmp_path / "good.pt"


@pytest.mark.parametrize("how", ["trace", "script"])
def test_every_tensor_has_its_name_and_value(how: str, tmp_path: Path):
    network = Several().eval()
    program = (
        torch.jit.trace(network, torch.rand(1, 2, 4, 4)) if how == "trace" else torch.jit.script(network)
    )
    program.save(tmp_path / "net.pt")
    found, expected = read_checkpoint(tmp_path / "net.pt"), program.state_dict()
    assert list(found) == list(expected)
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)


def test_lamas_published_torchscript_file_is_its_checkpoint(tmp_path: Path):
    torch.manual_seed(0)
    lama = Lama(ngf=4)
    weights = lama.weights(torch.float32)
    network = load_lama(save_torchscript(lama, weights, tmp_path / "big-lama.pt"))
    x = torch.rand(1, 4, 48, 64)
    with torch.no_grad():
        torch.testing.assert_close(network(x), lama(weights, x))


def test_a_scripted_network_loads_into_its_own_kind(saved: Path):
    network = nn.Linear(2, 2)
    assert load_weights(network, saved).fits
    assert torch.equal(network.weight, torch.jit.load(saved).weight)


def test_the_program_is_not_run(saved: Path, tmp_path: Path):
    path = rewritten(saved, tmp_path / "bad.pt", linear_py=b"raise SystemExit")
    assert set(read_checkpoint(path)) == {"weight", "bias"}


@pytest.mark.parametrize(
    ("pickled", "named"),
    [
        (b"cos\nsystem\n(S'touch ran'\ntR.", "os.system"),
        (b"c__builtin__\neval\n(S'1'\ntR.", "__builtin__.eval"),
        (b"ctorch\nload\n(S'x'\ntR.", "torch.load"),
        (b"c__torch__x\nf\n.", "__torch__x.f"),
    ],
)
def test_a_pickle_that_names_code_is_refused(pickled: bytes, named: str, saved: Path, tmp_path: Path):
    path = rewritten(saved, tmp_path / "bad.pt", data_pkl=pickled)
    with pytest.raises(InputError, match=rf"bad\.pt: refused, reading it would run code: it names {named}"):
        read_checkpoint(path)
    assert not Path("ran").exists()


def test_quantised_weights_are_refused_by_name(saved: Path, tmp_path: Path):
    path = rewritten(saved, tmp_path / "q.pt", data_pkl=b"ctorch._utils\n_rebuild_qtensor\n.")
    with pytest.raises(InputError, match=r"it names torch\._utils\._rebuild_qtensor"):
        read_checkpoint(path)


def test_a_frozen_program_has_no_names(tmp_path: Path):
    torch.jit.freeze(torch.jit.script(nn.Linear(2, 2).eval())).save(tmp_path / "frozen.pt")
    with pytest.raises(
        InputError, match=r"frozen\.pt: a frozen TorchScript program keeps its weights as nameless"
    ):
        read_checkpoint(tmp_path / "frozen.pt")


LOOP = b"c__torch__\nM\n)\x81p0\n}S'a'\ng0\nsb."


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"data_pkl": b"\x80\x02c__torch__\nM"}, id="cut pickle"),
        pytest.param({"data_pkl": pickle.dumps([1, 2], protocol=2)}, id="no module"),
        pytest.param({"data_pkl": LOOP}, id="module inside itself"),
        pytest.param({"0": b"\0" * 4}, id="short storage"),
        pytest.param({"0": b"\0" * 3}, id="storage of no whole numbers"),
        pytest.param({"byteorder": b"big"}, id="big endian"),
    ],
)
def test_a_damaged_file_is_named(change: dict[str, bytes], saved: Path, tmp_path: Path):
    path = rewritten(saved, tmp_path / "bad.pt", **change)
    with pytest.raises(InputError, match=r"bad\.pt: truncated or not a TorchScript file"):
        read_checkpoint(path)


@pytest.mark.parametrize("share", [0.2, 0.6, 0.95])
def test_a_truncated_file_is_named(share: float, saved: Path, tmp_path: Path):
    content = saved.read_bytes()
    (tmp_path / "cut.pt").write_bytes(content[: int(share * len(content))])
    with pytest.raises(InputError, match=r"cut\.pt: truncated"):
        read_checkpoint(tmp_path / "cut.pt")
