"""Paging: every row exactly once, whatever the order, while others write; and a cursor that cannot be bent."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.caller import GATEWAY
from gateway.errors import Category, GatewayError
from gateway.search import plan, search
from gateway.store import Store
from gateway.store.model import Put, Unit

LOINC = "http://loinc.org"
#: Few values, so that there are many ties; None: the resource has no such value.
TIMES = [None, "2024-01-01", "2024-01-01T00:00:00+08:00", "2024-01-02T10:00:00Z", "2024-01"]
VALUES = [None, 1.5, 2, 2.0, -7]
CODES = ["718-7", "789-8"]
STRINGS = [None, "wáng", "Wang", "li"]
KEYS = ["date", "value-quantity", "code", "value-string", "_id", "_lastUpdated", "status"]

rows = st.tuples(st.integers(0, 5), st.sampled_from(TIMES), st.sampled_from(VALUES), st.sampled_from(CODES),
                 st.sampled_from(STRINGS))
orders = st.lists(st.tuples(st.sampled_from(KEYS), st.booleans()), max_size=3, unique_by=lambda key: key[0])
filters = st.sampled_from(["", "code=718-7", "patient=p1", "patient=p1,p2&code=789-8", "date=ge2024-01-02",
                           "code=718-7,789-8", "status:not=amended", "value-quantity:missing=true", "value-string=w"])


def observation(run: int, n: int, row: tuple[Any, ...]) -> dict[str, Any]:
    """An Observation with or without each of the values."""
    person, when, value, code, text = row
    found: dict[str, Any] = {"resourceType": "Observation", "id": f"r{run}-{n}",
                             "status": "final" if n % 3 else "amended",
                             "code": {"coding": [{"system": LOINC, "code": code}]},
                             "meta": {"tag": [{"system": "urn:run", "code": str(run)}]}}
    if person:
        found["subject"] = {"reference": f"Patient/p{person}"}
    if when:
        found["effectiveDateTime"] = when
    if value is not None:
        found["valueQuantity"] = {"value": value}
    elif text:
        found["valueString"] = text
    return found


def everything(store: Store, query: str, count: int, between: Any = None) -> list[str]:
    """Ids of all pages, one after the other; ``between`` is called after each page."""
    found, page = [], search(store, GATEWAY, "Observation", f"{query}&_count={count}")
    while True:
        found += [row.id for row in page.rows]
        assert len(page.rows) <= count
        if not page.next_query:
            return found
        assert len(page.rows) == count
        if between:
            between()
        page = search(store, GATEWAY, "Observation", page.next_query)


@pytest.fixture(params=["gathered", "walked"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways to a page must give the same order: sort what was found, or walk the sort key's index."""
    if request.param == "walked":
        monkeypatch.setattr(plan, "FEW", 0)
    return request.param


_runs = iter(range(1, 1 << 30))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(first=st.lists(rows, max_size=14), later=st.lists(rows, max_size=6), order=orders, asked=filters,
       count=st.integers(1, 5))
def test_pages_give_every_row_once_while_others_write(
        store: Store, way: str, first: list[Any], later: list[Any], order: list[tuple[str, bool]], asked: str,
        count: int) -> None:
    """Pages one after the other hold what one big page held, in its order, whatever is written in between."""
    run = next(_runs)
    for n, row in enumerate(first):  # a unit each: other times of update
        store.write(Unit([Put(observation(run, n, row), "a")]), GATEWAY)
    sort = ",".join(f"-{key}" if down else key for key, down in order)
    query = f"{asked}&_sort={sort}&_tag=urn:run|{run}".strip("&")
    before = everything(store, query, 1000)
    waiting = [Put(observation(run, 1000 + n, row), "a") for n, row in enumerate(later)]

    def write() -> None:
        if waiting:
            store.write(Unit([waiting.pop()]), GATEWAY)
    found = everything(store, query, count, write)
    assert [id for id in found if id in set(before)] == before
    assert len(found) == len(set(found))
    assert set(found) <= set(everything(store, query, 1000))


def test_both_ways_give_the_same_order(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cursor of one way goes on in the other, because data may grow between two pages."""
    for n in range(24):
        row = (n % 4, TIMES[n % 5], VALUES[n % 4], CODES[n % 2], None)
        store.write(Unit([Put(observation(0, n, row), "a")]), GATEWAY)
    asked = [f"_sort={sort}" for sort in ("date", "-date", "_lastUpdated", "-_lastUpdated", "value-string", "")]
    asked += [f"_sort={sort}date&date={prefix}2024-01-{day}" for sort in ("", "-") for day in ("01", "02")
              for prefix in ("", "ge", "gt", "le", "lt", "sa", "eb", "ne", "ap")]
    for query in asked:
        monkeypatch.setattr(plan, "FEW", 3000)
        expected = everything(store, f"{query}&status=final,amended", 1000)
        found, few = [], 3000
        page = search(store, GATEWAY, "Observation", f"{query}&_count=3")
        while True:
            found += [row.id for row in page.rows]
            if not page.next_query:
                break
            few = 3000 - few
            monkeypatch.setattr(plan, "FEW", few)
            page = search(store, GATEWAY, "Observation", page.next_query)
        assert found == expected, query


def test_a_cursor_belongs_to_its_query(store: Store) -> None:
    """The query of a next link cannot be changed, nor the cursor: neither is told apart from a forged one."""
    store.write(Unit([Put(observation(0, n, (1, TIMES[1], 1.5, CODES[0], None)), "a") for n in range(4)]), GATEWAY)
    page = search(store, GATEWAY, "Observation", "patient=p1&_sort=-date&_count=2")
    assert len(search(store, GATEWAY, "Observation", page.next_query).rows) == 2
    cursor = page.next_query.partition("_cursor=")[2]
    bent = [page.next_query.replace("p1", "p2"), page.next_query.replace("-date", "date"),
            page.next_query + "&status=final",
            page.next_query.replace(cursor, ("B" if cursor[0] == "A" else "A") + cursor[1:]),
            f"_cursor={cursor}", "patient=p1&_sort=-date&_count=2&_cursor=%20"]
    for query in bent:
        with pytest.raises(GatewayError) as caught:
            search(store, GATEWAY, "Observation", query)
        assert (caught.value.category, caught.value.where) == (Category.INVALID, "_cursor")
    with pytest.raises(GatewayError):
        search(store, GATEWAY, "DiagnosticReport", page.next_query)


def test_a_page_is_never_too_long(store: Store) -> None:
    """``_count`` is at most 1,000 and 50 when it is not said."""
    store.write(Unit([Put(observation(0, n, (n % 3, None, None, CODES[0], None)), "a") for n in range(60)]), GATEWAY)
    assert len(search(store, GATEWAY, "Observation", "").rows) == 50
    assert len(search(store, GATEWAY, "Observation", "_count=99999999999999999999").rows) == 60
