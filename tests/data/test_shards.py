"""Writing shards, and reading local ones by index."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest

from ffconv.data.embedded import FarMarks
from ffconv.data.images import ImageFolder
from ffconv.data.loading import LoaderSpec, eval_batches, train_batches
from ffconv.data.samples import UnreadableSample
from ffconv.data.shard_index import ShardIndex, expand_shards, read_index
from ffconv.data.shard_writing import write_shards
from ffconv.data.shards import LocalShards
from ffconv.data.transforms import ImageTransformConfig, PrepareImage, train_transform
from ffconv.errors import InputError

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")  # on few cores


@pytest.fixture
def folder(tree, tmp_path) -> Path:
    """The 24 images of the tree in shards of ten."""
    write_shards(ImageFolder(tree), tmp_path / "shards", samples_per_shard=10, progress=False)
    return tmp_path / "shards"


def shards(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.tar"))


def contents(samples) -> list[tuple[int, int]]:
    """Grey level and label of every sample, sorted."""
    return sorted(
        (image.getpixel((0, 0))[0], label)
        for image, label in (samples[index] for index in range(len(samples)))
    )


def write_tar(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def test_shards_hold_what_the_folder_holds(tree, folder):
    assert contents(LocalShards(shards(folder))) == contents(ImageFolder(tree))


def test_classes_come_from_the_index(folder):
    assert LocalShards(shards(folder)).classes == ("ant", "bee", "cat")


def test_the_samples_are_shuffled(folder):
    samples = LocalShards(shards(folder))
    labels = [samples[index][1] for index in range(len(samples))]
    assert labels != sorted(labels)


def test_shards_end_after_the_number_of_samples(folder):
    index = read_index(str(folder / "shards.json"))
    assert [(shard.url, shard.nsamples) for shard in index.shards] == [
        ("000000.tar", 10),
        ("000001.tar", 10),
        ("000002.tar", 4),
    ]


def test_shards_end_after_the_number_of_bytes(tree, tmp_path):
    index = write_shards(ImageFolder(tree), tmp_path / "shards", bytes_per_shard=1, progress=False)
    assert [shard.nsamples for shard in index.shards] == [1] * 24


def test_equal_arguments_give_equal_files(tree, tmp_path):
    for name in ("a", "b"):
        write_shards(ImageFolder(tree), tmp_path / name, seed=3, progress=False)
    assert (tmp_path / "a" / "000000.tar").read_bytes() == (tmp_path / "b" / "000000.tar").read_bytes()


def test_files_are_copied_byte_by_byte(tree, folder):
    originals = {path.read_bytes() for path in tree.glob("*/*.png")}
    samples = LocalShards(shards(folder))
    assert {samples.encoded(index).content for index in range(24)} == originals


def test_samples_without_files_are_stored_without_loss(tmp_path):
    marks = FarMarks("val", 16, count=6)
    write_shards(marks, tmp_path / "shards", progress=False)
    samples = LocalShards(shards(tmp_path / "shards"))
    written = {np.asarray(samples[index][0]).tobytes(): samples[index][1] for index in range(6)}
    assert written == {np.asarray(marks[index][0]).tobytes(): marks[index][1] for index in range(6)}


def test_shards_of_shards(folder, tmp_path):
    first = LocalShards(shards(folder))
    write_shards(first, tmp_path / "again", progress=False)
    assert contents(LocalShards(shards(tmp_path / "again"))) == contents(first)


def test_without_an_index_the_shards_are_read(folder):
    indexed = LocalShards(shards(folder))
    for name in ("shards.json", "samples.npy"):
        (folder / name).unlink()
    scanned = LocalShards(shards(folder))
    assert [scanned[index][1] for index in range(24)] == [indexed[index][1] for index in range(24)]
    assert scanned.classes == ("0", "1", "2")


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY damaged", None])
def test_a_damaged_table_of_samples_is_named(folder, content):
    path = folder / "samples.npy"
    if content is None:  # a table of something else
        np.save(path, np.zeros(3))
    else:
        path.write_bytes(content)
    with pytest.raises(InputError, match=r"samples\.npy: is no table of samples"):
        LocalShards(shards(folder))


def test_some_of_the_shards_in_another_order(folder):
    whole = LocalShards(shards(folder))
    chosen = LocalShards([folder / "000002.tar", folder / "000000.tar"])
    expected = [*range(20, 24), *range(10)]
    assert [chosen.encoded(index) for index in range(14)] == [whole.encoded(index) for index in expected]


def test_the_same_batches_for_any_number_of_workers(folder):
    prepare = PrepareImage(train_transform(ImageTransformConfig(train_size=8)))
    alone, together = (
        list(
            train_batches(LocalShards(shards(folder)), prepare, spec=LoaderSpec(5, workers=workers), epoch=1)
        )
        for workers in (0, 2)
    )
    for a, b in zip(alone, together, strict=True):
        assert all((a[key] == b[key]).all() for key in ("image", "label", "index"))


def test_pickled_shards_are_the_same(folder):
    samples = LocalShards(shards(folder))
    assert contents(pickle.loads(pickle.dumps(samples))) == contents(samples)


def test_long_and_foreign_names_as_other_tools_write_them(tree, tmp_path):
    """Names over 100 characters take headers of their own; files of webdataset itself are passed over."""
    image = (tree / "bee" / "0.png").read_bytes()
    key = "deep/" * 30 + "ä"
    files = {"__meta__/note.txt": b"x", f"{key}.cls": b"4\n", f"{key}.PNG": image, f"{key}.txt": b"x"}
    samples = LocalShards([write_tar(tmp_path / "x.tar", files)])
    assert contents(samples) == [(80, 4)]
    assert len(samples.classes) == 5


def test_bad_image_is_named_by_shard_and_key(tmp_path):
    tar = write_tar(tmp_path / "x.tar", {"a.jpg": b"no image", "a.cls": b"0"})
    with pytest.raises(UnreadableSample, match=rf"^{tar}:a\.jpg: is no image"):
        LocalShards([tar])[0]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a.jpg": b"x"}, r"x\.tar:a: a sample needs an image and a \.cls label, this one has \.jpg"),
        ({"a.cls": b"0", "a.json": b"{}"}, r"this one has \.cls, \.json"),
        ({"a.jpg": b"x", "a.cls": b"cat"}, r"x\.tar:a: label b'cat' is not a class number"),
        ({"a.jpg": b"x", "a.cls": b"-1"}, r"label b'-1' is not"),
        ({}, "the shards hold no samples"),
    ],
)
def test_shards_without_the_needed_files(tmp_path, files, message):
    with pytest.raises(InputError, match=message):
        LocalShards([write_tar(tmp_path / "x.tar", files)])


def test_label_beyond_the_classes(folder):
    fields = json.loads((folder / "shards.json").read_text())
    (folder / "shards.json").write_text(json.dumps({**fields, "classes": ["ant", "bee"]}))
    with pytest.raises(InputError, match="label 2 in the shards, but 2 classes"):
        LocalShards(shards(folder))


def test_missing_shard(folder):
    with pytest.raises(InputError, match=r"000009\.tar: no such shard"):
        LocalShards([folder / "000009.tar"])


def test_truncated_shard_with_an_index(folder):
    shard = folder / "000001.tar"
    shard.write_bytes(shard.read_bytes()[:4096])
    with pytest.raises(InputError, match=r"000001\.tar: 4096 bytes, but shards\.json says"):
        LocalShards(shards(folder))


@pytest.mark.parametrize("size", [0, 100, 512, 4096 + 512 + 10])
def test_truncated_shard_without_an_index(folder, size):
    (folder / "shards.json").unlink()
    shard = folder / "000001.tar"
    shard.write_bytes(shard.read_bytes()[:size])
    with pytest.raises(InputError, match=r"000001\.tar: is no complete tar file"):
        LocalShards(shards(folder))


@pytest.mark.parametrize("cut", ["after a member", "inside a header", "inside a file"])
def test_a_shard_cut_anywhere_is_an_error(folder, cut):
    (folder / "shards.json").unlink()
    shard = folder / "000001.tar"
    with tarfile.open(shard) as tar:
        member = tar.getmembers()[7]
    size = {"after a member": member.offset, "inside a header": member.offset + 99, "inside a file": 1}[cut]
    os.truncate(shard, size if size > 1 else member.offset_data + 1)
    with pytest.raises(InputError, match=r"000001\.tar: is no complete tar file"):
        LocalShards(shards(folder))


@pytest.mark.parametrize("fill", [b"\0" * 512, b"x" * 512])
def test_an_overwritten_header_is_not_taken_for_the_end(folder, fill):
    (folder / "shards.json").unlink()
    shard = folder / "000001.tar"
    with tarfile.open(shard) as tar:
        offset = tar.getmembers()[7].offset
    content = bytearray(shard.read_bytes())
    content[offset : offset + 512] = fill
    shard.write_bytes(content)
    with pytest.raises(InputError, match=r"000001\.tar: is no complete tar file"):
        LocalShards(shards(folder))


def test_zeros_without_end_are_not_read_to_the_end(tmp_path):
    (tmp_path / "a.tar").touch()
    os.truncate(tmp_path / "a.tar", 2**40)
    with pytest.raises(InputError, match=r"a\.tar: is no complete tar file \(more than padding"):
        LocalShards([tmp_path / "a.tar"])


def test_attributes_that_fill_the_memory_are_refused(tmp_path):
    member = tarfile.TarInfo("././@LongLink")
    member.type, member.size = tarfile.GNUTYPE_LONGNAME, 2**33
    (tmp_path / "a.tar").write_bytes(member.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    with pytest.raises(InputError, match=r"a\.tar: is no complete tar file .*8589934592 bytes of attributes"):
        LocalShards([tmp_path / "a.tar"])


def test_a_label_of_many_digits_is_refused(tmp_path):
    shard = write_tar(tmp_path / "a.tar", {"0.png": b"", "0.cls": b"1" * 20})
    with pytest.raises(InputError, match=r"a\.tar:0: label .* is not a class number"):
        LocalShards([shard])


@pytest.mark.parametrize(
    ("field", "value"), [("offset", -1), ("offset", 2**62), ("size", 2**40), ("size", -5), ("label", -1)]
)
def test_a_table_of_samples_that_lies_is_refused(folder, field, value):
    entries = np.load(folder / "samples.npy")
    entries[field][3] = value
    np.save(folder / "samples.npy", entries)
    with pytest.raises(InputError, match=r"samples\.npy: names samples that lie outside .*000000\.tar"):
        LocalShards(shards(folder))


def test_shard_that_shrinks_while_it_is_read(folder):
    samples = LocalShards(shards(folder))
    last = folder / "000002.tar"
    last.write_bytes(last.read_bytes()[:1024])
    with pytest.raises(UnreadableSample, match=r"000002\.tar"):
        samples[23]


def test_an_index_with_a_number_below_0_is_broken():
    content = b'{"shardlist": [{"url": "a.tar", "nsamples": -1}], "classes": []}'
    with pytest.raises(InputError, match=r"somewhere: is no index of shards .*a number below 0"):
        ShardIndex.parse(content, "somewhere")


def test_missing_index(tmp_path):
    with pytest.raises(InputError, match=r"gone\.json: No such file"):
        read_index(str(tmp_path / "gone.json"))


def test_index_of_chosen_shards(folder):
    index = read_index(str(folder / "shards.json"))
    chosen = index.of(["http://host/000002.tar", "pipe:cat x/000000.tar"])
    assert [shard.nsamples for shard in chosen.shards] == [4, 10]


def test_index_taken_in_order_where_names_are_unknown(folder):
    index = read_index(str(folder / "shards.json"))
    assert index.of(["pipe:a", "pipe:b", "pipe:c"]) is index
    with pytest.raises(InputError, match="2 shards, but the index lists 3 others"):
        index.of(["pipe:a", "pipe:b"])


@pytest.mark.parametrize(
    ("notation", "expected"),
    [
        ("{}", ["000000.tar", "000001.tar", "000002.tar"]),
        ("{}/{{000000..000001}}.tar", ["000000.tar", "000001.tar"]),
        ("{}/00000[12].tar", ["000001.tar", "000002.tar"]),
        ("{}/*2.tar", ["000002.tar"]),
        ("{0}/000002.tar::{0}/000000.tar", ["000002.tar", "000000.tar"]),
    ],
    ids=["folder", "braces", "characters", "star", "list"],
)
def test_notation_of_local_shards(folder, notation, expected):
    assert expand_shards(notation.format(folder)) == [str(folder / name) for name in expected]


def test_braces_of_a_command():
    assert expand_shards("pipe:cat {a,b}.tar") == ["pipe:cat a.tar", "pipe:cat b.tar"]


def test_notation_without_shards(tmp_path):
    with pytest.raises(InputError, match="holds no shards"):
        expand_shards(str(tmp_path))


def test_an_unfinished_folder_is_written_anew(tree, tmp_path):
    (tmp_path / "shards.partial").mkdir()
    (tmp_path / "shards.partial" / "000007.tar").write_bytes(b"left by a killed run")
    write_shards(ImageFolder(tree), tmp_path / "shards", progress=False)
    assert [path.name for path in shards(tmp_path / "shards")] == ["000000.tar"]
    assert not (tmp_path / "shards.partial").exists()


def test_nothing_is_left_under_the_name_when_writing_fails(tree, tmp_path):
    samples = ImageFolder(tree)
    shutil.rmtree(tree / "cat")
    with pytest.raises(UnreadableSample):
        write_shards(samples, tmp_path / "shards", progress=False)
    assert not (tmp_path / "shards").exists()


def test_a_used_folder_is_not_overwritten(tree, folder):
    with pytest.raises(InputError, match="already exists"):
        write_shards(ImageFolder(tree), folder)


@pytest.mark.parametrize("name", ["samples_per_shard", "bytes_per_shard"])
def test_sizes_outside_their_range(tree, tmp_path, name):
    with pytest.raises(InputError, match=f"{name}=0 must be at least 1"):
        write_shards(ImageFolder(tree), tmp_path / "shards", **{name: 0})


@pytest.mark.reference
def test_real_photographs(reference, tmp_path):
    """Every file of a real set arrives once, over two ranks with two workers each."""
    with tarfile.open(reference / "data" / "imagenette96.tar") as tar:
        members = [
            member for member in tar if member.name.lstrip("./").startswith("val/n0") and member.isfile()
        ]
        tar.extractall(tmp_path, members[:300], filter="data")
    folder = ImageFolder(tmp_path / "val")
    write_shards(folder, tmp_path / "shards", samples_per_shard=70, progress=False)
    samples = LocalShards(shards(tmp_path / "shards"))
    contents = [samples.encoded(index).content for index in range(300)]
    assert sorted(contents) == sorted(folder.encoded(index).content for index in range(300))
    prepare = PrepareImage(train_transform(ImageTransformConfig(train_size=16)))
    seen = [
        int(index)
        for rank in range(2)
        for batch in eval_batches(samples, prepare, spec=LoaderSpec(32, workers=2, rank=rank, world_size=2))
        for index in batch["index"]
    ]
    assert sorted(seen) == list(range(300))
