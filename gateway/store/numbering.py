"""What the tables know by a small number: institutions, and the dictionaries of compressed bodies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gateway.store.database import Database, Reader, Transaction


class Institutions:
    """Numbers of institutions' slugs, remembered; 0 is the gateway's own."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._numbers: dict[str, int] = {"": 0}
        self._slugs: dict[int, str] = {0: ""}
        self._new: dict[str, int] = {}  # of the running transaction
        with database.read() as reader:
            self._load(reader)

    def number(self, slug: str) -> int:
        """The number of a slug; -1 for one without data, and for none at all."""
        if not slug:
            return -1
        if slug not in self._numbers:
            with self._database.read() as reader:
                self._load(reader)
        return self._numbers.get(slug, -1)

    def slug(self, number: int) -> str:
        """The slug of a number."""
        if number not in self._slugs:
            with self._database.read() as reader:
                self._load(reader)
        return self._slugs.get(number, "")

    def slugs(self) -> list[str]:
        """The institutions that have data."""
        with self._database.read() as reader:
            self._load(reader)
        return sorted(slug for slug in self._numbers if slug)

    def of(self, transaction: Transaction, slug: str) -> int:
        """In a writing transaction: a new institution gets a number, which is remembered when that is committed."""
        number = self._numbers.get(slug, self._new.get(slug))
        if number is None:
            row = transaction.one("SELECT number FROM institution WHERE slug = ?", (slug,))
            number = row[0] if row else transaction.next("institution")[0]
            if row is None:
                transaction.insert("institution", ("number", "slug"), [(number, slug)])
            self._new[slug] = number
        return number

    def begin(self) -> None:
        """A transaction begins, or begins again."""
        self._new = {}

    def committed(self) -> None:
        """It was committed."""
        for slug, number in self._new.items():
            self._slugs[number], self._numbers[slug] = slug, number

    def _load(self, reader: Reader) -> None:
        for number, slug in reader.all("SELECT number, slug FROM institution"):
            self._slugs[number] = slug
            self._numbers[slug] = number


class Dictionaries:
    """The table behind `codec.Codec`. ``call`` runs work in the writer."""

    def __init__(self, database: Database, call: Callable[[Callable[[Transaction], Any]], Any]) -> None:
        self._database, self._call = database, call

    def load(self, number: int) -> bytes | None:
        """One dictionary."""
        with self._database.read() as reader:
            row = reader.one("SELECT data FROM dictionary WHERE number = ?", (number,))
        return bytes(row[0]) if row else None

    def newest(self, kind: str) -> tuple[int, int]:
        """Stage and number of a kind's newest; zeros: it has none."""
        with self._database.read() as reader:
            row = reader.one("SELECT stage, number FROM dictionary WHERE kind = ? ORDER BY stage DESC LIMIT 1", (kind,))
        return (row[0], row[1]) if row else (0, 0)

    def add(self, kind: str, stage: int, data: bytes) -> int:
        """Store one unless its stage exists; the number that holds now."""
        def add(transaction: Transaction) -> int:
            row = transaction.one("SELECT number FROM dictionary WHERE kind = ? AND stage = ?", (kind, stage))
            if row is None:
                number = transaction.next("dictionary")[0]
                transaction.insert("dictionary", ("number", "kind", "stage", "data"), [(number, kind, stage, data)])
                return number
            return row[0]
        return self._call(add)
