"""``ffconv shards``."""

from __future__ import annotations

import sys

import pytest
from PIL import Image

from ffconv.cli import main
from ffconv.data.config import DataConfig, open_samples

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")  # on few cores


@pytest.fixture
def splits(tmp_path):
    """Three images of two classes for training, two for validation."""
    for place, name in enumerate(("train/a/0", "train/a/1", "train/b/0", "val/a/0", "val/b/0")):
        file = tmp_path / "images" / f"{name}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4), (place, 0, 0)).save(file)
    return tmp_path / "images"


def run(*arguments: object) -> int:
    return main(["shards", *map(str, arguments), "--workers", "0"])


def test_both_splits_can_be_opened(splits, tmp_path, capsys):
    assert run(splits, tmp_path / "out") == 0
    config = DataConfig(str(tmp_path / "out"))
    assert [len(open_samples(config, split)) for split in ("train", "val")] == [3, 2]
    printed = capsys.readouterr().out
    assert "3 images of 2 classes in 1 shard\n" in printed
    assert "2 images of 2 classes in 1 shard\n" in printed


def test_folder_of_classes_without_splits(splits, tmp_path):
    assert run(splits / "train", tmp_path / "out", "--samples_per_shard", 2) == 0
    assert sorted(path.name for path in (tmp_path / "out").glob("*.tar")) == ["000000.tar", "000001.tar"]


def test_bad_file_is_named_and_nothing_written(splits, tmp_path, capsys):
    (splits / "val" / "b" / "0.png").write_bytes(b"")
    assert run(splits, tmp_path / "out") == 2
    assert "val/b/0.png: is empty" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_bad_file_passes_unverified(splits, tmp_path):
    (splits / "val" / "b" / "0.png").write_bytes(b"")
    assert run(splits, tmp_path / "out", "--verify", "false") == 0


def test_a_missing_package_is_named_before_the_files_are_read(splits, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "webdataset", None)
    monkeypatch.setattr("ffconv.data.verify.verify", None)
    assert run(splits, tmp_path / "out") == 2
    assert "pip install 'ffconv[webdataset]'" in capsys.readouterr().err


def test_used_output(splits, tmp_path, capsys):
    assert run(splits, tmp_path / "out") == 0
    assert run(splits, tmp_path / "out") == 2
    assert "already exists" in capsys.readouterr().err


def test_missing_source(tmp_path, capsys):
    assert run(tmp_path / "gone", tmp_path / "out") == 2
    assert capsys.readouterr().err == f"ffconv: {tmp_path}/gone: no such folder\n"
