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


VERSIONS = ("2.1", "2.2", "2.3", "2.3.1", "2.4", "2.5", "2.5.1", "2.6", "2.7", "2.7.1", "2.8", "2.8.1", "2.8.2")


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(("code", "error", "expected"), [
    ("AA", None, None), ("AA", None, 17), ("AE", MISSING, None), ("CE", MISSING, -1), ("CR", MISSING, 2)])
def test_every_version_reads_its_answer(version: str, code: str, error: AckError | None, expected: int | None) -> None:
    """hl7apy validates every segment against the sender's version; as of 2.3.1 the whole message too."""
    from hl7apy import SUPPORTED_LIBRARIES
    from hl7apy.consts import VALIDATION_LEVEL
    from hl7apy.parser import parse_message, parse_segment

    sent = f"MSH|^~\\&|LIS|H|GW|R|20240101||ORU^R01|M1|P|{version}"
    raw = hl7v2.ack(hl7v2.peek(sent.encode()), code, error=error, expected=expected, now=NOW, control_id="G1").decode()
    if version not in SUPPORTED_LIBRARIES:
        pytest.skip(f"hl7apy does not know {version}")
    segments = {line[:3]: parse_segment(line, version, validation_level=VALIDATION_LEVEL.STRICT)
                for line in raw.strip("\r").split("\r")
                if not (line.startswith("ERR") and version == "2.1")}  # whose components hl7apy does not know
    assert segments["MSA"].msa_1.value == code and segments["MSA"].msa_2.value == "M1"
    assert segments["MSA"].msa_4.value == ("" if expected is None else str(expected))
    assert [line[:3] for line in raw.split("\r")] == ["MSH", "MSA", *(["ERR"] if error else []), ""]
    if version not in ("2.1", "2.2", "2.3"):  # before, hl7apy looks for a structure of the event, which ACK has not
        assert parse_message(raw, validation_level=VALIDATION_LEVEL.STRICT).validate()


@pytest.mark.parametrize("delimiters", ["|^~\\&", "#*~!%", "$@+?/", "|^~\\&#", "\u00a7^~\\&", ";:/,!", "|^~", "|^",
                                        "|"])
@pytest.mark.parametrize("version", ["2.2", "2.4", "2.5.1", "2.8"])
def test_whatever_the_delimiters_the_answer_reads_back(delimiters: str, version: str) -> None:
    """Text that holds every delimiter comes out as it went in, in the delimiters that the sender declared, its own
    fields byte by byte; also where it declares few."""
    f = delimiters[0]
    c = delimiters[1:2] or "^"
    text = "say # * ~ ! % | ^ \\ & $ @ + ? / ; : . ,"
    msh = f"MSH{delimiters}{f}LIS{f}H{c}1.2{c}ISO{f}GW{f}R{f}2024{f}{f}ORU{c}R01{f}N-1{f}P{f}{version}"
    error = AckError("101", "Required field missing", where="OBX[7]-5", message=text)
    answer = _ack(msh, "AE", error=error, expected=3)
    assert answer.separators.field == f and answer.first("MSA").get(2) == "N-1"  # type: ignore[union-attr]
    assert answer.first("MSH").raw_field(6) == f"H{c}1.2{c}ISO"  # type: ignore[union-attr]
    err, msa = answer.first("ERR"), answer.first("MSA")
    assert err is not None and msa is not None and msa.get(4) == "3"
    whole = len(delimiters) in (0, 1, 5, 6)  # an escape character is declared, or the recommended ones are meant
    if version in ("2.5.1", "2.8"):
        assert (err.get(2, 1), err.get(2, 2), err.get(2, 3), err.get(3, 1)) == ("OBX", "7", "5", "101")
        assert err.get(8) == text or not whole
    else:
        assert (err.get(1, 1), err.get(1, 2), err.get(1, 3)) == ("OBX", "7", "5")
        assert msa.get(3) == text or not whole


@pytest.mark.parametrize(("codec", "declared"), [("utf-8", "UNICODE UTF-8"), ("gb18030", "GB 18030-2000"),
                                                 ("gbk", ""), ("iso8859-1", "8859/1"), ("euc_jp", "")])
def test_the_answer_is_in_the_senders_character_set(codec: str, declared: str) -> None:
    """MSH-18 goes back, and the sender's own names in the bytes that it wrote."""
    name = "Hôpital" if codec == "iso8859-1" else "中心病院"
    msh = f"MSH|^~\\&|LIS|{name}|GW|R|2024||ORU^R01|M1|P|2.5.1||||||{declared}".encode(codec)
    raw = hl7v2.ack(hl7v2.peek(msh), "AR", error=MISSING, now=NOW, control_id="1")
    assert raw.split(b"|")[5] == name.encode(codec)
    assert raw.split(b"\r")[0].endswith(b"||||||" + declared.encode()) == bool(declared)
