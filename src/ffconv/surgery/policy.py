"""Which convolutions become FFCs, and with which ratios: the paper's rule, found from the network itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ffconv.errors import InputError
from ffconv.nn import FFCNd, split_channels
from ffconv.surgery.maps import FeatureMaps
from ffconv.surgery.rules import Pin, Plan, Rule, pin_from
from ffconv.surgery.stages import find_heads, find_last_stage, find_points, find_stem
from ffconv.surgery.trace import Convolution, Trace

WhyMisfit = Callable[[Convolution, Plan], str | None]
"""Why a convolution cannot be an FFC of a plan, or None if it can."""


class Policy:
    """The plans for the convolutions of one network.

    Stem, heads and 1x1 maps are left. A feature map has ``ratio`` of global channels, but none in the last
    stage and none that no FFC has made. A convolution's ratios are those of the maps it reads and makes; one
    with none on either side is left.

    Args:
        trace: the network's trial forward.
        modules: its convolutions by name.
        ratio: share of global channels, in [0, 1].
        unfit: reasons for those that can be no FFC, by name.
        why_misfit: see :data:`WhyMisfit`.
    """

    def __init__(
        self,
        trace: Trace,
        modules: Mapping[str, Convolution],
        ratio: float,
        *,
        unfit: Mapping[str, str],
        why_misfit: WhyMisfit,
    ) -> None:
        self._trace = trace
        self._ratio = ratio
        self._unfit = unfit
        self._why_misfit = why_misfit
        reached = [name for _, name in trace.calls()]
        self._modules = {name: modules[name] for name in dict.fromkeys([*reached, *modules])}
        self._left = self._find_left(set(reached))
        movable = [name for name in self._modules if name not in self._left]
        self._last_stage = find_last_stage(trace, movable, FeatureMaps(trace, movable), modules)

    def plans(self, rule: Rule | None = None) -> dict[str, Plan]:
        """The plan of each convolution, in order of execution; those that were not reached at the end.

        Raises:
            InputError: if a rule gives what is no ratio, or ratios that the convolution cannot have.
        """
        plans = self._settle(self._left, {})
        if rule is None:
            return plans
        left: dict[str, str] = dict(self._left)
        pins: dict[str, Pin] = {}
        for name, plan in plans.items():
            decision = rule(name, self._modules[name], plan)
            if decision is None:
                left.setdefault(name, "left by a rule")
            elif isinstance(decision, Plan) and decision.reason is not None:
                left[name] = plans[name].reason or decision.reason
            elif decision != plan:
                pin = pin_from(name, decision)
                if pin.ratio_in is not None:
                    left.pop(name, None)
                if name not in left:
                    pins[name] = pin
        for name in pins:
            if name in self._unfit:
                raise InputError(f"the rule for {name} cannot be followed: {self._unfit[name]}")
        return self._settle(left, pins)

    def _find_left(self, reached: set[str]) -> dict[str, str]:
        reasons: dict[str, str] = {}
        for name, module in self._modules.items():
            if self._ratio and min(module.in_channels, module.out_channels) * self._ratio < 1:
                reasons[name] = f"too few channels for a ratio of {self._ratio:g}"
        for names, reason in (
            (find_heads(self._trace), "output head"),
            (find_stem(self._trace), "input stem"),
            (find_points(self._trace), "1x1 map"),
            (self._trace.opened, "the network reads its weight"),
            (set(self._modules) - reached, "not reached in the trial forward"),
        ):
            reasons.update(dict.fromkeys(names, reason))
        return {**reasons, **self._unfit}

    def _settle(self, left: Mapping[str, str], pins: Mapping[str, Pin]) -> dict[str, Plan]:
        """Leave what does not fit, one at a time, since that changes what the next ones read."""
        left = dict(left)
        while True:
            plans = self._propose(left, pins)
            name, reason = self._first_misfit(plans)
            if reason is None:
                return plans
            if name in pins and pins[name].ratio_in is not None:
                raise InputError(f"the rule for {name} cannot be followed: {reason}")
            left[name] = reason

    def _first_misfit(self, plans: Mapping[str, Plan]) -> tuple[str, str | None]:
        for name, plan in plans.items():
            reason = None if plan.reason else self._why_misfit(self._modules[name], plan)
            if reason is not None:
                return name, reason
        return "", None

    def _propose(self, left: Mapping[str, str], pins: Mapping[str, Pin]) -> dict[str, Plan]:
        wishes = {name: self._wish(name, pins) for name in self._modules if self._may_be_ffc(name, left)}
        maps = FeatureMaps(self._trace, wishes)
        present = [name for name in wishes if isinstance(self._modules[name], FFCNd)]
        ratios = maps.ratios(wishes, firm={*pins, *present})
        read, made = dict.fromkeys(wishes, 0.0), dict(wishes)
        for index, name in self._trace.calls():
            if name in wishes:
                sources = self._trace.nodes[index].sources
                read[name] = max([read[name], *(_ratio(maps, ratios, source) for source in sources)])
                made[name] = wishes[name] if name in pins else _ratio(maps, ratios, index)
        for name, pin in pins.items():
            read[name] = read[name] if pin.ratio_in is None else pin.ratio_in
        return {name: self._plan(name, left, read, made) for name in self._modules}

    def _may_be_ffc(self, name: str, left: Mapping[str, str]) -> bool:
        return name not in left or isinstance(self._modules[name], FFCNd)

    def _wish(self, name: str, pins: Mapping[str, Pin]) -> float:
        """The ratio that an FFC, present or to be, asks for its output."""
        module = self._modules[name]
        if isinstance(module, FFCNd):
            return module.ratio_out
        if name in pins:
            return pins[name].ratio_out
        return 0.0 if name in self._last_stage else _if_any(module.out_channels, self._ratio)

    def _plan(
        self, name: str, left: Mapping[str, str], read: Mapping[str, float], made: Mapping[str, float]
    ) -> Plan:
        module = self._modules[name]
        if isinstance(module, FFCNd):
            return Plan(module.ratio_in, module.ratio_out, left[name])
        if name in left:
            return Plan(reason=left[name])
        ratio_in = _if_any(module.in_channels, read[name])
        ratio_out = _if_any(module.out_channels, made[name])
        return Plan(
            ratio_in, ratio_out, None if ratio_in or ratio_out else "no global channels on either side"
        )


def _ratio(maps: FeatureMaps, ratios: Mapping[int, float], index: int) -> float:
    family = maps.family(index)
    return 0.0 if family is None else ratios[family]


def _if_any(channels: int, ratio: float) -> float:
    """The ratio, or 0 if it gives no channel."""
    return ratio if split_channels(channels, ratio)[1] else 0.0
