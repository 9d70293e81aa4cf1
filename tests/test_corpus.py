"""Public messages of other projects through `generic` and the whole pipeline: what is well-formed is accepted."""

from __future__ import annotations

import re
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

#: Of the types that we take: what becomes of each message, by category and place. `lacking` says the same on its own.
TAKEN = {
    "accepted": 318,
    "invalid PID": 11,  # snippets of OBX, ORC or EVN alone: nobody's results, orders and events
    "invalid OBR": 11,  # ORU without a report; new orders (ORC-1 NW) of nothing
    "invalid PID-3": 7,  # nobody's number
    "invalid MSH-9": 7,  # built headers that say no type
    "invalid OBR-3": 3,  # reports that nothing numbers
    "invalid OBR-4": 3,  # outputs of a converter: reports of nothing
    "invalid ORC-2": 3,  # orders that nothing numbers
    "invalid OBX-5": 2,  # `<Base64 encoded>` where the bytes should stand
    "invalid TXA": 1,  # MDM without a document
    "malformed MSH": 1,  # begins with PID
    "unsupported RXO": 6,  # orders of medicines alone, which are no exam and no test
    "unsupported ODS": 1,  # of a diet
    "unsupported RQ1": 1,  # of supplies
    "conflict OBR-22": 2,  # variants of one report under its number, received later but valid as of an earlier time
    "conflict MSH-7": 9,  # the same of one appointment
}
#: Types and events that we do not take.
NOT_TAKEN = {
    "VXU^V04": 90, "QBP^Q22": 1, "RSP^K22": 6,  # vaccinations, queries
    "PPR^PC1": 30, "PPR^PC2": 1, "PPR^PC3": 1, "REF^I12": 2, "REF^I14": 2,  # problems, referrals
    "RDE^O11": 29, "RDE^O25": 2, "RDS^O13": 3, "OMP^O09": 19,  # medicines
    "BAR^P01": 2, "BAR^P02": 2, "BAR^P12": 2, "DFT^P11": 2,  # accounts
    "CUSTOM^PAT": 1, "ZDT^Z01": 1, "{}^": 2,  # of nobody's standard
}


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


def lacking(raw: bytes) -> set[str]:
    """What a message lacks of what HL7 v2 requires of its type, read without the gateway's reader: places."""
    lines = [line.lstrip("\ufeff \x0b") for line in re.split("[\r\n]+", raw.decode("utf-8", "replace")) if line.strip()]
    if not lines[0].startswith("MSH"):
        return {"MSH"}
    rows = [line[:3].upper().split() + line.split(lines[0][3])[1:] for line in lines]
    kind = _field(rows[0], 8).partition(lines[0][4])[0].upper()
    if not kind:
        return {"MSH-9"}
    found = {"PID-3" for row in rows if row[0] == "PID" and not _field(row, 3)}
    if not any(row[0] == "PID" for row in rows):
        found.add("PID")
    if kind == "MDM" and not any(row[0] == "TXA" for row in rows):
        found.add("TXA")
    if kind == "ADT":
        found |= {"OBX-3" for row in rows if row[0] == "OBX" and not _field(row, 3)}
    if kind in ("ORU", "ORM", "OML", "OMI", "OMG"):
        found |= _lacking_of_orders(rows, "OBR-3" if kind == "ORU" else "ORC-2")
    documents = [_field(row, 5) for row in rows if row[0] == "OBX" and _field(row, 2) == "ED"]
    return found | {"OBX-5" for document in documents if _is_broken(document)}


def _lacking_of_orders(rows: list[list[str]], number: str) -> set[str]:
    found: set[str] = set()
    control: list[str] = []
    details = [row[0] for row in rows if row[0] in ("OBR", "RXO", "ODS", "RQ1")]
    if "OBR" not in details:
        found.add(details[0] if details else "OBR")
    for row in rows:
        if row[0] == "ORC":
            control = row
        elif row[0] == "OBR":
            if not any(_field(one, at) for one in (row, control) for at in (2, 3)):
                found.add(number)
            if not _field(row, 4):
                found.add("OBR-4")
    return found


def _field(row: list[str], at: int) -> str:
    """A field of a row, "" where nothing but delimiters stands in it."""
    return row[at] if at < len(row) and row[at].strip("^&~ ") else ""


def _is_broken(document: str) -> bool:
    parts = document.split("^")
    return len(parts) > 4 and parts[3] == "Base64" and not re.fullmatch(r"[A-Za-z0-9+/=\s]*", parts[4])


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[tuple[bytes, str]]]:
    """Every message and what became of it: "accepted", or category and place; what is refused waits in quarantine."""
    if not CORPUS.is_dir():
        pytest.skip("the folder of public messages is not beside the repository")
    settings = Settings(data=tmp_path_factory.mktemp("corpus"))
    store = open_store(settings, migrate=True)
    try:
        pipeline = Pipeline(settings, store, load_all([SHIPPED_ADAPTERS], "generic"))
        found = []
        for raw in messages():
            receipt = pipeline.receive_hl7(raw, "127.0.0.1:4000")
            found.append((raw, f"{receipt.category} {receipt.where}" if receipt.category else "accepted"))
        kept = store.counts()["inbox"]
    finally:
        store.close()
    accepted = sum(what == "accepted" for _, what in found)
    assert (kept["stored"], kept["quarantined"]) == (accepted, len(found) - accepted)
    yield found


def _kind(raw: bytes) -> str:
    try:
        return "^".join(hl7v2.peek(raw).message_type[:2])
    except GatewayError:
        return ""


def test_nothing_is_a_fault(outcomes: list[tuple[bytes, str]]) -> None:
    """No public message meets a mistake of ours."""
    assert not [_kind(raw) for raw, what in outcomes if what.startswith("fault")]


def test_each_outcome_is_told(outcomes: list[tuple[bytes, str]]) -> None:
    """The tables above are exactly what happens."""
    assert Counter(what for _, what in outcomes if what != "unsupported MSH-9") == TAKEN
    assert Counter(_kind(raw) for raw, what in outcomes if what == "unsupported MSH-9") == NOT_TAKEN


def test_well_formed_messages_of_a_type_that_we_take_are_accepted(outcomes: list[tuple[bytes, str]]) -> None:
    """All that lack nothing which the standard requires; what is refused lacks just what the refusal names."""
    taken = [(raw, what) for raw, what in outcomes if what not in ("unsupported MSH-9", "conflict OBR-22",
                                                                                        "conflict MSH-7")]
    assert [(_kind(raw), what) for raw, what in taken if what != "accepted" and not lacking(raw)] == []
    assert [(_kind(raw), what, lacking(raw)) for raw, what in taken
            if what != "accepted" and what.partition(" ")[2] not in lacking(raw)] == []
