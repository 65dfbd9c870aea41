"""Plans for single convolutions, and the rules by which a user changes them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from numbers import Real
from typing import TypeGuard

from torch import nn

from ffconv.errors import InputError


@dataclass(frozen=True)
class Plan:
    """What becomes of one convolution.

    Args:
        ratio_in: share of global channels in what it reads, in [0, 1].
        ratio_out: the same for what it makes.
        reason: why it is left as it is; None if it becomes an FFC.
    """

    ratio_in: float = 0.0
    ratio_out: float = 0.0
    reason: str | None = None


Decision = Plan | float | tuple[float, float] | None
"""None: leave it. A number: the ratio of what it makes, if it becomes an FFC at all. A pair: just this
``(ratio_in, ratio_out)``. Or a plan, such as the one that was given."""

Rule = Callable[[str, nn.Module, Plan], Decision]
"""A decision from name, convolution and the policy's plan."""


@dataclass(frozen=True)
class Pin:
    """The ratios that a rule asks for; ``ratio_in`` None follows from what the convolution reads."""

    ratio_in: float | None
    ratio_out: float


def rule_from_patterns(decisions: Mapping[str, Decision], names: Iterable[str]) -> Rule:
    """The rule that looks names up in a table of ``fnmatch`` patterns; the first that matches counts.

    Raises:
        InputError: if a pattern matches none of the names.
    """
    names = list(names)
    for pattern in decisions:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise InputError(f"pattern {pattern!r} in rules matches none of the {len(names)} convolutions")

    def rule(name: str, module: nn.Module, plan: Plan) -> Decision:
        return next((decisions[pattern] for pattern in decisions if fnmatchcase(name, pattern)), plan)

    return rule


def pin_from(name: str, decision: Decision) -> Pin:
    """Return the ratios of a decision to convert; a pair may be a list, as JSON gives it back.

    Raises:
        InputError: if they are no ratios.
    """
    if _is_ratio(decision):
        return Pin(None, decision)
    pair = (decision.ratio_in, decision.ratio_out) if isinstance(decision, Plan) else decision
    if not isinstance(pair, (tuple, list)) or len(pair) != 2 or not all(_is_ratio(ratio) for ratio in pair):
        raise InputError(f"the rule for {name} gives {decision!r}: a ratio in [0, 1], two of them, or None")
    return Pin(*pair)


def _is_ratio(value: object) -> TypeGuard[float]:
    return isinstance(value, Real) and not isinstance(value, bool) and 0 <= float(value) <= 1
