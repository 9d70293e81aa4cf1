"""Messages that nobody would send: none crashes the conversion, hangs it or makes it grow (`bench/fuzz.py`)."""

from __future__ import annotations

import random
import sys
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench import fuzz, profile
from gateway.adapter import Adapter

STARTS = fuzz.seeds()
HOSPITALS = fuzz.adapters()


@given(st.binary(max_size=400))
def test_any_bytes_are_refused_or_read(raw: bytes) -> None:
    """Whatever comes is a message or is refused with a reason."""
    assert _tried(raw, HOSPITALS[0])


def _tried(raw: bytes, hospital: Adapter) -> bool:
    """Whether each message in these bytes had an outcome; what may not be is raised by `fuzz.try_one`."""
    tally = fuzz.Tally()
    fuzz.try_one(raw, hospital, tally)
    return tally.inputs == 1 and sum(tally.outcomes.values()) >= 1


@given(st.integers(0, 1 << 60), st.sampled_from(STARTS), st.sampled_from(STARTS), st.sampled_from(HOSPITALS))
@settings(max_examples=300)
def test_changed_messages_are_refused_or_read(seed: int, start: bytes, other: bytes, hospital: Adapter) -> None:
    """Bytes, parts and segments of real messages changed, moved and mixed."""
    raw, _ = fuzz.mutated(random.Random(seed), start, other)
    assert _tried(raw, hospital)


_NAMES = ["PID", "PV1", "ORC", "OBR", "OBX", "SPM", "NTE", "MRG", "TXA", "SCH", "ZZZ"]


@given(st.lists(st.tuples(st.sampled_from(_NAMES), st.lists(st.text(max_size=12), max_size=30)), max_size=8),
       st.sampled_from(["ORU^R01", "OUL^R22", "ADT^A01", "ADT^A40", "ORM^O01", "MDM^T02", "SIU^S12", "DFT^P03"]))
def test_fields_of_any_text_are_refused_or_read(segments: list[tuple[str, list[str]]], kind: str) -> None:
    """Every field of every segment may hold anything."""
    lines = [f"MSH|^~\\&|A|B|||20260101||{kind}|1|P|2.5", *("|".join([name, *fields]) for name, fields in segments)]
    assert _tried("\r".join(lines).encode(), HOSPITALS[0])


def test_two_hundred_thousand_changed_bytes() -> None:
    """A fixed run, over every shipped hospital; enough inputs are read that it reaches beyond a first look."""
    tally = fuzz.run(200_000, 7, STARTS, HOSPITALS)
    assert tally.outcomes["accepted"] + tally.outcomes["invalid"] > 0.2 * tally.inputs
    assert not tally.outcomes["fault"]


@pytest.mark.long
def test_memory_does_not_grow_with_what_is_tried() -> None:
    """After a million bytes the caches are full: the second million leaves little behind."""
    fuzz.run(1_000_000, 1, STARTS, HOSPITALS)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        fuzz.run(1_000_000, 2, STARTS, HOSPITALS)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 24_000_000


def test_the_profile_names_functions_that_there_are() -> None:
    """Every stage of the profile is called by a message, and the stages of its thread add up to its time."""
    shares = {stage: (us, calls) for stage, us, calls in profile.profile(20)}
    assert all(us > 0 and calls > 0 for us, calls in shares.values())
    assert sys.getsizeof(profile.table([(s, *v) for s, v in shares.items()])) > 500
