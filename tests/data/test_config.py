"""From a configuration to samples."""

from __future__ import annotations

import pytest

from ffconv.data.config import DataConfig, open_samples
from ffconv.data.embedded import Digits, FarMarks
from ffconv.data.images import ImageFolder
from ffconv.data.shard_writing import write_shards
from ffconv.data.shards import LocalShards
from ffconv.data.streaming import ShardStream
from ffconv.data.transforms import ImageTransformConfig
from ffconv.errors import InputError

UNCROPPED = ImageTransformConfig(eval_short_side=32, eval_size=32, scale=(1, 1), ratio=(1, 1))


@pytest.fixture
def root(tree, tmp_path):
    """A folder with the class folders as ``train`` and shards of them as ``val``."""
    write_shards(ImageFolder(tree), tmp_path / "val", samples_per_shard=10, progress=False)
    tree.rename(tmp_path / "train")
    return tmp_path


def test_auto_tells_folders_from_shards(root):
    config = DataConfig(str(root))
    assert isinstance(open_samples(config, "train"), ImageFolder)
    assert isinstance(open_samples(config, "val"), LocalShards)


def test_splits_under_other_names(root):
    assert len(open_samples(DataConfig(str(root), train="val/{000000..000001}.tar"), "train")) == 20


def test_path_of_a_split_that_is_absolute(root):
    assert len(open_samples(DataConfig("/elsewhere", train=str(root / "train")), "train")) == 24


def test_commands_are_streams(root):
    config = DataConfig(
        train=f"pipe:cat {root}/val/{{000000..000002}}.tar",
        train_index=str(root / "val" / "shards.json"),
        allow_commands=True,
    )
    samples = open_samples(config, "train")
    assert isinstance(samples, ShardStream)
    assert (len(samples), samples.classes) == (24, ("ant", "bee", "cat"))


def test_commands_need_an_index(root):
    with pytest.raises(InputError, match=r"need data\.val_index"):
        open_samples(DataConfig(val=f"pipe:cat {root}/val/000000.tar", allow_commands=True), "val")


@pytest.mark.parametrize("field", ["path", "val", "val_index"])
@pytest.mark.parametrize(
    "command", ["pipe:touch {}", "PIPE:touch {}", " pipe:touch {}", "pi{{p,x}}e:touch {}"]
)
def test_commands_are_not_run_unless_allowed(field, command, root, tmp_path):
    fields = {"path": str(root), field: command.format(tmp_path / "mark")}
    if field == "val_index":
        fields["val"] = "http://127.0.0.1:1/000000.tar"
    with pytest.raises(InputError):
        open_samples(DataConfig(**fields), "val")
    assert not (tmp_path / "mark").exists()


def test_a_refused_command_names_the_option(root):
    with pytest.raises(InputError, match=r"would run a command: .* --data\.allow_commands true"):
        open_samples(DataConfig(val="pipe:cat x.tar"), "val")


def test_a_command_is_refused_before_its_index_is_read():
    with pytest.raises(InputError, match="'pipe:touch x' would run a command"):
        open_samples(DataConfig(val="pipe:touch x", val_index="none.json"), "val")


def test_a_command_behind_a_shard_is_not_run(root, tmp_path):
    val = f"val/000000.tar::pipe:touch {tmp_path / 'mark'}"
    with pytest.raises(InputError, match="would run a command"):
        open_samples(DataConfig(str(root), val=val, format="webdataset"), "val")
    assert not (tmp_path / "mark").exists()


def test_folder_format_does_not_look_for_shards(root):
    with pytest.raises(InputError, match="holds no class folders"):
        open_samples(DataConfig(str(root), format="folder"), "val")


def test_webdataset_format_does_not_look_for_images(root):
    with pytest.raises(InputError, match="holds no shards"):
        open_samples(DataConfig(str(root), format="webdataset"), "train")


def test_digits_have_the_size_of_evaluation():
    samples = open_samples(DataConfig(format="digits", transform=UNCROPPED), "val")
    assert isinstance(samples, Digits)
    assert samples[0][0].size == (32, 32)


def test_far_marks_have_the_size_of_evaluation():
    samples = open_samples(DataConfig(format="far_marks", transform=UNCROPPED), "train")
    assert isinstance(samples, FarMarks)
    assert samples[0][0].size == (32, 32)


@pytest.mark.parametrize(
    "transform",
    [
        ImageTransformConfig(eval_short_side=32, eval_size=32),
        ImageTransformConfig(eval_short_side=36, eval_size=32, scale=(1, 1)),
    ],
)
def test_far_marks_must_not_be_cropped(transform):
    with pytest.raises(InputError, match=r"data\.format=far_marks must not lose a mark"):
        DataConfig(format="far_marks", transform=transform)


def test_path_must_be_given():
    with pytest.raises(InputError, match="path is not given"):
        open_samples(DataConfig(), "train")


def test_missing_path_is_named(tmp_path):
    with pytest.raises(InputError, match="gone/train: no such folder"):
        open_samples(DataConfig(str(tmp_path / "gone")), "train")


@pytest.mark.parametrize(
    ("field", "value"),
    [("format", "imagefolder"), ("on_error", "ignore"), ("workers", -1), ("shuffle_buffer", -1)],
)
def test_values_outside_their_range(field, value):
    with pytest.raises(InputError, match=rf"^data\.{field}="):
        DataConfig(**{field: value})


def test_workers_as_given():
    assert DataConfig(workers=3).worker_processes == 3


@pytest.mark.parametrize(("cores", "processes", "expected"), [(2, 1, 2), (64, 1, 8), (16, 4, 4), (2, 4, 1)])
def test_workers_by_the_cores(monkeypatch, cores, processes, expected):
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(cores)), raising=False)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
    assert DataConfig().worker_processes == expected
