"""What a report does to what was stored of it before: corrections, omitted results, results of the wrong patient. Pure.

Results are updated by action codes and unique identifiers (v2.5.1 2.10.4.2: OBR, OBX and their status): a result that a
later message leaves out stays as it was, and only OBX-11 D or W takes it back. A hospital whose messages are whole
snapshots (2.10.4.1) says so in its manifest: ``omitted_results = "deleted"``. A cancelled report (OBR-25 X: no results
available) cancels what was sent of it before.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from gateway.errors import Category, GatewayError
from gateway.hl7v2 import tables
from gateway.hl7v2.builder import Builder, Reference
from gateway.hl7v2.message import Segment
from gateway.source import Resource, Snapshot, Source

#: The states that say that nothing more is to come: a preliminary report may leave out what is not done yet.
_COMPLETE = frozenset(("final", "corrected"))
_WITHDRAWN = frozenset(("entered-in-error", "cancelled"))


def status_of(sent: str, obxs: Iterable[Segment], builder: Builder) -> str:
    """OBR-25, but for a report all of whose results were the wrong patient's (OBX-11 W): table 0123 cannot say so."""
    states = (builder.state(obx, 11, tables.OBSERVATION_STATUS)[0] for obx in obxs)
    if next(states, "") == "W" and all(state == "W" for state in states):
        return "entered-in-error"
    return sent


def add_report_resource(made: Resource, key: str, results: list[Reference], as_of: int | None,
                        builder: Builder) -> None:
    """Take a DiagnosticReport over, with what it does to earlier results. ``key``: what its id is made of."""
    status = made["status"]
    whole = status in _COMPLETE and builder.source.habits.get("omitted_results") == "deleted"
    if status == "corrected" and not whole:
        builder.add_onto(made, as_of, _with_earlier_results)
        return
    builder.add(made, as_of, "refuse")
    if whole or status == "cancelled":
        kept = frozenset(reference["reference"].partition("/")[2] for reference in results)
        end = _Withdrawal(made, key, "cancelled" if status == "cancelled" else "entered-in-error", builder.source)
        builder.conversion.snapshots.append(Snapshot("Observation", made["id"], kept, end, as_of))


def _with_earlier_results(held: Resource, made: Resource, late: bool) -> Resource:
    """A correction may carry the corrected results alone: the others stay the report's."""
    if held.get("subject") != made["subject"]:
        joined = made
    else:
        told = {reference["reference"] for reference in made.get("result", ())}
        earlier = [one for one in held.get("result", ()) if one.get("reference") not in told]
        joined = {**made, "result": [*made.get("result", ()), *earlier]} if earlier else made
    if late and not _alike(held, joined):
        raise GatewayError(Category.CONFLICT, "a later state of this report is stored already; send its newest state",
                           "OBR-22")
    return joined


def _alike(held: Resource, joined: Resource) -> bool:
    return {**held, "meta": None, "text": None} == {**joined, "meta": None, "text": None}


@dataclass(frozen=True, slots=True)  # no function within a function: conversions of one message are equal
class _Withdrawal:
    """What becomes of a stored result that its report holds no longer: as after OBX-11 D, or X."""

    report: Resource
    key: str
    status: str
    source: Source

    def __call__(self, held: Resource) -> Resource | None:
        if held["status"] in _WITHDRAWN or held.get("subject") != self.report["subject"] \
                and not _is_result_of(held, self.report["id"], self.key, self.source):
            return None
        return {**held, "status": self.status}


def _is_result_of(held: Resource, report_id: str, key: str, source: Source) -> bool:
    """Whether the id of a result is made of its report's key, its code and its OBX-4: the patient may have got another
    number since, and ids of parts may look alike (`Source.id_within`)."""
    sub_ids = [part.get("valueString", "") for extension in held.get("extension", ())
               for part in extension.get("extension", ()) if part["url"] == "original-sub-identifier"] or [""]
    codes = [coding.get("code", "") for coding in held["code"].get("coding", ())]
    return any(held["id"] == source.id_within(report_id, "Observation", f"{key}|{code}|{sub_ids[0]}") for code in codes)
