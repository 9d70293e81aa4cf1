"""`gateway.recognition.verdict`: every step of a verdict, and every code that it can give."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from itertools import permutations
from pathlib import Path
from time import perf_counter
from typing import Any
from zoneinfo import ZoneInfo

import orjson
import pytest
from verdict_samples import DAY, HOUR, NOW, PANELS, RULES, SHANGHAI, at, order, refusals, result, verdict

from gateway.indexing.values import date_range
from gateway.recognition.coverage import Coverage
from gateway.recognition.model import (
    FLAG_CRITICAL,
    FLAG_HAEMOLYSIS,
    FLAG_IMAGES,
    FLAG_NAMES,
    FLAG_REPEAT,
    Candidate,
    Happening,
    Kind,
    Order,
    Side,
)
from gateway.recognition.rules import (
    STATES,
    Institution,
    Negative,
    Period,
    Qualification,
    Reason,
    RuleSet,
    Setting,
    Window,
)
from gateway.recognition.verdict import SKEW, TRACED, Code, judge, judge_all, local_day
from gateway.recognition.versions import shipped
from gateway.terminology import catalogue

KNEE = order("KNEE", side=Side.LEFT)
CBC = order("CBC")
OGTT = order("OGTT")


def cbc(pk: int, *members: str, **more: Any) -> list[Candidate]:
    """Results of members of the blood count, numbered on from ``pk``."""
    return [result(pk + number, member, **more) for number, member in enumerate(members)]


# -------------------------------------------------------------------- one row per code and step

CASES = [
    # step, what is said, order, results, rules, codes
    (0, "the demographics are in conflict", order(), [result(identity_doubt=True)], RULES, ["ID_DOUBT"]),
    (1, "the ordered code is not mapped", order("", local="X1"), [result()], RULES, ["UNMAPPED"]),
    (1, "this version has no such item", order("GONE"), [result(item="GONE")], RULES, ["UNMAPPED"]),
    (2, "there is nothing", order(), [], RULES, ["NOT_COVERED"]),
    (2, "another item", order(), [result(item="KNEE")], RULES, ["NOT_COVERED"]),
    (2, "a part of what is ordered", order("ABDOMEN"), [result(item="UPPER")], RULES, ["NOT_COVERED"]),
    (2, "an edge says none", order(), [result(item="SCREEN")], RULES, ["NOT_COVERED"]),
    (2, "the other side", KNEE, [result(item="KNEE", side=Side.RIGHT)], RULES, ["NOT_COVERED"]),
    (2, "one side for both", order("KNEE", side=Side.BOTH), [result(item="KNEE")], RULES, ["NOT_COVERED"]),
    (3, "the report says cancelled", order(), [result(report_status="cancelled")], RULES, ["STATUS"]),
    *((3, f"status {status or 'unknown'}", order(), [result(status=status)], RULES, ["STATUS"]) for status in
      ("", "registered", "preliminary", "cancelled", "entered-in-error", "unknown", "partial", "appended")),
    *((3, f"report {status}", order(), [result(report_status=status)], RULES, ["STATUS"]) for status in
      ("registered", "preliminary", "entered-in-error", "partial", "appended", "unknown")),
    (4, "nobody qualified the issuer", order(), [result(institution="abroad")], RULES, ["NO_MARK"]),
    (4, "the qualification is of another item", order(), [result()],
     RULES.changed(qualifications=(Qualification("a", "KNEE", "HZ"),)), ["NO_MARK"]),
    (4, "it ended the day before", order(), [result()],
     RULES.changed(qualifications=(Qualification("a", "*", "HZ", Period(None, date(2025, 6, 13))),)), ["NO_MARK"]),
    (4, "it began the day after", order(), [result()],
     RULES.changed(qualifications=(Qualification("a", "*", "HZ", Period(date(2025, 6, 15))),)), ["NO_MARK"]),
    (4, "the other city's qualification", order(), [result(institution="far")], RULES, ["OUT_OF_SCOPE"]),
    (4, "the orderer is in no region", order(institution="abroad"), [result()], RULES, ["OUT_OF_SCOPE"]),
    (4, "the item is on the list", order(), [result()],
     RULES.changed(negatives=(Negative("ZJ", "*", "UPPER"),)), ["NEGATIVE_LIST"]),
    (4, "the issuer is on the list", order(), [result()],
     RULES.changed(negatives=(Negative("HZ", "a", "*"),)), ["NEGATIVE_LIST"]),
    (4, "the category is on the list", order(), [result()],
     RULES.changed(negatives=(Negative("CN", "*", "CT"),)), ["NEGATIVE_LIST"]),
    (4, "what was examined is on the list", order(), [result(item="ABDOMEN")],
     RULES.changed(negatives=(Negative("HZ", "*", "ABDOMEN"),)), ["NEGATIVE_LIST"]),
    (4, "what is ordered is on the list", order(), [result(item="ABDOMEN")],
     RULES.changed(negatives=(Negative("HZ", "*", "UPPER"),)), ["NEGATIVE_LIST"]),
    (4, "the panel is on the list", CBC, cbc(1, "WBC", "HB"),
     RULES.changed(negatives=(Negative("HZ", "*", "CBC"),)), ["NEGATIVE_LIST"]),
    (4, "the member that is asked for is on the list", CBC, [result(item="HB-HS")],
     RULES.changed(negatives=(Negative("HZ", "*", "HB"),)), ["NEGATIVE_LIST"]),
    (4, "it was on the list on that day", order(), [result()],
     RULES.changed(negatives=(Negative("HZ", "*", "*", "", Period(None, date(2025, 6, 14))),)), ["NEGATIVE_LIST"]),
    (4, "it is on the list today", order(), [result()],
     RULES.changed(negatives=(Negative("HZ", "*", "*", "", Period(date(2025, 6, 15))),)), ["NEGATIVE_LIST"]),
    (5, "no time is known", order(), [result(time=0)], RULES, ["TIME_INVALID"]),
    (5, "it is of tomorrow", order(), [result(days=-1)], RULES, ["TIME_INVALID"]),
    (5, "the index says that it does not know", order(), [result(time=(1 << 50) * 1000)], RULES, ["TIME_INVALID"]),
    (5, "more than five minutes ahead", order(), [result(time=NOW + SKEW + 1)], RULES, ["TIME_INVALID"]),
    (5, "past the item's own window", order(), [result(days=31)], RULES, ["TOO_OLD"]),
    (5, "past the region's window", order("SCREEN"), [result(item="SCREEN", days=61)], RULES, ["TOO_OLD"]),
    (5, "past the hospital's window", order(), [result(days=3)],
     RULES.changed(windows=(Window("b", "CT", timedelta(days=2)),)), ["TOO_OLD"]),
    (5, "past the setting's window", order(setting="IMP"), [result(days=3)],
     RULES.changed(windows=(Window("b", "CT", timedelta(days=2), "IMP"),)), ["TOO_OLD"]),
    (5, "past the panel's own window", CBC, cbc(1, "WBC", "HB", days=3),
     RULES.changed(windows=(Window("HZ", "CBC", timedelta(days=2)),)), ["TOO_OLD"]),
    (5, "the window of what is ordered counts", order(), [result(item="ABDOMEN", days=31)], RULES, ["TOO_OLD"]),
    (5, "from before the epoch", order(), [result(time=-DAY)], RULES, ["TOO_OLD"]),
]


@pytest.mark.parametrize(("step", "said", "ordered", "candidates", "rules", "codes"), CASES,
                         ids=[f"{step} {said}" for step, said, *_ in CASES])
def test_a_step_refuses(step: int, said: str, ordered: Order, candidates: list[Candidate], rules: RuleSet,
                        codes: list[str]) -> None:
    """Each step with each of its codes: nothing is chosen, and the trace's last refusal names step and code."""
    found = verdict(ordered, *candidates, rules=rules)
    assert (Kind.NOT, (), codes) == (found.kind, found.chosen, list(found.codes))
    assert [(step, codes[0])] == [(row["step"], row["outcome"]) for row in refusals(found)[-1:]]


ADVISORY = [
    ("an advisory edge", order("ADRENAL"), [result(item="ABDOMEN")], ["ADVISORY"], 2),
    ("the examined side is not said", KNEE, [result(item="KNEE", side=Side.UNKNOWN)], ["ADVISORY"], 2),
    ("the ordered side is not said", order("KNEE"), [result(item="KNEE")], ["ADVISORY"], 2),
    ("neither side is said", order("KNEE"), [result(item="KNEE", side=Side.UNKNOWN)], ["ADVISORY"], 2),
    ("a critical value", order(), [result(flags=FLAG_CRITICAL)], ["FLAG_CRITICAL"], 7),
    ("haemolysis", order(), [result(flags=FLAG_HAEMOLYSIS)], ["FLAG_HAEMOLYSIS"], 7),
    ("a repeat was advised", order(), [result(flags=FLAG_REPEAT)], ["FLAG_REPEAT"], 7),
    ("images are not available", order(), [result(flags=FLAG_IMAGES)], ["FLAG_IMAGES"], 7),
    ("all of them", order("ADRENAL"), [result(item="ABDOMEN", flags=15)], ["ADVISORY", *FLAG_NAMES.values()], 7),
    ("only flagged members", CBC, cbc(1, "WBC", "HB", flags=FLAG_CRITICAL), ["FLAG_CRITICAL"], 7),
    ("one flagged member", CBC, cbc(1, "WBC", flags=FLAG_CRITICAL), ["PARTIAL", "FLAG_CRITICAL"], 2),
]


@pytest.mark.parametrize(("said", "ordered", "candidates", "codes", "step"), ADVISORY, ids=[row[0] for row in ADVISORY])
def test_a_step_makes_it_advisory(said: str, ordered: Order, candidates: list[Candidate], codes: list[str],
                                  step: int) -> None:
    """Nothing but an advisory edge, an unsaid side or a flag speaks against these: they are shown, quietly."""
    found = verdict(ordered, *candidates)
    assert (Kind.ADVISORY, codes, set(candidates)) == (found.kind, list(found.codes), set(found.chosen))
    last = refusals(found)[-1]
    assert (step, True) == (last["step"], last["outcome"] in codes)


RECOGNISABLE = [
    ("the same item", order(), [result()]),
    ("a larger region", order(), [result(item="ABDOMEN")]),
    ("two full edges", order(), [result(item="ABDOMEN+")]),
    ("amended", order(), [result(status="amended")]),
    ("corrected, in a report amended", order(), [result(status="corrected", report_status="amended")]),
    ("a province's qualification", order(), [result(institution="c")]),
    ("the same side", KNEE, [result(item="KNEE")]),
    ("both sides for one", KNEE, [result(item="KNEE", side=Side.BOTH)]),
    ("both sides for an unsaid one", order("KNEE"), [result(item="KNEE", side=Side.BOTH)]),
    ("both for both", order("KNEE", side=Side.BOTH), [result(item="KNEE", side=Side.BOTH)]),
    ("a side where no item has sides", order(side=Side.LEFT), [result(side=Side.RIGHT)]),
    ("now", order(), [result(days=0)]),
    ("five minutes ahead", order(), [result(time=NOW + SKEW)]),
    ("at the end of the window", order(), [result(days=30)]),
    ("a window for another setting", order(setting="AMB"), [result(days=3)]),
    ("a member ordered alone", order("HB"), [result(item="HB", kind="Observation")]),
    ("all core members", CBC, cbc(1, "WBC", "HB")),
    ("of one session", OGTT, cbc(1, "GLU0", "GLU120", session=4)),
]


@pytest.mark.parametrize(("said", "ordered", "candidates"), RECOGNISABLE, ids=[row[0] for row in RECOGNISABLE])
def test_nothing_speaks_against(said: str, ordered: Order, candidates: list[Candidate]) -> None:
    """It covers the order, and there is no code left."""
    rules = RULES.changed(windows=(*RULES.windows, Window("b", "CT", timedelta(days=2), "IMP")))
    found = verdict(ordered, *candidates, rules=rules)
    assert (Kind.RECOGNISABLE, (), ()) == (found.kind, found.codes, found.missing)
    assert set(candidates) == set(found.chosen)


def test_the_tables_name_every_code() -> None:
    """No code of the enumeration is without a case; the states of the patient have theirs below."""
    named = {code for *_, codes in CASES for code in codes} | {code for row in ADVISORY for code in row[3]}
    assert set(Code) == named
    assert set(FLAG_NAMES.values()) <= set(Code)


def test_the_manual_names_every_code() -> None:
    """Codes and states stand in the section Verdict, and it names no other."""
    manual = (Path(__file__).parents[1] / "gateway" / "recognition" / "README.md").read_text(encoding="utf-8")
    section = manual.partition("\n## Verdict")[2].partition("\n## ")[0]
    named = set(re.findall(r"`([A-Z]+(?:_[A-Z]+)*)`", section))
    kinds, classes = set(Kind), {"PLAC", "EMER", "IMP", "ACUTE", "NONAC", "INVALID"}
    assert {*Code, *STATES, *kinds, *classes} == named


# -------------------------------------------------------------------- 4: the day of the exam


@pytest.mark.parametrize(("taken", "zone", "marked"), [
    (at(2025, 6, 10, 23, 59, 59), "Asia/Shanghai", False),
    (at(2025, 6, 11, 0, 0, 0), "Asia/Shanghai", True),
    (at(2025, 6, 10, 23, 59, 59, zone=UTC), "Asia/Shanghai", True),  # it is the 11th in Shanghai
    (at(2025, 6, 10, 23, 59, 59, zone=UTC), "UTC", False),
    (at(2025, 6, 11, 0, 0, 0), "UTC", False),
    (at(2025, 6, 11, 3, 59, 59, zone=UTC), "America/New_York", False),  # summer time, four hours behind
    (at(2025, 6, 11, 4, 0, 0, zone=UTC), "America/New_York", True),
    (at(2025, 6, 10, 18, 29, 59, zone=UTC), "Asia/Kolkata", False),  # five hours and a half ahead
    (at(2025, 6, 10, 18, 30, 0, zone=UTC), "Asia/Kolkata", True),
])
def test_a_qualification_holds_by_the_local_day_of_the_exam(taken: int, zone: str, marked: bool) -> None:
    """From 11 June on, to the second, in the gateway's zone: whatever offset the result was sent with."""
    rules = RULES.changed(qualifications=(Qualification("a", "*", "HZ", Period(date(2025, 6, 11))),))
    found = verdict(order(), result(time=taken), rules=rules, zone=ZoneInfo(zone))
    assert (() if marked else ("NO_MARK",)) == found.codes


@pytest.mark.parametrize(("taken", "marked"), [
    (at(2025, 11, 2, 23, 59, 59, zone=ZoneInfo("America/New_York")), True),
    (at(2025, 11, 3, 0, 0, 0, zone=ZoneInfo("America/New_York")), False),
    (at(2025, 11, 3, 4, 30, zone=UTC), True),  # the day had 25 hours: 23:30 of the 2nd
])
def test_the_last_day_of_a_qualification_counts_whole(taken: int, marked: bool) -> None:
    """Also a day of 25 hours."""
    rules = RULES.changed(qualifications=(Qualification("a", "*", "HZ", Period(None, date(2025, 11, 2))),))
    now = at(2025, 11, 5, 12, zone=UTC)
    found = verdict(order(), result(time=taken), rules=rules, now=now, zone=ZoneInfo("America/New_York"))
    assert (() if marked else ("NO_MARK",)) == found.codes


# -------------------------------------------------------------------- 5: the boundary of the window


@pytest.mark.parametrize("zone", ["Asia/Shanghai", "UTC", "America/New_York", "Asia/Kolkata"])
@pytest.mark.parametrize("offset", ["+08:00", "+00:00", "-05:00", "+05:30", "-11:00"])
@pytest.mark.parametrize("now", ["2025-06-15T10:00:00", "2025-03-12T10:00:00", "2025-11-05T00:00:00",
                                 "2025-01-01T00:00:00", "2024-03-01T12:00:00"])
@pytest.mark.parametrize(("seconds", "inside"), [(-1, True), (0, True), (1, False)])
def test_the_window_ends_to_the_second(zone: str, offset: str, now: str, seconds: int, inside: bool) -> None:
    """30 days are 30 times 24 hours: over changes of summer time, leap days and years, whatever offset was sent."""
    asked = datetime.fromisoformat(f"{now}Z").replace(tzinfo=ZoneInfo(zone)).astimezone(UTC)
    taken = (asked - timedelta(days=30, seconds=seconds)).astimezone(datetime.fromisoformat(f"{now}{offset}").tzinfo)
    sent = date_range(taken.isoformat())
    assert sent and taken.isoformat().endswith(offset)
    found = verdict(order(), result(time=sent[0] * 1000), now=int(asked.timestamp()) * 1_000_000, zone=ZoneInfo(zone))
    assert (() if inside else ("TOO_OLD",)) == found.codes


@pytest.mark.parametrize(("age", "codes"), [(30 * DAY - 1, ()), (30 * DAY, ()), (30 * DAY + 1, ("TOO_OLD",)),
                                            (-SKEW, ()), (-SKEW - 1, ("TIME_INVALID",))])
def test_the_window_ends_to_the_microsecond(age: int, codes: tuple[str, ...]) -> None:
    """The last one counts, at both ends."""
    assert codes == verdict(order(), result(time=NOW - age)).codes


def test_a_window_is_that_of_today() -> None:
    """A shorter window holds from its first day on, by the local day of the order."""
    shorter = Window("HZ", "CT", timedelta(days=1), "", Period(date(2025, 6, 16)))
    rules = RULES.changed(windows=(*RULES.windows, shorter))
    old = result(days=2)
    assert () == verdict(order(), old, rules=rules, now=at(2025, 6, 15, 23, 59, 59)).codes
    assert ("TOO_OLD",) == verdict(order(), old, rules=rules, now=at(2025, 6, 16)).codes
    assert () == verdict(order(), old, rules=rules, now=at(2025, 6, 16), zone=UTC).codes


def test_the_smallest_window_counts() -> None:
    """Of the item, the regions, the hospital and the setting; a hospital may only shorten."""
    windows = (Window("ZJ", "CT", timedelta(days=20)), Window("HZ", "CT", timedelta(days=10)),
               Window("b", "CT", timedelta(days=25)), Window("b", "CT", timedelta(days=5), "IMP"))
    rules = RULES.changed(windows=windows)
    assert () == verdict(order(), result(days=10), rules=rules).codes
    assert ("TOO_OLD",) == verdict(order(), result(days=10.001), rules=rules).codes
    assert ("TOO_OLD",) == verdict(order(setting="IMP"), result(days=5.001), rules=rules).codes


# -------------------------------------------------------------------- own results


def test_own_results_are_left_out() -> None:
    """The hospital sees its own results in its own system; the trace counts them."""
    found = verdict(order(), result(institution="b"))
    assert (Kind.NOT, ("NOT_COVERED",)) == (found.kind, found.codes)
    assert {"step": 0, "rule": "own-results", "inputs": {"results": 1}, "outcome": "left-out"} in found.trace


def test_own_results_count_where_the_hospital_says_so() -> None:
    """By the narrowest setting: here one department."""
    rules = RULES.changed(settings=(Setting("b/ICU", "CT", "own_results", "yes"),))
    assert Kind.RECOGNISABLE is verdict(order(department="ICU"), result(institution="b"), rules=rules).kind
    assert Kind.NOT is verdict(order(department="ER"), result(institution="b"), rules=rules).kind


# -------------------------------------------------------------------- 6: the patient's state

STATE_CASES = [
    ("emergency", order(happenings=(Happening("emergency"),)), ["STATE_EMERGENCY"], "R4"),
    ("emergency encounter", order(setting="EMER"), ["STATE_EMERGENCY"], "R4"),
    ("surgery is planned", order(happenings=(Happening("surgery"),)), ["STATE_BEFORE_SURGERY"], "R3"),
    ("surgery is tomorrow", order(happenings=(Happening("surgery", NOW + DAY),)), ["STATE_BEFORE_SURGERY"], "R3"),
    ("transfusion is planned", order(happenings=(Happening("transfusion"),)), ["STATE_BEFORE_TRANSFUSION"], "R3"),
    ("admission since", order(happenings=(Happening("admission", NOW - HOUR),)), ["STATE_AFTER_ADMISSION"], ""),
    ("surgery since", order(happenings=(Happening("surgery", NOW - HOUR),)), ["STATE_AFTER_SURGERY"], "R1"),
    ("transfusion since", order(happenings=(Happening("transfusion", NOW),)), ["STATE_AFTER_TRANSFUSION"], ""),
    ("chemotherapy since", order(happenings=(Happening("chemotherapy", NOW - 1),)), ["STATE_AFTER_CHEMOTHERAPY"], "R1"),
    ("forensic", order(happenings=(Happening("forensic"),)), ["STATE_FORENSIC"], ""),
    ("the more urgent reason wins", order(happenings=(Happening("surgery", NOW - HOUR), Happening("emergency"))),
     ["STATE_EMERGENCY", "STATE_AFTER_SURGERY"], "R4"),
    ("surgery at the time of the exam", order(happenings=(Happening("surgery", NOW - DAY),)), [], ""),
    ("surgery before it", order(happenings=(Happening("surgery", NOW - 2 * DAY),)), [], ""),
    ("chemotherapy is planned", order(happenings=(Happening("chemotherapy"),)), [], ""),
    ("what nobody knows", order(happenings=(Happening("haircut"),)), [], ""),
]


@pytest.mark.parametrize(("said", "ordered", "states", "reason"), STATE_CASES, ids=[row[0] for row in STATE_CASES])
def test_the_state_preselects_a_reason(said: str, ordered: Order, states: list[str], reason: str) -> None:
    """And leaves the verdict as it is: the doctor decides."""
    found = verdict(ordered, result())
    assert (Kind.RECOGNISABLE, states, reason) == (found.kind, list(found.states), found.reason)
    rows = [row for row in found.trace if row["step"] == 6]
    assert [{"states": states, "reason": reason}] * bool(states) == [row["inputs"] for row in rows]


def test_every_state_has_a_case() -> None:
    """The states that a reason may name are those that a verdict can find."""
    assert set(STATES) == {state for _, _, states, _ in STATE_CASES for state in states}


def test_a_state_after_any_of_a_panel_counts() -> None:
    """Surgery between two results of a panel: the older one is of before."""
    ordered = order("CBC", happenings=(Happening("surgery", NOW - DAY),))
    assert ("STATE_AFTER_SURGERY",) == verdict(ordered, result(1, "WBC", 2), result(2, "HB", 0.5)).states


def test_no_state_without_a_match() -> None:
    """There is nothing to refuse."""
    assert () == verdict(order(happenings=(Happening("emergency"),))).states


def test_a_narrower_region_replaces_a_reason() -> None:
    """The hospital's own value set preselects."""
    rules = RULES.changed(reasons=(*RULES.reasons, Reason("HZ", "R4", "", "", "no"),
                                   Reason("HZ", "H1", "", "", "no", preselected_by=("STATE_EMERGENCY",))))
    assert "H1" == verdict(order(setting="EMER"), result(), rules=rules).reason


# -------------------------------------------------------------------- 8: choose

CHOICES = [
    ("full before flagged, though older", [result(1, days=9), result(2, days=1, flags=FLAG_CRITICAL)], 1),
    ("newest", [result(1, days=2), result(2, days=1), result(3, days=3)], 2),
    ("newest before higher", [result(1, days=2, institution="c"), result(2, days=1)], 2),
    ("higher institution at the same time", [result(1), result(2, institution="c"), result(3)], 2),
    ("the lower key as the last word", [result(2), result(1), result(3)], 1),
    ("a refused one is no choice", [result(1, days=2), result(2, days=1, status="preliminary")], 1),
]


@pytest.mark.parametrize(("said", "candidates", "pk"), CHOICES, ids=[row[0] for row in CHOICES])
def test_the_choice_between_results(said: str, candidates: list[Candidate], pk: int) -> None:
    """Full before advisory, then newest, then the higher institution; the same in whatever order they come."""
    assert {(pk,)} == {tuple(one.pk for one in verdict(order(), *some).chosen) for some in permutations(candidates)}


def test_the_furthest_refusal_is_the_answer() -> None:
    """A result that failed late says more than one that failed early or concerns something else."""
    some = [result(1, identity_doubt=True), result(2, status="cancelled"), result(3, days=31), result(4, "KNEE")]
    assert ("TOO_OLD",) == verdict(order(), *some).codes
    assert ("ID_DOUBT",) == verdict(order(), some[0], some[3]).codes


def test_equal_refusals_are_all_named() -> None:
    """In the order of the steps, each once."""
    some = [result(1, institution="far"), result(2, institution="abroad"), result(3, institution="abroad")]
    assert ("NO_MARK", "OUT_OF_SCOPE") == verdict(order(), *some).codes


# -------------------------------------------------------------------- panels


def test_a_panel_is_covered_from_several_reports() -> None:
    """The newest valid result of each member, of any hospital."""
    some = [result(1, "WBC", 2), result(2, "HB", 3, institution="c"), result(3, "HB", 5), result(4, "PLT", 9)]
    found = verdict(CBC, *some)
    assert (Kind.RECOGNISABLE, [1, 2]) == (found.kind, [one.pk for one in found.chosen])


def test_a_panel_without_all_core_members_is_partial() -> None:
    """And says what is still to do, in the order of the panel."""
    found = verdict(CBC, result(1, "HB"))
    assert (Kind.PARTIAL, ("WBC", "PLT"), ("PARTIAL",)) == (found.kind, found.missing, found.codes)
    found = verdict(CBC, result(1, "PLT"))
    assert (Kind.PARTIAL, ("WBC", "HB")) == (found.kind, found.missing)


def test_all_members_are_core_where_none_is_marked() -> None:
    """Then a panel without one member is PARTIAL."""
    rules = RULES.changed(core={})
    assert Kind.PARTIAL is verdict(CBC, *cbc(1, "WBC", "HB"), rules=rules).kind
    assert Kind.RECOGNISABLE is verdict(CBC, *cbc(1, "WBC", "HB", "PLT"), rules=rules).kind


def test_core_members_outside_of_the_panel_make_nothing_whole() -> None:
    """A fault of the tables leads to less, not to more."""
    assert Kind.PARTIAL is verdict(CBC, *cbc(1, "WBC", "HB"), rules=RULES.changed(core={"CBC": {"UPPER"}})).kind


def test_a_flagged_member_is_still_to_do() -> None:
    """It does not cover; with others that do, the panel is PARTIAL."""
    found = verdict(CBC, result(1, "WBC"), result(2, "HB", flags=FLAG_HAEMOLYSIS))
    assert (Kind.PARTIAL, ("HB", "PLT"), [1]) == (found.kind, found.missing, [one.pk for one in found.chosen])


def test_an_item_that_covers_a_member_covers_it_in_the_panel() -> None:
    """Edges hold within panels, too."""
    assert Kind.RECOGNISABLE is verdict(CBC, result(1, "WBC"), result(2, "HB-HS")).kind


def test_a_result_under_a_panel_code_covers_nothing() -> None:
    """It does not say which members were measured."""
    assert ("NOT_COVERED",) == verdict(CBC, result(1, "CBC")).codes


def test_a_function_test_needs_one_session() -> None:
    """Fasting and two-hour glucose of two days are no tolerance test: the best session counts."""
    two = [result(1, "GLU0", 3, session=1), result(2, "GLU120", 1, session=2)]
    assert Kind.PARTIAL is verdict(OGTT, *two).kind
    whole = [result(3, "GLU0", 5, session=3), result(4, "GLU120", 5, session=3)]
    found = verdict(OGTT, *two, *whole)
    assert (Kind.RECOGNISABLE, {3, 4}) == (found.kind, {one.pk for one in found.chosen})


def test_results_without_a_session_share_none() -> None:
    """Nor do sessions of two hospitals that have the same number."""
    assert Kind.PARTIAL is verdict(OGTT, *cbc(1, "GLU0", "GLU120")).kind
    assert Kind.PARTIAL is verdict(OGTT, result(1, "GLU0", session=7),
                                   result(2, "GLU120", session=7, institution="c")).kind


def test_one_result_for_two_members_is_shown_once() -> None:
    """A card names a result once."""
    rules = RULES.changed(catalogue=type(RULES.catalogue)(
        RULES.catalogue.items.values(), PANELS,
        [type(RULES.catalogue.edges[0])("HB-HS", member, "full", "") for member in ("HB", "WBC")]))
    found = verdict(CBC, result(1, "HB-HS"), rules=rules)
    assert (Kind.RECOGNISABLE, [1]) == (found.kind, [one.pk for one in found.chosen])


def test_an_empty_panel_is_never_covered() -> None:
    """All of nothing is nothing."""
    panel = type(PANELS[0])("EMPTY", "", "", ())
    rules = RULES.changed(catalogue=type(RULES.catalogue)(RULES.catalogue.items.values(), (panel,)))
    assert ("NOT_COVERED",) == verdict(order("EMPTY"), result(), rules=rules).codes


# -------------------------------------------------------------------- trace


def test_the_trace_says_everything_that_was_asked() -> None:
    """A machine can read why: item, relation, issuer, region, age and window, and the version that was asked."""
    found = verdict(order(local="CT7"), result(7, "ABDOMEN", 3))
    assert [
        {"step": 1, "rule": "mapping", "inputs": {"local": "CT7", "item": "UPPER"}, "outcome": "ok"},
        {"step": 8, "rule": "choose", "outcome": "ok",
         "inputs": {"result": 7, "item": "ABDOMEN", "target": "UPPER", "relation": "full", "issuer": "a",
                    "status": "final", "region": "HZ", "age_us": 3 * DAY, "window_us": 30 * DAY}},
        {"step": 8, "rule": "choose", "inputs": {"results": [7], "catalogue": "1"}, "outcome": "RECOGNISABLE"},
    ] == list(found.trace)


def test_the_trace_is_json() -> None:
    """Whatever verdict it explains."""
    for _, _, ordered, candidates, rules, _ in CASES:
        found = verdict(ordered, *candidates, rules=rules)
        assert list(found.trace) == orjson.loads(orjson.dumps(found.trace))
        assert all(row.keys() == {"step", "rule", "inputs", "outcome"} for row in found.trace)


def test_the_trace_is_bounded() -> None:
    """Of a thousand results the best twenty are told, the others counted."""
    found = verdict(order(), *(result(pk, days=31 + pk) for pk in range(1, 1001)))
    told = [row for row in found.trace if "result" in row["inputs"]]
    assert list(range(TRACED, 0, -1)) == [row["inputs"]["result"] for row in told]
    assert {"results": 1000 - TRACED} in [row["inputs"] for row in found.trace]


# -------------------------------------------------------------------- all orders of a signature


def test_report_statuses_are_looked_up_for_what_would_be_chosen() -> None:
    """A withdrawn report makes room for the next result; nothing is asked twice, and nothing that is not needed."""
    some = [result(1, days=1), result(2, days=2), result(3, days=3), result(4, "WBC"), result(5, "KNEE")]
    asked: list[set[int]] = []

    def statuses(wanted: Sequence[Candidate]) -> Mapping[int, str]:
        asked.append({one.pk for one in wanted})
        return {1: "cancelled", 2: "final", 4: ""}

    found = judge_all([order(), order("WBC"), order("HB")], some, RULES, NOW, SHANGHAI, statuses)
    assert [(Kind.RECOGNISABLE, [2]), (Kind.RECOGNISABLE, [4]), (Kind.NOT, [])] == \
        [(one.kind, [chosen.pk for chosen in one.chosen]) for one in found]
    assert [{1, 4}, {2}] == asked


def test_looking_up_nothing_ends() -> None:
    """Where no report is known the verdicts stand as they are."""
    assert [Kind.RECOGNISABLE] == [one.kind for one in judge_all([order()], [result()], RULES, NOW, SHANGHAI,
                                                                lambda wanted: {})]


def test_a_known_report_status_is_not_asked_for() -> None:
    """The candidate brought it."""
    asked: list[Sequence[Candidate]] = []
    found = judge_all([order()], [result(report_status="final")], RULES, NOW, SHANGHAI,
                      lambda wanted: asked.append(wanted) or {})
    assert (Kind.RECOGNISABLE, []) == (found[0].kind, asked)


# -------------------------------------------------------------------- the shipped catalogue

SHIPPED = shipped().changed(
    institutions={slug: Institution(slug, slug, slug, "330100", 3) for slug in "ab"},
    qualifications=(Qualification("a", "*", "330100"),))


@pytest.mark.parametrize("item", [*SHIPPED.catalogue.items, *SHIPPED.catalogue.panels])
def test_every_shipped_item_can_be_recognised(item: str) -> None:
    """Fresh results of a qualified hospital cover it, or each member of it; without them nothing does."""
    made = [result(pk, code, days=0.001, side=Side.BOTH, session=1)
            for pk, code in enumerate(SHIPPED.members(item) or (item,), 1)]
    assert Kind.RECOGNISABLE is verdict(order(item), *made, rules=SHIPPED).kind
    assert Kind.NOT is verdict(order(item), rules=SHIPPED).kind


@pytest.mark.parametrize("panel", SHIPPED.catalogue.panels)
def test_a_shipped_panel_without_one_core_member_is_partial(panel: str) -> None:
    """And without what covers that member: it says that it is missing; of a panel of one nothing is left."""
    core = sorted(SHIPPED.core_members(panel))
    left = [code for code in SHIPPED.members(panel) if code not in Coverage.of(SHIPPED).full(core[0])]
    made = [result(pk, code, days=0.001, session=1) for pk, code in enumerate(left, 1)]
    found = verdict(order(panel), *made, rules=SHIPPED)
    assert found.kind is (Kind.PARTIAL if left else Kind.NOT)
    assert core[0] in found.missing or not left


def test_shipped_reasons_are_preselected() -> None:
    """Before surgery R3, in an emergency R4, for a forensic purpose R5, after what changes a patient R1."""
    taken, since = result(1, "ECT010H"), NOW - HOUR
    found = {kind: verdict(order("ECT010H", happenings=(Happening(kind, when),)), taken, rules=SHIPPED).reason
             for kind, when in (("emergency", 0), ("forensic", 0), ("surgery", 0), ("transfusion", since),
                                ("chemotherapy", since), ("admission", since))}
    assert {"emergency": "R4", "forensic": "R5", "surgery": "R3", "transfusion": "R1", "chemotherapy": "R1",
            "admission": "R1"} == found


# -------------------------------------------------------------------- the rest


def test_a_changed_rule_set_is_asked_anew() -> None:
    """What one version remembers does not answer for another."""
    assert Kind.RECOGNISABLE is verdict(order(), result()).kind
    assert Kind.NOT is verdict(order(), result(), rules=RULES.changed(qualifications=())).kind


def test_the_day_of_a_time_beyond_the_calendar() -> None:
    """A nonsensical time is no crash."""
    assert (date.min, date.max) == (local_day(-(1 << 62), UTC), local_day(1 << 62, UTC))
    assert ("TOO_OLD",) == verdict(order(), result(time=-(1 << 62))).codes


def test_five_orders_are_judged_in_half_a_millisecond() -> None:
    """Over the shipped catalogue with fifty results, in all; the best of many runs, thrice that on a busy machine."""
    shipped = RuleSet("1", date(2024, 1, 1), catalogue(), regions=RULES.regions, institutions=RULES.institutions,
                      windows=RULES.windows, qualifications=RULES.qualifications)
    items = ["THM001Q", "ECT010H", "TBC0426", *catalogue().members("P-CBC")[:20], *catalogue().members("P-LIP")]
    results = [Candidate(pk, "Observation", items[pk % len(items)], NOW - pk * HOUR, "final", "ac"[pk % 2])
               for pk in range(50)]
    orders = [order(item) for item in ("THM001Q", "ECT010H", "TBC0426", "P-CBC", "P-LIP")]

    def run() -> float:
        start = perf_counter()
        for one in orders:
            judge(one, results, shipped, NOW, SHANGHAI)
        return perf_counter() - start

    assert min(run() for _ in range(200)) < 0.0015


def test_judging_changes_nothing() -> None:
    """Candidates and order are values; a replaced copy is judged on its own."""
    one = result()
    before = verdict(order(), one)
    verdict(order(), replace(one, status="cancelled"))
    assert before == verdict(order(), one)
