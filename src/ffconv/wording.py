"""Words of messages, and how they reach a terminal."""

from __future__ import annotations

import unicodedata
from typing import TextIO

# Controls, surrogates (bytes of a name that are no UTF-8), separators of lines, and characters that change
# the direction of text. The two that join letters belong to words.
_HIDDEN = frozenset(("Cc", "Cf", "Cs", "Zl", "Zp"))
_LONGEST = 2000  # characters of a line
_JOINERS = "\u200c\u200d"


def say(line: str = "", file: TextIO | None = None) -> None:
    """Print a line for people: the one way by which names from files reach a terminal.

    Args:
        line: Text; control characters in it are escaped, and what a person does not read is cut off.
        file: Where to; by default standard output.
    """
    if len(line) > _LONGEST:
        line = f"{line[:_LONGEST]}... ({len(line)} characters)"
    print(printable(line), file=file, flush=True)


def printable(text: str) -> str:
    r"""Return a text with escapes in place of characters that a terminal would obey or not show.

    Example:
        >>> printable("a\x1b[2Jb\n"), printable("naïve 犬")
        ('a\\x1b[2Jb\\n', 'naïve 犬')
    """
    if text.isprintable():
        return text
    return "".join(
        character.encode("unicode_escape").decode() if _is_hidden(character) else character
        for character in text
    )


def _is_hidden(character: str) -> bool:
    return unicodedata.category(character) in _HIDDEN and character not in _JOINERS


def counted(number: int, thing: str) -> str:
    """A number of things in words, by the rules of English that our nouns need.

    Example:
        >>> [counted(number, thing) for number, thing in ((1, "image"), (2, "image"), (0, "class"))]
        ['1 image', '2 images', '0 classes']
    """
    if number == 1:
        return f"1 {thing}"
    if thing.endswith("y"):
        return f"{number} {thing[:-1]}ies"
    hissing = thing.endswith(("s", "ch")) and not thing.endswith("epoch")
    return f"{number} {thing}{'es' if hissing else 's'}"
