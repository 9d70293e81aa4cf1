"""Both acknowledgment modes on a real port (HL7 v2.5.1 2.9.2, 2.9.3; table 0155): what goes back, and when."""

from __future__ import annotations

import threading
import time

import pytest

from gateway.edges.mllp.answers import commit_code_for
from gateway.edges.mllp_sender import Sender
from gateway.errors import Category, GatewayError
from gateway.pipeline import Arrival
from gateway.store.model import Receipt
from tests.mllp_peers import Recorder, Whole, arrival, block, joined, listening, message, segment

STORED = Receipt(1, resources=3)
REFUSED = Receipt(1, "invalid", "send a code", "OBR-4", "required")
UNSUPPORTED = Receipt(1, "unsupported", "this is not taken", "MSH-9", "message-type")


def asking(control_id: str, accept: str, application: str) -> bytes:
    """A message with MSH-15 and MSH-16."""
    return message(control_id, more=f"|||{accept}|{application}")


@pytest.mark.parametrize(("accept", "application", "receipt", "codes"), [
    ("", "", STORED, ["AA"]), ("", "", REFUSED, ["AE"]),                       # original
    ("AL", "AL", STORED, ["CA", "AA"]), ("AL", "AL", REFUSED, ["CA", "AE"]), ("AL", "AL", UNSUPPORTED, ["CA", "AR"]),
    ("AL", "ER", STORED, ["CA"]), ("AL", "ER", REFUSED, ["CA", "AE"]),
    ("AL", "SU", STORED, ["CA", "AA"]), ("AL", "SU", REFUSED, ["CA"]),
    ("SU", "AL", STORED, ["CA", "AA"]), ("SU", "AL", REFUSED, ["CA", "AE"]),
    ("ER", "AL", STORED, ["AA"]), ("ER", "AL", REFUSED, ["AE"]),
    ("NE", "AL", STORED, ["AA"]), ("NE", "AL", REFUSED, ["AE"]),               # the original mode's equivalent
    ("", "AL", STORED, ["AA"]), ("", "ER", STORED, []), ("", "ER", REFUSED, ["AE"]),
    ("NE", "SU", REFUSED, []), ("NE", "SU", STORED, ["AA"]),
    ("NE", "NE", STORED, []), ("NE", "NE", REFUSED, []),                       # nothing on the wire, and recorded
    ("AL", "NE", STORED, ["CA"]), ("AL", "", STORED, ["CA"]),                  # the only answer tells the outcome
    ("AL", "NE", REFUSED, ["CE"]), ("AL", "NE", UNSUPPORTED, ["CR"]),
    ("ER", "NE", STORED, []), ("ER", "NE", REFUSED, ["CE"]),
    ("SU", "NE", STORED, ["CA"]), ("SU", "NE", REFUSED, []),
    ("al", "ne", STORED, ["CA"]), ("Y", "NE", STORED, ["CA"]),                 # not of the table: answered
])
def test_what_a_message_asks_for_goes_back(accept: str, application: str, receipt: Receipt, codes: list[str]) -> None:
    """Accept acknowledgement first, the application's answer second, and nothing that was not asked for."""
    recorder = Recorder(receipt)
    with listening(recorder) as listener, joined(listener) as hospital:
        hospital.write(block(asking("E1", accept, application)) + block(message("E2")))
        got = [hospital.msa() for _ in codes]
        assert got == [(code, "E1") for code in codes]
        assert hospital.msa()[1] == "E2"  # the next one's: nothing else came before it
    assert len(recorder.got) == 2


class Slow(Whole):
    """Accepts at once and settles when it is told to."""

    def __init__(self, outcomes: list[Receipt | Exception]) -> None:
        super().__init__(lambda raw, peer: STORED)
        self.go = threading.Event()
        self.accepted: list[bytes] = []
        self.settled = 0
        self._outcomes = outcomes

    def accept(self, raw: bytes, peer: str) -> Arrival:
        """The bytes are safe."""
        self.accepted.append(raw)
        return arrival(raw, peer)

    def settle(self, arrival: Arrival) -> Receipt:
        """The next of the outcomes."""
        assert self.go.wait(10)
        self.settled += 1
        outcome = self._outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


def test_the_accept_acknowledgement_does_not_wait_for_the_application() -> None:
    """CA comes when the bytes are safe, though the conversion has not begun; AA when it has ended."""
    slow = Slow([STORED])
    with listening(slow) as listener, joined(listener) as hospital:
        hospital.write(block(asking("E3", "AL", "AL")))
        assert hospital.msa() == ("CA", "E3")
        assert slow.settled == 0 and hospital.is_silent()
        slow.go.set()
        assert hospital.msa() == ("AA", "E3")


def test_a_sender_that_was_told_ca_is_not_told_busy() -> None:
    """It will not send again: a database that is away is waited for, and then the application's answer comes."""
    slow = Slow([Receipt(1, "busy", "later"), GatewayError(Category.BUSY, "the database is away"), STORED])
    slow.go.set()
    with listening(slow) as listener, joined(listener) as hospital:
        hospital.write(block(asking("E4", "AL", "AL")))
        assert [hospital.msa(), hospital.msa()] == [("CA", "E4"), ("AA", "E4")]
    assert slow.settled == 3


@pytest.mark.parametrize(("accept", "application"), [("", ""), ("NE", "AL"), ("AL", "NE")])
def test_a_sender_that_was_told_nothing_yet_is_told_busy(accept: str, application: str) -> None:
    """Then it is its turn to wait and send again."""
    slow = Slow([Receipt(1, "busy", "later")])
    slow.go.set()
    with listening(slow) as listener, joined(listener) as hospital:
        hospital.write(block(asking("E5", accept, application)))
        answer = hospital.answer() or ""
        assert segment(answer, "MSA").split("|")[1] in ("AR", "CE") and "|206^" in segment(answer, "ERR")


def test_a_stop_does_not_wait_for_a_database_that_is_away() -> None:
    """What was told CA is recorded: the next start runs it."""
    slow = Slow([Receipt(1, "busy", "later")] * 100)
    slow.go.set()
    with listening(slow) as listener, joined(listener) as hospital:
        hospital.write(block(asking("E6", "AL", "AL")))
        assert hospital.msa() == ("CA", "E6")
        began = time.monotonic()
        assert listener.drain(8)
        assert time.monotonic() - began < 6 and hospital.answer() is None


class Door(Whole):
    """Refuses before a message is read."""

    def __init__(self, refusal: GatewayError) -> None:
        super().__init__(lambda raw, peer: Receipt(1, refusal.category.value, refusal.message, refusal.where,
                                                   refusal.detail))
        self._refusal = refusal

    def accept(self, raw: bytes, peer: str) -> Arrival:
        """Recorded, and it will not be read."""
        return arrival(raw, peer, self._refusal)


NOT_ALLOWED = GatewayError(Category.FORBIDDEN, "be registered first", "MSH-4")
NOT_TAKEN = GatewayError(Category.UNSUPPORTED, "not taken; taken are ORU", "MSH-9", detail="event")


@pytest.mark.parametrize(("accept", "application", "refusal", "codes"), [
    ("AL", "AL", NOT_ALLOWED, ["CE"]), ("AL", "AL", NOT_TAKEN, ["CR"]), ("ER", "AL", NOT_TAKEN, ["CR"]),
    ("ER", "NE", NOT_ALLOWED, ["CE"]), ("SU", "AL", NOT_ALLOWED, ["AR"]), ("NE", "AL", NOT_TAKEN, ["AR"]),
    ("", "", NOT_ALLOWED, ["AR"]), ("SU", "NE", NOT_TAKEN, [])])
def test_what_is_refused_at_the_door_has_no_application_to_answer(accept: str, application: str, refusal: GatewayError,
                                                                   codes: list[str]) -> None:
    """CR where the type is the reason, CE for another (2.9.3.1); then no application answer follows."""
    with listening(Door(refusal)) as listener, joined(listener) as hospital:
        hospital.write(block(asking("E7", accept, application)))
        for code in codes:
            answer = hospital.answer() or ""
            assert segment(answer, "MSA").split("|")[1:3] == [code, "E7"]
            assert segment(answer, "ERR").split("|")[8] == refusal.message
        assert hospital.is_silent()


@pytest.mark.parametrize("category", Category)
def test_every_category_has_its_accept_acknowledgement(category: Category) -> None:
    """CR for what MSH-9, 11 and 12 say, CE for any other."""
    assert commit_code_for(Receipt(1, category.value)) == ("CR" if category is Category.UNSUPPORTED else "CE")
    assert commit_code_for(Receipt(1)) == "CA"


ACK = "MSH|^~\\&|HIS|LAB1|HUREN|HRP|20260101||ACK^R01|{}|P|2.5.1{}\rMSA|{}|4711\r"


@pytest.mark.parametrize(("more", "code", "answered"), [
    ("", "AA", None), ("", "AE", None), ("|||AL|AL", "CA", None), ("|||AL|NE", "CE", None), ("|||AL|NE", "AA", "CA"),
    ("|||AL|AL", "AE", "CA"), ("|||NE|AL", "AA", None)])
def test_an_acknowledgement_is_not_acknowledged(more: str, code: str, answered: str | None) -> None:
    """Two systems never answer each other without end; an application's may ask for an accept acknowledgement."""
    recorder = Recorder()
    with listening(recorder) as listener, joined(listener) as hospital:
        hospital.write(block(ACK.format("K1", more, code).encode()))
        if answered:
            assert hospital.msa() == (answered, "K1")
        hospital.write(block(message("K2")))
        assert hospital.msa() == ("AA", "K2")
    assert len(recorder.got) == 2  # recorded all the same


def test_an_accept_acknowledgement_is_an_ack_in_the_senders_own_form() -> None:
    """Version, delimiters, processing id and character set as in the application's answer; ids of its own."""
    raw = b"MSH#*~!%#LIS#LAB1#HUREN#HRP#20260101##OML*O21*OML_O21#N1#P#2.4###AL#AL##UNICODE UTF-8\r"
    with listening(Recorder()) as listener, joined(listener) as hospital:
        hospital.write(block(raw))
        first, second = (hospital.answer() or "" for _ in range(2))
    for answer, code in ((first, "CA"), (second, "AA")):
        msh = segment(answer, "MSH").split("#")
        assert (msh[1], msh[2], msh[4], msh[8], msh[11], msh[17]) == \
            ("*~!%", "HUREN", "LIS", "ACK*O21*ACK", "2.4", "UNICODE UTF-8")
        assert segment(answer, "MSA") == f"MSA#{code}#N1" and len(msh) == 18 and msh[14:16] == ["", ""]
    assert segment(first, "MSH").split("#")[9] != segment(second, "MSH").split("#")[9]


def test_a_message_that_is_too_large_is_refused_in_the_mode_that_it_asks_for() -> None:
    """CE in the enhanced mode, and nothing where nothing is asked for."""
    for accept, application, code in (("AL", "AL", "CE"), ("NE", "AL", "AR"), ("NE", "NE", None)):
        with listening(Recorder(), mllp_max_bytes=1000, mllp_frame_seconds=1) as listener, \
                joined(listener) as hospital:
            hospital.write(block(asking("L1", accept, application) + b"NTE|1||" + b"x" * 2000))
            if code:
                assert hospital.msa() == (code, "L1")
            assert hospital.answer() is None


@pytest.mark.parametrize(("accept", "application", "receipt", "code"), [
    ("", "", STORED, "AA"), ("AL", "AL", STORED, "AA"), ("AL", "AL", REFUSED, "AE 101"), ("AL", "ER", STORED, "CA"),
    ("NE", "NE", STORED, "-"), ("AL", "NE", REFUSED, "CE 101"), ("ER", "AL", STORED, "AA"), ("ER", "NE", REFUSED, "-"),
    ("SU", "AL", REFUSED, "AE 101")])
def test_our_own_sender_waits_for_what_must_come(accept: str, application: str, receipt: Receipt, code: str) -> None:
    """The application's answer where two are due, and nothing where none need come; the next one gets its own."""
    with listening(Recorder(receipt)) as listener:
        sender = Sender(*listener.address)
        for n in range(2):
            assert sender.send(asking(f"S{n}", accept, application)).code == code
        assert sender.send(message("S9")).code == ("AA" if receipt is STORED else "AE 101")
        sender.close()


@pytest.mark.parametrize("accept", ["AL", "SU"])
def test_our_own_sender_waits_for_one_answer_when_it_is_refused_at_the_door(accept: str) -> None:
    """CE, or AR where CE was not asked for."""
    with listening(Door(NOT_ALLOWED)) as listener:
        sender = Sender(*listener.address)
        assert sender.send(asking("S1", accept, "AL")).code == ("CE 207" if accept == "AL" else "AR 207")
        sender.close()
