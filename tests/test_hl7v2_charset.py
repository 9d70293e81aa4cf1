"""Which character set a message is in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import hl7v2
from gateway.errors import Category, GatewayError
from gateway.hl7v2.charset import codec_for, decode


def _raw(name: str, codec: str, declared: str = "") -> bytes:
    return f"MSH|^~\\&|LIS|H|||20240101||ORU^R01|1|P|2.4||||||{declared}\rPID|1||7||{name}|x\r".encode(codec)


def _name(raw: bytes, charset: str | None = None) -> str:
    pid = hl7v2.parse(raw, charset).first("PID")
    assert pid is not None and pid.get(6) == "x"
    return pid.get(5)


@pytest.mark.parametrize("name, codec", [
    ("UNICODE UTF-8", "utf-8"), ("UTF-8", "utf-8"), ("unicode", "utf-8"), ("utf8", "utf-8"),
    ("GB 18030-2000", "gb18030"), ("GB18030", "gb18030"), ("gbk", "gb18030"), ("GB2312", "gb18030"),
    ("CP936", "gb18030"), ("ASCII", "ascii"), ("8859/1", "iso8859-1"), ("8859/15", "iso8859-15"),
    ("ISO-8859-2", "iso8859-2"),
    ("BIG-5", "big5hkscs"), ("ISO IR87", "iso2022_jp"), ("ISO IR159", "iso2022_jp_1"), ("KS X 1001", "euc_kr"),
    ("8859/77", None), ("EBCDIC", None), ("", None)])
def test_names_of_table_0211_and_everyday_spellings(name: str, codec: str | None) -> None:
    """A name gives a codec, an unknown one gives none; what Python offers is really there."""
    assert codec_for(name) == codec
    if codec:
        "A".encode(codec)


@pytest.mark.parametrize("codec, declared, manifest", [
    ("gbk", "", "gb18030"), ("gbk", "GBK", None), ("gb18030", "GB 18030-2000", None), ("gbk", "UTF-8", "gb18030"),
    ("utf-8", "UNICODE UTF-8", None), ("utf-8", "", None), ("gbk", "", None), ("utf-8", "ASCII", None),
    ("utf-8", "8859/1", None), ("gbk", "ASCII", None), ("gbk", "UNICODE UTF-8", None), ("utf-8", "GBK", "utf-8"),
    ("utf-8", "NONSENSE", None)])
def test_a_chinese_name_is_read_whatever_is_declared(codec: str, declared: str, manifest: str | None) -> None:
    """Manifest, then MSH-18, then the decode check: each case has one right answer."""
    name = "欧阳建国的家属"
    assert _name(_raw(name, codec, declared), manifest) == name


def test_the_manifest_wins_over_bytes_that_could_be_utf_8() -> None:
    """Some GBK words are valid UTF-8 by chance; a declaration is not overruled by chance."""
    word = next(w for w in (bytes([a, b, c, d]).decode("gbk") for a in range(0xC4, 0xD0) for b in (0xA1, 0xB3)
                            for c in range(0xC4, 0xD0) for d in (0xA5,)) if w.encode("gbk").decode("utf-8"))
    assert _name(_raw(word, "gbk"), "gbk") == word


def test_latin_text_needs_its_declaration_and_gets_it() -> None:
    """ISO 8859-1 is read when MSH-18 says so and refused when nothing does: é and a letter could be GBK."""
    assert _name(_raw("José Pérez", "latin-1", "8859/1")) == "José Pérez"
    with pytest.raises(GatewayError) as refusal:
        hl7v2.parse(_raw("Zoé Bréton", "latin-1"))
    assert (refusal.value.category, refusal.value.where) == (Category.MALFORMED, "MSH-18")


@pytest.mark.parametrize("raw", [_raw("x", "ascii")[:-3] + b"\xff\r", _raw("王", "utf-8", "UTF-8")[:-6] + b"\xe7|x\r"])
def test_undecidable_bytes_are_refused_not_replaced(raw: bytes) -> None:
    """U+FFFD never enters a resource."""
    with pytest.raises(GatewayError) as refusal:
        hl7v2.parse(raw)
    assert refusal.value.where == "MSH-18"


def test_second_bytes_that_equal_delimiters_are_no_delimiters() -> None:
    """GBK trail bytes run through 0x5C, 0x5E, 0x7C and 0x7E: decoded first, split after."""
    found = [bytes([lead, trail]).decode("gbk") for trail in (0x5C, 0x5E, 0x7C, 0x7E) for lead in (0x81, 0x90, 0xA0)]
    for name in found:
        assert _name(_raw(f"A{name}B", "gbk", "GBK")) == f"A{name}B"


@pytest.mark.parametrize("codec, declared, name", [("iso2022_jp", "ISO IR87", "山田太郎"), ("big5", "BIG-5", "許功蓋"),
                                                   ("euc_kr", "KS X 1001", "홍길동")])
def test_other_multi_byte_sets_are_decoded_before_splitting(codec: str, declared: str, name: str) -> None:
    """許功蓋 in Big5 holds 0x5C twice, ISO 2022 is all seven-bit: the name comes whole."""
    assert _name(_raw(name, codec, declared)) == name


def test_utf_16_with_a_byte_order_mark_is_read() -> None:
    """The mark settles it."""
    assert _name(_raw("王建国", "utf-16")) == "王建国"


@given(st.text(st.characters(codec="gb2312", min_codepoint=0x4E00), min_size=2, max_size=8))
def test_undeclared_gb2312_is_recognised_unless_it_is_valid_utf_8(name: str) -> None:
    """Without any declaration GB text in common characters is read; only bytes that are also UTF-8 go there."""
    raw = name.encode("gb2312")
    text, codec = decode(raw)
    try:
        raw.decode("utf-8")
        assert codec == "utf-8"
    except UnicodeDecodeError:
        assert text == name
