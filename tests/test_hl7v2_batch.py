"""Files and batches (HL7 v2.5.1 2.10.3): messages out of an envelope, counts that agree, the batch that answers one."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway import hl7v2

NOW = datetime(2024, 1, 2, 3, 4, 5, tzinfo=timezone(timedelta(hours=8)))
PIECES = st.lists(st.one_of(st.binary(max_size=30), st.sampled_from([
    b"\rMSH|^~\\&|A|B|C|D|2024||ORU^R01|1|P|2.5\rPID|1", b"MSH|^~\\&", b"\rFHS|^~\\&|A|B|C|D|2024||f||F1",
    b"\rBHS|^~\\&|A|B|C|D|2024||||B1", b"\rBTS|1", b"\rBTS|", b"\rFTS|1|x", b"\rFTS", b"\nBHS#*~!%#", b"\r\n", b"\x0b",
    b"\x1c\r", b"\xff\xfe", b"\xef\xbb\xbf"])), max_size=10).map(b"".join)


@given(PIECES)
@example(b"FTS\x1c")
def test_any_bytes_are_unpacked(raw: bytes) -> None:
    """Nothing raises; the messages are those of ``split``, each in one batch; and whatever came can be answered."""
    messages, envelope = hl7v2.unpack(raw)
    assert messages == hl7v2.split(raw) and all(messages)
    if envelope is not None:
        assert sum(batch.messages for batch in envelope.batches) == len(messages)
        assert envelope.is_empty == (not messages)
        assert hl7v2.batch_ack(envelope, [[b"MSH|^~\\&|X\r"]] * len(messages), now=NOW, control_id="G1").endswith(b"\r")


@given(st.lists(st.integers(0, 4), min_size=1, max_size=4), st.booleans(), st.sampled_from(["|^~\\&", "#*~!%"]))
def test_the_answer_has_the_shape_of_what_it_answers(counts: list[int], has_file: bool, delimiters: str) -> None:
    """As many batches with as many answers, counted rightly, sender and receiver exchanged, in its delimiters."""
    f = delimiters[0]

    def head(name: str, number: str) -> str:
        return f.join([f"{name}{delimiters}", "LIS", "H1", "GW", "HRP", "20240101", "", "", "", number]) + "\r"

    message = f"MSH{delimiters}{f}LIS{f}H1{f}GW{f}HRP{f}20240101{f}{f}ORU{delimiters[1]}R01{f}1{f}P{f}2.5\r"
    raw = "".join(head("BHS", f"B{n}") + message * count + f"BTS{f}{count}\r" for n, count in enumerate(counts))
    if has_file:
        raw = head("FHS", "F1") + raw + f"FTS{f}{len(counts)}\r"
    messages, envelope = hl7v2.unpack(raw.encode())
    assert envelope is not None and envelope.faults() == [] and len(messages) == sum(counts)
    answers = [[hl7v2.ack(hl7v2.peek(m), "AA", now=NOW, control_id="A")] for m in messages]
    said, back = hl7v2.unpack(hl7v2.batch_ack(envelope, answers, now=NOW, control_id="G1"))
    assert back is not None and back.faults() == [] and [b.messages for b in back.batches] == counts
    assert [m + b"\r" for m in said] == [a for some in answers for a in some]
    assert (back.header is not None) == has_file
    for n, batch in enumerate(back.batches):
        assert batch.header is not None and batch.header.separators.field == f
        assert [batch.header.field(k) for k in (3, 4, 5, 6, 12)] == ["GW", "HRP", "LIS", "H1", f"B{n}"]


@pytest.mark.parametrize(("raw", "faults"), [
    ("BHS|^~\\&\rMSH|^~\\&|A\rBTS|1\r", []), ("BHS|^~\\&\rMSH|^~\\&|A\r", []), ("BHS|^~\\&\rMSH|^~\\&|A\rBTS|\r", []),
    ("BHS|^~\\&\rMSH|^~\\&|A\rBTS|x\r", []), ("BHS|^~\\&\rMSH|^~\\&|A\rBTS|0\r", ["BTS[1]-1"]),
    ("FHS|^~\\&\rBHS|^~\\&\rBTS|0\rBHS|^~\\&\rMSH|^~\\&|A\rBTS|2\rFTS|3\r", ["BTS[2]-1", "FTS-1"]),
    ("FHS|^~\\&\rMSH|^~\\&|A\rMSH|^~\\&|B\rFTS|1\r", []), ("FHS|^~\\&\rFTS|0\r", []), ("FTS|1\r", ["FTS-1"])])
def test_counts_that_do_not_agree_have_a_place(raw: str, faults: list[str]) -> None:
    """What is not told, or is no number, is no fault; messages of a file without BHS are one batch."""
    _, envelope = hl7v2.unpack(raw.encode())
    assert envelope is not None and [where for where, _ in envelope.faults()] == faults


def test_a_message_alone_has_no_envelope() -> None:
    """Nor have several that were run together."""
    one = b"MSH|^~\\&|A|B\rPID|1\r"
    assert hl7v2.unpack(one) == ([one.strip()], None)
    assert hl7v2.unpack(one + one) == ([one.strip()] * 2, None)


def test_the_names_of_a_file_go_back_in_their_bytes() -> None:
    """A GBK sender finds its own name, though no character set is declared in BHS."""
    name = "中心医院".encode("gbk")
    raw = b"BHS|^~\\&|LIS|" + name + b"|GW|HRP|2024||||B1\rMSH|^~\\&|A\rBTS|7\r"
    _, envelope = hl7v2.unpack(raw)
    assert envelope is not None
    assert b"|" + name + b"|" in hl7v2.batch_ack(envelope, [[]], now=NOW, control_id="G1")
