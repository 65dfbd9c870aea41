"""What keypoints there are: names, edges to draw, left-right pairs, and how precisely people place them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ffconv.errors import InputError, require
from ffconv.wording import counted

#: Sigma of a keypoint that neither the file, the configuration nor COCO knows: about the mean of COCO's.
DEFAULT_SIGMA = 0.07

Pairs = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class KeypointSet:
    """K keypoints in the order of a network's outputs.

    Args:
        names: K different names.
        skeleton: edges to draw, as pairs of numbers from 0.
        flip_pairs: what a horizontal flip exchanges, as pairs of numbers from 0; no keypoint in two pairs.
        sigmas: K positive numbers, COCO's: a keypoint at distance d on an object of area A scores
            exp(-d^2 / (2 A (2 sigma)^2)).

    Raises:
        InputError: for numbers that do not fit.
    """

    names: tuple[str, ...]
    skeleton: Pairs
    flip_pairs: Pairs
    sigmas: tuple[float, ...]

    def __post_init__(self) -> None:
        count = len(self.names)
        require(count >= 1, "keypoints.names must not be empty")
        require(len(set(self.names)) == count, f"keypoints.names={list(self.names)} must all be different")
        require(
            len(self.sigmas) == count and all(sigma > 0 for sigma in self.sigmas),
            f"keypoints.sigmas={list(self.sigmas)} must be {count} positive numbers, one a keypoint",
        )
        for name, pairs in (("skeleton", self.skeleton), ("flip_pairs", self.flip_pairs)):
            inside = all(0 <= one < count and 0 <= other < count for one, other in pairs)
            require(inside, f"keypoints.{name}={list(pairs)} must name keypoints 0 to {count - 1}")
        paired = [number for pair in self.flip_pairs for number in pair]
        once = len(set(paired)) == len(paired)
        require(once, f"keypoints.flip_pairs={list(self.flip_pairs)} must not name a keypoint twice")

    def __len__(self) -> int:
        return len(self.names)

    @property
    def flip_order(self) -> tuple[int, ...]:
        """Which keypoint takes each one's place in a mirrored image, a permutation of 0 .. K - 1."""
        order = list(range(len(self)))
        for one, other in self.flip_pairs:
            order[one], order[other] = other, one
        return tuple(order)


@dataclass(frozen=True)
class KeypointConfig:
    """What replaces or completes the annotation file's own description of its keypoints.

    Args:
        names: names of the keypoints, in the file's order.
        skeleton: edges to draw, as pairs of names.
        flip_pairs: what a horizontal flip exchanges, as pairs of names; by default those that differ in
            "left" and "right" alone.
        sigmas: one a keypoint, for the evaluation and its suppression of duplicates; by default the file's,
            else COCO's for COCO's names and 0.07 for others.
    """

    names: list[str] | None = None
    skeleton: list[tuple[str, str]] | None = None
    flip_pairs: list[tuple[str, str]] | None = None
    sigmas: list[float] | None = None


#: COCO's person, with the sigmas of COCO's own evaluation.
COCO_PERSON = KeypointSet(
    names=(
        "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder",
        "left_elbow", "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee",
        "right_knee", "left_ankle", "right_ankle",
    ),
    skeleton=(
        (15, 13), (13, 11), (16, 14), (14, 12), (11, 12), (5, 11), (6, 12), (5, 6), (5, 7), (6, 8),
        (7, 9), (8, 10), (1, 2), (0, 1), (0, 2), (1, 3), (2, 4), (3, 5), (4, 6),
    ),
    flip_pairs=((1, 2), (3, 4), (5, 6), (7, 8), (9, 10), (11, 12), (13, 14), (15, 16)),
    sigmas=(
        0.026, 0.025, 0.025, 0.035, 0.035, 0.079, 0.079, 0.072, 0.072, 0.062, 0.062, 0.107, 0.107,
        0.087, 0.087, 0.089, 0.089,
    ),
)  # fmt: skip


def keypoint_set_of(category: dict[str, Any], config: KeypointConfig, where: str) -> KeypointSet:
    """The keypoints of a COCO-format category, with what a configuration says instead.

    Args:
        category: entry of ``categories``: ``keypoints`` (names), ``skeleton`` (pairs of numbers from 1) and,
            where a file has them, ``sigmas``.
        config: what counts before the category.
        where: what the file is called in an error.

    Raises:
        InputError: for a description that contradicts itself.
    """
    try:
        names = tuple(str(name) for name in config.names or category.get("keypoints") or ())
        skeleton = tuple((int(one) - 1, int(other) - 1) for one, other in category.get("skeleton") or ())
        sigmas = tuple(float(sigma) for sigma in config.sigmas or category.get("sigmas") or _sigmas(names))
        return KeypointSet(
            names=names,
            skeleton=skeleton if config.skeleton is None else _numbers(config.skeleton, names, "skeleton"),
            flip_pairs=_mirrored(names)
            if config.flip_pairs is None
            else _numbers(config.flip_pairs, names, "flip_pairs"),
            sigmas=sigmas,
        )
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    except (TypeError, ValueError) as error:
        raise InputError(f"{where}: category {category.get('name')!r} cannot be read ({error})") from error


def require_same_keypoints(expected: KeypointSet, found: KeypointSet, where: str) -> None:
    """Refuses data whose keypoints are not those a network was trained for, in the same order.

    Raises:
        InputError: with the numbers of keypoints, or the first name that differs.
    """
    require(
        len(found) == len(expected),
        f"{where}: {counted(len(found), 'keypoint')}, but the network has {len(expected)}"
        f" ({', '.join(expected.names)})",
    )
    for number, (ours, theirs) in enumerate(zip(expected.names, found.names, strict=True)):
        require(ours == theirs, f"{where}: keypoint {number} is {theirs!r}, but the network's is {ours!r}")


def _sigmas(names: Iterable[str]) -> list[float]:
    known = dict(zip(COCO_PERSON.names, COCO_PERSON.sigmas, strict=True))
    return [known.get(name, DEFAULT_SIGMA) for name in names]


def _numbers(pairs: Iterable[Sequence[str]], names: Sequence[str], what: str) -> Pairs:
    numbers = {name: number for number, name in enumerate(names)}
    found: list[tuple[int, int]] = []
    for one, other in pairs:
        for name in (one, other):
            require(name in numbers, f"keypoints.{what} names {name!r}, which is none of {', '.join(names)}")
        found.append((numbers[one], numbers[other]))
    return tuple(found)


def _mirrored(names: Sequence[str]) -> Pairs:
    """Pairs of names that differ in the word "left" and "right" alone, whatever the case."""
    lower = {name.lower(): number for number, name in enumerate(names)}
    partners = ((lower.get(re.sub("left", "right", name)), number) for name, number in lower.items())
    return tuple((left, right) for right, left in partners if right is not None and right != left)
