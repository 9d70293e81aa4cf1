"""Orders and charges through the real port: reminder back, bill refused, decision revoked, resend."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import hl7.client
import pytest

from gateway import hl7v2
from gateway.adapter import load_all
from gateway.caller import GATEWAY, Caller
from gateway.config import SHIPPED_ADAPTERS, Settings
from gateway.edges.mllp import Listener
from gateway.errors import Category, GatewayError
from gateway.pipeline import Pipeline
from gateway.recognition.model import Action
from gateway.recognition.orders import line_id
from gateway.recognition.service import Recognition
from gateway.store import Store
from tests.support_source import segment

ZONE = ZoneInfo("Asia/Shanghai")
YESTERDAY = (datetime.now(ZONE) - timedelta(days=1)).strftime("%Y%m%d")
NOW = datetime.now(ZONE).strftime("%Y%m%d%H%M%S")
#: One person, as the two hospitals know her; and one that nobody knows.
RENMIN_PID = "PID|1||00100201^^^^PI||李秀英||19650730|F|||||||||||33010119650730902X"
XIHU_PID = "PID|1||XH900^^^XHH^MR~33010119650730902X^^^MPS^NNCHN||李^秀英||19650730|F"
STRANGER = "PID|1||00999999^^^^PI||赵无名||19700101|M"


def shown(hospital: str, name: str, pid: str) -> bytes:
    """An example of a hospital as if it had been sent yesterday, about that person."""
    raw = (SHIPPED_ADAPTERS / hospital / "examples" / name).read_bytes()
    codec = "gb18030" if hospital == "renmin" else "utf-8"
    text = re.sub(r"202611\d\d(?=\d{6})", YESTERDAY, raw.decode(codec))
    return re.sub(r"PID\|[^\r\n]*", pid, text).encode(codec)


def renmin(*segments: str, kind: str = "ORM^O01", control_id: str = "T1", pid: str = RENMIN_PID) -> bytes:
    """A message of the first hospital: 2.3.1 in GBK, answered by the response message."""
    head = f"MSH|^~\\&|HIS|DEMO1|HUREN|HRP|{NOW}||{kind}|{control_id}|P|2.3.1"
    return "\n".join([head, pid, "PV1|1|O|门诊", *segments]).encode("gb18030")


def xihu(*segments: str, kind: str = "OML^O21^OML_O21", control_id: str = "X1", pid: str = XIHU_PID) -> bytes:
    """A message of the second hospital: 2.5.1 in UTF-8, answered by the ACK with ERR."""
    head = f"MSH|^~\\&|HIS|DEMO2|HUREN|HRP|{NOW}+0800||{kind}|{control_id}|P|2.5.1||||||UNICODE UTF-8"
    return "\r".join([head, pid, "PV1|1|O|OPD", *segments]).encode()


def order(number: str, code: str, control: str = "NW") -> tuple[str, str]:
    """ORC and OBR."""
    return (segment("ORC", {1: control, 2: number, 9: NOW, 12: "D021^周明", 17: "0301^心内科"}),
            f"OBR|1|{number}||{code}")


def charge(number: str, code: str, kind: str = "CG", at: int = 1) -> tuple[str, str]:
    """FT1 and the ORC of its order."""
    ft1 = segment("FT1", {1: str(at), 2: f"T-{number}-{kind}", 4: NOW, 6: kind, 7: f"P{code}^收费"})
    return ft1, f"ORC|RE|{number}"


@dataclass
class Site:
    """A gateway's MLLP edge on a free port, and a hospital's engine at it."""

    pipeline: Pipeline
    recognition: Recognition
    store: Store
    engine: hl7.client.MLLPClient

    def send(self, raw: bytes) -> hl7v2.Message:
        """The answer to a message, read in the sender's character set."""
        answer = self.engine.send(b"\x0b" + raw + b"\x1c\r")
        return hl7v2.parse(answer.strip(b"\x0b\x1c\r"), "gb18030" if b"DEMO1" in raw else "utf-8")

    def accepted(self, raw: bytes) -> hl7v2.Message:
        """The same, and it must be AA, or CA where no more is asked for."""
        answer = self.send(raw)
        assert code(answer) in ("AA", "CA"), [s.raw for s in answer.segments]
        return answer

    def act(self, kind: str, number: str, institution: str = "hz-demo-1") -> str:
        """Somebody acts in the plug-in; the decision's id."""
        caller = Caller("plug-in", institution, ("institution/*.cruds",))
        return self.recognition.act(Action(kind, line_id(institution, number), "D021"), caller).decision

    def status(self, request: str) -> str:
        """The status of a ServiceRequest."""
        row = self.store.read("ServiceRequest", request, GATEWAY)
        assert row is not None
        found = re.search(rb'"status":"([a-z-]+)"', row.tail)
        assert found is not None
        return found[1].decode()


def code(answer: hl7v2.Message) -> str:
    """MSA-1."""
    msa = answer.first("MSA")
    assert msa is not None
    return msa.get(1)


def errors(answer: hl7v2.Message) -> list[tuple[str, str, str, str]]:
    """ERR as of 2.5: place, code, severity, what the user is told."""
    return [(err.raw_field(2), err.get(3), err.get(4), err.get(8)) for err in answer.all("ERR")]


@pytest.fixture
def site(settings: Settings, store: Store) -> Iterator[Site]:
    """The shipped hospitals, without their restriction to this machine's addresses."""
    settings = replace(settings, mllp="127.0.0.1:0")
    adapters = load_all([SHIPPED_ADAPTERS])
    pipeline = Pipeline(settings, store, adapters)
    listener = Listener(settings, pipeline)
    listener.start()
    try:
        with hl7.client.MLLPClient("127.0.0.1", listener.address[1]) as engine:
            yield Site(pipeline, Recognition(settings, store, adapters), store, engine)
    finally:
        listener.drain(5)


@pytest.fixture
def covered(site: Site) -> Site:
    """Yesterday each hospital reported the person's liver panel."""
    site.accepted(shown("xihu", "02-liver-final.hl7", XIHU_PID))
    site.accepted(shown("renmin", "02-liver-final.hl7", RENMIN_PID))
    return site


# ---------------------------------------------------------------- the reminder

def test_the_reminder_comes_back_as_the_response_message(covered: Site) -> None:
    """ORR^O02 in the sender's version and bytes: MSA, and per order ORC, OBR and NTE with hospital, item and day."""
    answer = covered.accepted(renmin(*order("O1", "9002^肝功能"), *order("O2", "7005^腹部彩超")))
    assert answer.header.message_type == ("ORR", "O02", "ORR_O02")
    assert [s.name for s in answer.segments] == ["MSH", "MSA", "ORC", "OBR", "NTE", "NTE", "ORC", "OBR"]
    assert [s.raw for s in answer.all("ORC")] == ["ORC|OK|O1|", "ORC|OK|O2|"]
    text = answer.all("NTE")[0].get(3)
    day = f"{YESTERDAY[:4]}-{YESTERDAY[4:6]}-{YESTERDAY[6:]}"
    assert "西湖医院" in text and day in text and "互认" in text
    assert answer.all("NTE")[1].get(3) == f"line {line_id('hz-demo-1', 'O1')}"
    assert all("李" not in s.raw for s in answer.segments)
    assert covered.store.lines([line_id("hz-demo-1", "O1")])[line_id("hz-demo-1", "O1")].state == "reminded"


def test_the_reminder_comes_back_in_the_acknowledgement(covered: Site) -> None:
    """ACK with ERR: ERR-2 the order's code, ERR-3 0, ERR-4 W, ERR-5 the verdict, ERR-8 what the doctor is told."""
    answer = covered.accepted(xihu(*order("X1", "CBC5^血细胞分析"), *order("X2", "LFT^肝功能")))
    assert answer.header.message_type == ("ACK", "O21", "ACK")
    [err] = answer.all("ERR")
    assert (err.raw_field(2), err.get(3), err.get(4), err.get(5)) == ("OBR^2^4", "0", "W", "RECOGNISABLE")
    assert "人民医院" in err.get(8) and "李" not in err.raw
    assert err.get(7) == f"line {line_id('hz-demo-2', 'X2')}"


def test_a_resend_is_answered_with_the_same_reminder_and_recorded_once(covered: Site) -> None:
    """From the stored lines, also after the doctor has decided, and without a second event."""
    raw = renmin(*order("O1", "9002^肝功能"))
    first = covered.accepted(raw)
    events = len(covered.store.events())
    covered.act("view", "O1")
    again = covered.accepted(raw)
    assert [s.raw for s in again.segments[2:]] == [s.raw for s in first.segments[2:]]
    assert len(covered.store.events()) == events + 1  # the view


def test_nothing_covers_it(site: Site) -> None:
    """AA without a reminder for a person whom nobody else knows; the line is recorded."""
    answer = site.accepted(renmin(*order("O1", "9002^肝功能"), pid=STRANGER))
    assert [s.name for s in answer.segments] == ["MSH", "MSA", "ORC", "OBR"]
    assert site.store.lines([line_id("hz-demo-1", "O1")])[line_id("hz-demo-1", "O1")].state == "ordered"
    assert [s.name for s in site.accepted(xihu(*order("X1", "LFT"))).segments] == ["MSH", "MSA"]


def test_an_unmapped_order_is_accepted_and_says_so(covered: Site) -> None:
    """AA with 103 W at the code: stored, and compared with nothing."""
    answer = covered.accepted(xihu(*order("X1", "NEW-1^新项目")))
    [(place, error, severity, said)] = errors(answer)
    assert (place, error, severity) == ("OBR^1^4", "103", "W") and "no earlier result is found" in said
    [row] = covered.store.unmapped("hz-demo-2")
    assert (row.kind, row.local, row.count, row.where) == ("order", "NEW-1", 1, "OBR-4")
    both = covered.accepted(xihu(*order("X3", "NEW-2^新项目"), *order("X4", "LFT^肝功能"), control_id="X9"))
    assert [(row[0], row[2]) for row in errors(both)] == [("OBR^1^4", "W"), ("OBR^2^4", "W")]


def test_a_hospital_without_a_reminder_gets_the_plain_ack(covered: Site) -> None:
    """Manifest ``reminder`` "none" (the default): the line is recorded for the plug-in all the same."""
    covered.pipeline.adapters.for_hl7("DEMO2", "").__dict__["reminder"] = "none"
    assert [s.name for s in covered.accepted(xihu(*order("X1", "LFT^肝功能"))).segments] == ["MSH", "MSA"]
    assert covered.store.lines([line_id("hz-demo-2", "X1")])[line_id("hz-demo-2", "X1")].state == "reminded"


def test_a_cancelled_order_is_not_matched(covered: Site) -> None:
    """ORC-1 CA: revoked and answered CR, its reminder withdrawn; and by ORC alone where the order is known."""
    covered.accepted(renmin(*order("O1", "9002^肝功能")))
    answer = covered.accepted(renmin(*order("O1", "9002^肝功能", "CA"), control_id="T2"))
    assert [s.name for s in answer.segments] == ["MSH", "MSA", "ORC", "OBR"]
    assert answer.all("ORC")[0].get(1) == "CR"
    caller = Caller("plug-in", "hz-demo-1", ("institution/*.cruds",))
    assert covered.recognition.reminders(caller, "hz-demo-1") == []  # withdrawn: it waits for nobody
    again = covered.accepted(renmin(*order("O1", "9002^肝功能"), control_id="T6"))
    assert "互认" in again.all("NTE")[0].get(3)
    assert [one.line for one in covered.recognition.reminders(caller, "hz-demo-1")] == [line_id("hz-demo-1", "O1")]
    assert not covered.store.verify_events().problems
    covered.accepted(renmin(*order("O2", "7005^腹部彩超"), control_id="T3"))
    source = covered.pipeline.adapters.for_hl7("DEMO1", "").source
    request = source.id_for("ServiceRequest", f"{source.system('placer')}|O2")
    assert covered.status(request) == "active"
    covered.accepted(renmin("ORC|CA|O2", control_id="T4"))
    assert covered.status(request) == "revoked"
    unknown = covered.send(renmin("ORC|CA|O404", control_id="T5"))
    assert code(unknown) == "AE" and unknown.all("ERR")[0].get(1, 4, 1) == "204"


def test_a_change_keeps_when_the_order_was_made(covered: Site) -> None:
    """XO does not say it; what NW said stays."""
    covered.accepted(renmin(*order("O1", "9002^肝功能")))
    covered.accepted(renmin("ORC|XO|O1", "OBR|1|O1||9002^肝功能^L|S", control_id="T2"))
    source = covered.pipeline.adapters.for_hl7("DEMO1", "").source
    request = source.id_for("ServiceRequest", f"{source.system('placer')}|O1")
    row = covered.store.read("ServiceRequest", request, GATEWAY)
    assert row is not None and b'"authoredOn"' in row.tail and b'"priority":"stat"' in row.tail


def test_results_open_no_recognition(covered: Site) -> None:
    """Two ORU were stored, and the part that orders need was never made: results pay nothing for it."""
    assert "_recognition" not in vars(covered.pipeline.ordering)
    covered.accepted(xihu(*order("X1", "LFT^肝功能")))
    assert "_recognition" in vars(covered.pipeline.ordering)


def test_the_sentence_is_english_where_the_sender_says_so(covered: Site) -> None:
    """MSH-19 en, or a patient and a character set without Chinese."""
    english = xihu(*order("X1", "LFT")).replace(b"UNICODE UTF-8", b"UNICODE UTF-8|en")
    [(_, _, _, said)] = errors(covered.accepted(english))
    assert "Demo First People's Hospital" in said and said.isascii()
    ascii_only = re.sub(rb"PID[^\r]*", b"PID|1||XH900^^^XHH^MR~33010119650730902X^^^MPS^NNCHN||Li^Xiuying||19650730|F",
                        xihu("ORC|NW|X2", "OBR|1|X2||LFT", control_id="X2")).replace(b"UNICODE UTF-8", b"ASCII")
    [(_, _, _, said)] = errors(covered.accepted(ascii_only))
    assert said.isascii() and "recognised" in said


def test_a_fault_of_the_matching_loses_no_order(covered: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stored and AA; counted, kept with the receipt; the resend is matched."""
    def broken(self: Any, signature: Any) -> Any:
        raise RuntimeError("李秀英")

    raw = xihu(*order("X1", "LFT^肝功能"))
    with monkeypatch.context() as patched:
        patched.setattr(Recognition, "check", broken)
        assert [s.name for s in covered.accepted(raw).segments] == ["MSH", "MSA"]
    assert covered.pipeline.ordering.failures["hz-demo-2"] == 1
    [row] = covered.store.inbox(limit=1)
    assert row.status == "stored" and row.receipt is not None and row.receipt.detail == "unmatched"
    assert len(covered.accepted(raw).all("ERR")) == 1


def test_a_crash_between_store_and_match_is_made_good_at_the_next_start(covered: Site,
                                                                        monkeypatch: pytest.MonkeyPatch) -> None:
    """An order is settled when it was matched: what a crash left is matched by ``recover``."""
    with monkeypatch.context() as patched:
        patched.setattr(covered.pipeline.ordering, "match", _killed)
        with pytest.raises(SystemExit):
            covered.pipeline.receive_hl7(xihu(*order("X1", "LFT^肝功能")), "127.0.0.1")
    assert covered.store.lines([line_id("hz-demo-2", "X1")]) == {}
    assert covered.store.inbox(limit=1)[0].status == "received"
    covered.pipeline.replay(covered.store.inbox(limit=1)[0].id)
    assert covered.store.lines([line_id("hz-demo-2", "X1")])[line_id("hz-demo-2", "X1")].state == "reminded"


def _killed(*_: Any) -> Any:
    raise SystemExit


# ---------------------------------------------------------------- bill and decision

def test_a_recognised_order_is_not_billed_until_the_decision_is_revoked(covered: Site) -> None:
    """DFT^P03: AE 205 with the decision's id at the FT1; after revoke AA; the event says billed."""
    covered.accepted(renmin(*order("O1", "9002^肝功能")))
    covered.act("view", "O1")
    decision = covered.act("recognise", "O1")
    raw = renmin(*charge("O1", "9002"), kind="DFT^P03", control_id="B1")
    refused = covered.send(raw)
    assert code(refused) == "AE" and refused.all("ERR")[0].get(1, 1) == "FT1"
    assert refused.all("ERR")[0].get(1, 4, 1) == "205"
    assert covered.store.inbox(limit=1)[0].receipt.message.count(decision) == 1  # type: ignore[union-attr]
    covered.act("revoke", "O1")
    covered.accepted(raw)
    assert [e.kind for e in covered.store.events(line_id("hz-demo-1", "O1"))] == [
        "reminded", "viewed", "recognised", "billing_blocked", "revoked", "billed"]
    covered.accepted(renmin(*charge("O1", "9002", "CR"), kind="DFT^P03", control_id="B2"))
    assert covered.store.events(line_id("hz-demo-1", "O1"))[-1].kind == "bill_cancelled"


def test_one_recognised_line_refuses_the_whole_bill(covered: Site) -> None:
    """Checked all before any is billed: ERR-2 names the second FT1, and the first is not billed."""
    covered.accepted(xihu(*order("X1", "CBC5^血细胞分析"), *order("X2", "LFT^肝功能")))
    covered.act("view", "X2", "hz-demo-2")
    decision = covered.act("recognise", "X2", "hz-demo-2")
    bill = [*charge("X1", "CBC5"), *charge("X2", "LFT", at=2)]
    refused = covered.send(xihu(*bill, kind="DFT^P03^DFT_P03", control_id="B1"))
    [(place, error, severity, said)] = errors(refused)
    assert (code(refused), place, error, severity) == ("AE", "FT1^2", "205", "E") and decision in said
    assert [e.kind for e in covered.store.events(line_id("hz-demo-2", "X1"))] == ["ordered"]
    covered.accepted(xihu(*charge("X1", "CBC5"), kind="DFT^P03^DFT_P03", control_id="B2"))


def test_a_charge_by_the_fillers_number_finds_its_order(covered: Site) -> None:
    """FT1-23 alone: the order that has this filler number is meant, and a recognised one is not billed."""
    covered.accepted(xihu("ORC|NW|X1|F77", "OBR|1|X1|F77|LFT^肝功能"))
    covered.act("view", "X1", "hz-demo-2")
    covered.act("recognise", "X1", "hz-demo-2")
    ft1 = segment("FT1", {1: "1", 2: "T1", 4: NOW, 6: "CG", 7: "P1", 23: "F77"})
    assert code(covered.send(xihu(ft1, kind="DFT^P03^DFT_P03", control_id="B1"))) == "AE"


@pytest.mark.parametrize("control", ["NW", "XO", "SC", "RL", "HD"])
def test_a_recognised_order_is_not_made_active_again(covered: Site, control: str) -> None:
    """AE 205 with the decision's id at ORC-1; cancelling it is fine."""
    covered.accepted(xihu(*order("X1", "LFT^肝功能")))
    covered.act("view", "X1", "hz-demo-2")
    decision = covered.act("recognise", "X1", "hz-demo-2")
    refused = covered.send(xihu(*order("X1", "LFT^肝功能", control), control_id="X2"))
    [(place, error, severity, said)] = errors(refused)
    assert (code(refused), place, error, severity) == ("AE", "ORC^1^1", "205", "E") and decision in said
    covered.accepted(xihu(*order("X1", "LFT^肝功能", "CA"), control_id="X3"))


def test_a_decision_revokes_the_order_that_the_message_made(covered: Site) -> None:
    """Its ServiceRequest, also under a number with an authority; revoking gives it back, unless it was cancelled."""
    source = covered.pipeline.adapters.for_hl7("DEMO2", "").source
    for number, cancel, after in (("X1^HIS", False, "active"), ("X2", True, "revoked")):
        value, _, authority = number.partition("^")
        system = source.system("placer") + (f":{authority}" if authority else "")
        request = source.id_for("ServiceRequest", f"{system}|{value}")
        covered.accepted(xihu(*order(number, "LFT^肝功能"), control_id=f"N-{value}"))
        assert covered.status(request) == "active"
        covered.act("view", value, "hz-demo-2")
        covered.act("recognise", value, "hz-demo-2")
        assert covered.status(request) == "revoked"
        if cancel:
            covered.accepted(xihu(*order(number, "LFT^肝功能", "CA"), control_id=f"C-{value}"))
        covered.act("revoke", value, "hz-demo-2")
        assert covered.status(request) == after
    assert not covered.store.verify_events().problems


def test_a_decision_in_the_middle_of_a_message_wins(covered: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Recognised between the question and the commit: AA, and the order is revoked all the same."""
    covered.accepted(xihu(*order("X1", "LFT^肝功能")))
    covered.act("view", "X1", "hz-demo-2")
    puts = covered.pipeline._puts

    def meanwhile(*arguments: Any) -> Any:
        covered.act("recognise", "X1", "hz-demo-2")
        return puts(*arguments)

    monkeypatch.setattr(covered.pipeline, "_puts", meanwhile)
    covered.accepted(xihu(*order("X1", "LFT^肝功能", "XO"), control_id="X2"))
    source = covered.pipeline.adapters.for_hl7("DEMO2", "").source
    assert covered.status(source.id_for("ServiceRequest", f"{source.system('placer')}|X1")) == "revoked"


def test_a_sender_that_no_manifest_names_may_order_too(covered: Site) -> None:
    """With a default adapter: matched by the codes of the standard; its institution is made of MSH-4."""
    adapters = load_all([SHIPPED_ADAPTERS], "generic")
    settings = replace(covered.pipeline.ordering._settings, default_adapter="generic")
    pipeline = Pipeline(settings, covered.store, adapters)
    raw = xihu("ORC|NW|Z1", "OBR|1|Z1||24325-3^Hepatic function panel^LN").replace(b"DEMO2", b"CLINIC")
    receipt = pipeline.receive_hl7(raw, "10.0.0.1")
    assert receipt.category is None and receipt.detail != "unmatched"
    assert len(covered.store.lines([line_id("generic-clinic", "Z1")])) == 1


def test_other_message_types_are_told_what_is_taken(site: Site) -> None:
    """AR 200 names orders and charges among the types."""
    refused = site.send(xihu("EVN|P01", kind="BAR^P01"))
    assert code(refused) == "AR"
    [(_, error, _, said)] = errors(refused)
    assert error == "200"
    assert all(kind in said for kind in ("ORU", "ORM^O01", "OML^O21", "OMI^O23", "OMG^O19", "DFT^P03"))


def test_an_older_order_never_overwrites_a_newer_one(covered: Site) -> None:
    """NW sent before CA and arriving after it is a CONFLICT at MSH-7; the order stays revoked."""
    late = xihu(*order("X1", "LFT^肝功能"), control_id="L1").replace(NOW.encode() + b"+0800", b"20200101000000+0800", 1)
    covered.accepted(xihu(*order("X1", "LFT^肝功能", "CA")))
    refused = covered.send(late)
    assert code(refused) == "AE" and errors(refused)[0][:2] == ("MSH^1^7", "205")


def test_a_refused_bill_raises_and_takes_back_what_it_billed(covered: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A doctor who recognises between question and bill: the lines of the message that were billed are cancelled."""
    covered.accepted(xihu(*order("X1", "CBC5^血细胞分析"), *order("X2", "LFT^肝功能")))
    covered.act("view", "X2", "hz-demo-2")
    ordering = covered.pipeline.ordering
    asked = ordering._ask

    def meanwhile(one: Any, request: Any, sender: Any) -> str:
        if request.action == "bill" and request.number == "X2":
            covered.act("recognise", "X2", "hz-demo-2")
        return asked(one, request, sender)

    monkeypatch.setattr(ordering, "_ask", meanwhile)
    bill = xihu(*charge("X1", "CBC5"), *charge("X2", "LFT", at=2), kind="DFT^P03^DFT_P03", control_id="B1")
    assert code(covered.send(bill)) == "AE"
    assert [e.kind for e in covered.store.events(line_id("hz-demo-2", "X1"))] == ["ordered", "billed", "bill_cancelled"]


def test_a_message_that_is_not_stored_leaves_no_bill(covered: Site) -> None:
    """An order with its charge that comes after a newer version of it is a CONFLICT: nothing is billed either."""
    covered.accepted(xihu(*order("X1", "LFT^肝功能", "XO"), control_id="N1"))
    late = xihu(*order("X1", "LFT^肝功能", "NW"), charge("X1", "LFT")[0], control_id="L2")
    refused = covered.send(late.replace(NOW.encode() + b"+0800", b"20200101000000+0800", 1))
    assert code(refused) == "AE" and errors(refused)[0][1] == "205"
    line = covered.store.lines([line_id("hz-demo-2", "X1")])[line_id("hz-demo-2", "X1")]
    assert line.body["billed"] is False


def test_orders_build_on_what_hl7apy_reads(covered: Site) -> None:
    """An independent parser validates the response messages against the standard."""
    from hl7apy.parser import parse_message

    hospital = covered.pipeline.adapters.for_hl7("DEMO2", "")
    hospital.__dict__["reminder"] = "response"
    for kind, response in (("ORM^O01^ORM_O01", "ORR_O02"), ("OML^O21^OML_O21", "ORL_O22"),
                           ("OMI^O23^OMI_O23", "ORI_O24"), ("OMG^O19^OMG_O19", "ORG_O20")):
        more = [segment("IPC", {1: "A1", 2: "RP1", 3: "1.2.3", 4: "SPS1", 5: "CT"})] if kind.startswith("OMI") else []
        raw = xihu(*order(f"X-{kind[:3]}", "LFT^肝功能"), *more, kind=kind)
        answer = covered.engine.send(b"\x0b" + raw + b"\x1c\r")
        text = answer.strip(b"\x0b\x1c\r").decode()
        message = parse_message(text, find_groups=True)
        assert message.name == response
        if response != "ORR_O02":  # of whose choice (OBR, RQD, RXO …) hl7apy wants every member
            assert message.validate()
        assert "互认" in text


def test_orders_by_specimen_are_answered_by_an_acknowledgement(covered: Site) -> None:
    """OML^O33 is taken; its response would have to repeat the specimens, so an ACK tells it by ERR."""
    hospital = covered.pipeline.adapters.for_hl7("DEMO2", "")
    hospital.__dict__["reminder"] = "response"
    answer = covered.send(xihu(segment("SPM", {1: "1", 2: "S1", 4: "SER"}), *order("X-O33", "LFT^肝功能"),
                               kind="OML^O33^OML_O33"))
    assert code(answer) == "AA" and answer.header.message_type[:2] == ("ACK", "O33")
    assert errors(answer)


def test_an_unknown_hospital_is_refused(site: Site) -> None:
    """No manifest names it: AR, and nothing is opened for recognition."""
    refused = site.send(xihu(*order("X1", "LFT")).replace(b"DEMO2", b"DEMO9"))
    assert code(refused) == "AR"
    with pytest.raises(GatewayError) as error:
        site.act("view", "X1", "hz-demo-2")
    assert error.value.category is Category.NOT_FOUND
