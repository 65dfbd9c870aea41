"""What sources of samples have in common."""

from __future__ import annotations

import pickle

import pytest

from ffconv.data.samples import UnreadableSample, require_same_classes
from ffconv.errors import InputError


def test_unreadable_sample_survives_pickling():
    error = pickle.loads(pickle.dumps(UnreadableSample("a.jpg", "is empty")))
    assert (error.name, error.reason, str(error)) == ("a.jpg", "is empty", "a.jpg: is empty")


def test_equal_classes_pass():
    assert require_same_classes(["ant", "bee"], ("ant", "bee"), "val") is None


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (["ant"], "val: 1 class without bee, but"),
        (["ant", "bee", "cat"], "val: 3 classes with cat, but"),
        (["ant", "cow"], "val: 2 classes without bee and with cow, but"),
        (["bee", "ant"], "val: 2 classes in another order, but"),
    ],
)
def test_other_classes_are_named(found, message):
    with pytest.raises(InputError, match=message):
        require_same_classes(["ant", "bee"], found, "val")


def test_long_lists_of_classes_are_cut():
    with pytest.raises(InputError, match=r"c0, c1, c2, c3, c4, \.\.\. \(40 in all\)"):
        require_same_classes([f"c{number}" for number in range(40)], ["ant"], "val")
