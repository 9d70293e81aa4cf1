"""peek, parse, split and the escape sequences."""

from __future__ import annotations

import time
from itertools import zip_longest
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway import hl7v2
from gateway.adapter import hospital_folders, load
from gateway.config import SHIPPED_ADAPTERS
from gateway.conformance import Example, examples
from gateway.errors import Category, GatewayError
from gateway.hl7v2 import Separators, escape, unescape
from gateway.hl7v2.separators import CONTROLS, has_controls
from tests.support_source import MSH, OBR, PID, text

ORU = text("OBX|1|NM|WBC^白细胞||5.1|10*9/L|3.5-9.5|N|||F")


def test_peek_reads_what_routing_and_answering_need() -> None:
    """Names, control id, type, version and charset of MSH come from the bytes alone."""
    header = hl7v2.peek(ORU.encode())
    assert (header.sending_application, header.sending_facility) == ("LIS", "H1")
    assert header.control_id == "M1"
    assert header.message_type == ("ORU", "R01", "ORU_R01")
    assert (header.version_id, header.processing_id, header.time) == ("2.5.1", "P", "20240102103000")
    assert header.character_set == "UNICODE UTF-8"


@pytest.mark.parametrize("raw", [b"", b"PID|1", b"MSH", b"MSHX|^~\\&", b"MSH\r", b"MSHA^~", b"MSH|^^~|x", b"MSH|ab|x",
                                 b"hello MSH|^~\\&|"])
def test_peek_refuses_only_without_a_usable_msh(raw: bytes) -> None:
    """No MSH or no usable separators is MALFORMED at MSH."""
    with pytest.raises(GatewayError) as refusal:
        hl7v2.peek(raw)
    assert refusal.value.category is Category.MALFORMED
    assert refusal.value.where.startswith("MSH")


@pytest.mark.parametrize("raw, control_id", [
    (b"MSH|^~\\&|||||||garbage|ID 7", "ID 7"), (b"\xef\xbb\xbfMSH|^~\\&|||||||ORU^R01|7\xff\xfe", "7ÿþ"),
    (b"\x0bMSH|^~\\&|||||||ORU^R01|8\x1c\r", "8"), (b"\r\n  msh|^~\\&|||||||ORU|9\nPID|", "9"),
    (b"MSH#*!%$#######ORU*R01#10", "10"), (b"MSH|^~\\&", "")])
def test_peek_finds_the_control_id_in_odd_headers(raw: bytes, control_id: str) -> None:
    """Whatever else is wrong, MSA-2 can be given back."""
    assert hl7v2.peek(raw).control_id == control_id


def test_peek_is_not_misled_by_gbk_bytes_that_equal_delimiters() -> None:
    """The second byte of 亅 in GBK is 0x7C, the field separator; MSH-10 is found all the same."""
    name = "亅医院"
    assert b"|" in name.encode("gbk")
    raw = f"MSH|^~\\&|LIS|{name}|||||ORU^R01|M7|P|2.4".encode("gbk")
    header = hl7v2.peek(raw)
    assert (header.sending_facility, header.control_id) == (name, "M7")


@pytest.mark.parametrize("ending", ["\r", "\n", "\r\n"])
@pytest.mark.parametrize("lead", ["", "\ufeff", "\r\n\r\n", "  \t", "\x0b"])
def test_parse_takes_any_line_end_and_lead(ending: str, lead: str) -> None:
    """CR, LF, CRLF, blank lines, a byte order mark and blanks before MSH change nothing."""
    raw = lead + ORU.replace("\r", ending) + ending
    message = hl7v2.parse(raw.encode())
    assert [s.name for s in message.segments] == ["MSH", "PID", "OBR", "OBX"]
    obx = message.first("OBX")
    assert obx is not None and obx.get(5) == "5.1" and obx.get(3, 2) == "白细胞"


def test_parse_reads_any_delimiters() -> None:
    """MSH-1 and MSH-2 decide, not the customary characters."""
    message = hl7v2.parse(b"MSH#*!%$#A#B\rPID#1##P1*x$y*z!P2##a|b^c\r")
    pid = message.first("PID")
    assert pid is not None
    assert [pid.get(3), pid.get(3, 2, 2), pid.get(3, repetition=2), pid.get(5)] == ["P1", "y", "P2", "a|b^c"]


def test_a_shortened_msh_2_leaves_delimiters_out_of_use() -> None:
    """``MSH|^~|`` declares no escape and no subcomponent: both characters are then text."""
    message = hl7v2.parse(b"MSH|^~|A\rOBX|1|ST|a&b||x\\F\\y\r")
    obx = message.first("OBX")
    assert obx is not None and (obx.get(3), obx.get(5)) == ("a&b", "x\\F\\y")


def test_an_over_escaped_msh_2_is_read_as_meant() -> None:
    r"""``^~\\&`` with a doubled backslash comes from a programming language; the subcomponent is ``&``."""
    assert hl7v2.peek(rb"MSH|^~\\&|A").separators == Separators()


def test_null_absent_and_empty_are_told_apart() -> None:
    """``\"\"`` is null, reads as nothing and never as two quotes."""
    message = hl7v2.parse(b'MSH|^~\\&\rPID|1||""||A^""\r')
    pid = message.first("PID")
    assert pid is not None
    assert pid.is_null(3) and not pid.is_null(4) and not pid.is_null(5)
    assert [pid.get(3), pid.get(4), pid.get(5, 2), pid.get(99)] == ["", "", "", ""]
    assert pid.repetitions(3) == []


def test_require_names_the_place_and_never_the_value() -> None:
    """A missing field is INVALID at ``OBR-4``; the sentence says which of several segments."""
    message = hl7v2.parse(b"MSH|^~\\&\rOBR|1||F|A\rOBR|2||F2\r")
    with pytest.raises(GatewayError) as refusal:
        message.all("OBR")[1].require(4)
    assert (refusal.value.category, refusal.value.where) == (Category.INVALID, "OBR-4")
    assert "OBR number 2" in refusal.value.message


def test_components_and_repetitions_keep_what_was_sent() -> None:
    """components() and Part give each level; raw access gives the bytes' text."""
    message = hl7v2.parse(b"MSH|^~\\&\rPID|1||1^2&3^4~5\r")
    pid = message.first("PID")
    assert pid is not None
    assert pid.components(3) == ["1", "2&3", "4"]
    assert pid.components(3, 2) == ["5"] and pid.components(3, 3) == [] and pid.components(4) == []
    assert [part.text for part in pid.repetitions(3)] == ["1^2&3^4", "5"]
    assert pid.repetitions(3)[0].part(2).get(2) == "3"
    assert pid.raw_field(3) == "1^2&3^4~5" and pid.raw == "PID|1||1^2&3^4~5"


def test_msh_counts_its_own_separator_as_field_1() -> None:
    """MSH-1 is the separator, MSH-2 the encoding characters, MSH-10 the control id."""
    msh = hl7v2.parse(ORU.encode()).first("MSH")
    assert msh is not None
    assert [msh.get(1), msh.get(2), msh.get(9, 2), msh.get(10)] == ["|", "^~\\&", "R01", "M1"]


def test_free_text_with_raw_line_ends_continues_its_field() -> None:
    """A line that is no segment belongs to the field before it."""
    message = hl7v2.parse(b"MSH|^~\\&\rOBX|1|TX|R||first\n second | no segment\nthird||||||F\rNTE\r")
    assert [s.name for s in message.segments] == ["MSH", "OBX", "NTE"]
    obx = message.first("OBX")
    assert obx is not None and obx.get(5).startswith("first\n second")


def test_lower_case_segment_names_are_read() -> None:
    """``pid|`` is PID."""
    assert hl7v2.parse(b"msh|^~\\&\rpid|1||7\r").first("PID") is not None


def test_two_messages_in_one_are_refused_by_parse() -> None:
    """split() comes first; parse() never drops a second message silently."""
    with pytest.raises(GatewayError) as refusal:
        hl7v2.parse((ORU + ORU).encode())
    assert refusal.value.category is Category.MALFORMED


@given(st.text(st.sampled_from("A\té白\r\n\x00\x0b\x1b\x1c\x7f\x81\ufffe\uffff名") | st.characters(codec="utf-8")),
       st.sampled_from(("utf-8", "gb18030", "big5hkscs", "cp932", "euc_jp", "euc_kr", "iso8859-1", "cp1252", "utf-16",
                        "iso2022_jp")))
def test_a_control_character_is_seen_in_the_bytes(characters: str, codec: str) -> None:
    """Bytes without control characters hold none in any character set, so that the text need not be searched."""
    raw = ("MSH|" + characters).encode(codec, "ignore")
    decoded = raw.decode(codec)
    assert has_controls(raw, decoded) or not CONTROLS.search(decoded)
    assert not has_controls("MSH|é白\r\n\t名".encode(), "MSH|é白\r\n\t名")


def test_control_characters_do_not_reach_the_resources() -> None:
    """NUL and the like are no characters of FHIR or XML: they are left out of the text."""
    obx = hl7v2.parse(b"MSH|^~\\&\rOBX|1|ST|a||x\x00y\x01\\X00\\z\r").first("OBX")
    assert obx is not None and obx.get(5) == "xyz"


@pytest.mark.parametrize("sent, read", [
    (r"a\F\b\S\c\T\d\R\e\E\f", "a|b^c&d~e\\f"), (r"\H\bold\N\ plain", "bold plain"), (r"1\.br\2\.sp2\3", "1\n2\n\n3"),
    (r"\X4142\C", "ABC"), (r"\Xe4bda0\\Xe5a5bd\!", "你好!"), (r"\XE4\\XBD\\XA0\ ", "你 "), (r"\P\ ", "# "),
    (r"\Zxx\ \Q\ C:\dir", r"\Zxx\ \Q\ C:\dir"), (r"\X4\ \Xff\ ", r"\X4\ \Xff\ "), (r"50\.in+4\x", "50x"),
    ("no escape", "no escape"), ("\\", "\\"), (r"\\", r"\\")])
def test_escape_sequences(sent: str, read: str) -> None:
    """Known ones are resolved, unknown and broken ones stay visible (v2.5.1 2.7)."""
    assert unescape(sent, Separators()) == read


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]) | st.sampled_from("|^~\\&\r\nFSTREX0D.br")))
def test_what_is_escaped_comes_back(value: str) -> None:
    """unescape undoes escape, and no delimiter is left in between."""
    sent = escape(value, Separators())
    assert unescape(sent, Separators()) == value
    assert not set("|^~&\r\n") & set(sent)


_NAMES = st.text("ABCXYZ王小明 0123456789.<>-", min_size=0, max_size=6).map(str.strip)


@given(st.lists(st.lists(st.lists(_NAMES, min_size=1, max_size=4), min_size=1, max_size=3), min_size=1, max_size=5))
def test_fields_split_as_they_were_joined(fields: list[list[list[str]]]) -> None:
    """Every component of every repetition of every field is found at its number."""
    body = "|".join("~".join("^".join(parts) for parts in field) for field in fields)
    zzz = hl7v2.parse(f"MSH|^~\\&\rZZZ|{body}\r".encode()).first("ZZZ")
    assert zzz is not None
    for number, field in enumerate(fields, 1):
        for repetition, parts in enumerate(field, 1):
            for component, value in enumerate(parts, 1):
                assert zzz.get(number, component, repetition=repetition) == value


_HOSTILE = st.lists(st.sampled_from(
    [b"MSH|^~\\&|", b"MSH", b"|", b"^", b"~", b"\\", b"&", b"\r", b"\n", b"\x0b", b"\x1c", b"PID|1||P^^^A^MR", b'""',
     b"OBR|1|P|F|C^D", b"OBX|1|NM|A||1", b"ORU^R01", b"\\X41\\", b"\xff", b"\xc3\xa9", b"\xcd\xf5", b"2024", b"FHS|",
     b"UNICODE UTF-8", b"8859/1", b"\x00", b"\xef\xbb\xbf", b"\xff\xfe"]) | st.binary(max_size=6), max_size=40)


@settings(max_examples=300)
@given(_HOSTILE.map(b"".join))
def test_no_bytes_crash_the_reader(raw: bytes) -> None:
    """split, peek, parse and every access either answer or refuse with GatewayError."""
    for piece in [raw, *hl7v2.split(raw)]:
        try:
            hl7v2.peek(piece)
            message = hl7v2.parse(piece)
        except GatewayError:
            continue
        for segment in message.segments:
            segment.get(3, 2, 2, 2)
            segment.components(3)
            [part.get(1) for part in segment.repetitions(5)]
            segment.text(5)


def test_split_takes_batches_framing_and_bare_messages() -> None:
    """FHS, BHS, BTS, FTS and MLLP framing go; the messages stay, byte by byte."""
    one, two = ORU.encode().rstrip(), ORU.replace("M1", "M2").encode().rstrip()
    batch = b"FHS|^~\\&|A\rBHS|^~\\&|B\r" + one + b"\r" + two + b"\rBTS|2\rFTS|1\r"
    framed = b"\x0b" + one + b"\x1c\r\x0b" + two + b"\x1c\r"
    for raw in (batch, framed, one + b"\r\n" + two, batch.replace(b"\r", b"\r\n").replace(b"\r\n", b"\r\n\r\n")):
        assert [hl7v2.peek(piece).control_id for piece in hl7v2.split(raw)] == ["M1", "M2"]
    assert hl7v2.split(framed) == [one, two]
    assert hl7v2.split(b"") == hl7v2.split(b"\r\n \x0b\x1c\r") == []


def test_split_drops_nothing_silently() -> None:
    """Bytes before the first MSH come back as a piece that parse refuses."""
    pieces = hl7v2.split(b"PID|1||lost\r" + ORU.encode())
    assert pieces[0] == b"PID|1||lost" and len(pieces) == 2
    with pytest.raises(GatewayError):
        hl7v2.parse(pieces[0])


def test_split_is_not_misled_by_the_word_msh_in_text() -> None:
    """Only a line that begins with MSH and a separator begins a message."""
    raw = text("OBX|1|TX|A||see MSH|and MSH\rNTE|1||MSHX\r").encode()
    assert len(hl7v2.split(raw)) == 1


@pytest.mark.parametrize("raw", [ORU, text("ORC|RE|PL1|F1||CM", OBR, "OBX|1|CE|A^B^L||1^两^L~2^3&4^L|u^v|1-2|H~L|||F",
                                           r"NTE|1|L|a\F\b\E\c", "SPM|1|||SER^Serum^HL70487")])
def test_hl7apy_agrees_field_by_field(raw: str) -> None:
    """An independent parser reads the same fields, repetitions and components."""
    assert _agreed(raw, hl7v2.parse(raw.encode())) > 20


_ACCEPTED = [(folder, example) for folder in hospital_folders(SHIPPED_ADAPTERS) for example in examples(folder)
             if example.accepted and example.path.suffix == ".hl7"]


@pytest.mark.parametrize(("folder", "example"), _ACCEPTED, ids=lambda v: v.name if isinstance(v, Path) else v.path.name)
def test_hl7apy_agrees_on_every_accepted_example(folder: Path, example: Example) -> None:
    """Of each demo hospital's messages too, in the hospital's character set; Z-segments are ours alone to read."""
    from hl7apy import SUPPORTED_LIBRARIES

    raw, charset = example.path.read_bytes(), load(folder).source.charset
    message = hl7v2.parse(raw, charset)
    if (version := message.header.version_id.partition("^")[0]) not in SUPPORTED_LIBRARIES:
        pytest.skip(f"hl7apy does not know {version}")
    assert _agreed(raw.decode(message.codec).replace("\n", "\r"), message) > 10


def _agreed(raw: str, ours: hl7v2.Message) -> int:
    """Compares every field with hl7apy's reading; returns how many there were."""
    from hl7apy.parser import parse_message

    theirs = parse_message(raw, find_groups=False)
    segments = [s for s in ours.segments if not s.name.startswith("Z")]
    others = [s for s in theirs.children if not s.name.startswith("Z")]
    assert [s.name for s in others] == [s.name for s in segments]
    compared = 0
    for mine, other in zip(segments, others, strict=True):
        for number in range(3 if mine.name == "MSH" else 1, 40):
            repetitions = [f.to_er7().replace(r"\E\.br\E" + "\\", r"\.br" + "\\")  # which hl7apy takes for plain text
                           for f in other.children if f.name == f"{mine.name}_{number}"]
            sent = mine.raw_field(number)
            if not sent:
                assert not any(repetitions)
                continue
            assert all(map(_alike, repetitions, sent.split("~"))) and len(repetitions) == len(sent.split("~"))
            for at, repetition in enumerate(repetitions, 1):
                for component, value in enumerate(repetition.split("^"), 1):
                    assert _alike(mine.components(number, at)[component - 1], unescape(value, Separators()))
            compared += 1
    return compared


def _alike(one: str, other: str) -> bool:
    """hl7apy writes 0571 as 571 where the standard says NM, and leaves empty components at the end out."""
    pairs = list(zip_longest(one.rstrip("^").split("^"), other.rstrip("^").split("^"), fillvalue=""))
    return all(a == b or a.isdigit() and b.isdigit() and int(a) == int(b) for a, b in pairs)


def test_a_hook_may_put_a_field_right() -> None:
    """set() writes a field as it would have been sent; reading and raw text follow."""
    message = hl7v2.parse(b"MSH|^~\\&|A\rOBR|1||F1|\r")
    msh, obr = message.segments
    obr.set(4, "CBC^\\F\\")
    obr.set(6, "x")
    msh.set(4, "H")
    assert (obr.get(4), obr.get(4, 2), obr.raw) == ("CBC", "|", "OBR|1||F1|CBC^\\F\\||x")
    assert (msh.get(3), msh.get(4), msh.raw) == ("A", "H", "MSH|^~\\&|A|H")


def test_many_raw_lines_cost_no_more_than_their_length() -> None:
    """A hostile message of 200,000 continuation lines is read in a moment, not in minutes."""
    raw = b"MSH|^~\\&\rOBX|1|TX|A||" + b"line of text\n" * 200_000
    began = time.perf_counter()
    assert len(hl7v2.parse(raw).segments) == 2
    assert time.perf_counter() - began < 5


def test_a_message_of_22_results_is_read_in_a_fraction_of_a_millisecond() -> None:
    """The reader is lazy: far below a millisecond even on a busy machine."""
    raw = text(MSH, PID, OBR, *(f"OBX|{i}|NM|T{i}^测试||{i}.5|g/L|1-9|N|||F" for i in range(22))).encode()
    best = 1.0
    for _ in range(20):
        began = time.perf_counter()
        hl7v2.parse(raw)
        best = min(best, time.perf_counter() - began)
    assert best < 0.002
