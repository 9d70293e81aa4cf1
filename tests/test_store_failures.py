"""A full disk, a database that is away, a poisoned unit: BUSY or that one alone, and recovery by itself."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from store_samples import check_consistent, observation, put

from bench import postgres
from gateway.caller import GATEWAY
from gateway.config import Settings
from gateway.errors import Category, GatewayError
from gateway.store import Store, audit, migrations, open_store, schema
from gateway.store.model import Access, Delete, Put, Unit


def _busy(call: Callable[[], Any]) -> None:
    with pytest.raises(GatewayError) as caught:
        call()
    assert Category.BUSY is caught.value.category
    assert "p1" not in caught.value.message


@pytest.fixture
def sqlite(tmp_path: Path) -> Iterator[Store]:
    """A store on SQLite alone."""
    store = open_store(Settings(data=tmp_path), migrate=True)
    yield store
    store.close()


def test_a_full_disk_is_busy_and_then_over(sqlite: Store) -> None:
    """Nothing half-stored while the disk is full, reading goes on, and writing works again when there is room."""
    put(sqlite, observation("before", "p1"))
    writer = sqlite._database._writer  # type: ignore[attr-defined]
    pages = writer.execute("PRAGMA page_count").fetchone()[0]
    writer.execute(f"PRAGMA max_page_count = {pages}")
    # too few for a dictionary: its training would write beside, meet the limit first, and open a fresh connection
    big = [Put(observation(f"o{n}", f"p{n}", str(n))) for n in range(150)]
    _busy(lambda: sqlite.write(Unit([*big]), GATEWAY))
    assert sqlite.read("Observation", "o0", GATEWAY) is None
    assert sqlite.read("Observation", "before", GATEWAY) is not None
    [first, *_] = sqlite.write(Unit([*big]), GATEWAY)  # a fresh connection has no such limit
    assert "created" == first.outcome
    check_consistent(sqlite)


def test_a_real_file_size_limit(tmp_path: Path) -> None:
    """The same with the operating system refusing to let files grow: recording is BUSY, later it works."""
    store = open_store(Settings(data=tmp_path), migrate=True)
    put(store, observation("before", "p1"))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = max(file.stat().st_size for file in tmp_path.iterdir() if file.is_file())
    import signal
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        _busy(lambda: [store.record(os.urandom(200_000), "hl7v2", "p") for _ in range(20)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)
    assert store.record(os.urandom(200_000), "hl7v2", "p").id > 0
    assert store.read("Observation", "before", GATEWAY) is not None
    store.close()


def test_another_program_holds_the_file(sqlite: Store, tmp_path: Path) -> None:
    """A foreign writer that does not know our lock makes us BUSY, not wrong."""
    import sqlite3
    put(sqlite, observation("before", "p1"))
    foreign = sqlite3.connect(tmp_path / "huren.sqlite", isolation_level=None)
    foreign.execute("BEGIN IMMEDIATE")
    with contextlib.closing(foreign):
        writer = sqlite._database._writer  # type: ignore[attr-defined]
        writer.execute("PRAGMA busy_timeout = 50")
        _busy(lambda: put(sqlite, observation("o1", "p1")))
        foreign.execute("ROLLBACK")
    assert "created" == put(sqlite, observation("o1", "p1"))[0].outcome


def test_a_poisoned_unit_fails_alone(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the database itself refuses hurts no unit that shared the commit."""
    from gateway.store import units
    original = units.prepare_all

    def prepare_all(puts: Sequence[Put], codec: Any) -> Any:
        made = original(puts, codec)
        for asked, one in zip(puts, made, strict=True):
            if asked.resource["id"] == "poison":
                one.index["idx_token"].append(("not a number",) if store._database.one_audit else (1 << 80,))
        return made
    monkeypatch.setattr(units, "prepare_all", prepare_all)
    outcomes: dict[str, str] = {}

    def one(name: str) -> None:
        try:
            outcomes[name] = put(store, observation(name, "p1"))[0].outcome
        except Exception as error:
            outcomes[name] = type(error).__name__
    threads = [threading.Thread(target=one, args=(name,)) for name in ["poison", *map(str, range(9))]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ["created"] * 9 == [outcomes[str(n)] for n in range(9)]
    assert outcomes["poison"] != "created"
    check_consistent(store)


def test_nul_and_odd_characters_are_stored(store: Store) -> None:
    """What PostgreSQL's text cannot hold does not stop a message, nor its update and deletion."""
    odd = observation("o1", "p1") | {"note": [{"text": "a\u0000b\ud7ff\U0001f600"}]}
    odd["code"] = {"text": "x\u0000y", "coding": [{"system": "urn:a\u0000", "code": "c\u0000", "display": "d\u0000"}]}
    odd["identifier"] = [{"system": "s\u0000", "value": "v\u0000"}]
    put(store, odd)
    put(store, {"resourceType": "Patient", "id": "p9", "name": [{"family": "L\u0000i"}]})
    inbound = store.record(b"raw", "hl7v2", "peer\0", "id\0", "facility\0")
    assert store.inbox()[0].peer.startswith("peer") and inbound.id
    store.audit(Access("x\0", None, "search", "Patient?name=\0", 200))
    assert 1 == len(store.audit_rows())
    put(store, {"resourceType": "Patient", "id": "p9", "name": [{"family": "W\u0000u"}]})
    store.write(Unit([Delete("Patient", "p9"), Put(odd | {"status": "amended"})]), GATEWAY)
    row = store.read("Observation", "o1", GATEWAY)
    assert row is not None and b"a\\u0000b" in row.tail


def test_audit_rows_wait_while_the_database_is_away(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are kept and written later; when too many wait, accesses are refused rather than forgotten."""
    away = [True]
    original = store._database.write_audit

    def write(columns: Any, rows: Any) -> None:
        if away[0]:
            raise GatewayError(Category.BUSY, "away")
        original(columns, rows)
    monkeypatch.setattr(store._database, "write_audit", write)
    monkeypatch.setattr(audit, "MOST", 5)
    for n in range(5):
        store.audit(Access("x", None, "read", f"Patient/{n}", 200))
    _busy(lambda: store.audit(Access("x", None, "read", "Patient/5", 200)))
    away[0] = False
    assert ["Patient/4", "Patient/0"] == [store.audit_rows()[n].access.target for n in (0, 4)]


def test_after_close_writing_is_busy(settings: Settings) -> None:
    """A process that stops refuses new work in the taxonomy's words."""
    store = open_store(settings, migrate=True)
    store.close()
    _busy(lambda: put(store, observation("o1", "p1")))


@pytest.mark.long
def test_postgresql_goes_away_and_comes_back(tmp_path: Path) -> None:
    """While the server is down every call is BUSY; when it is up again the same store works."""
    with postgres.scratch() as url:
        if not url:
            pytest.skip("PostgreSQL is not installed")
        store = open_store(Settings(data=tmp_path, database_url=url), migrate=True)
        put(store, observation("before", "p1"))
        assert store.read("Observation", "before", GATEWAY) is not None
        stop, start = _server(url)
        stop()
        try:
            _busy(lambda: put(store, observation("o1", "p1")))
            _busy(lambda: store.record(b"raw", "hl7v2", "p"))
            _busy(lambda: store.read("Observation", "before", GATEWAY))

            def search() -> None:
                with store.reading() as connection:
                    connection.execute(sa.text("SELECT 1"))
            _busy(search)
        finally:
            start()
        assert store.read("Observation", "before", GATEWAY) is not None
        assert "created" == put(store, observation("o1", "p1"))[0].outcome
        stop()
        start()  # a restart that nobody noticed: the next calls work at once
        assert store.read("Observation", "o1", GATEWAY) is not None
        assert "created" == put(store, observation("o2", "p1"))[0].outcome
        check_consistent(store)
        store.close()


def _server(url: str) -> tuple[Callable[[], None], Callable[[], None]]:
    """Stop and start the scratch server of a URL."""
    engine = sa.create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    with engine.connect() as connection:
        folder = connection.execute(sa.text("SHOW data_directory")).scalar_one()
        port = connection.execute(sa.text("SHOW port")).scalar_one()
    engine.dispose()
    tool = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"))[-1]
    user = ["runuser", "-u", "postgres", "--"] if os.getuid() == 0 else []
    options = f"-p {port} -k {Path(folder).parent}"

    def run(*arguments: str) -> None:
        subprocess.run([*user, str(tool), "-D", folder, "-w", *arguments], check=True, cwd="/",
                       stdout=subprocess.DEVNULL)
    return (lambda: run("-m", "fast", "stop"),
            lambda: run("-l", f"{Path(folder).parent}/log", "-o", options, "start"))


# -------------------------------------------------------------------- schema


def test_migrate_makes_and_keeps(settings: Settings) -> None:
    """An empty database becomes the newest version; migrating again changes nothing."""
    open_store(settings, migrate=True).close()
    store = open_store(settings, migrate=True)
    put(store, observation("o1", "p1"))
    store.close()
    store = open_store(settings)
    assert store.read("Observation", "o1", GATEWAY) is not None
    store.close()


def test_an_older_schema_is_upgraded_step_by_step(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """The start refuses an older schema and says `huren migrate`, which runs the missing steps in order."""
    store = open_store(settings, migrate=True)
    put(store, observation("o1", "p1"))
    store.close()

    def two(connection: sa.Connection) -> None:
        connection.execute(sa.text("ALTER TABLE client ADD COLUMN note TEXT"))

    def three(connection: sa.Connection) -> None:
        connection.execute(sa.text("UPDATE client SET note = 'x'"))
    now = migrations.STEPS
    monkeypatch.setattr(migrations, "STEPS", [*now, two, three])
    with pytest.raises(GatewayError) as caught:
        open_store(settings)
    assert (Category.INVALID, True) == (caught.value.category, "huren migrate" in caught.value.message)
    store = open_store(settings, migrate=True)
    with store.reading() as connection:
        assert str(len(now) + 3) == connection.execute(sa.text("SELECT value FROM meta WHERE name = 'schema'")).scalar()
        assert "note" in {c["name"] for c in sa.inspect(connection).get_columns("client")}
    assert store.read("Observation", "o1", GATEWAY) is not None
    store.close()
    monkeypatch.setattr(migrations, "STEPS", now)
    for migrate in (False, True):
        with pytest.raises(GatewayError) as newer:
            open_store(settings, migrate=migrate)
        assert "newer" in newer.value.message


def test_a_step_that_fails_changes_nothing(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """All missing steps are one transaction."""
    open_store(settings, migrate=True).close()

    def two(connection: sa.Connection) -> None:
        connection.execute(sa.text("ALTER TABLE client ADD COLUMN note TEXT"))

    def broken(connection: sa.Connection) -> None:
        raise ZeroDivisionError
    with monkeypatch.context() as patched, pytest.raises(ZeroDivisionError):
        patched.setattr(migrations, "STEPS", [*migrations.STEPS, two, broken])
        open_store(settings, migrate=True)
    store = open_store(settings)
    with store.reading() as connection:
        assert "note" not in {c["name"] for c in sa.inspect(connection).get_columns("client")}
    store.close()


def test_every_table_of_a_person_carries_the_shard_key() -> None:
    """``person`` is there where the data grows with persons."""
    from gateway.store import index_schema
    assert all("person" in table.c for table in (schema.resource, schema.patient_person, schema.line))
    assert all("person" in table.c for table in index_schema.OF_RESOURCES)


def test_the_data_folder_needs_a_local_file_system(tmp_path: Path) -> None:
    """A folder that cannot be made is BUSY or INVALID, never a traceback of the driver."""
    (tmp_path / "file").write_text("x")
    with pytest.raises((GatewayError, OSError)):
        open_store(Settings(data=tmp_path / "file" / "data"), migrate=True)
    shutil.rmtree(tmp_path / "x", ignore_errors=True)


def test_after_a_burst_the_log_gives_its_space_back(tmp_path: Path) -> None:
    """SQLite's log is copied and cut once no one writes, also while another connection looks on now and then."""
    store = open_store(Settings(data=tmp_path), migrate=True)
    try:
        for n in range(60):
            store.write(Unit([Put({"resourceType": "Basic", "id": f"b{n}-{k}", "code": {"text": os.urandom(300).hex()}})
                              for k in range(40)]), GATEWAY)
            store.read("Basic", f"b{n}-0", GATEWAY)
        log = tmp_path / "huren.sqlite-wal"
        until = time.monotonic() + 5
        while log.stat().st_size > 2 << 20 and time.monotonic() < until:
            time.sleep(0.02)
        assert log.stat().st_size <= 2 << 20
        assert store.read("Basic", "b59-39", GATEWAY) is not None
    finally:
        store.close()
