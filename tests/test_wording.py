from __future__ import annotations

import pytest

from ffconv.wording import counted, printable, say


@pytest.mark.parametrize(
    ("number", "thing", "words"),
    [
        (0, "image", "0 images"),
        (1, "image", "1 image"),
        (2, "class", "2 classes"),
        (1, "batch", "1 batch"),
        (2, "batch", "2 batches"),
        (2, "entry", "2 entries"),
        (3, "epoch", "3 epochs"),
    ],
)
def test_one_thing_and_several(number: int, thing: str, words: str):
    assert counted(number, thing) == words


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("cat.jpg", "cat.jpg"),
        ("a\x1b]0;owned\x07b", "a\\x1b]0;owned\\x07b"),
        ("a\nffconv: all is well", "a\\nffconv: all is well"),
        ("a\r\t\x7f\x9b2J", "a\\r\\t\\x7f\\x9b2J"),
        ("gpj.\u202egnp", "gpj.\\u202egnp"),
        ("a\u2028b", "a\\u2028b"),
        ("\udcff.jpg", "\\udcff.jpg"),
        ("نمی\u200cخواهم\u00a0犬 🏳️", "نمی\u200cخواهم\u00a0犬 🏳️"),
    ],
)
def test_what_a_terminal_would_obey_is_escaped(text: str, escaped: str):
    assert printable(text) == escaped


def test_a_line_that_nobody_reads_is_cut_off(capsys: pytest.CaptureFixture[str]):
    say("x" * 100_000)
    assert capsys.readouterr().out == f"{'x' * 2000}... (100000 characters)\n"


def test_a_line_is_one_line(capsys: pytest.CaptureFixture[str]):
    say("a\nb")
    say()
    assert capsys.readouterr().out == "a\\nb\n\n"
