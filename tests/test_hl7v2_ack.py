"""The general acknowledgement."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from gateway import hl7v2
from gateway.hl7v2 import AckError

NOW = datetime(2024, 1, 2, 3, 4, 5, tzinfo=timezone(timedelta(hours=8)))
MISSING = AckError("101", "Required field missing", where="OBR-4", message="OBR-4 is missing; send it")


def _ack(msh: str, code: str = "AA", codec: str = "utf-8", **more: object) -> hl7v2.Message:
    raw = hl7v2.ack(hl7v2.peek(msh.encode(codec)), code, now=NOW, control_id="G1", **more)  # type: ignore[arg-type]
    assert raw.endswith(b"\r") and b"\n" not in raw
    return hl7v2.parse(raw, "gb18030" if codec == "gbk" else None)


def _text(message: hl7v2.Message, name: str) -> str:
    segment = message.first(name)
    return segment.raw if segment else ""


def test_an_accepted_message_gets_its_own_id_back() -> None:
    """Sender and receiver change places, version, processing id and charset stay, MSA-2 is MSH-10."""
    answer = _ack("MSH|^~\\&|LIS|H^1.2^ISO|GW|R|2024||ORU^R01^ORU_R01|M1|P|2.5.1||||||UNICODE UTF-8")
    assert _text(answer, "MSH") == ("MSH|^~\\&|GW|R|LIS|H^1.2^ISO|20240102030405+0800||ACK^R01^ACK|G1|P|2.5.1"
                                    "||||||UNICODE UTF-8")
    assert _text(answer, "MSA") == "MSA|AA|M1"
    assert answer.first("ERR") is None


@pytest.mark.parametrize("version, kind", [("2.1", "ACK^R01"), ("2.3", "ACK^R01"), ("2.3.1", "ACK^R01^ACK"),
                                           ("2.4", "ACK^R01^ACK"), ("2.8", "ACK^R01^ACK"), ("", "ACK^R01^ACK")])
def test_the_structure_is_named_as_of_2_3_1(version: str, kind: str) -> None:
    """MSH-9.3 did not exist before."""
    answer = _ack(f"MSH|^~\\&|A|B|C|D|2024||ORU^R01|1|P|{version}")
    assert answer.first("MSH").raw_field(9) == kind  # type: ignore[union-attr]


@pytest.mark.parametrize("version", ["2.5", "2.5.1", "2.6", "2.8.2"])
def test_err_as_of_2_5(version: str) -> None:
    """ERR-2 tells the place, ERR-3 the code of table 0357, ERR-4 the severity, ERR-8 the sentence."""
    answer = _ack(f"MSH|^~\\&|A|B|C|D|2024||ORU^R01|1|P|{version}", "AE", error=MISSING)
    assert _text(answer, "ERR") == ("ERR||OBR^1^4|101^Required field missing^HL70357|E||||OBR-4 is missing; send it")


@pytest.mark.parametrize("version", ["2.1", "2.2", "2.3", "2.3.1", "2.4"])
def test_err_before_2_5(version: str) -> None:
    """ERR-1 holds place and code, MSA-3 the sentence."""
    answer = _ack(f"MSH|^~\\&|A|B|C|D|2024||ORU^R01|1|P|{version}", "AE", error=MISSING)
    assert _text(answer, "ERR") == "ERR|OBR^1^4^101&Required field missing&HL70357"
    assert _text(answer, "MSA") == "MSA|AE|1|OBR-4 is missing; send it"


@pytest.mark.parametrize("where, place", [("OBX[7]-5.2", "OBX^7^5^1^2"), ("PID", "PID^1"),
                                          ("PID-3.4.2", "PID^1^3^1^4^2"), ("", ""), ("DiagnosticReport.code", "")])
def test_places_as_erl(where: str, place: str) -> None:
    """A path of the sender's becomes an ERL; any other place is left out."""
    answer = _ack("MSH|^~\\&|A|B|C|D|2024||ORU^R01|1|P|2.6", "AE", error=AckError("102", "Data error", where=where))
    assert answer.first("ERR").raw_field(2) == place  # type: ignore[union-attr]


def test_a_remark_is_a_warning() -> None:
    """AA with ERR-4 W: stored, and something to be said."""
    answer = _ack("MSH|^~\\&|A|B|C|D|2024||ORU^R01|1|P|2.5.1", "AA",
                  error=AckError("103", "Table value not found", "W", "OBX-3"))
    assert answer.first("ERR").get(4) == "W"  # type: ignore[union-attr]


def test_the_senders_delimiters_are_used_and_our_text_is_escaped() -> None:
    """Nothing that we say can break the sender's reading."""
    answer = _ack("MSH#*!%$#A#B#C#D#2024##ORU*R01#1#P#2.4", "AE", text="a#b*c!d%e")
    msa = answer.first("MSA")
    assert msa is not None and msa.get(3) == "a#b*c!d%e"
    assert answer.separators.field == "#"


def test_the_answer_is_in_the_senders_bytes() -> None:
    """A GBK facility name goes back byte by byte, even where no charset is declared."""
    msh = "MSH|^~\\&|LIS|亅医院|C|D|2024||ORU^R01|号1|P|2.4"
    raw = hl7v2.ack(hl7v2.peek(msh.encode("gbk")), "AR", now=NOW, control_id="1")
    assert "亅医院".encode("gbk") in raw and "号1".encode("gbk") in raw


def test_an_empty_header_is_still_answered() -> None:
    """Where only the delimiters can be read, the answer is complete all the same."""
    answer = _ack("MSH|^~\\&", "AR", error=AckError("100", "Segment sequence error"))
    assert answer.header.message_type == ("ACK", "", "") and answer.header.version_id == "2.5"


def test_hl7apy_reads_the_answer() -> None:
    """An independent parser validates it against the standard."""
    from hl7apy.parser import parse_message

    for version in ("2.4", "2.5.1", "2.6"):
        raw = hl7v2.ack(hl7v2.peek(f"MSH|^~\\&|A|B|C|D|20240101||ORU^R01^ORU_R01|1|P|{version}".encode()), "AE",
                        error=MISSING, now=NOW, control_id="G1").decode()
        message = parse_message(raw)
        assert message.msa.msa_1.value == "AE" and message.msa.msa_2.value == "1"
