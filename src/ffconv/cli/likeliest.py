"""The likeliest classes of a sample, with the names people know."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

_WORDNET_ID = re.compile(r"n\d{8}")


def likeliest(chances: Tensor, classes: Sequence[str], *, top: int) -> list[dict[str, Any]]:
    """The most likely classes of one sample, the likeliest first.

    Args:
        chances: (C,), of each class.
        classes: their names.
        top: how many of them at most.

    Returns:
        For each its ``class``, its ``name`` in words and its ``probability``.
    """
    titles = class_titles(classes)
    values, labels = chances.topk(min(top, len(titles)))
    return [
        {"class": classes[label], "name": titles[label], "probability": round(value, 6)}
        for label, value in zip(labels.tolist(), values.tolist(), strict=True)
    ]


def class_titles(classes: Sequence[str]) -> list[str]:
    """What people call the classes: ImageNet's words where the names are WordNet ids, else the names.

    Example:
        >>> class_titles(["n01440764", "n02979186"])
        ['tench, Tinca tinca', 'cassette player']
        >>> class_titles(["cat", "dog"])
        ['cat', 'dog']
    """
    if not all(_WORDNET_ID.fullmatch(name) for name in classes):
        return list(classes)
    from timm.data import ImageNetInfo

    words = ImageNetInfo("imagenet-22k")
    known = set(words.label_names())
    return [words.label_name_to_description(name) if name in known else name for name in classes]
