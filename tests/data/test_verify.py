"""Reading every sample before training."""

from __future__ import annotations

import pytest
from PIL import Image

import two_processes
from ffconv.data.images import ImageFolder
from ffconv.data.samples import SkippedSample, UnreadableSample
from ffconv.data.verify import refuse_unreadable, verify
from ffconv.errors import InputError

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")  # on few cores


@pytest.mark.parametrize("workers", [0, 2])
def test_bad_files_are_found(tree, workers):
    empty, truncated, foreign = tree / "ant" / "1.png", tree / "bee" / "0.png", tree / "cat" / "7.png"
    empty.write_bytes(b"")
    Image.effect_noise((64, 64), 50).save(truncated)
    truncated.write_bytes(truncated.read_bytes()[:1000])
    foreign.write_text("no image")
    found = verify(ImageFolder(tree), workers=workers, progress=False)
    assert [(sample.index, sample.name) for sample in found] == [
        (1, str(empty)),
        (8, str(truncated)),
        (23, str(foreign)),
    ]


def test_good_files_pass(tree):
    found = verify(ImageFolder(tree), progress=False)
    assert found == ()
    refuse_unreadable(found, 24)


def test_refusal_counts_and_names():
    found = [SkippedSample(index, f"{index}.jpg", "is empty") for index in range(5)]
    message = (
        r"^5 of 9 samples cannot be read: 0\.jpg: is empty; 1\.jpg: is empty; 2\.jpg: is empty; and 2 more$"
    )
    with pytest.raises(InputError, match=message):
        refuse_unreadable(found, 9)


def test_progress_is_shown(tree, capsys):
    verify(ImageFolder(tree))
    assert "100%" in capsys.readouterr().out


class _Bad:
    classes = ()

    def __init__(self) -> None:
        self.read = []

    def __len__(self) -> int:
        return 40

    def __getitem__(self, index: int) -> None:
        self.read.append(index)
        if index in (3, 8, 39):
            raise UnreadableSample(str(index), "is bad")


def _verify(rank: int) -> tuple[list[int], int]:
    samples = _Bad()
    found = verify(samples, progress=False)
    return [sample.index for sample in found], len(samples.read)


def test_processes_share_the_work_and_the_list(tmp_path):
    assert two_processes.results(_verify, tmp_path) == [([3, 8, 39], 20)] * 2
