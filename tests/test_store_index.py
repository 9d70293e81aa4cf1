"""Index rows follow every write; a rebuild makes the same rows; a changed definition is noticed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from store_samples import NUMBERS, check_consistent, observation, patient

from gateway import indexing
from gateway.caller import GATEWAY
from gateway.config import Settings
from gateway.errors import Category, GatewayError
from gateway.store import Store, index_schema, open_store, reindexing
from gateway.store.index import Pending
from gateway.store.model import Delete, Put, Unit


def _fill(store: Store, count: int = 60) -> None:
    for n in range(count // 3):
        store.write(Unit([Put(patient(f"p{n}", NUMBERS[n % 4] if n % 2 else ""), "hz"),
                          Put(observation(f"a{n}", f"p{n}", str(n)), "hz"), Put(observation(f"b{n}", "p0", "1"))]),
                    GATEWAY)
    store.write(Unit([Delete("Observation", "a1"), Put(observation("a2", "p3", "7"))]), GATEWAY)


def _rows(store: Store) -> dict[str, list[Any]]:
    with store._database.read() as reader:
        return {t.name: sorted(reader.all(f"SELECT * FROM {t.name}"), key=repr)
                for t in index_schema.metadata.sorted_tables}


def test_rows_follow_create_update_and_delete(store: Store) -> None:
    """What is deleted has no rows; what changed has those of its new content."""
    _fill(store)
    assert 60 == check_consistent(store)
    store.write(Unit([Delete("Observation", f"a{n}") for n in range(20)]), GATEWAY)
    check_consistent(store)


def test_a_rebuild_makes_the_same_rows(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows after ``reindex`` equal those before, over several batches; progress ends at the total."""
    monkeypatch.setattr(reindexing, "BATCH", 7)
    _fill(store)
    before, seen = _rows(store), []
    assert 60 == store.reindex(lambda done, total: seen.append((done, total)))
    assert before == _rows(store)
    assert (60, 60) == seen[-1] and seen[0] == (7, 60)
    _fill(store)  # dictionary rows are written again where they are needed
    check_consistent(store)


def test_a_rebuild_that_was_killed_goes_on(store: Store, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the index is not whole, searching is BUSY, reading goes on and the start says what to run."""
    monkeypatch.setattr(reindexing, "BATCH", 7)
    monkeypatch.setattr("gateway.store.store._STATE", 0.0)
    _fill(store)
    before = _rows(store)

    class Killed(BaseException):
        pass

    def kill(done: int, total: int) -> None:
        if done >= 28:
            raise Killed
    with pytest.raises(Killed):
        store.reindex(kill)
    with pytest.raises(GatewayError) as caught, store.reading():
        pass
    assert Category.BUSY is caught.value.category
    assert store.read("Observation", "b3", GATEWAY) is not None
    store.write(Unit([Put(observation("while", "p1")), Put(observation("b19", "p0", "99"))]), GATEWAY)
    with pytest.raises(GatewayError) as refused:
        open_store(settings)
    assert "huren reindex" in refused.value.message
    again = open_store(settings, reindex=True)
    try:
        assert 33 == again.reindex()
    finally:
        again.close()
    check_consistent(store)
    with store.reading() as connection:
        assert connection.execute(sa.text("SELECT count(*) FROM idx_resource")).scalar() == 60
    assert set(map(repr, before["idx_date"])) <= set(map(repr, _rows(store)["idx_date"]))


def test_a_changed_definition_is_noticed(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """INVALID names `huren reindex`; an empty database takes the new definition at once."""
    open_store(settings, migrate=True).close()
    monkeypatch.setattr(indexing, "fingerprint", lambda: "other")
    with pytest.raises(GatewayError) as caught:
        open_store(settings)
    assert (Category.INVALID, True) == (caught.value.category, "huren reindex" in caught.value.message)
    store = open_store(settings, migrate=True)
    _fill(store, 3)
    store.close()
    monkeypatch.setattr(indexing, "fingerprint", lambda: "third")
    with pytest.raises(GatewayError):
        open_store(settings, migrate=True)
    store = open_store(settings, reindex=True)
    store.reindex()
    store.close()
    open_store(settings).close()


def test_reading_is_one_snapshot_and_writes_nothing(store: Store) -> None:
    """Within ``reading`` the store's own reads see the state at its beginning; the connection refuses writes."""
    _fill(store, 3)
    with store.reading() as connection:
        count = connection.execute(sa.select(sa.func.count()).select_from(index_schema.idx_resource)).scalar()
        store.write(Unit([Put(observation("late", "p0"))]), GATEWAY)
        assert store.read("Observation", "late", GATEWAY) is None
        with store.reading() as inner:
            assert count == inner.execute(sa.text("SELECT count(*) FROM idx_resource")).scalar()
        with pytest.raises(sa.exc.DBAPIError):
            connection.execute(sa.text("DELETE FROM resource"))
    assert store.read("Observation", "late", GATEWAY) is not None
    with store.reading() as connection:
        assert (count or 0) + 1 == connection.execute(sa.text("SELECT count(*) FROM idx_resource")).scalar()


def test_an_error_inside_reading_leaves_no_transaction(store: Store) -> None:
    """The next reader of the thread sees new data."""
    with pytest.raises(ZeroDivisionError), store.reading() as connection:
        connection.execute(sa.text("SELECT count(*) FROM resource"))
        raise ZeroDivisionError
    store.write(Unit([Put(observation("o1", "p0"))]), GATEWAY)
    with store.reading() as connection:
        assert 1 == connection.execute(sa.text("SELECT count(*) FROM resource")).scalar()


def test_a_database_that_is_no_store(tmp_path: Path) -> None:
    """An empty folder and a wrong URL say what to do."""
    with pytest.raises(GatewayError) as caught:
        open_store(Settings(data=tmp_path))
    assert "huren migrate" in caught.value.message
    with pytest.raises(GatewayError) as caught:
        open_store(Settings(data=tmp_path, database_url="mysql://x/y"))
    assert Category.INVALID is caught.value.category


class _Noting:
    """A transaction that only notes what it is to insert."""

    def __init__(self) -> None:
        self.inserted: dict[str, list[tuple[Any, ...]]] = {}

    def insert(self, table: str, columns: Any, rows: Any, *, ignore: bool = False) -> None:
        self.inserted[table] = list(rows)


def test_rows_are_inserted_in_the_order_of_the_primary_key() -> None:
    """Whatever the order of resources: neighbours go to the same page. Terms that were seen are left out."""
    noting, pending, bound = _Noting(), Pending(), list[dict[str, list[tuple[Any, ...]]]]()
    terms, seen = set[int](), set[int]()
    for pk, person in enumerate((5, 0, 3, 5, 9, 3)):
        for kind, resource in (("o", observation(f"{pk}", "p1", f"{pk}.5")), ("p", patient(f"{pk}", NUMBERS[0]))):
            rows = indexing.extract(resource)
            number = 100 - 2 * pk - (kind == "o")
            pending.add(rows, person, number, 1, seen)
            bound.append(index_schema.bind(rows, person, number, 1))
            terms |= {term[0] for term in rows["idx_term"]}
    assert pending.write(noting) == terms  # type: ignore[arg-type]
    assert [term[0] for term in noting.inserted.pop("idx_term")] == sorted(terms)
    for table in index_schema.OF_RESOURCES:
        rows_of = [row for one in bound for row in one.get(table.name, ())]
        assert noting.inserted.get(table.name, []) == sorted(rows_of, key=lambda row: index_schema.key_of(table, row))
    again = Pending()
    again.add(indexing.extract(observation("0", "p1", "0.5")), 5, 1, 1, terms)
    assert again.write(noting) == set()  # type: ignore[arg-type]
    assert "idx_term" not in noting.inserted
