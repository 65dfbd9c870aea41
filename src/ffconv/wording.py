"""Words of messages."""

from __future__ import annotations


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
    return f"{number} {thing}{'es' if thing.endswith(('s', 'ch')) else 's'}"
