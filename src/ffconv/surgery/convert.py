"""Replace the convolutions of an existing network by Fast Fourier Convolutions."""

from __future__ import annotations

import logging
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from torch import nn

from ffconv.batch_norms import batch_norms
from ffconv.errors import InputError, require
from ffconv.nn import spectral_axes
from ffconv.surgery.mixing import find_mixings
from ffconv.surgery.policy import Policy
from ffconv.surgery.replace import Options, become_ffcs, count_hooks, find_unfit, why_misfit
from ffconv.surgery.report import ConversionReport, ConversionRow, attach_report, describe
from ffconv.surgery.rules import Decision, Plan, Rule, rule_from_patterns
from ffconv.surgery.trace import Convolution, Trace, convolutions
from ffconv.surgery.trial import trial_forward

_LOGGER = logging.getLogger(__name__)

Network = TypeVar("Network", bound=nn.Module)


def convert(
    model: Network,
    ratio: float = 0.25,
    lfu: bool = True,
    *,
    local_to_global: bool = True,
    global_to_local: bool = True,
    spectral_dims: Sequence[str] | None = None,
    zero_init_spectral: bool | None = None,
    example_input: Any = None,
    rules: Mapping[str, Decision] | Rule | None = None,
) -> Network:
    """Turn the convolutions of a network into FFCs, in place, by the rule of the paper's ResNets.

    A trial forward without data shows what is what. The stem, the output heads and convolutions on 1x1 maps
    (as in squeeze-and-excitation) stay. Global channels begin after the stem (``ratio_in = 0``) and end with
    the last stage (``ratio_out = 0``; in a decoder, after its last upsampling). Maps that are added have one
    ratio. A convolution without global channels on either side stays. Weights are copied to the parts that
    correspond, Spectral Transforms are new; data type, device, memory format, training mode,
    ``requires_grad`` and hooks are kept. The convolution objects themselves become FFCs, so that lists, dicts
    or partials that also hold them run what was converted.

    A trained network loses the weights from global to global channels, and the Spectral Transforms in their
    place start at zero. The norms' statistics no longer fit the maps then: call :func:`ffconv.recalibrate`
    next, with a few hundred images and no labels, and fine-tune.

    Args:
        model: any network. FFCs that it has already stay.
        ratio: share of global channels, in [0, 1].
        lfu: whether Spectral Transforms have a Local Fourier Unit.
        local_to_global: whether local channels feed global ones where both are on both sides; where the
            global channels begin, this is their only source and stays.
        global_to_local: the same in the other direction; where the global channels end, this is their only
            use.
        spectral_dims: axes that are Fourier transformed, as for :class:`ffconv.FFC3d`.
        zero_init_spectral: whether the last convolution of a Spectral Transform starts at zero, unless it is
            the only source of the global channels. By default True for a trained network, whose function then
            changes least, and False for a new one, as in the paper. A network counts as trained if a batch
            norm holds statistics; set it yourself for a trained network without batch norms.
        example_input: a tensor, or a tuple of the network's arguments, for the trial forward; shapes and
            types count. By default timm's ``pretrained_cfg["input_size"]``, or 224 pixels a side and, for a
            video network, 8 frames.
        rules: exceptions by ``fnmatch`` patterns of convolution names, the first that matches counts: None
            leaves the convolution; a number is the ratio of the map it makes, if it becomes an FFC at all; a
            pair makes it an FFC with just this ``(ratio_in, ratio_out)``. Or a function of name, convolution
            and :class:`Plan` that returns one of these, or the plan.
    Returns:
        The model; :func:`ffconv.conversion_report` says what was converted, what was left, and why. A warning
        says that nothing was.
    Raises:
        InputError: if the ratio is outside [0, 1], a switch is neither true nor false, the trial forward
            fails, a pattern matches nothing, a rule cannot be followed, or a layer has no axis of that name.
            The model is unchanged then.
    Example:
        >>> import ffconv
        >>> net = nn.Sequential(
        ...     nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Conv2d(8, 2, 1)
        ... )
        >>> print(ffconv.conversion_report(convert(net)))
        convolution  layer               map                 outcome
        0            Conv2d 3 -> 8, 3x3  224x224 -> 222x222  left: input stem
        2            Conv2d 8 -> 8, 3x3  222x222 -> 220x220  FFC 0 -> 0.25
        4            Conv2d 8 -> 2, 1x1  220x220 -> 220x220  left: output head
        1 of 3 convolutions converted
    """
    require(isinstance(ratio, (int, float)) and 0 <= ratio <= 1, f"ratio={ratio!r} must lie in [0, 1]")
    trained = _holds_statistics(model)
    options = Options(
        lfu=lfu,
        local_to_global=local_to_global,
        global_to_local=global_to_local,
        spectral_dims=None if spectral_dims is None else tuple(spectral_dims),
        zero_init_spectral=trained if zero_init_spectral is None else zero_init_spectral,
    )
    modules = convolutions(model)
    rule = rule_from_patterns(rules, modules) if isinstance(rules, Mapping) else rules
    trace = trial_forward(model, example_input)
    unfit = find_unfit(model, modules)
    plans = Policy(trace, modules, ratio, unfit=unfit, why_misfit=partial(why_misfit, options=options)).plans(
        rule
    )
    converted = [name for name, plan in plans.items() if plan.reason is None]
    report = ConversionReport(
        ratio=float(ratio),
        lfu=lfu,
        local_to_global=local_to_global,
        global_to_local=global_to_local,
        spectral_dims=options.spectral_dims,
        rows=_rows(trace, modules, plans),
        mixings=find_mixings(trace, {name: (plan.ratio_in, plan.ratio_out) for name, plan in plans.items()}),
        outdated_norms=trained and bool(converted),
    )
    _check_spectral_dims(spectral_dims, [modules[name] for name in converted])
    become_ffcs({modules[name]: plans[name] for name in converted}, options)
    attach_report(model, report)
    _LOGGER.info("%s", report)
    if ratio > 0 and not converted:
        reasons = Counter(row.reason for row in report.rows)
        listed = ", ".join(f"{count} {reason}" for reason, count in reasons.items())
        warnings.warn(f"convert changed nothing in {type(model).__name__}: {listed}", stacklevel=2)
    return model


def _check_spectral_dims(names: Sequence[str] | None, converted: Iterable[Convolution]) -> None:
    try:
        for dims in {len(module.kernel_size) for module in converted}:
            spectral_axes(dims, names)
    except ValueError as error:
        raise InputError(str(error)) from error


def _holds_statistics(model: nn.Module) -> bool:
    """Return True if a batch norm has seen data; a new one has means of 0."""
    means = [norm.running_mean for norm in batch_norms(model).values()]
    return any(bool(mean.any()) for mean in means if mean is not None and not mean.is_meta)


def _rows(
    trace: Trace, modules: Mapping[str, Convolution], plans: Mapping[str, Plan]
) -> tuple[ConversionRow, ...]:
    sizes = {name: trace.sizes(index) for index, name in reversed(list(trace.calls()))}
    rows = []
    for name, plan in plans.items():
        size_in, size_out = sizes.get(name, (None, None))
        rows.append(
            ConversionRow(
                name=name,
                layer=describe(modules[name]),
                size_in=size_in,
                size_out=size_out,
                ratio_in=plan.ratio_in,
                ratio_out=plan.ratio_out,
                reason=plan.reason,
                hooks=count_hooks(modules[name]),
            )
        )
    return tuple(rows)
