"""`GET /recognition/figures` and `huren figures`: what is asked, in which format, and who may see whose."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from flask.testing import FlaskClient

from gateway.config import Settings
from gateway.edges.http import create_app
from gateway.edges.http.recognition_figures import media_type
from gateway.errors import GatewayError
from gateway.fhir.check import check
from gateway.store import Store, open_store
from tests.recognition_lines import line, write
from tests.test_cli import Run, huren

__all__ = ["huren"]  # a fixture of another file
A, B = "hz-demo-1", "hz-demo-2"
URL = "/recognition/figures"
Ask = Callable[..., Any]


@pytest.fixture
def lines(store: Store) -> None:
    """40 recognitions of hospital A in March, one reminder of hospital B in April."""
    write(store, *[line(f"n{k}", "recognised", A, "ECT001J", issuers=[B], price="12.34", fund="10") for k in range(40)],
          line("b", "reminded", B, "ECT001J", "2026-04-01", issuers=[A]))


@pytest.fixture
def demo(settings: Settings, store: Store, lines: None) -> FlaskClient:
    """Everybody may everything."""
    return create_app(replace(settings, demo=True), store).test_client()


@pytest.fixture
def guarded(settings: Settings, store: Store, lines: None) -> FlaskClient:
    """A gateway that asks for a login."""
    return create_app(settings, store).test_client()


def test_figures_move_with_the_next_line(demo: FlaskClient, store: Store) -> None:
    """What was committed before the question is in the answer."""
    asked = f"{URL}?by=item&from=2026-03&to=2026-03"
    [row] = demo.get(asked).get_json()["rows"]
    assert (row["value"], row["counts"]["recognised"], row["name_zh"] != "") == ("ECT001J", 40, True)
    write(store, line("n0", "viewed", A, "ECT001J", issuers=[B]))
    [row] = demo.get(asked).get_json()["rows"]
    assert (row["counts"]["recognised"], row["counts"]["viewed"]) == (39, 40)


def test_json_has_its_range_total_rates_and_index(demo: FlaskClient) -> None:
    """Exact digits; a rate of too few cases is null and says so."""
    response = demo.get(f"{URL}?from=2026&to=2026", headers={"Accept": "application/json"})
    found = response.get_json()
    assert response.content_type == "application/json"
    assert (found["by"], found["from"], found["to"], found["timezone"], found["institution"]) == \
        ("hospital", "2026-01-01", "2026-12-31", "Asia/Shanghai", None)
    assert [row["value"] for row in found["rows"]] == [A, B]
    assert b'"saved":493.60' in response.data and b'"patient":93.60' in response.data
    assert found["rows"][0]["rates"]["decision"] == {"value": 1.0, "numerator": 40, "denominator": 40,
                                                     "suppressed": False}
    assert found["rows"][1]["rates"]["decision"]["value"] is None
    assert found["rows"][0]["index"]["value"] == 100.0 and found["rows"][1]["index"]["value"] is None
    assert found["total"]["counts"]["reminded"] == 41 and found["events"] == 41


@pytest.mark.parametrize(("query", "accept", "content_type"), [
    ("", "", "application/json"), ("", "text/csv", "text/csv; charset=utf-8; header=present"),
    ("", "application/fhir+json", "application/fhir+json; charset=utf-8"),
    ("&format=csv", "application/json", "text/csv; charset=utf-8; header=present"),
    ("&format=fhir", "", "application/fhir+json; charset=utf-8"),
    ("", "text/html,application/xhtml+xml,*/*;q=0.8", "application/json")])
def test_the_format_is_the_parameters_then_accepts(demo: FlaskClient, query: str, accept: str,
                                                   content_type: str) -> None:
    """``format`` wins; a browser gets JSON."""
    response = demo.get(f"{URL}?from=2026{query}", headers={"Accept": accept} if accept else {})
    assert (response.status_code, response.content_type) == (200, content_type)


def test_csv_and_measure_report_say_the_same(demo: FlaskClient) -> None:
    """Two writings of one answer."""
    text = demo.get(f"{URL}?by=item&institution={A}&from=2026&to=2026&format=csv")
    head, row, whole = csv.reader(io.StringIO(text.data.decode("utf-8-sig"), newline=""))
    told = dict(zip(head, row, strict=True))
    assert (told["recognised"], told["saved, CNY"], told["decision rate"], told["view rate"], whole[0]) == \
        ("40", "493.60", "1.0000", "1.0000", "total")
    assert "attachment" in text.headers["Content-Disposition"]
    chinese = demo.get(f"{URL}?by=item&institution={A}&from=2026&to=2026&format=csv&language=zh")
    assert chinese.data.decode("utf-8-sig").startswith("代码,名称,医嘱项")
    report = json.loads(demo.get(f"{URL}?by=item&institution={A}&from=2026&to=2026&format=fhir").data)
    assert check(report) == [] and report["reporter"] == {"reference": f"Organization/{A}"}
    groups = {group["code"]["coding"][0]["code"]: group for group in report["group"]}
    assert groups["decision"]["measureScore"]["value"] == 1.0
    assert groups["amount-saved"]["measureScore"] == {"value": 493.6, "unit": "CNY", "system": "urn:iso:std:iso:4217",
                                                      "code": "CNY"}
    [stratum] = groups["count-recognised"]["stratifier"][0]["stratum"]
    assert stratum["population"][0]["count"] == 40 and stratum["value"]["coding"][0]["code"] == "ECT001J"
    assert json.loads(demo.get(f"{URL}/measure").data)["url"] == report["measure"]


@pytest.mark.parametrize(("query", "status", "place"), [
    ("by=ward", 400, "by"), ("by=doctor", 400, "institution"), ("from=2026-02-30", 400, "from"),
    ("from=2026-05&to=2026-04", 400, "from"), ("to=soon", 400, "to"), ("institution=nowhere", 404, "institution"),
    ("language=fr&format=csv", 400, "language"), ("format=pdf", 400, "format"), ("instituton=a", 400, "instituton"),
    ("by=item&by=day", 400, "by")])
def test_a_question_that_has_no_answer_is_refused(demo: FlaskClient, query: str, status: int, place: str) -> None:
    """With the parameter that is wrong; nothing is guessed."""
    response = demo.get(f"{URL}?{query}")
    outcome = response.get_json(force=True)
    assert (response.status_code, outcome["resourceType"]) == (status, "OperationOutcome")
    assert place in outcome["issue"][0]["diagnostics"]


def test_an_accept_that_we_do_not_have_is_406(demo: FlaskClient) -> None:
    """And a weight of 0 takes a type away."""
    assert demo.get(URL, headers={"Accept": "image/png"}).status_code == 406
    assert media_type("application/json;q=0, text/csv;q=0.1") == "text/csv"
    assert media_type("text/csv;q=0.5,application/fhir+json;q=0.9") == "application/fhir+json"
    with pytest.raises(GatewayError):
        media_type("text/csv;q=x")


def test_who_sees_whose_figures(guarded: FlaskClient, store: Store) -> None:
    """A hospital's client its own only, doctors among it; system level all; without the scope nobody any."""
    def headers(name: str, institution: str | None, *scopes: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {store.client_add(name, institution, scopes)}"}
    own = headers("b", B, "institution/MeasureReport.r")
    system, other = headers("s", None, "system/MeasureReport.r"), headers("o", A, "institution/Observation.r")
    year = "from=2026&to=2026"
    assert guarded.get(f"{URL}?{year}").status_code == 401
    assert guarded.get(f"{URL}?{year}", headers=other).status_code == 403
    assert guarded.get(f"{URL}?{year}&institution={A}", headers=own).status_code == 403
    seen = guarded.get(f"{URL}?{year}", headers=own).get_json()
    assert [row["value"] for row in seen["rows"]] == [B] and seen["total"]["counts"]["orders"] == 1
    assert seen["total"]["counts"]["issued"] == 40  # of its own results
    for by in ("item", "day", "issuer"):
        told = guarded.get(f"{URL}?{year}&by={by}", headers=own).get_json()
        assert told["institution"] == B and sum(row["counts"]["reminded"] for row in told["rows"]) == 1
    assert guarded.get(f"{URL}?{year}&by=doctor", headers=own).get_json()["rows"][0]["value"] == "d1"
    everything = guarded.get(f"{URL}?{year}", headers=system).get_json()
    assert [row["value"] for row in everything["rows"]] == [A, B]
    nobody = headers("n", None, "institution/MeasureReport.r")
    assert guarded.get(f"{URL}?{year}", headers=nobody).status_code == 403


# ---------------------------------------------------------------- the command line

def test_figures_on_the_command_line(huren: Run, tmp_path: Any) -> None:
    """`huren figures show` prints a table, JSON, CSV or a MeasureReport; `recount` gives the same again."""
    with_lines = open_store(Settings(data=tmp_path / "data"), migrate=True)
    write(with_lines, *[line(f"n{k}", "recognised", A, "ECT001J", issuers=[B], price="12.34", fund="10")
                        for k in range(40)])
    with_lines.close()
    status, out, _ = huren("figures", "show", "--from", "2026", "--to", "2026")
    assert status == 0 and out.splitlines()[1].split("\t")[:6][::5] == [A, "493.60"]
    status, out, _ = huren("figures", "show", "--by", "item", "--from", "2026-03", "--to", "2026-03", "--format",
                           "json")
    assert status == 0 and json.loads(out)["rows"][0]["counts"]["recognised"] == 40
    assert huren("figures", "recount")[:2] == (0, "40 order lines counted anew\n")
    status, csv_, _ = huren("figures", "show", "--by", "item", "--from", "2026-03", "--format", "csv",
                            "--language", "zh")
    assert status == 0 and csv_.startswith("\ufeff代码")
    status, out, _ = huren("figures", "show", "--format", "fhir", "--from", "2026")
    assert status == 0 and json.loads(out)["resourceType"] == "MeasureReport"
    status, _, err = huren("figures", "show", "--by", "doctor")
    assert status == 1 and "institution=" in err
    assert huren("figures", "show", "--by", "ward")[0] == 2
