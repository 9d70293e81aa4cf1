"""Public messages of other projects through `generic` and the whole pipeline: accepted, or refused for a reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway import hl7v2
from gateway.adapter import load_all
from gateway.config import SHIPPED_ADAPTERS, Settings
from gateway.errors import GatewayError
from gateway.pipeline import Pipeline
from gateway.store import open_store

CORPUS = Path(__file__).parents[1].parent / "shared" / "corpus" / "hl7v2"

#: Why the others are refused: category and place, number of distinct messages, and what is wrong with them.
REFUSED = {
    "unsupported MSH-9": 469,  # ADT, SIU, MDM, VXU …: not taken yet; the answer says what is
    "invalid OBR": 11,  # fragments of a converter's tests: a patient, and no order
    "unsupported RXO": 6,  # orders of medicines, which are no exam and no test
    "invalid MSH-9": 7,  # built headers that say no type
    "invalid OBX-3": 5,  # narrative lines or documents whose OBX says not what it is
    "invalid OBR-3": 3,  # built messages without any order number
    "invalid OBR-4": 3,  # outputs of a converter: orders of nothing
    "invalid PID": 5,  # snippets of OBX or ORC alone
    "invalid ORC-2": 3,  # orders without any number: nothing could name them again
    "invalid PID-3": 2,  # nobody's results
    "conflict OBR-22": 2,  # variants of one report under its number, sent later but valid as of an earlier time
    "invalid PID-7": 1,  # born on 1962-03-52
    "malformed MSH": 1,  # begins with PID
    "unsupported ODS": 1,  # an order of a diet
    "unsupported RQ1": 1,  # a requisition of supplies
}
ACCEPTED = 64


def messages() -> Iterator[bytes]:
    """Every distinct message of the corpus; files that no reader could split count as one."""
    seen = set()
    for path in sorted(CORPUS.rglob("*.hl7")):
        try:
            found = hl7v2.split(path.read_bytes())
        except GatewayError:
            found = [path.read_bytes()]
        for raw in found:
            if raw not in seen:
                seen.add(raw)
                yield raw


def test_public_messages_go_through_generic_without_a_fault(tmp_path: Path) -> None:
    """The table above is exactly what happens; nothing is a FAULT; what is refused waits in quarantine."""
    if not CORPUS.is_dir():
        pytest.skip("the folder of public messages is not beside the repository")
    store = open_store(Settings(data=tmp_path), migrate=True)
    try:
        pipeline = Pipeline(Settings(data=tmp_path), store, load_all([SHIPPED_ADAPTERS], "generic"))
        outcomes = Counter((r.category or "accepted", r.where) for r in
                           (pipeline.receive_hl7(raw, "127.0.0.1:4000") for raw in messages()))
        kept = store.counts()["inbox"]
    finally:
        store.close()
    assert not [o for o in outcomes if o[0] == "fault"]
    accepted = sum(n for (category, _), n in outcomes.items() if category == "accepted")
    assert (accepted, {f"{c} {w}": n for (c, w), n in outcomes.items() if c != "accepted"}) == (ACCEPTED, REFUSED)
    assert (kept["stored"], kept["quarantined"]) == (accepted, sum(REFUSED.values()))
