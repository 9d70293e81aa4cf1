"""Which earlier items cover an ordered one, by the edges of a catalogue version. Pure.

Only ``full`` edges are transitive; an ``advisory`` edge holds for its two items alone, and a ``none`` edge says that
somebody looked and found no coverage. A panel is no item: its members are covered one by one (`Coverage.links`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple, TypeVar

if TYPE_CHECKING:
    from gateway.recognition.rules import RuleSet
    from gateway.terminology import Edge


T = TypeVar("T")


class Relation(StrEnum):
    """What an earlier item is to an ordered one."""

    FULL = "full"
    ADVISORY = "advisory"
    NONE = "none"


class Link(NamedTuple):
    """An ordered item, or a member of the ordered panel, that an earlier item concerns; never ``NONE``."""

    target: str
    relation: Relation


class Coverage:
    """See the module. Answers are remembered: make one for a RuleSet (`of`) and keep it."""

    def __init__(self, rules: RuleSet) -> None:
        self._items = rules.catalogue.items
        self._panels = rules.catalogue.panels
        self._full: dict[str, set[str]] = {}
        self._advisory: dict[str, set[str]] = {}
        for edge in rules.catalogue.edges:
            if edge.coverage == Relation.FULL:
                self._full.setdefault(edge.order, set()).add(edge.prior)
            elif edge.coverage == Relation.ADVISORY:
                self._advisory.setdefault(edge.order, set()).add(edge.prior)
        self._closures: dict[str, frozenset[str]] = {}
        self._links: dict[str, Mapping[str, tuple[Link, ...]]] = {}
        self._contradictions = tuple(self._contradicted(rules.catalogue.edges))

    @classmethod
    def of(cls, rules: RuleSet) -> Coverage:
        """The one of a RuleSet: made at the first call, and gone with the RuleSet."""
        # A RuleSet cannot be a key (its tables are dicts); this is what functools.cached_property does, too.
        made = vars(rules).get("_coverage")
        if made is None:
            made = vars(rules).setdefault("_coverage", cls(rules))
        return made

    def full(self, order_item: str) -> frozenset[str]:
        """Earlier items that cover the ordered one wholly, itself among them: the closure of the ``full`` edges."""
        found = self._closures.get(order_item)
        if found is None:
            reached, ahead = {order_item}, [order_item]
            while ahead:
                new = self._full.get(ahead.pop(), set()) - reached
                reached |= new
                ahead.extend(new)
            found = self._remember(self._closures, order_item, frozenset(reached))
        return found

    def advisory(self, order_item: str) -> frozenset[str]:
        """Earlier items of a direct ``advisory`` edge that do not cover wholly."""
        return frozenset(self._advisory.get(order_item, ())) - self.full(order_item)

    def relation(self, prior: str, order: str) -> Relation:
        """What the earlier item ``prior`` is to the item ``order``."""
        if prior in self.full(order):
            return Relation.FULL
        return Relation.ADVISORY if prior in self._advisory.get(order, ()) else Relation.NONE

    def targets(self, order_item: str) -> tuple[str, ...]:
        """What an order asks for: the members of a panel in its order, else the item itself."""
        panel = self._panels.get(order_item)
        return panel.members if panel else (order_item,)

    def links(self, order_item: str) -> Mapping[str, tuple[Link, ...]]:
        """Every earlier item that concerns an ordered item or panel, with what it concerns in it."""
        found = self._links.get(order_item)
        if found is None:
            made: dict[str, list[Link]] = {}
            for target in self.targets(order_item):
                for prior in sorted(self.full(target)):
                    made.setdefault(prior, []).append(Link(target, Relation.FULL))
                for prior in sorted(self.advisory(target)):
                    made.setdefault(prior, []).append(Link(target, Relation.ADVISORY))
            found = self._remember(self._links, order_item,
                                   MappingProxyType({prior: tuple(links) for prior, links in made.items()}))
        return found

    def candidates_for(self, order_item: str) -> frozenset[str]:
        """Every item code worth asking the store for; empty for a code that this catalogue does not know."""
        if order_item not in self._items and order_item not in self._panels:
            return frozenset()
        return frozenset(self.links(order_item))

    @property
    def contradictions(self) -> tuple[Edge, ...]:
        """Edges that say less (``advisory``, ``none``) than what ``full`` edges add up to: the data want a look."""
        return self._contradictions

    def _contradicted(self, edges: tuple[Edge, ...]) -> Iterator[Edge]:
        return (edge for edge in edges if edge.coverage != Relation.FULL and edge.prior in self.full(edge.order))

    def _remember(self, memory: dict[str, T], code: str, value: T) -> T:
        """Keep it, for codes of the catalogue only: whoever asks for others must not fill the memory."""
        if code in self._items or code in self._panels:
            memory[code] = value
        return value
