"""The paper's ablations on any data set: which networks, and the tables of what they reached."""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ffconv.analysis.tables import Report, Table
from ffconv.errors import InputError
from ffconv.pictures import BLUE, VERMILLION, new_figure, png

_SPELLING = re.compile(r"ratio(?P<ratio>\d*\.?\d+)(?P<lfu>-lfu)?(?P<l2g>-no-l2g)?(?P<g2l>-no-g2l)?")
GROUPS = {
    "table2": ("plain", "ratio0.125", "ratio0.25", "ratio0.5", "ratio0.75", "ratio1"),
    "table3": ("ratio0.25", "ratio0.25-lfu", "ratio0.5", "ratio0.5-lfu"),
    "cross-scale": ("ratio0.25", "ratio0.25-no-g2l", "ratio0.25-no-l2g", "ratio0.25-no-l2g-no-g2l"),
}


@dataclass(frozen=True)
class Variant:
    """One network of an ablation.

    Args:
        name: As it is spelt on the command line.
        ratio: Ratio of the FFCs; None is the plain network.
        lfu: With the Local Fourier Unit.
        local_to_global, global_to_local: Whether the cross-scale paths are there.
    """

    name: str
    ratio: float | None = None
    lfu: bool = False
    local_to_global: bool = True
    global_to_local: bool = True

    @classmethod
    def parse(cls, name: str) -> Variant:
        """The variant spelt "plain" or "ratio0.25", the latter with any of -lfu, -no-l2g, -no-g2l behind.

        Raises:
            InputError: if it is spelt otherwise or the ratio lies outside [0, 1].
        """
        if name == "plain":
            return cls(name)
        found = _SPELLING.fullmatch(name)
        if found is None:
            groups = ", ".join(GROUPS)
            raise InputError(
                f"variant {name!r} must be plain, ratioR[-lfu][-no-l2g][-no-g2l], or one of {groups}"
            )
        ratio = float(found["ratio"])
        if ratio > 1:
            raise InputError(f"variant {name!r}: ratio={ratio:g} must lie in [0, 1]")
        return cls(name, ratio, found["lfu"] is not None, found["l2g"] is None, found["g2l"] is None)

    @property
    def complete(self) -> bool:
        """Return True if both cross-scale paths are there."""
        return self.local_to_global and self.global_to_local

    def network(self, name: str, arguments: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        """Name and arguments of this variant of an ffc_* network.

        Raises:
            InputError: if the network is no ffc_* one.
        """
        if not name.startswith("ffc_"):
            raise InputError(
                f"model.name={name!r} must be an ffc_* network: ablate makes its plain twin itself"
            )
        own = {"ratio", "lfu", "local_to_global", "global_to_local"}
        shared = {key: value for key, value in arguments.items() if key not in own}
        if self.ratio is None:
            # timm's own default would give the plain network a head start the paper's did not have.
            return name.removeprefix("ffc_"), {"zero_init_last": False, **shared}
        return name, {
            **shared,
            "ratio": self.ratio,
            "lfu": self.lfu,
            "local_to_global": self.local_to_global,
            "global_to_local": self.global_to_local,
        }


def variants(names: Iterable[str]) -> list[Variant]:
    """The variants with these names, in place of a group's name (see `GROUPS`) its members, each once.

    Example:
        >>> [variant.name for variant in variants(["table3", "plain"])]
        ['ratio0.25', 'ratio0.25-lfu', 'ratio0.5', 'ratio0.5-lfu', 'plain']
    """
    spelt = dict.fromkeys(member for name in names for member in GROUPS.get(name, (name,)))
    return [Variant.parse(name) for name in spelt]


@dataclass(frozen=True)
class Score:
    """What a variant reached.

    Args:
        variant: Which.
        parameters: Of its network.
        multiply_adds: Of its network for one image.
        metric: Name of what was measured.
        values: One a seed.
    """

    variant: Variant
    parameters: int
    multiply_adds: float
    metric: str
    values: Sequence[float]

    @property
    def mean(self) -> float:
        """Over the seeds."""
        return statistics.fmean(self.values)

    @property
    def spread(self) -> float:
        """Standard deviation over the seeds, NaN for one seed."""
        return statistics.stdev(self.values) if len(self.values) > 1 else float("nan")

    @property
    def text(self) -> str:
        """Mean and spread as printed."""
        return f"{self.mean:.2f}" + (f" ± {self.spread:.2f}" if len(self.values) > 1 else "")


def reports(scores: Sequence[Score]) -> list[Report]:
    """The paper's Tables 2 and 3 and its cross-scale ablation, each as far as there are variants for it."""
    plain = [score for score in scores if score.variant.ratio is None]
    ffc = sorted((s for s in scores if s.variant.ratio is not None), key=lambda s: s.variant.ratio or 0)
    complete = [score for score in ffc if score.variant.complete]
    without_lfu = [score for score in complete if not score.variant.lfu]
    lfu_ratios = {score.variant.ratio for score in complete if score.variant.lfu}
    tables = [
        ("Table 2: ratio, without LFU", [*plain, *without_lfu]),
        ("Table 3: LFU", [score for score in complete if score.variant.ratio in lfu_ratios]),
    ]
    cut_ratios = {(score.variant.ratio, score.variant.lfu) for score in ffc if not score.variant.complete}
    paths = [score for score in ffc if (score.variant.ratio, score.variant.lfu) in cut_ratios]
    tables.append(("Cross-scale paths", paths))
    return [_report(title, rows) for title, rows in tables if rows]


def _report(title: str, scores: Sequence[Score]) -> Report:
    columns = (
        "ratio",
        "LFU",
        "l -> g",
        "g -> l",
        "parameters (M)",
        "multiply-adds (G)",
        scores[0].metric,
        "seeds",
    )
    rows = []
    for score in scores:
        variant, on = score.variant, {True: "yes", False: "no"}
        plain = variant.ratio is None
        switches = (variant.lfu, variant.local_to_global, variant.global_to_local)
        rows.append(
            (
                "0 (plain)" if plain else f"{variant.ratio:g}",
                *("-" if plain else on[switch] for switch in switches),
                f"{score.parameters / 1e6:.2f}",
                f"{score.multiply_adds / 1e9:.3f}",
                score.text,
                str(len(score.values)),
            )
        )
    note = "mean ± standard deviation over the seeds" if len(scores[0].values) > 1 else "one seed: no spread"
    table = Table(f"{title} ({scores[0].metric}, {note})", columns, rows, left=1)
    return Report(table, [record(score) for score in scores])


def record(score: Score) -> dict[str, Any]:
    """A variant's score as a row of ablation.csv."""
    return {
        "variant": score.variant.name,
        "ratio": 0.0 if score.variant.ratio is None else score.variant.ratio,
        "lfu": score.variant.lfu,
        "local_to_global": score.variant.local_to_global,
        "global_to_local": score.variant.global_to_local,
        "parameters": score.parameters,
        "multiply_adds": score.multiply_adds,
        "metric": score.metric,
        "mean": score.mean,
        "standard_deviation": score.spread,
        **{f"seed_{number}": value for number, value in enumerate(score.values)},
    }


def draw(scores: Sequence[Score]) -> bytes:
    """Every variant's values, mean and spread.

    Returns:
        A PNG picture.
    """
    figure = new_figure(7.5, 1.5 + 0.4 * len(scores))
    axes = figure.add_subplot()
    for row, score in enumerate(scores):
        spread = score.spread if len(score.values) > 1 else 0.0
        axes.errorbar(score.mean, row, xerr=spread, fmt="o", color=BLUE, capsize=4)
        axes.plot(score.values, [row] * len(score.values), "|", color=VERMILLION, markersize=10)
    axes.set_yticks(range(len(scores)), [score.variant.name for score in scores])
    axes.invert_yaxis()
    axes.grid(axis="x", alpha=0.3)
    axes.set(xlabel=f"{scores[0].metric}: each seed (bar), mean and standard deviation (dot)")
    return png(figure)
