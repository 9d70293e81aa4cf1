"""RuleSet: one version of the catalogue with everything a verdict, a decision and a bill are judged by. Pure.

Days are local days of the gateway's zone (``HUREN_TIMEZONE``), periods hold their first and last day. A *scope* is a
region's code, an institution's slug, or ``institution/department``; narrower scopes win where one value is wanted. An
*item selector* is an item's or panel's code, a category (``CT``), or ``*``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from decimal import Decimal
from functools import cached_property
from typing import Any, Generic, Protocol, TypeVar

from gateway.terminology import Catalogue, Item

ALL = "*"

#: What step 6 of a verdict finds out about the patient, and what may preselect a reason.
STATES = ("STATE_EMERGENCY", "STATE_BEFORE_SURGERY", "STATE_BEFORE_TRANSFUSION", "STATE_AFTER_ADMISSION",
          "STATE_AFTER_SURGERY", "STATE_AFTER_TRANSFUSION", "STATE_AFTER_CHEMOTHERAPY", "STATE_FORENSIC")


@dataclass(frozen=True, slots=True)
class Period:
    """From the first to the last day, both included; None: open."""

    begin: date | None = None
    end: date | None = None

    def holds(self, on: date) -> bool:
        return (self.begin is None or self.begin <= on) and (self.end is None or on <= self.end)

    def meets(self, other: Period) -> bool:
        """Whether a day is in both."""
        return (self.begin is None or other.end is None or self.begin <= other.end) and \
               (other.begin is None or self.end is None or other.begin <= self.end)


ALWAYS = Period()


@dataclass(frozen=True, slots=True)
class Region:
    """A region of the tree; ``mark`` is what its qualified items carry (浙江省HR)."""

    code: str
    parent: str
    name_zh: str
    name_en: str
    mark: str = ""
    period: Period = ALWAYS


@dataclass(frozen=True, slots=True)
class Institution:
    """Where a hospital stands; ``level``: 3 for a tertiary hospital, 0 unknown."""

    slug: str
    name_zh: str
    name_en: str = ""
    region: str = ""
    level: int = 0


@dataclass(frozen=True, slots=True)
class Window:
    """How old a result may be. ``scope``: region or institution; ``setting``: v3-ActCode of the encounter, "" any."""

    scope: str
    item: str
    length: timedelta
    setting: str = ""
    period: Period = ALWAYS


@dataclass(frozen=True, slots=True)
class Qualification:
    """An institution's passed quality assessment of an item, for a region, for a time. ``institution`` may not be *."""

    institution: str
    item: str
    region: str
    period: Period = ALWAYS


@dataclass(frozen=True, slots=True)
class Negative:
    """What a region does not recognise; ``institution`` "*": whoever made it."""

    region: str
    institution: str
    item: str
    reason: str = ""
    period: Period = ALWAYS


@dataclass(frozen=True, slots=True)
class Reason:
    """A lawful reason not to recognise. ``counts``: as a refusal, "yes", "no", or "reviewed" (when a review says so).

    ``availability``: a fault of the issuing hospital, shown to it. ``preselected_by``: ``STATE_…`` codes.
    """

    region: str
    code: str
    text_zh: str
    text_en: str
    counts: str
    needs_text: bool = False
    availability: bool = False
    preselected_by: tuple[str, ...] = ()
    period: Period = ALWAYS


@dataclass(frozen=True, slots=True)
class Price:
    """What an item costs in a scope, in yuan; ``fund``: the insurance fund's share of it, 0 to 1."""

    scope: str
    item: str
    price: Decimal
    fund: Decimal
    period: Period = ALWAYS


@dataclass(frozen=True, slots=True)
class Setting:
    """A choice of a region, hospital or department; see `SETTINGS`."""

    scope: str
    item: str
    key: str
    value: str
    period: Period = ALWAYS


#: key → (default, values that it may have; empty: any text)
SETTINGS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "undecided": ("allow", ("allow", "deny")),  # the bill of a line that was reminded (RECOGNISABLE) and not decided
    "must_view": ("yes", ("yes", "no")),  # "recognised" needs that the report was opened
    "blocking": ("no", ("yes", "no")),  # the plug-in does not close without a decision
    "own_results": ("no", ("yes", "no")),  # results of the ordering hospital itself are shown too
    "explained": ("no", ("yes", "no")),  # "not recognised" needs that the patient was told why
}


@dataclass(frozen=True, slots=True)
class SettlementRule:
    """A version of the rule by which recognised fees are allocated; ``share`` 0.50 of them, where fees per head fell.

    ``schemes``: insurance schemes whose patients count; ``items``: item selectors in scope.
    """

    region: str
    version: str
    share: Decimal
    schemes: tuple[str, ...]
    items: tuple[str, ...]
    period: Period = ALWAYS


class _Scoped(Protocol):
    @property
    def item(self) -> str: ...
    @property
    def period(self) -> Period: ...


R = TypeVar("R", bound=_Scoped)


class _Table(Generic[R]):
    """Rows by (scope, item selector), in the order in which they were given."""

    def __init__(self, rows: Iterable[tuple[str, R]]) -> None:
        self._rows: dict[tuple[str, str], list[R]] = {}
        for scope, row in rows:
            self._rows.setdefault((scope, row.item), []).append(row)

    def of(self, scopes: Iterable[str], selectors: tuple[str, ...], on: date) -> Iterator[R]:
        """Rows that hold on the day: by scope as given, then by selector from the narrowest."""
        for scope in scopes:
            for selector in selectors:
                for row in self._rows.get((scope, selector), ()):
                    if row.period.holds(on):
                        yield row


@dataclass(frozen=True)
class RuleSet:
    """See the module. ``effective``: the day on which this version takes effect."""

    version: str
    effective: date
    catalogue: Catalogue
    core: Mapping[str, frozenset[str]] = field(default_factory=dict)  # panel → its core members; missing: all are
    same_session: frozenset[str] = frozenset()  # panels (function tests) whose members share one encounter
    regions: Mapping[str, Region] = field(default_factory=dict)
    institutions: Mapping[str, Institution] = field(default_factory=dict)
    windows: tuple[Window, ...] = ()
    qualifications: tuple[Qualification, ...] = ()
    negatives: tuple[Negative, ...] = ()
    reasons: tuple[Reason, ...] = ()
    prices: tuple[Price, ...] = ()
    settings: tuple[Setting, ...] = ()
    settlements: tuple[SettlementRule, ...] = ()
    title: str = ""

    # ---------------------------------------------------------------- items

    def selectors(self, code: str) -> tuple[str, ...]:
        """The selectors that mean an item or panel, from the narrowest: code, category, ``*``."""
        item = self.catalogue.items.get(code)
        return (code, item.category, ALL) if item else (code, ALL)

    def item(self, code: str) -> Item | None:
        return self.catalogue.items.get(code)

    def knows(self, code: str) -> bool:
        """Whether this version has such an item or panel."""
        return code in self.catalogue.items or code in self.catalogue.panels

    def members(self, code: str) -> tuple[str, ...]:
        """Members of a panel; empty for an item."""
        return self.catalogue.members(code)

    def core_members(self, panel: str) -> frozenset[str]:
        """The members without which a panel is PARTIAL; all of them where none is marked."""
        return self.core.get(panel) or frozenset(self.members(panel))

    @cached_property
    def longest_window(self) -> timedelta:
        """No result older than this is of use for any item."""
        days = max((item.validity_days for item in self.catalogue.items.values()), default=0)
        return max([timedelta(days=days), *(window.length for window in self.windows)])

    # ---------------------------------------------------------------- where

    def chain(self, region: str) -> tuple[str, ...]:
        """A region and those above it, from the narrowest; empty for an unknown one."""
        found: list[str] = []
        while region in self.regions and region not in found:
            found.append(region)
            region = self.regions[region].parent
        return tuple(found)

    def region_of(self, institution: str) -> str:
        known = self.institutions.get(institution)
        return known.region if known else ""

    def level_of(self, institution: str) -> int:
        known = self.institutions.get(institution)
        return known.level if known else 0

    def name_of(self, institution: str, language: str = "zh") -> str:
        """A hospital's name; its slug where nothing is known."""
        known = self.institutions.get(institution)
        if known is None:
            return institution
        return (known.name_en or known.name_zh) if language.startswith("en") else known.name_zh

    def scopes(self, institution: str, department: str = "") -> tuple[str, ...]:
        """The scopes that hold for a hospital, from the narrowest."""
        own = (f"{institution}/{department}", institution) if department else (institution,)
        return (*own, *self.chain(self.region_of(institution)))

    # ---------------------------------------------------------------- look-ups

    @cached_property
    def _windows(self) -> _Table[Window]:
        return _Table((row.scope, row) for row in self.windows)

    @cached_property
    def _qualifications(self) -> _Table[Qualification]:
        return _Table((row.institution, row) for row in self.qualifications)

    @cached_property
    def _negatives(self) -> _Table[Negative]:
        return _Table((row.region, row) for row in self.negatives)

    @cached_property
    def _prices(self) -> _Table[Price]:
        return _Table((row.scope, row) for row in self.prices)

    @cached_property
    def _settings(self) -> _Table[Setting]:
        return _Table((row.scope, row) for row in self.settings)

    def window(self, institution: str, setting: str, item: str, on: date) -> timedelta:
        """The smallest of the region's, hospital's and care setting's windows, and the item's own proposal.

        Of one scope and setting the narrowest selector counts, so that a region may give one item more than its
        category, but never more than the regions above allow. Zero where the item is unknown and nothing says more.
        """
        known = self.item(item)
        found = [timedelta(days=known.validity_days)] if known and known.validity_days else []
        for scope in self.scopes(institution):
            for care in {"", setting}:
                row = next((row for row in self._windows.of((scope,), self.selectors(item), on)
                            if row.setting == care), None)
                if row is not None:
                    found.append(row.length)
        return min(found, default=timedelta(0))

    def qualifications_of(self, institution: str, item: str, on: date) -> list[Qualification]:
        """What an institution was qualified for on a day, of an item."""
        return list(self._qualifications.of((institution,), self.selectors(item), on))

    def qualified(self, issuer: str, orderer: str, item: str, on: date) -> tuple[Qualification | None, str]:
        """The qualification of the issuer that reaches the orderer, or None and the fail code (step 4)."""
        found = self.qualifications_of(issuer, item, on)
        if not found:
            return None, "NO_MARK"
        inside = self.chain(self.region_of(orderer))
        reaching = [row for row in found if row.region in inside]
        return (reaching[0], "") if reaching else (None, "OUT_OF_SCOPE")

    def negative(self, issuer: str, orderer: str, item: str, on: date) -> Negative | None:
        """The row of a negative list of the orderer's regions that excludes the issuer's result of a day."""
        return next((row for row in self._negatives.of(self.chain(self.region_of(orderer)), self.selectors(item), on)
                     if row.institution in (ALL, issuer)), None)

    def price(self, institution: str, item: str, on: date) -> Price | None:
        """What an item costs at a hospital on a day."""
        return next(self._prices.of(self.scopes(institution), self.selectors(item), on), None)

    def setting(self, institution: str, key: str, item: str = ALL, department: str = "", on: date | None = None) -> str:
        """The narrowest setting that holds, else the default of ``SETTINGS``."""
        day = on or self.effective
        rows = self._settings.of(self.scopes(institution, department), self.selectors(item), day)
        return next((row.value for row in rows if row.key == key), SETTINGS[key][0])

    def reasons_for(self, institution: str, on: date) -> list[Reason]:
        """The reasons that a hospital may give on a day; a narrower region's row replaces a wider's of its code."""
        found: dict[str, Reason] = {}
        for region in reversed(self.chain(self.region_of(institution))):
            found.update((row.code, row) for row in self.reasons if row.region == region and row.period.holds(on))
        return list(found.values())

    def reason(self, institution: str, code: str, on: date) -> Reason | None:
        return next((row for row in self.reasons_for(institution, on) if row.code == code), None)

    def settlement_rule(self, institution: str, on: date) -> SettlementRule | None:
        """The rule that settles a hospital's recognitions of a day."""
        for region in self.chain(self.region_of(institution)):
            for row in self.settlements:
                if row.region == region and row.period.holds(on):
                    return row
        return None

    def changed(self, **fields: Any) -> RuleSet:
        """A copy with some tables exchanged."""
        return replace(self, **fields)
