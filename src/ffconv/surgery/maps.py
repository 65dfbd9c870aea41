"""Which feature maps share one split into local and global channels, and with which ratio."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from ffconv.surgery.channels import Flow
from ffconv.surgery.trace import Trace


class FeatureMaps:
    """The tensors of a trial forward in families, each of which shares a split: maps that are added, for
    example.

    A family begins at a convolution that may become an FFC (a maker), or where an operation mixes the
    channels of other families. A tensor of no family has no global channels: it comes from the input or from
    a layer that makes plain channels. Added to a family's map, it takes the family's split by position.

    Args:
        trace: the trial forward.
        makers: names of the convolutions whose outputs may have global channels.
    """

    def __init__(self, trace: Trace, makers: Collection[str]) -> None:
        self._parents: list[int] = []
        self._families: list[int | None] = []
        self._makers: list[tuple[int, str]] = []
        self._mixtures: list[tuple[int, tuple[int, ...]]] = []
        first: dict[str, int] = {}
        for node in trace.nodes:
            family = None
            if node.module is not None and node.module in makers:
                # A module called twice makes one family.
                family = first[node.module] if node.module in first else self._new()
                first[node.module] = family
                self._makers.append((family, node.module))
            elif node.flow is Flow.KEEPS:
                for source in node.kept:
                    family = self._join(family, self._families[source])
            elif node.flow is Flow.MIXES and {self._families[source] for source in node.sources} - {None}:
                family = self._new()
                self._mixtures.append((family, node.sources))
            self._families.append(family)

    def family(self, index: int) -> int | None:
        """The family of a node, or None if it has no global channels whatever the plan."""
        family = self._families[index]
        return None if family is None else self._root(family)

    def makers(self) -> dict[int, list[str]]:
        """Names of the convolutions that make each family, in order of execution."""
        made: dict[int, list[str]] = {}
        for family, name in self._makers:
            names = made.setdefault(self._root(family), [])
            if name not in names:
                names.append(name)
        return made

    def ratios(self, wishes: Mapping[str, float], firm: Collection[str]) -> dict[int, float]:
        """The ratio of each family: the largest that one of its makers wishes or one of its mixtures brings.

        Args:
            wishes: for each maker the ratio of its output.
            firm: makers whose wish stands against all others.
        """
        ratios = dict.fromkeys(map(self._root, range(len(self._parents))), 0.0)
        fixed: set[int] = set()
        for family, names in self.makers().items():
            firm_names = [name for name in names if name in firm]
            ratios[family] = max(wishes[name] for name in firm_names or names)
            if firm_names:
                fixed.add(family)
        changed = True
        while changed:
            changed = False
            for mixture, sources in self._mixtures:
                family = self._root(mixture)
                brought = max(ratios[root] for source in sources if (root := self.family(source)) is not None)
                if family not in fixed and brought > ratios[family]:
                    ratios[family] = brought
                    changed = True
        return ratios

    def _new(self) -> int:
        self._parents.append(len(self._parents))
        return self._parents[-1]

    def _root(self, family: int) -> int:
        while self._parents[family] != family:
            family = self._parents[family]
        return family

    def _join(self, a: int | None, b: int | None) -> int | None:
        if a is None or b is None:
            return b if a is None else a
        root_a, root_b = sorted((self._root(a), self._root(b)))
        self._parents[root_b] = root_a
        return root_a
