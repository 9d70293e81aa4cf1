"""Fixtures of all tests: an empty database on each backend, settings and a store over it."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from bench import postgres
from gateway.config import Settings
from gateway.store import Store, open_store

_NUMBERS = itertools.count(1)
_Query = Callable[[str], None]


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """URL of a PostgreSQL server to make databases on: ``HUREN_TEST_POSTGRES``, else one of this session's own."""
    if given := os.environ.get("HUREN_TEST_POSTGRES", ""):
        yield given
        return
    with postgres.scratch() as url:
        yield url


@pytest.fixture(scope="session")
def postgres_template(postgres_server: str) -> Iterator[str]:
    """Name of a migrated database that others are copied from; empty where there is no server."""
    if not postgres_server:
        yield ""
        return
    name = f"huren_template_{os.getpid()}"
    with _admin(postgres_server) as execute:
        execute(f"CREATE DATABASE {name}")
        try:
            open_store(Settings(database_url=_database(postgres_server, name)), migrate=True).close()
            yield name
        finally:
            execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """``HUREN_DATABASE_URL`` of an empty database; empty for SQLite, which lies in ``HUREN_DATA``."""
    if request.param == "sqlite":
        yield ""
        return
    server: str = request.getfixturevalue("postgres_server")
    if not server:
        pytest.skip("PostgreSQL is not installed; set HUREN_TEST_POSTGRES to the URL of a server")
    template, name = request.getfixturevalue("postgres_template"), f"huren_{os.getpid()}_{next(_NUMBERS)}"
    with _admin(server) as execute:
        execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        try:
            yield _database(server, name)
        finally:
            execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


@pytest.fixture
def settings(database_url: str, tmp_path: Path) -> Settings:
    """Settings of an empty database and an empty data folder."""
    return Settings(data=tmp_path, database_url=database_url)


@pytest.fixture
def store(settings: Settings) -> Iterator[Store]:
    """An empty store; closed at the end."""
    store = open_store(settings, migrate=True)
    yield store
    store.close()


@contextlib.contextmanager
def _admin(server: str) -> Iterator[_Query]:
    url = sa.make_url(server).set(drivername="postgresql+psycopg")
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=sa.pool.NullPool)

    def execute(sql: str) -> None:
        with engine.connect() as connection:
            connection.execute(sa.text(sql))
    yield execute
    engine.dispose()


def _database(server: str, name: str) -> str:
    return sa.make_url(server).set(database=name).render_as_string(hide_password=False)
