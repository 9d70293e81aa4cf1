"""The figures as JSON, CSV and FHIR (Measure, MeasureReport: measurereport.html). Pure."""

from __future__ import annotations

import csv
import io
import re
from calendar import monthrange
from datetime import date
from decimal import Decimal
from typing import Any

from gateway.errors import Category, GatewayError
from gateway.recognition.figures import INDEX_RULES, RATES, SMALL, Index, Rate
from gateway.recognition.report import AMOUNTS, COUNTS, GROUPS, Report, Row

BASE = "http://huren.example/fhir"
FIGURE = f"{BASE}/CodeSystem/recognition-figure"
MEASURE = f"{BASE}/Measure/recognition-figures"
_POPULATION = "http://terminology.hl7.org/CodeSystem/measure-population"
_ABSENT = "http://hl7.org/fhir/StructureDefinition/data-absent-reason"
_UCUM, _CURRENCY = "http://unitsofmeasure.org", "urn:iso:std:iso:4217"
#: The later versions of the project's definitions count from here.
VERSION = "1.0.0"

#: Rate → Chinese, English, numerator and denominator in words.
RATE_TEXTS = {
    "decision": ("决定率", "decision rate", "decided / reminded"),
    "recognition": ("互认率", "recognition rate", "recognised / (recognised + refusals that count)"),
    "view": ("调阅率", "view rate", "viewed / reminded"),
    "skip": ("跳过率", "skip rate", "billed without a decision / reminded"),
    "availability": ("可调阅率", "availability", "decisions without an availability fault / decisions"),
    "mapping": ("对照覆盖率", "mapping coverage", "order lines with a unified code / order lines"),
    "reorder": ("七日内重复开单率", "re-order rate", "ordered again within 7 days / recognised"),
}
COUNT_TEXTS = {
    "orders": ("医嘱项", "order lines"), "mapped": ("已对照", "with a unified code"),
    "reminded": ("已提醒", "reminded"),
    "interruptive": ("弹窗提醒", "interrupted"), "viewed": ("已调阅", "viewed"), "decided": ("已决定", "decided"),
    "recognised": ("互认", "recognised"), "refused": ("不互认（计入）", "refusals that count"),
    "lawful": ("不互认（合规）", "lawful refusals"), "under_review": ("待复核", "refusals under review"),
    "faults": ("无法调阅", "availability faults"), "explained": ("已告知患者", "explained to the patient"),
    "billed": ("已计费", "billed"), "skipped": ("未决定即计费", "billed without a decision"),
    "bypassed": ("紧急放行", "emergency bypasses"), "blocked": ("计费拦截", "bills refused"),
    "reordered": ("七日内重复开单", "ordered again within 7 days"), "quoted": ("引用", "quoted"),
    "settled": ("已结算", "settled"), "issued": ("本院结果被提醒", "reminders of own results"),
    "issued_decided": ("本院结果被决定", "decisions on own results"),
    "issued_recognised": ("本院结果被互认", "own results recognised"),
    "issued_faults": ("本院结果无法调阅", "availability faults of own results"),
}
AMOUNT_TEXTS = {"saved": ("节省金额", "saved, CNY"), "fund": ("其中基金", "of it the fund's, CNY"),
                "patient": ("其中个人", "of it the patients', CNY")}
_HEADS = {"value": ("代码", "code"), "name": ("名称", "name"), "share": ("占比", "share"), "index": ("指数", "index"),
          "freshness": ("到达至可见P95（毫秒）", "received to visible, p95 in ms")}
_SUPPRESSED = f"<{SMALL}"
_DAY = re.compile(r"([0-9]{4})(?:-([0-9]{2})(?:-([0-9]{2}))?)?").fullmatch


def days_of(text: str, where: str) -> tuple[date, date]:
    """The first and the last day of ``2026-03-10``, ``2026-03`` or ``2026``."""
    match = _DAY(text)
    try:
        if match is None:
            raise ValueError
        year, month, day = (int(part) if part else 0 for part in match.groups())
        first = date(year, month or 1, day or 1)
        last = first if day else date(year, month or 12, monthrange(year, month or 12)[1])
    except ValueError:
        raise GatewayError(Category.INVALID, "give a day such as 2026-03-10, a month 2026-03 or a year 2026", where,
                           detail="request") from None
    return first, last


# -------------------------------------------------------------------- JSON

def to_json(report: Report, timezone: str) -> dict[str, Any]:
    """For programs; decimals are exact, a suppressed rate is null."""
    question = report.question
    return {
        "by": question.by, "institution": question.institution, "from": question.first.isoformat(),
        "to": question.last.isoformat(), "timezone": timezone, "events": report.events, "suppressed_below": SMALL,
        "total": _json_row(report.total), "rows": [_json_row(row) for row in report.rows],
    }


def _json_row(row: Row) -> dict[str, Any]:
    made: dict[str, Any] = {"value": row.value, "name_zh": row.name_zh, "name_en": row.name_en, "counts": row.counts,
                            "amounts": row.amounts,
                            "rates": {name: _json_rate(rate) for name, rate in row.rates.items()},
                            "freshness_p95_ms": row.freshness}
    if row.share is not None:
        made["share"] = _json_rate(row.share)
    if row.index is not None:
        made["index"] = _json_index(row.index)
    return made


def _json_rate(rate: Rate) -> dict[str, Any]:
    return {"value": rate.value, "numerator": rate.numerator, "denominator": rate.denominator,
            "suppressed": rate.suppressed}


def _json_index(index: Index) -> dict[str, Any]:
    return {"version": index.version, "value": index.value,
            "parts": [{"rate": name, "weight": weight, "value": value} for name, weight, value in index.parts]}


# -------------------------------------------------------------------- CSV

def to_csv(report: Report, language: str = "en") -> bytes:
    """For spreadsheets: UTF-8 with a byte order mark, CRLF (RFC 4180); a suppressed rate is ``<30``.

    A text that a spreadsheet would take for a formula begins with an apostrophe.
    """
    place = 0 if language.startswith("zh") else 1
    by = report.question.by
    extra = [name for name, shown in (("share", by == "reason"), ("index", by == "hospital"),
                                      ("freshness", by == "hospital")) if shown]
    heads = [_HEADS["value"], _HEADS["name"], *(COUNT_TEXTS[n] for n in COUNTS),
             *AMOUNT_TEXTS.values(), *(RATE_TEXTS[n] for n in RATES), *(_HEADS[n] for n in extra)]
    out = io.StringIO(newline="")
    writer = csv.writer(out)
    writer.writerow([texts[place] for texts in heads])
    for row in (*report.rows, report.total):
        name = (row.name_zh, row.name_en)[place]
        writer.writerow([plain(row.value or ("total" if row is report.total else "")), plain(name),
                         *row.counts.values(), *(format(a, "f") for a in row.amounts.values()),
                         *(_cell(row.rates[n]) for n in RATES), *(_extra(row, n) for n in extra)])
    return b"\xef\xbb\xbf" + out.getvalue().encode()


def plain(text: str) -> str:
    """A cell that no spreadsheet reads as a formula."""
    return "'" + text if text[:1] in ("=", "+", "-", "@", "\t", "\r", "\n") else text


def _cell(rate: Rate | None) -> str:
    if rate is None:
        return ""
    return _SUPPRESSED if rate.value is None else format(rate.value, "f")


def _extra(row: Row, name: str) -> str:
    if name == "share":
        return _cell(row.share)
    if name == "freshness":
        return "" if row.freshness is None else str(row.freshness)
    if row.index is None:
        return ""
    return _SUPPRESSED if row.index.value is None else format(row.index.value, "f")


# -------------------------------------------------------------------- FHIR

def measure_report(report: Report) -> dict[str, Any]:
    """A summary MeasureReport: a group for each rate, its strata the rows; counts and amounts as groups of their own.

    A suppressed rate has no score, and ``data-absent-reason`` "masked" in its place.
    """
    question = report.question
    resource: dict[str, Any] = {"resourceType": "MeasureReport", "status": "complete", "type": "summary",
                                "measure": MEASURE}
    if question.institution:
        resource["reporter"] = {"reference": f"Organization/{question.institution}"}
    resource["period"] = {"start": question.first.isoformat(), "end": question.last.isoformat()}
    groups = [_rate_group(report, name) for name in RATES]
    groups += [_count_group(report, name) for name in COUNTS]
    groups += [_amount_group(report, name) for name in AMOUNT_TEXTS]
    if question.by == "hospital":
        groups += [_index_group(report), _freshness_group(report)]
    if question.by == "reason":
        groups.append(_share_group(report))
    resource["group"] = groups
    return resource


def _code(name: str, texts: tuple[str, ...]) -> dict[str, Any]:
    return {"coding": [{"system": FIGURE, "code": name, "display": texts[1]}], "text": texts[0]}


def _populations(rate: Rate) -> list[dict[str, Any]]:
    return [{"code": {"coding": [{"system": _POPULATION, "code": name}]}, "count": count}
            for name, count in (("denominator", rate.denominator), ("numerator", rate.numerator))]


def _score(value: Decimal | int | None, unit: dict[str, str]) -> dict[str, Any]:
    if value is None:
        return {"measureScore": {"extension": [{"url": _ABSENT, "valueCode": "masked"}]}}
    return {"measureScore": {"value": value, **unit}}


_ONE = {"system": _UCUM, "code": "1"}
_CNY = {"unit": "CNY", "system": _CURRENCY, "code": "CNY"}
_MS = {"unit": "ms", "system": _UCUM, "code": "ms"}


def _strata(report: Report, made: list[tuple[Row, dict[str, Any]]]) -> dict[str, Any]:
    """The rows as strata; without any row there is no stratifier."""
    if not made:
        return {}
    by = report.question.by
    strata = []
    for row, content in made:
        value: dict[str, Any] = {"text": row.value or "-"}
        if row.name_zh or row.name_en:
            value = {"coding": [{"code": row.value or "-", "display": row.name_en or row.name_zh}],
                     "text": row.name_zh or row.name_en}
        strata.append({"value": value, **content})
    return {"stratifier": [{"code": [{"coding": [{"system": FIGURE, "code": by}]}], "stratum": strata}]}


def _rate_group(report: Report, name: str) -> dict[str, Any]:
    def content(rate: Rate) -> dict[str, Any]:
        return {"population": _populations(rate), **_score(rate.value, _ONE)}
    return {"code": _code(name, RATE_TEXTS[name]), **content(report.total.rates[name]),
            **_strata(report, [(row, content(row.rates[name])) for row in report.rows])}


def _share_group(report: Report) -> dict[str, Any]:
    made = [(row, {"population": _populations(row.share), **_score(row.share.value, _ONE)})
            for row in report.rows if row.share is not None]
    return {"code": _code("share", _HEADS["share"]), **_strata(report, made)}


def _count_group(report: Report, name: str) -> dict[str, Any]:
    def content(row: Row) -> dict[str, Any]:
        return {"population": [{"code": {"coding": [{"system": _POPULATION, "code": "initial-population"}]},
                                "count": row.count(name)}]}
    return {"code": _code(f"count-{name.replace('_', '-')}", COUNT_TEXTS[name]), **content(report.total),
            **_strata(report, [(row, content(row)) for row in report.rows])}


def _amount_group(report: Report, name: str) -> dict[str, Any]:
    return {"code": _code(f"amount-{name}", AMOUNT_TEXTS[name]), **_score(report.total.amounts[name], _CNY),
            **_strata(report, [(row, _score(row.amounts[name], _CNY)) for row in report.rows])}


def _index_group(report: Report) -> dict[str, Any]:
    made = [(row, _score(row.index.value, _ONE)) for row in report.rows if row.index is not None]
    return {"code": _code("index", _HEADS["index"]), **_strata(report, made)}


def _freshness_group(report: Report) -> dict[str, Any]:
    return {"code": _code("freshness", _HEADS["freshness"]), **_score(report.total.freshness, _MS),
            **_strata(report, [(row, _score(row.freshness, _MS)) for row in report.rows])}


def measure() -> dict[str, Any]:
    """The Measure that the reports are of (measure.html)."""
    groups = []
    for name in RATES:
        _, english, said = RATE_TEXTS[name]
        lower, _, upper = said.partition(" / ")
        groups.append({"code": _code(name, RATE_TEXTS[name]), "description": said, "population": [
            _population("denominator", upper), _population("numerator", lower)], "stratifier": _stratifiers()})
    for name in COUNTS:
        groups.append({"code": _code(f"count-{name.replace('_', '-')}", COUNT_TEXTS[name]), "population": [
            _population("initial-population", COUNT_TEXTS[name][1])], "stratifier": _stratifiers()})
    for name, texts in AMOUNT_TEXTS.items():
        groups.append({"code": _code(f"amount-{name}", texts), "description": texts[1],
                       "stratifier": _stratifiers()})
    weights = "; ".join(f"version {rule.version} from {_since(rule.begin)}: " + ", ".join(
        f"{'1 - ' if part.falling else ''}{part.rate} {part.weight} %" for part in rule.parts) for rule in INDEX_RULES)
    groups += [{"code": _code("index", _HEADS["index"]), "description": f"Weighted mean, 0 to 100. {weights}."},
               {"code": _code("freshness", _HEADS["freshness"]),
                "description": "95 of 100 stored messages were visible everywhere within this time after they came."},
               {"code": _code("share", _HEADS["share"]), "description": "Part of a reason in all refusals."}]
    return {"resourceType": "Measure", "id": "recognition-figures", "url": MEASURE, "version": VERSION,
            "name": "RecognitionFigures", "title": "Figures of mutual recognition", "status": "active",
            "experimental": False, "publisher": "Huren",
            "description": "How hospitals recognise each other's results. A line counts on the local day of its "
                           f"reminder. A rate of fewer than {SMALL} cases is not shown. Rates are rounded half up to "
                           "four places.",
            "scoring": {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/measure-scoring",
                                    "code": "proportion"}]},
            "group": groups}


def _since(day: date) -> str:
    return "the beginning" if day == date.min else day.isoformat()


def _population(code: str, said: str) -> dict[str, Any]:
    return {"code": {"coding": [{"system": _POPULATION, "code": code}]}, "description": said,
            "criteria": {"language": "text/plain", "expression": said}}


def _stratifiers() -> list[dict[str, Any]]:
    return [{"code": {"coding": [{"system": FIGURE, "code": by}]},
             "criteria": {"language": "text/plain", "expression": by}} for by in GROUPS]


assert set(COUNT_TEXTS) == set(COUNTS) and set(RATE_TEXTS) == set(RATES) and len(AMOUNTS) == 2
