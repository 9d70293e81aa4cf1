"""The schema's versions: numbered steps for the truth tables. Index tables are rebuilt instead (`reindex`).

To change the schema: change `schema.py` for new databases, append a function to ``STEPS`` for those that exist, and let
a test upgrade a database of the version before. A step runs in the migration's transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import sqlalchemy as sa

from gateway.errors import Category, GatewayError
from gateway.store import index_schema, schema


def _recognition(connection: sa.Connection) -> None:
    """Version 2: order lines, their events, and the figures over them."""
    schema.metadata.create_all(connection, tables=schema.RECOGNITION)
    _count(connection, ["line"])


#: ``STEPS[n]`` brings version n + 1 to version n + 2. Version 1 is what `schema.py` first made.
STEPS: list[Callable[[sa.Connection], None]] = [_recognition]

_VERSION = "SELECT value FROM meta WHERE name = 'schema'"


def newest() -> int:
    """The version that this code works with."""
    return 1 + len(STEPS)


def version_of(connection: sa.Connection) -> int:
    """The version of a database; 0: it is empty."""
    if not sa.inspect(connection).has_table("meta"):
        return 0
    found = connection.execute(sa.text(_VERSION)).scalar()
    return int(found) if found else 0


def check(connection: sa.Connection) -> None:
    """INVALID when the database is of another version than this code."""
    version = version_of(connection)
    if version == 0:
        raise GatewayError(Category.INVALID, "the database is empty: run `huren migrate`", "HUREN_DATABASE_URL")
    if version < newest():
        raise GatewayError(Category.INVALID, f"the database's schema is version {version}, this program works with "
                                             f"{newest()}: run `huren migrate`", "HUREN_DATABASE_URL")
    if version > newest():
        raise GatewayError(Category.INVALID, f"the database's schema is version {version}, newer than this program's "
                                             f"{newest()}: install the newer huren", "HUREN_DATABASE_URL")


def migrate(connection: sa.Connection) -> None:
    """Bring the database to the newest version, inside the caller's transaction; never back to an older one."""
    version = version_of(connection)
    if version > newest():
        check(connection)
    if version == 0:
        _create(connection)
        return
    for number in range(version, newest()):
        STEPS[number - 1](connection)
        connection.execute(sa.text("UPDATE meta SET value = :v WHERE name = 'schema'"), {"v": str(number + 1)})


def _create(connection: sa.Connection) -> None:
    schema.metadata.create_all(connection)
    index_schema.metadata.create_all(connection)
    if connection.dialect.name == "postgresql":
        schema.audit_metadata.create_all(connection)
    _count(connection, schema.COUNTERS)
    connection.execute(schema.institution.insert(), {"number": 0, "slug": ""})
    connection.execute(schema.meta.insert(), {"name": "schema", "value": str(newest())})


def _count(connection: sa.Connection, names: Iterable[str]) -> None:
    """Counters that begin with 1."""
    if connection.dialect.name == "postgresql":
        for name in names:
            connection.execute(sa.text(f"CREATE SEQUENCE IF NOT EXISTS seq_{name} AS bigint"))
    else:
        connection.execute(schema.counter.insert(), [{"name": name, "value": 1} for name in names])
