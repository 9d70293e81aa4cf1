"""What is known for a signature's orders: person, earlier results, verdicts, and the reports and images behind them.

Reads only; `gateway.recognition.service` records. The number of statements does not grow with the number of orders:
one look-up of results for all of them, one of reports for what would be chosen, one of images for the exams among it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import orjson

from gateway import search
from gateway.caller import GATEWAY
from gateway.errors import Category, GatewayError
from gateway.fhir import resource
from gateway.recognition import people
from gateway.recognition.coverage import Coverage
from gateway.recognition.model import FLAG_IMAGES, FLAG_NAMES, Candidate, Order, Shown, Side, Signature, Verdict
from gateway.recognition.orders import candidate_from
from gateway.recognition.rules import RuleSet
from gateway.recognition.verdict import ISSUED, judge_all, local_day
from gateway.source import Source
from gateway.store import types
from gateway.store.model import Row

if TYPE_CHECKING:
    from gateway.store import Store

#: Modalities of items whose result is no image.
_NO_IMAGES = frozenset(("", "ECG", "EEG", "EMG"))
_US = 1_000_000
_TRACED = 5  # results that a kept trace names


@dataclass(slots=True)
class Finding:
    """One order with its verdict and the names of what was found; ``results`` as references, as the verdict chose.

    ``trace``: the verdict's in short, with references in place of our internal numbers, to be kept with the reminder.
    """

    order: Order
    verdict: Verdict
    results: tuple[str, ...] = ()
    reports: tuple[str, ...] = ()
    issuers: tuple[str, ...] = ()
    shown: tuple[Shown, ...] = ()
    trace: tuple[dict[str, Any], ...] = ()


@dataclass(slots=True)
class Found:
    """``patient``: id of the Patient that lines are about: the ordering hospital's own where we know it, else another
    of the person's; "" where the person is nobody of ours."""

    person: int
    patient: str
    findings: list[Finding]


@dataclass(slots=True)
class _Reports:
    """The reports that were looked up, by pk of the result that stands in them."""

    of: dict[int, Mapping[str, Any]] = field(default_factory=dict)
    names: dict[int, str] = field(default_factory=dict)  # references of the results
    imaged: dict[int, bool] = field(default_factory=dict)


class Checker:
    """Finds; see the module."""

    def __init__(self, store: Store, timezone: str) -> None:
        self._store = store
        self.zone = ZoneInfo(timezone)

    def who(self, patient: Mapping[str, Any], source: Source | None, now: int) -> people.Who:
        """The person that a Patient means."""
        people.require_shape(patient)
        return people.find(self._store, patient, source, local_day(now, self.zone))

    def find(self, signature: Signature, source: Source | None, rules: RuleSet) -> Found:
        """The verdicts of a signature's orders."""
        who = self.who(signature.patient, source, signature.now)
        candidates = self._candidates(who.person, signature.orders, rules, signature.now)
        patient = who.patient if who.known else ""
        if who.person and (not patient or any(one.institution != signature.institution for one in candidates)):
            known = people.patients(self._store, who.person)
            patient = patient or min(known, default="")
            candidates = _doubted(candidates, signature.patient, known.values(), who.doubt)
        reports = _Reports()
        verdicts = self._judge(signature.orders, candidates, rules, signature.now, reports)
        return Found(who.person, patient, self._named(verdicts, reports, rules))

    def _candidates(self, person: int, orders: Iterable[Order], rules: RuleSet, now: int) -> list[Candidate]:
        if not person:
            return []
        coverage = Coverage.of(rules)
        items: set[str] = set()
        for order in orders:
            items |= coverage.candidates_for(order.item)
        if not items:
            return []
        since = max(0, now - int(rules.longest_window.total_seconds()) * _US)
        return [candidate_from(row) for row in self._store.results(person, items, since)]

    # ---------------------------------------------------------------- judge, with what must be looked up

    def _judge(self, orders: Sequence[Order], candidates: list[Candidate], rules: RuleSet, now: int,
               reports: _Reports) -> list[Verdict]:
        """Verdicts that stand: the report of each chosen result is issued, and an exam's images are there or flagged.

        Each round flags at least one exam more, so that it ends.
        """
        while True:
            verdicts = judge_all(orders, candidates, rules, now, self.zone, lambda ones: self._status(ones, reports))
            exams = [one for verdict in verdicts for one in verdict.chosen if _has_images(one, rules)]
            without = self._without_images(exams, reports)
            if not without:
                return verdicts
            candidates = [replace(one, flags=one.flags | FLAG_IMAGES) if one.pk in without else one
                          for one in candidates]

    def _status(self, wanted: Sequence[Candidate], reports: _Reports) -> dict[int, str]:
        """The status of the report of each result that a report holds back; of several the first that is issued.

        What an issued report says changes no verdict: it is not told, so that nothing is judged again for it.
        """
        new = [one.pk for one in wanted if one.pk not in reports.of]
        if new:
            parsed: dict[int, dict[str, Any]] = {}
            named = self._store.references(new)
            reports.names.update(named)
            for pk, rows in self._store.reports_of(named, GATEWAY).items():
                found = [parsed.get(row.pk) or parsed.setdefault(row.pk, _read(row)) for row in rows]
                found.sort(key=lambda one: (one.get("status") not in ISSUED, one["id"]))
                reports.of[pk] = found[0]
        return {one.pk: status for one in wanted if one.pk in reports.of
                and (status := str(reports.of[one.pk].get("status", ""))) not in ISSUED}

    def _without_images(self, exams: Iterable[Candidate], reports: _Reports) -> set[int]:
        """Those of these exams of which no ImagingStudy can be opened."""
        unknown = {one.pk: reports.of[one.pk] for one in exams if one.pk not in reports.imaged and one.pk in reports.of
                   and one.kind == "DiagnosticReport"}
        if not unknown:
            return set()
        named = {pk: {ref[len("ImagingStudy/"):] for study in report.get("imagingStudy") or ()
                      if (ref := str(study.get("reference", ""))).startswith("ImagingStudy/")}
                 for pk, report in unknown.items()}
        keys = {types.key("ImagingStudy", study) for studies in named.values() for study in studies}
        there = {row.id for row in self._store.named(keys, GATEWAY) if _is_available(row)} if keys else set()
        for pk, studies in named.items():
            reports.imaged[pk] = bool(studies & there) if studies else bool(self.studies_of(unknown[pk]))
        return {pk for pk in unknown if not reports.imaged[pk]}

    def studies_of(self, report: Mapping[str, Any]) -> list[Row]:
        """ImagingStudies of a report that names none: of the same Patient, and of one of its own order numbers."""
        subject = str((report.get("subject") or {}).get("reference", ""))
        numbers = {str(one["value"]) for one in report.get("identifier") or () if one.get("value")}
        if not subject.startswith("Patient/") or not numbers:
            return []
        wanted = ",".join(map(search.escape, sorted(numbers)))
        page = search.search(self._store, GATEWAY, "ImagingStudy", [("subject", subject), ("identifier", wanted)])
        return [row for row in page.rows if _is_available(row)]

    # ---------------------------------------------------------------- names

    def _named(self, verdicts: Sequence[Verdict], reports: _Reports, rules: RuleSet) -> list[Finding]:
        references = reports.names
        if unknown := {one.pk for verdict in verdicts for one in verdict.chosen} - references.keys():
            references.update(self._store.references(unknown))
        findings = []
        for verdict in verdicts:
            shown = tuple(shown_from(one, references[one.pk], str(reports.of.get(one.pk, {}).get("id", "")), rules)
                          for one in verdict.chosen if one.pk in references)
            findings.append(Finding(
                verdict.order, verdict, tuple(one.reference for one in shown),
                tuple(dict.fromkeys(one.report for one in shown if one.report)),
                tuple(dict.fromkeys(one.institution for one in shown)), shown, _short(verdict, references)))
        return findings

    # ---------------------------------------------------------------- without an order

    def useful(self, person: int, patient: Mapping[str, Any], institution: str, rules: RuleSet,
               now: int) -> list[Shown]:
        """The newest result of each item that would be recognisable if ordered now, newest first."""
        since = max(0, now - int(rules.longest_window.total_seconds()) * _US)
        candidates = [candidate_from(row) for row in self._store.results(person, rules.catalogue.items, since)
                      if row.institution != institution]
        if candidates:
            candidates = _doubted(candidates, patient, people.patients(self._store, person).values(), False)
        items = dict.fromkeys(one.item for one in candidates)
        reports = _Reports()
        verdicts = self._judge([Order(institution, item, item, side=_side(item, candidates)) for item in items],
                               candidates, rules, now, reports)
        best = [verdict for verdict in verdicts if verdict.kind.rank == 3
                and verdict.chosen[0].item == verdict.order.item]
        found = [shown for finding in self._named(best, reports, rules) for shown in finding.shown]
        return sorted(found, key=lambda one: (-one.time, one.item))


def _short(verdict: Verdict, references: Mapping[int, str]) -> tuple[dict[str, Any], ...]:
    """The rows that say something of the whole, and those of the best of the chosen results."""
    if not verdict.chosen:
        return ()
    best = {one.pk for one in verdict.chosen[:_TRACED]}
    rows = []
    for row in verdict.trace:
        inputs = row["inputs"]
        if (pk := inputs.get("result")) is not None:
            if pk not in best:
                continue
            row = {**row, "inputs": {**inputs, "result": references.get(pk, "")}}
        elif row["step"] == 8:
            row = {**row, "inputs": {**inputs, "results": len(inputs["results"])}}
        rows.append(dict(row))
    return tuple(rows)


def shown_from(one: Candidate, reference: str, report: str, rules: RuleSet) -> Shown:
    """A result as a card names it."""
    names: dict[tuple[str, str], tuple[str, str, str, str]] = vars(rules).setdefault("_shown_names", {})
    found = names.get((one.item, one.institution))
    if found is None:  # some thousand at most: items of the catalogue by hospitals with results
        found = (rules.catalogue.display(one.item) or one.item, rules.catalogue.display(one.item, "en") or one.item,
                 rules.name_of(one.institution), rules.name_of(one.institution, "en"))
        names[one.item, one.institution] = found
    zh, en, institution_zh, institution_en = found
    flags = tuple(name for bit, name in FLAG_NAMES.items() if one.flags & bit) if one.flags else ()
    return Shown(reference, report, one.item, zh, en, one.institution, institution_zh, institution_en, one.time, flags)


def require_orders(signature: Signature) -> None:
    """INVALID where two orders of a signature have one number: nobody knows which of them is meant."""
    numbers = [order.number for order in signature.orders]
    if len(set(numbers)) < len(numbers):
        raise GatewayError(Category.INVALID, "two orders have the same order number; give each its own",
                           "ServiceRequest.identifier")
    if any(order.institution != signature.institution for order in signature.orders):
        raise GatewayError(Category.INVALID, "an order of another hospital; send each hospital's orders apart",
                           "ServiceRequest")


def _side(item: str, candidates: Iterable[Candidate]) -> Side:
    """As if that side were ordered that was examined last."""
    return next((one.side for one in candidates if one.item == item), Side.UNKNOWN)


def _doubted(candidates: list[Candidate], patient: Mapping[str, Any], known: Iterable[Mapping[str, Any]],
             doubt: bool) -> list[Candidate]:
    """Step 0 for each: results of hospitals whose Patient contradicts the order's."""
    doubtful = people.doubtful(patient, known)
    if not doubt and not doubtful:
        return candidates
    return [replace(one, identity_doubt=True) if doubt or one.institution in doubtful else one for one in candidates]


def _has_images(one: Candidate, rules: RuleSet) -> bool:
    item = rules.item(one.item)
    return item is not None and item.modality not in _NO_IMAGES and not one.flags & FLAG_IMAGES


def _read(row: Row) -> dict[str, Any]:
    """A resource to look at; nothing is written back, so that decimals need not be exact."""
    return orjson.loads(resource.text(row.resource_type, row.id, row.version, row.updated, row.tail))


def _is_available(row: Row) -> bool:
    return b'"status":"available"' in row.tail
