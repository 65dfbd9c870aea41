"""Shards read as streams: commands, URLs, compressed tars."""

from __future__ import annotations

import functools
import gzip
import http.server
import os
import shutil
import tarfile
import threading
from collections import Counter
from pathlib import Path

import pytest
import torch

from ffconv.data.config import DataConfig, open_samples
from ffconv.data.images import ImageFolder
from ffconv.data.loading import LoaderSpec, eval_batches, train_batches
from ffconv.data.samples import SkippedSample, UnreadableSample
from ffconv.data.shard_index import Shard, ShardIndex, read_index
from ffconv.data.shard_writing import write_shards
from ffconv.data.shards import LocalShards
from ffconv.data.streaming import ShardStream, _samples_of
from ffconv.errors import InputError

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")  # on few cores


@pytest.fixture
def folder(tree, tmp_path) -> Path:
    """The 24 images of the tree in six shards of four."""
    write_shards(ImageFolder(tree), tmp_path / "shards", samples_per_shard=4, progress=False)
    return tmp_path / "shards"


@pytest.fixture
def stream(folder) -> ShardStream:
    return opened(folder)


def opened(folder: Path, command: str = "cat", shuffle_buffer: int = 8) -> ShardStream:
    index = read_index(str(folder / "shards.json"))
    urls = [f"pipe:{command} {folder / shard.url}" for shard in index.shards]
    return ShardStream(urls, index, shuffle_buffer, allow_commands=True)


def level(item, index: int) -> dict[str, int]:
    image, label = item
    return {"level": image.getpixel((0, 0))[0], "label": label, "index": index}


def with_noise(item, index: int) -> dict[str, object]:
    return {"index": index, "noise": torch.rand(2)}


def indices(batches) -> list[list[int]]:
    return [batch["index"].tolist() for batch in batches]


def rows(batches) -> list[tuple[int, int, int]]:
    return [
        (int(index), int(grey), int(label))
        for batch in batches
        for index, grey, label in zip(batch["index"], batch["level"], batch["label"], strict=True)
    ]


@pytest.mark.parametrize(("world_size", "workers"), [(1, 0), (1, 2), (2, 0), (2, 2), (4, 1), (8, 0)])
def test_evaluation_gives_every_sample_once(stream, folder, world_size, workers):
    """The same index, image and label as reading by index gives, also on more processes than shards."""
    local = LocalShards(sorted(folder.glob("*.tar")))
    expected = rows(eval_batches(local, level, spec=LoaderSpec(5)))
    seen = []
    for rank in range(world_size):
        spec = LoaderSpec(3, workers=workers, rank=rank, world_size=world_size)
        seen += rows(eval_batches(stream, level, spec=spec))
    assert sorted(seen) == expected


@pytest.mark.parametrize(("world_size", "workers"), [(1, 0), (1, 2), (2, 2), (3, 4)])
def test_training_epoch_is_exact_in_size(stream, world_size, workers):
    for rank in range(world_size):
        spec = LoaderSpec(2, workers=workers, rank=rank, world_size=world_size)
        batches = train_batches(stream, with_noise, spec=spec, epoch=0)
        sizes = [len(batch["index"]) for batch in batches]
        assert sizes == [2] * (24 // (2 * world_size)) == [2] * len(batches)


def test_training_of_one_process_reads_every_sample_once(stream):
    batches = train_batches(stream, with_noise, spec=LoaderSpec(4), epoch=0)
    assert sorted(index for batch in indices(batches) for index in batch) == list(range(24))


def test_training_of_even_lanes_reads_every_sample_once(stream):
    seen = Counter()
    for rank in range(3):
        spec = LoaderSpec(4, workers=2, rank=rank, world_size=3)
        for batch in indices(train_batches(stream, with_noise, spec=spec, epoch=0)):
            seen.update(batch)
    assert seen == Counter(range(24))


def test_epochs_have_orders_of_their_own(stream):
    orders = [indices(train_batches(stream, with_noise, spec=LoaderSpec(4), epoch=epoch)) for epoch in (0, 1)]
    assert orders[0] != orders[1]


def test_the_buffer_shuffles_among_shards(folder):
    """Without it the samples of a shard stay together; with one of the whole set they do not."""

    def shards_of_a_batch(size: int) -> int:
        stream = opened(folder, shuffle_buffer=size)
        batches = indices(train_batches(stream, with_noise, spec=LoaderSpec(4), epoch=0))
        return max(len({index // 4 for index in batch}) for batch in batches)

    assert shards_of_a_batch(0) == 1
    assert shards_of_a_batch(24) > 2


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("start", [0, 1, 3, 6])
def test_resuming_with_the_same_workers_gives_the_rest(stream, workers, start):
    spec = LoaderSpec(4, workers=workers)
    whole = list(train_batches(stream, with_noise, spec=spec, epoch=1))
    rest = list(train_batches(stream, with_noise, spec=spec, epoch=1, start=start))
    assert indices(rest) == indices(whole)[start:]
    assert all(torch.equal(a["noise"], b["noise"]) for a, b in zip(rest, whole[start:], strict=True))


def test_randomness_depends_on_the_sample_alone(stream):
    """Other lanes, another order, the same augmentation."""
    by_lanes = [
        {
            int(index): noise.tolist()
            for batch in train_batches(stream, with_noise, spec=LoaderSpec(4, workers=workers), epoch=1)
            for index, noise in zip(batch["index"], batch["noise"], strict=True)
        }
        for workers in (0, 2)
    ]
    assert by_lanes[0] == by_lanes[1]


def test_more_processes_than_shards_cannot_train(stream):
    with pytest.raises(InputError, match="6 shards cannot be shared by 7 processes"):
        train_batches(stream, with_noise, spec=LoaderSpec(1, world_size=7), epoch=0)


@pytest.mark.parametrize("command", ["false", "head -c 5000", "true"])
@pytest.mark.parametrize("workers", [0, 1])
def test_failing_command_is_named(folder, command, workers):
    stream = opened(folder, command)
    with pytest.raises(InputError, match=rf"^pipe:{command} .*000000\.tar: [^\n]*$"):
        list(eval_batches(stream, level, spec=LoaderSpec(4, workers=workers)))


@pytest.mark.parametrize("size", [1024, 1536, 2048, 5000])
def test_a_stream_that_ends_early_is_an_error(folder, size):
    """Also between two files, and where the index does not tell how many samples there are."""
    index = read_index(str(folder / "shards.json"))
    stream = ShardStream(
        [f"pipe:head -c {size} {folder}/000000.tar"],
        ShardIndex(index.classes, index.shards[:1]),
        allow_commands=True,
    )
    with pytest.raises(
        InputError, match=r"000000\.tar: (is no complete tar file|a sample needs|.*but its index)"
    ):
        list(stream.read(0))
    with pytest.raises(InputError, match=r"000000\.tar: is no complete tar file"):
        list(_samples_of(stream.urls[0]))


def test_a_flipped_bit_of_a_gzip_file_is_an_error(folder):
    """Inside a file of the tar, which has no check sum itself."""
    content = bytearray(gzip.compress((folder / "000000.tar").read_bytes(), compresslevel=0))
    content[1024] ^= 1
    (folder / "a.tar.gz").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.tar\.gz: is no complete tar file \(CRC check failed"):
        list(_samples_of(str(folder / "a.tar.gz")))


def test_a_small_file_that_inflates_to_gigabytes_is_refused(tmp_path):
    member = tarfile.TarInfo("0.png")
    member.size = 2**34
    with gzip.open(tmp_path / "a.tar.gz", "w") as file:
        file.write(member.tobuf() + bytes(1024))
    with pytest.raises(
        InputError, match=r"a\.tar\.gz: is no complete tar file \(0\.png has 17179869184 bytes"
    ):
        list(_samples_of(str(tmp_path / "a.tar.gz")))


def test_a_pipe_among_local_shards_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "a.tar.gz")
    with pytest.raises(InputError, match=r"a\.tar\.gz: is a pipe or a device"):
        list(_samples_of(str(tmp_path / "a.tar.gz")))


def test_a_command_that_is_cut_off_does_not_complain(folder):
    """The end of an epoch rarely is the end of a shard; the command then dies of the closed pipe."""
    index = ShardIndex(("ant", "bee", "cat"), (Shard("000000.tar", 4, 0),))
    urls = [f"pipe:exec cat {folder}/000000.tar /dev/zero"]
    reading = ShardStream(urls, index, allow_commands=True).read(0)
    next(reading)
    reading.close()


def test_shard_with_fewer_samples_than_its_index_says(folder):
    index = read_index(str(folder / "shards.json"))
    wrong = ShardIndex(index.classes, (Shard("000000.tar", 5, 0),))
    stream = ShardStream([str(folder / "000000.tar")], wrong)
    with pytest.raises(InputError, match=r"000000\.tar: 4 samples, but its index says 5"):
        list(eval_batches(stream, level, spec=LoaderSpec(4)))


def test_index_of_other_shards(folder):
    index = read_index(str(folder / "shards.json"))
    with pytest.raises(InputError, match="1 shard, but the index lists 6"):
        ShardStream([str(folder / "000000.tar")], index)


def test_label_beyond_the_classes(folder):
    index = read_index(str(folder / "shards.json"))
    stream = ShardStream(
        [str(folder / shard.url) for shard in index.shards], ShardIndex(("ant",), index.shards)
    )
    with pytest.raises(InputError, match=r"\.tar:0000.*: label \d, but 1 class$"):
        list(eval_batches(stream, level, spec=LoaderSpec(4)))


@pytest.fixture
def spoiled(tree, tmp_path) -> ShardStream:
    """The stream of a tree of which one image is empty."""
    (tree / "bee" / "3.png").write_bytes(b"")
    write_shards(ImageFolder(tree), tmp_path / "shards", samples_per_shard=4, progress=False)
    return opened(tmp_path / "shards")


@pytest.mark.parametrize("workers", [0, 2])
def test_bad_sample_stops_with_its_name(spoiled, workers):
    with pytest.raises(UnreadableSample, match=r"^pipe:cat .*\.tar:\d{8}-3: is empty \(0 bytes\)$"):
        list(eval_batches(spoiled, level, spec=LoaderSpec(4, workers=workers)))


@pytest.mark.parametrize("workers", [0, 2])
def test_skipping_in_evaluation_leaves_the_sample_out(spoiled, workers):
    batches = eval_batches(spoiled, level, spec=LoaderSpec(4, workers=workers, on_error="skip"))
    assert len(rows(batches)) == 23
    (skipped,) = batches.skipped
    assert isinstance(skipped, SkippedSample)
    assert skipped.reason == "is empty (0 bytes)"


def test_skipping_in_training_keeps_the_epochs_size(spoiled):
    batches = train_batches(spoiled, level, spec=LoaderSpec(4, on_error="skip"), epoch=0)
    assert [len(batch["index"]) for batch in batches] == [4] * 6
    assert len(batches.skipped) == 1


def test_a_stream_of_bad_samples_is_given_up(tree, tmp_path):
    for file in tree.glob("*/*.png"):
        file.write_bytes(b"")
    write_shards(ImageFolder(tree), tmp_path / "shards", progress=False)
    stream = opened(tmp_path / "shards")
    with pytest.raises(InputError, match="100 unreadable samples in a row"):
        list(train_batches(stream, level, spec=LoaderSpec(4, on_error="skip"), epoch=0))


def test_compressed_local_shards(folder):
    """Found by auto, told by their ending, with the index beside them."""
    for shard in folder.glob("*.tar"):
        shard.with_suffix(".tar.gz").write_bytes(gzip.compress(shard.read_bytes()))
        shard.unlink()
    (folder / "samples.npy").unlink()
    text = (folder / "shards.json").read_text()
    (folder / "shards.json").write_text(text.replace('.tar"', '.tar.gz"'))
    config = DataConfig(str(folder), train="{000000..000005}.tar.gz")
    samples = open_samples(config, "train")
    assert isinstance(samples, ShardStream)
    assert len(rows(eval_batches(samples, level, spec=LoaderSpec(4)))) == 24


@pytest.fixture
def server(folder):
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(folder.parent))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="webdataset reads URLs with curl")


@needs_curl
@pytest.mark.parametrize("notation", ["shards", "shards/{000000..000005}.tar"], ids=["folder", "braces"])
def test_shards_on_a_web_server(server, notation):
    samples = open_samples(DataConfig(server, val=notation), "val")
    assert isinstance(samples, ShardStream)
    assert len(rows(eval_batches(samples, level, spec=LoaderSpec(4, workers=2)))) == 24


@needs_curl
def test_missing_shards_on_a_web_server(server):
    with pytest.raises(InputError, match=r"gone/shards\.json: the shards' index cannot be read"):
        open_samples(DataConfig(server, val="gone"), "val")
