"""Whether the ledger is as it was written: the chain of events, its end, and every line against its events.

Found is what was changed, put in, taken out, reordered or cut off without writing the chain anew. Who can write the
chain anew to its end can write ``meta`` too: against that helps a head that was noted elsewhere (``expect``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Any

import orjson

from gateway.errors import GatewayError
from gateway.store import ledger, schema
from gateway.store.codec import Codec
from gateway.store.database import Database, Reader
from gateway.store.model import Line, Problem, Verified

BATCH = 2000
#: Problems that are told: the first say where to look.
MOST = 1000
_EVENTS = ("SELECT e.seq, e.at, l.id, e.kind, e.dict, e.text, e.hash, e.line FROM event e "
           "LEFT JOIN line l ON l.pk = e.line WHERE e.seq > ? ORDER BY e.seq LIMIT ?")
_LINES = ("SELECT pk, id, institution, number, item, state, version, dict, body FROM line WHERE pk > ? "
          "ORDER BY pk LIMIT ?")
_LAST = ("SELECT e.line, e.seq, e.dict, e.text FROM event e JOIN (SELECT line, max(seq) AS seq FROM event "
         "WHERE line BETWEEN ? AND ? GROUP BY line) AS last ON last.seq = e.seq")
_OF_LINE = "SELECT dict, text FROM event WHERE line = ? ORDER BY seq DESC"
_NUMBER = {name: number for number, name in enumerate(schema.STATES, 1)}


class Verification:
    """One walk over the events and then over the lines, beside writers."""

    def __init__(self, database: Database, codec: Codec, slug: Callable[[int], str],
                 progress: Callable[[int, int], None], expect: tuple[int, str] | None) -> None:
        self._database, self._codec, self._slug = database, codec, slug
        self._progress, self._expect = progress, expect
        self._problems: list[Problem] = []
        self._states = bytearray()  # by pk of the line: the state that its last event with one says
        self._seq, self._hash, self._at = 0, ledger.GENESIS, 0
        self._events = self._lines = self._total = 0

    def run(self) -> Verified:
        """See `Store.verify_events`."""
        with self._database.read() as reader:
            self._total = ledger.head(reader).seq + (reader.one("SELECT count(*) FROM line") or (0,))[0]
        if self._expect is not None and self._expect[0] == 0:
            self._hold_expected(0, ledger.GENESIS)
        self._walk_events()
        if self._expect is not None:
            self._tell(self._expect[0], "", "the event that was noted is not there")
        self._walk_lines()
        return Verified(self._events, self._lines, self._problems, self._seq, self._hash.hex())

    def _tell(self, seq: int, line: str, sentence: str) -> None:
        if len(self._problems) < MOST:
            self._problems.append(Problem(seq, line, sentence))

    # ---------------------------------------------------------------- events

    def _walk_events(self) -> None:
        """To what is the end of the chain when it is reached; it goes on growing meanwhile."""
        while True:
            with self._database.reading(), self._database.read() as reader:  # events and head of one moment
                rows = reader.all(_EVENTS, (self._seq, BATCH))
                kept = ledger.head(reader)
            for row in rows:
                self._event(row)
            self._events += len(rows)
            self._progress(min(self._events, self._total), self._total)
            if len(rows) == BATCH:
                continue
            if kept.seq > self._seq:
                self._tell(self._seq + 1, "", f"events {self._seq + 1} to {kept.seq} at the end are missing")
            elif kept.seq < self._seq:
                self._tell(kept.seq + 1, "", f"events {kept.seq + 1} to {self._seq} were put in after the end")
            elif kept.hash != self._hash:
                self._tell(self._seq, "", "the last event is not the one that the head names")
            return

    def _event(self, row: Sequence[Any]) -> None:
        seq, at, id, kind, dictionary, stored, digest, pk = row
        digest, line = bytes(digest), _name(id)
        text = self._text(dictionary, stored)
        if seq != self._seq + 1:
            self._tell(seq, line, f"events {self._seq + 1} to {seq - 1} are missing")
        elif sha256(self._hash + text).digest() != digest:
            self._tell(seq, line, "its hash does not follow from its text and the event before it")
        said = _parsed(text)
        if (said.get("seq"), said.get("at"), said.get("kind")) != (seq, at, kind):
            self._tell(seq, line, "its columns do not say what its text says")
        if id is None:
            self._tell(seq, str(said.get("line") or ""), "its order line is gone")
        elif said.get("line") != line:
            self._tell(seq, line, "it stands at another order line than its text says")
        if at < self._at:
            self._tell(seq, line, "it is older than the event before it")
        self._note_state(pk, said.get("state"))
        self._seq, self._hash, self._at = seq, digest, at
        if self._expect is not None and self._expect[0] == seq:
            self._hold_expected(seq, digest)

    def _hold_expected(self, seq: int, digest: bytes) -> None:
        assert self._expect is not None
        if digest.hex() != self._expect[1].lower():
            self._tell(seq, "", "it is not the event that was noted: the chain was written anew")
        self._expect = None

    def _note_state(self, pk: int, state: Any) -> None:
        if (number := _NUMBER.get(str(state), 0)) and 0 < pk < 1 << 34:
            if pk >= len(self._states):
                self._states.extend(bytes(pk + 4096 - len(self._states)))
            self._states[pk] = number

    def _text(self, dictionary: int, stored: bytes) -> bytes:
        """The text of an event, empty where it is damaged: no text of ours is."""
        try:
            return self._codec.decompress(dictionary, bytes(stored))
        except GatewayError:
            return b""

    # ---------------------------------------------------------------- lines

    def _walk_lines(self) -> None:
        after = 0
        while True:
            with self._database.reading(), self._database.read() as reader:  # lines and events of one moment
                rows = reader.all(_LINES, (after, BATCH))
                last = {pk: (seq, _parsed(self._text(number, text))) for pk, seq, number, text in
                        reader.all(_LAST, (rows[0][0], rows[-1][0]))} if rows else {}
                for row in rows:
                    self._line(reader, row, *last.get(row[0], (0, {})))
            self._lines += len(rows)
            self._progress(min(self._events + self._lines, self._total), self._total)
            if len(rows) < BATCH:
                return
            after = rows[-1][0]

    def _line(self, reader: Reader, row: Sequence[Any], seq: int, said: dict[str, Any]) -> None:
        pk, id, institution, number, item, state, version, dictionary, stored = row
        name = _name(id)
        if not seq:
            self._tell(0, name, "no event says how this order line came to be")
            return
        if said.get("version") != version:
            if not isinstance(said.get("version"), int) or said["version"] > version:
                self._tell(seq, name, "the order line is of an older version than its last event says")
                return
        elif "digest" in said:
            known = schema.STATES[state] if 0 <= state < len(schema.STATES) else ""
            line = Line(name, self._slug(institution), number, 0, item, known)
            if ledger.digest_of(line, self._text(dictionary, stored)) != said["digest"]:
                self._tell(seq, name, "the order line is not as its last event left it")
                return
        told = self._state_of(reader, pk) if seq > self._seq else self._states[pk] if pk < len(self._states) else 0
        if told and told != state + 1:
            self._tell(seq, name, "the order line is in another state than its events say")

    def _state_of(self, reader: Reader, pk: int) -> int:
        """Of a line that changed since the walk over the events."""
        for number, text in reader.all(_OF_LINE, (pk,)):
            if told := _NUMBER.get(str(_parsed(self._text(number, text)).get("state")), 0):
                return told
        return 0


def _name(id: bytes | None) -> str:
    """A line's id as text; of one that was put in by hand what there is."""
    return "" if id is None else ledger.name_of(id) if len(id) == 16 else bytes(id).hex()


def _parsed(text: bytes) -> dict[str, Any]:
    try:
        said = orjson.loads(text)
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}
