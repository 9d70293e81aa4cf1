"""How the databases answer the queries that must be fast: by look-ups in index keys, in few statements."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from gateway.caller import GATEWAY
from gateway.search import plan, search
from gateway.store import Store
from gateway.store.model import Put, Unit

LOINC = "http://loinc.org"
PATIENTS, OBSERVATIONS = 12, 10


def _concept(system: str, code: str) -> dict[str, Any]:
    return {"coding": [{"system": system, "code": code}]}


@pytest.fixture
def loaded(store: Store) -> Store:
    """A few persons with reports and results."""
    for p in range(PATIENTS):
        subject = {"reference": f"Patient/p{p}"}
        rows: list[dict[str, Any]] = [{"resourceType": "Patient", "id": f"p{p}", "name": [{"family": f"Name{p}"}],
                                       "identifier": [{"system": "urn:mrn", "value": str(p)}]}]
        rows += [{"resourceType": "Observation", "id": f"o{p}-{n}", "subject": subject, "status": "final",
                  "code": _concept(LOINC, f"c{n}"), "effectiveDateTime": f"2024-01-{n + 1:02}T08:00:00Z",
                  "valueQuantity": {"value": p * n}} for n in range(OBSERVATIONS)]
        rows.append({"resourceType": "DiagnosticReport", "id": f"r{p}", "subject": subject, "status": "final",
                     "category": [_concept("urn:cat", "LAB")], "code": _concept(LOINC, "lab"),
                     "effectiveDateTime": "2024-01-10T08:00:00Z",
                     "result": [{"reference": f"Observation/o{p}-{n}"} for n in range(OBSERVATIONS)]})
        store.write(Unit([Put(r, "a") for r in rows]), GATEWAY)
    return store


@pytest.fixture
def explained(loaded: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Plans of the statements that a search runs, one text each."""
    plans: list[str] = []
    run = plan.Planner.run

    def explaining(self: plan.Planner, shape: Any, args: Any, build: Any) -> Any:
        text, order, constants = plan.compiled(self.dialect, shape, build)
        if order is None:
            for way in ("seqscan", "bitmapscan", "sort"):  # tables so small that these would be cheaper
                self.connection.exec_driver_sql(f"SET LOCAL enable_{way} = off")
            values: Any = constants | {f"p{n}": value for n, value in enumerate(args)}
            rows = self.connection.exec_driver_sql(f"EXPLAIN {text}", values)
            plans.append("\n".join(row[0] for row in rows))
        else:
            values = tuple(args[n] if isinstance(n, int) else constants[n] for n in order)
            rows = self.connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}", values)
            plans.append("\n".join(row[3] for row in rows))
        return run(self, shape, args, build)
    monkeypatch.setattr(plan.Planner, "run", explaining)
    return plans  # type: ignore[return-value]


#: Query → rows expected, statements (SQLite and PostgreSQL alike), and the keys that SQLite must search by.
FAST = {
    "DiagnosticReport?patient.identifier=urn:mrn|3": (1, 2, ["idx_token", "idx_resource"]),
    "DiagnosticReport?patient=p3&category=LAB&date=ge2024-01-02&_sort=-date&_include=DiagnosticReport:result": (
        1, 2, ["(key=? AND person=?)", "(param=? AND person=? AND pk=?)"]),
    "Observation?patient=p3&code=http://loinc.org|c4&_sort=-date&_count=1": (
        1, 2, ["idx_term_code (param=? AND code=? AND system=?)", "(key=? AND person=?)",
               "(param=? AND person=? AND pk=?)"]),
    "Observation?code=http://loinc.org|c4&value-quantity=gt10&_count=50": (
        9, 2, ["USING PRIMARY KEY (key=?)", "(param=? AND person=? AND pk=?)"]),
    "Observation?patient=p3&_sort=-date&_count=5": (5, 1, ["(type=? AND person=?)"]),
    "Patient?name=Name1": (3, 2, ["PRIMARY KEY (param=? AND value>? AND value<?)"]),
    "Patient?identifier=urn:mrn|3": (1, 1, ["PRIMARY KEY (key=?)"]),
    "Observation?_id=o3-4": (1, 2, ["resource_id (id=?)"]),
    "DiagnosticReport?result=Observation/o3-4": (1, 1, ["PRIMARY KEY (target=? AND param=?)"]),
    "DiagnosticReport?result.code=http://loinc.org|c4": (12, 4, ["PRIMARY KEY (target=? AND param=?)"]),
    "Observation?date=2024-01-03": (12, 2, ["idx_date_lo (param=? AND lo>? AND lo<?)"]),
    "Observation?date=gt2024-01-09": (12, 2, ["idx_date_lo (param=? AND lo>? AND lo<?)",
                                              "idx_date_wide (param=? AND span>?)"]),
    "Observation?_lastUpdated=gt2020-01-01&_count=1": (1, 2, ["resource_updated (type=? AND updated>?)"]),
    "Observation": (50, 1, ["PRIMARY KEY (type=?)"]),
}


@pytest.mark.parametrize("few", [3000, 0], ids=["few", "many"])
def test_fast_queries_look_up_keys(loaded: Store, explained: list[str], few: int,
                                   monkeypatch: pytest.MonkeyPatch) -> None:
    """No statement reads a whole table, whether few or many resources match, and each query needs few statements."""
    monkeypatch.setattr(plan, "FEW", few)
    for query, (rows, statements, keys) in FAST.items():
        explained.clear()
        plan._estimates.clear()
        kind, _, raw = query.partition("?")
        page = search(loaded, GATEWAY, kind, raw)
        assert len(page.rows) == rows, query
        assert few == 0 or len(explained) == statements, (query, explained)
        text = "\n".join(explained)
        if "SEARCH" in text:
            assert "SCAN idx_" not in text and "SCAN resource" not in text, (query, text)
            assert few == 0 or all(key in text for key in keys), (query, text)
        else:
            assert "Seq Scan on idx_" not in text and "Seq Scan on resource" not in text, (query, text)


def test_many_are_walked_in_order(loaded: Store, explained: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Where many match, an index is walked in the page's order and nothing is sorted."""
    monkeypatch.setattr(plan, "FEW", 0)
    for query in ("Observation?status=final&_sort=-date&_count=5", "Observation?status=final&_count=5",
                  "Observation?status=final,amended&_count=5", "Observation?_sort=-date&_count=5"):
        explained.clear()
        plan._estimates.clear()
        assert len(search(loaded, GATEWAY, "Observation", query.partition("?")[2]).rows) == 5
        assert "TEMP B-TREE" not in explained[-1] and "Sort" not in explained[-1], explained[-1]


def test_a_shape_is_compiled_once(loaded: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Queries that differ in values only share the text of their statements."""
    for n in range(3):
        before = len(plan._texts)
        search(loaded, GATEWAY, "Observation", f"patient=p{n}&code={LOINC}|c{n}&_sort=-date&_count=1")
        search(loaded, GATEWAY, "Observation", f"patient=p{n}&date=ge2024-01-0{n + 1}&date=lt2024-02")
    assert len(plan._texts) == before
