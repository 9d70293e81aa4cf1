"""Unit spellings of laboratories as UCUM codes."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.terminology import catalogue, is_ucum, quantity_kind, ucum

SPELLINGS = {
    "10*9/L": ["10^9/L", "×10⁹/L", "x10^9/L", "X10^9/l", "10*9/L", "10**9/L", "10E9/L", "10e9/L", "1E9/L", "*10^9/L",
               "１０＾９／Ｌ", "10⁹个/L", "10(9)/L", "1×10⁹ / L", "10⁹／Ｌ", "giga.l-1"],
    "10*12/L": ["10^12/L", "×10¹²/L", "X10(12)/L", "tera/L"],
    "10*3/uL": ["K/uL", "K/µL", "10^3/μL"],
    "10*6/uL": ["M/uL", "10^6/uL"],
    "10*3{copies}/mL": ["10^3copies/mL", "×10³拷贝/ml"],
    "umol/L": ["umol/L", "μmol/L", "µmol/L", "umol/l", "UMOL/L", "µmol／L", "mcmol/L"],
    "mmol/L": ["mmol/L", "mmol/l", "MMOL/L", "mmol / L", "mmol.l-1", "ｍｍｏｌ／Ｌ"],
    "g/L": ["g/L", "g/l", "克/升", "gm/L"],
    "mg/dL": ["mg/dL", "MG/DL", "㎎/㎗", "mg/100ml"],
    "g/dL": ["G/DL", "gm/dl"],
    "mg/g": ["MG/G", "mg/g"],
    "[IU]/mL": ["IU/mL", "IU/ml", "iu/ml", "[iU]/mL", "[IU]/mL"],
    "m[IU]/L": ["mIU/L", "MIU/L", "m[IU]/L"],
    "u[IU]/mL": ["uIU/mL", "μIU/ml", "µIU/mL"],
    "k[IU]/L": ["KIU/L", "kIU/L"],
    "U/L": ["U/L", "u/L", "U/l"],
    "[arb'U]/mL": ["AU/mL", "AU/ml", "[arb'U]/mL"],
    "%": ["%", "％", "percent"],
    "fL": ["fl", "fL", "FL"],
    "pg": ["pg", "PG"],
    "mm/h": ["mm/h", "mm/H", "mm/1h", "MM/H", "mm/小时", "mm/hr"],
    "s": ["s", "S", "sec", "秒"],
    "{copies}/mL": ["copies/mL", "Copies/ml", "拷贝/mL", "{copies}/mL"],
    "mL/min/{1.73_m2}": ["mL/min/1.73m2", "ml/min/1.73m²", "ml/(min*1.73m²)", "mL/(min·1.73m2)", "mL/min/1.73m^2"],
    "mg/L{FEU}": ["mg/L FEU", "mg/L(FEU)", "mgFEU/L", "mg/L{FEU}"],
    "g/(24.h)": ["g/24h", "g/24小时", "g/24hr"],
    "/100{WBCs}": ["/100WBC", "个/100WBC", "/100{WBCs}"],
    "/[HPF]": ["/HP", "/HPF", "个/HP"],
    "/uL": ["/uL", "/μl", "个/μL", "1/uL"],
    "U/g{Hb}": ["U/gHb", "U/g Hb"],
    "{s_co_ratio}": ["S/CO", "s/co"],
    "[pH]": ["pH", "PH"], "{ratio}": ["ratio", "比值"], "{INR}": ["INR"], "{titer}": ["滴度"],
    "mm[Hg]": ["mmHg", "mmhg"], "Cel": ["℃", "°C"], "kg/m2": ["kg/m²", "kg/m2"], "mGy.cm": ["mGy*cm", "mGy·cm"],
    "mosm/kg": ["mOsm/kg", "mosm/kg"], "mosm/kg{H2O}": ["mOsm/kg·H2O"], "umol/mmol{creat}": ["μmol/mmol·Cr"],
    "ng/mL/h": ["ng/ml/h"], "mPa.s": ["mPa·s"], "/s": ["1/s"], "{M.o.M}": ["MoM"], "{beats}/min": ["bpm", "beats/min"],
}


@pytest.mark.parametrize(("spelling", "code"), [(s, code) for code, spelled in SPELLINGS.items() for s in spelled])
def test_everyday_spellings_have_their_code(spelling: str, code: str) -> None:
    """Width, case noise, micro signs, superscripts and Chinese words do not hide which unit is meant."""
    assert ucum(spelling) == code


@pytest.mark.parametrize("text", [
    "", " ", "-", "/", "//", "阴性", "无", "null", "foo", "mmol/", "/L/", "109/L", "1012/L", "G/L", "T/L", "M", "mM",
    "m/uL", "m/mm3", "MM/L", "K/mL", "g/l-1", "10^", "10^9^2", "10^9 5", "10 9/L", "x", "24h5", "µ", "μ/L", "AUSDHSV",
    "a", "PT", "at", "m" * 61, "10(9/L", "10^9)/L"])
def test_what_is_not_sure_has_no_code(text: str) -> None:
    """A text that is no unit, or that people read two ways, is not guessed at, even where it is valid UCUM."""
    assert ucum(text) is None


def test_every_unit_of_the_catalogue_is_its_own_code() -> None:
    """The units that the catalogue asks for are valid, and naming them changes nothing."""
    units = {item.unit for item in catalogue().items.values() if item.unit}
    assert len(units) > 30
    assert {unit: ucum(unit) for unit in units} == {unit: unit for unit in units}
    assert all(is_ucum(unit) for unit in units)


@given(st.text(max_size=70) | st.text("×x*10^⁹²()[]{}/.%µμmgLlUIukPS24h秒个 '-", max_size=30))
@settings(max_examples=1500, deadline=None)
def test_any_text_has_a_valid_code_or_none(text: str) -> None:
    """Whatever a hospital sends: no exception, and an answer is valid UCUM and its own answer."""
    code = ucum(text)
    if code is not None:
        assert is_ucum(code)
        assert ucum(code) == code


NUMERATORS = ["g", "mg", "ug", "μg", "ng", "pg", "mol", "mmol", "µmol", "nmol", "U", "IU", "mIU", "copies", "个",
              "cells", "AU", "mL", "eq", "mosm"]
DENOMINATORS = ["L", "l", "mL", "ml", "dL", "uL", "μl", "g", "kg", "h", "min", "24h", "mmol", "HPF"]


@given(st.sampled_from(NUMERATORS), st.sampled_from(DENOMINATORS), st.integers(1, 15))
@settings(deadline=None)
def test_composed_units_are_valid_and_fold_width(numerator: str, denominator: str, power: int) -> None:
    """Known parts in any combination make valid UCUM, in full width too, and a power of ten stays what it is."""
    plain = f"{numerator}/{denominator}"
    wide = "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in plain)
    code = ucum(plain)
    assert code is not None and is_ucum(code) and ucum(code) == code == ucum(wide)
    raised = ucum(f"×10{str(power).translate(str.maketrans('0123456789', '⁰¹²³⁴⁵⁶⁷⁸⁹'))}{plain}")
    assert raised is not None and raised.startswith(f"10*{power}") and is_ucum(raised) and ucum(raised) == raised
    assert ucum(f"10^{power}{plain}") == raised


def test_upper_case_noise_is_not_read_as_ucum() -> None:
    """MG/DL and S are valid UCUM for megagauss and siemens; a laboratory means neither."""
    assert is_ucum("MG/G") and ucum("MG/G") == "mg/g"
    assert is_ucum("S") and ucum("S") == "s"


@pytest.mark.parametrize("code", [
    "mmol/L", "10*9/L", "m[IU]/L", "[arb'U]/mL", "mL/min/{1.73_m2}", "%", "{ratio}", "/uL", "mmol/(24.h)", "mg/L{FEU}",
    "mm[Hg]", "m/s2", "foo", "µmol/L", "mmol//L", "(g", "10*", "{}", "g%", "MG/DL", "K", "100", "mmol L", "阴性", "[IU",
    "1.73m2"])
def test_validity_is_that_of_ucumvert(code: str) -> None:
    """Our parser over ucumvert's grammar gives the verdict of ucumvert itself."""
    from ucumvert import InvalidUcumError, parse_ucum
    try:
        parse_ucum(code)
        theirs = True
    except InvalidUcumError:
        theirs = False
    assert is_ucum(code) == theirs


def test_everyday_units_do_not_load_a_parser() -> None:
    """The path of a message pays for no grammar, and no unit ever brings pint and numpy into the process."""
    script = ("import sys; from gateway.terminology import ucum\n"
              "assert ucum('×10⁹/L') == '10*9/L' and ucum('umol/L') == 'umol/L' and ucum('秒') == 's'\n"
              "assert 'lark' not in sys.modules\n"
              "assert ucum('amol/L') == 'amol/L' and 'lark' in sys.modules\n"
              "assert not {'pint', 'numpy', 'ucumvert'} & sys.modules.keys()")
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


@pytest.mark.parametrize(("one", "other", "same"), [
    ("mmol/L", "umol/L", True), ("g/L", "mg/dL", True), ("10*9/L", "/uL", True), ("m[IU]/L", "[arb'U]/mL", True),
    ("mmol/L", "mg/dL", False), ("%", "mmol/mol", False), ("g/(24.h)", "g/L", False), ("/uL", "/[HPF]", False),
    ("mg/g{creat}", "mg/mmol{creat}", False), ("%", "L/L", False)])
def test_kinds_of_quantity(one: str, other: str, same: bool) -> None:
    """Scale does not matter for a unit's kind; mass against substance, and rate against concentration, do."""
    assert (quantity_kind(one) == quantity_kind(other)) is same


def test_every_unit_of_the_catalogue_has_a_kind() -> None:
    """No item's unit is of unknown kind, else a map to it could not be compared."""
    assert [i.code for i in catalogue().items.values() if i.unit and quantity_kind(i.unit) is None] == []
