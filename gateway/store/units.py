"""Units: decide what each operation becomes, then write all of a transaction's units in few statements."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from gateway import indexing
from gateway.caller import Caller
from gateway.errors import Category, GatewayError
from gateway.fhir.resource import tail
from gateway.identity import completed, person_keys
from gateway.source import Resource
from gateway.store import index_schema, ledger, persons, studies, types
from gateway.store.codec import Codec
from gateway.store.database import Retry, Transaction
from gateway.store.index import Pending, Rows, resource_of, rows_of
from gateway.store.model import Delete, Put, Unit, Written

_NOBODY = frozenset[bytes]()
_HEADS = "SELECT id, pk, person, updated, as_of, version, institution, dict, body FROM resource WHERE id IN ?*"
_COLUMNS = ("pk", "person", "updated", "as_of", "version", "dict", "type", "institution", "id", "body")
_UPDATE = ("UPDATE resource SET person = ?, updated = ?, as_of = ?, version = ?, dict = ?, institution = ?, body = ? "
           "WHERE pk = ? AND version = ?")
_TOUCH = "UPDATE resource SET as_of = ? WHERE pk = ? AND version = ? AND (as_of IS NULL OR as_of < ?)"
#: What belongs to no person (an Organization) comes with every message and rarely changes: its ``as_of`` is written at
#: most once in this many microseconds, so that it is not the row that everyone waits for.
_TOUCH_SHARED = 3_600_000_000


@dataclass(frozen=True, slots=True)
class Prepared:
    """What can be made of a Put without the database."""

    key: bytes
    tail: bytes
    dict: int
    body: bytes
    patient: bytes  # packed id of the Patient whose person it belongs to; empty: none
    keys: frozenset[bytes] | None  # of a Patient: digests of the keys that make its person (`gateway.identity`)
    index: Rows


def prepare(put: Put, codec: Codec) -> Prepared:
    """Tail, body and index rows of a Put, made in the caller's thread."""
    [prepared] = prepare_all([put], codec)
    return prepared


def prepare_all(puts: Sequence[Put], codec: Codec) -> list[Prepared]:
    """The same for many: step by step, as code and tables of a step stay in the processor's caches (half the time)."""
    resources = [put.resource for put in puts]
    kinds = [resource["resourceType"] for resource in resources]
    contents = [tail(resource) for resource in resources]
    bodies = [codec.compress(kind, content) for kind, content in zip(kinds, contents, strict=True)]
    indexes = [indexing.extract(resource) for resource in resources]
    made = []
    for resource, kind, content, (number, body), index in zip(resources, kinds, contents, bodies, indexes, strict=True):
        owner, keyed = indexing.owner(resource), None
        if kind == "Patient":
            keyed = frozenset(map(persons.digest, person_keys(resource, datetime.now(indexing.zone()).date())))
        made.append(Prepared(types.key(kind, resource["id"]), content, number, body,
                             types.pack(owner) if owner else b"", keyed, index))
    return made


@dataclass(slots=True)
class _Head:
    """The current version of a resource, as stored or as this transaction will store it."""

    pk: int  # 0: not yet given
    person: int  # set anew before it is written, as ``pk`` is
    updated: int
    as_of: int | None
    version: int
    institution: int
    dict: int
    body: bytes | None  # None: deleted
    prepared: Prepared | None = None  # None: as stored
    stored: _Head | None = None  # what the database holds, where that is another version


@dataclass(slots=True)
class Task:
    """A unit in the writer's queue."""

    unit: Unit
    caller: Caller
    keys: list[bytes]
    prepared: list[Prepared | None]
    lines: list[ledger.Prepared]
    persons: tuple[int, ...] = ()


def task(unit: Unit, caller: Caller, codec: Codec) -> Task:
    """A unit made ready for the queue."""
    prepared: list[Prepared | None] = []
    keys: list[bytes] = []
    fresh = iter(prepare_all([one for one in unit.operations if isinstance(one, Put) and not one.prepared], codec))
    for operation in unit.operations:
        if isinstance(operation, Put):
            made = operation.prepared or next(fresh)
            prepared.append(made)
            keys.append(made.key)
        else:
            prepared.append(None)
            keys.append(types.key(operation.resource_type, operation.id))
    return Task(unit, caller, keys, prepared, ledger.prepare(unit.ledger, codec) if unit.ledger else [])


@dataclass(slots=True)
class _Plan:
    """The accepted operations of a transaction."""

    heads: dict[bytes, _Head] = field(default_factory=dict)  # of every resource that changes: its newest
    past: list[tuple[int, bytes, _Head]] = field(default_factory=list)  # versions that become history
    touched: dict[bytes, tuple[int, _Head]] = field(default_factory=dict)  # unchanged, but seen with a newer as_of


class Units:
    """One transaction's units: ``load``, ``decide`` each, ``write``."""

    def __init__(self, transaction: Transaction, codec: Codec, institution: Callable[[Transaction, str], int],
                 now: int, seen: set[int]) -> None:
        self._transaction, self._codec, self._institution = transaction, codec, institution
        self._now, self._seen = now, seen
        self._heads: dict[bytes, _Head] = {}
        self._plan = _Plan()
        self.persons: dict[bytes, int] = {}

    def load(self, tasks: Sequence[Task]) -> None:
        """Read the current versions of everything that the tasks name."""
        keys = sorted({key for task in tasks for key in task.keys})
        for key, *columns in self._transaction.among(_HEADS, keys):
            self._heads[bytes(key)] = _Head(*columns)

    # ---------------------------------------------------------------- deciding

    def decide(self, task: Task) -> list[Written]:
        """What each operation becomes; raises CONFLICT or FORBIDDEN and leaves no trace of the unit then."""
        fresh: dict[bytes, _Head] = {}
        past: list[tuple[int, bytes, _Head]] = []
        touched: dict[bytes, tuple[int, _Head]] = {}
        changed: set[bytes] = set()
        written = []
        for operation, key, prepared in zip(task.unit.operations, task.keys, task.prepared, strict=True):
            head = fresh.get(key) or self._heads.get(key)
            new: _Head | None
            if isinstance(operation, Put):
                assert prepared is not None
                new, outcome = self._put(operation, prepared, head, task.caller)
            else:
                new, outcome = self._delete(operation, head, task.caller)
            if new is not head and new is not None:
                fresh[key] = new
                if outcome == "unchanged":
                    touched[key] = (new.as_of or 0, new)
                else:
                    changed.add(key)
                    if head is not None:
                        past.append((key[0], key, head))
            kind, resource_id = (operation.resource["resourceType"], operation.resource["id"]) \
                if isinstance(operation, Put) else (operation.resource_type, operation.id)
            written.append(Written(kind, resource_id, new.version if new else 0, new.updated if new else 0, outcome))
        self._heads.update(fresh)
        known = self._plan.heads
        known.update((key, head) for key, head in fresh.items() if key in changed or key in known)
        self._plan.past += past
        self._plan.touched.update(touched)
        return written

    def _put(self, put: Put, prepared: Prepared, head: _Head | None, caller: Caller) -> tuple[_Head, str]:
        kind = put.resource["resourceType"]
        exists = head is not None and head.body is not None
        _require_version(put.if_match, head, f"{kind}.meta.versionId")
        institution = self._owner(put, head if exists else None, kind, caller)
        if head is not None and head.body is not None:
            if self._same(head, prepared):
                return self._seen_again(head, put.as_of), "unchanged"
            if put.as_of is not None and head.as_of is not None and put.as_of < head.as_of:
                if put.on_older == "skip":
                    return self._completed(put, prepared, head, institution)
                raise GatewayError(Category.CONFLICT, "we hold a newer version with other content; send the newer "
                                                      "one again or nothing", kind, detail="older")
        new = _Head(head.pk if head else 0, head.person if head else 0, self._time(head),
                    put.as_of if put.as_of is not None else head.as_of if head else None,
                    head.version + 1 if head else 1, institution, prepared.dict, prepared.body, prepared,
                    _stored(head))
        return new, "updated" if exists else "created"

    def _completed(self, put: Put, prepared: Prepared, head: _Head, institution: int) -> tuple[_Head, str]:
        """An older copy changes nothing, but that a Patient gets the national identifier that it alone carries."""
        if prepared.keys:
            assert head.body is not None
            text = self._codec.decompress(head.dict, head.body)
            if all(str(one.get("value", "")).encode() in text for one in put.resource.get("identifier", ())):
                return head, "skipped"  # as nearly always: it knows all these numbers
            held = resource_of(prepared.key, text)
            if made := completed(held, put.resource, datetime.now(indexing.zone()).date()):
                again = prepare(Put(made), self._codec)
                return _Head(head.pk, head.person, self._time(head), head.as_of, head.version + 1, institution,
                             again.dict, again.body, again, _stored(head)), "updated"
        return head, "skipped"

    def _delete(self, delete: Delete, head: _Head | None, caller: Caller) -> tuple[_Head | None, str]:
        caller.require("d", delete.resource_type)
        _require_version(delete.if_match, head, f"{delete.resource_type}.meta.versionId")
        if head is None or head.body is None:
            return head, "absent"
        self._check_owner(caller.sees(delete.resource_type, "d"), head, delete.resource_type)
        return replace(head, updated=self._time(head), version=head.version + 1, dict=0, body=None, prepared=None,
                       stored=_stored(head)), "deleted"

    def _owner(self, put: Put, head: _Head | None, kind: str, caller: Caller) -> int:
        """The institution that owns the data: as put, else as before."""
        interaction = "u" if head else "c"
        caller.require(interaction, kind)
        only = caller.sees(kind, interaction)
        if only is not None and (not only or put.institution not in ("", only)):
            raise GatewayError(Category.FORBIDDEN, "this client writes data of its own institution only", kind)
        if head is not None:
            self._check_owner(only, head, kind)
        slug = put.institution or only or ""
        return self._institution(self._transaction, slug) if slug or head is None else head.institution

    def _check_owner(self, only: str | None, head: _Head, kind: str) -> None:
        if only is not None and (not only or self._institution(self._transaction, only) != head.institution):
            raise GatewayError(Category.FORBIDDEN, "this resource belongs to another institution", kind)

    def _same(self, head: _Head, prepared: Prepared) -> bool:
        assert head.body is not None
        if head.dict == prepared.dict and head.body == prepared.body:
            return True
        # another dictionary, or another version of zstd, writes the same content differently
        return self._codec.decompress(head.dict, head.body) == prepared.tail

    @staticmethod
    def _seen_again(head: _Head, as_of: int | None) -> _Head:
        """The same content with a newer time: what comes late and is older than that must not undo it."""
        shared = not (head.person or head.prepared and head.prepared.patient)
        if as_of is None or head.as_of is not None and as_of <= head.as_of + (_TOUCH_SHARED if shared else 0):
            return head
        return replace(head, as_of=as_of)

    def _time(self, head: _Head | None) -> int:
        return max(self._now, head.updated + 1) if head else self._now

    # ---------------------------------------------------------------- writing

    def write(self, tasks: Sequence[Task], patients: set[bytes]) -> set[int]:
        """Write the accepted units; returns dictionary rows for ``seen`` after the commit.

        ``patients``: others whose persons are wanted in ``persons``, given where they have none yet.
        """
        plan, transaction = self._plan, self._transaction
        self._touch()
        if not plan.heads and not patients:
            return set()
        linked = self._link(set(patients))
        self.persons = linked.person
        index = Pending()
        if linked.moves:
            own = {head.pk for head in plan.heads.values()}  # these move with their change
            move(transaction, self._codec, index, self._seen, linked.moves, own, self._now)
        self._set_persons(linked.person)
        self._update()
        self._insert()
        transaction.insert("history", ("pk", "version", "updated", "dict", "type", "body"),
                           [(plan.heads[key].pk, head.version, head.updated, head.dict, number, head.body)
                            for number, key, head in plan.past])
        self._index(index)
        for task in tasks:
            heads = [plan.heads[key] for key in task.keys if key in plan.heads]
            task.persons = tuple(sorted({head.person for head in heads if head.person}))
        return index.write(transaction)

    def _touch(self) -> None:
        rows = []
        for key, (as_of, head) in self._plan.touched.items():
            if head.pk and key not in self._plan.heads:
                rows.append((as_of, head.pk, head.version, as_of))
        self._transaction.many(_TOUCH, sorted(rows, key=lambda row: row[1]))

    def _link(self, patients: set[bytes]) -> persons.Linked:
        keys: dict[bytes, frozenset[bytes]] = {}
        for key, head in self._plan.heads.items():
            if head.prepared is None:
                if types.type_of(key) == "Patient":
                    keys[key[1:]] = _NOBODY  # a deleted Patient carries no identifier any more
                continue
            if head.prepared.patient:
                patients.add(head.prepared.patient)
            if head.prepared.keys is not None:
                keys[head.prepared.patient] = head.prepared.keys
        return persons.link(self._transaction, patients, keys, self._now)

    def _set_persons(self, person: dict[bytes, int]) -> None:
        for head in self._plan.heads.values():
            if head.prepared is not None:
                head.person = person[head.prepared.patient] if head.prepared.patient else 0

    def _update(self) -> None:
        rows = []
        for head in self._plan.heads.values():
            if head.stored is not None:
                rows.append((head.person, head.updated, head.as_of, head.version, head.dict, head.institution,
                             head.body, head.pk, head.stored.version))
        if self._transaction.many(_UPDATE, sorted(rows, key=lambda row: row[7])) != len(rows):
            raise Retry  # another process wrote a version in between

    def _insert(self) -> None:
        heads = self._plan.heads
        new = [key for key, head in heads.items() if head.stored is None]
        for key, pk in zip(new, self._transaction.next("resource", len(new)) if new else (), strict=True):
            heads[key].pk = pk
        rows = [(head.pk, head.person, head.updated, head.as_of, head.version, head.dict, key[0], head.institution, key,
                 head.body) for key in new for head in (heads[key],)]
        if not self._transaction.exclusive:
            rows.sort(key=lambda row: row[8])  # unique keys are taken in one order by all
        self._transaction.insert("resource", _COLUMNS, rows)

    def _index(self, index: Pending) -> None:
        for key, head in self._plan.heads.items():
            after = head.prepared.index if head.prepared else None
            if head.stored is None or head.stored.body is None:
                if after is not None:
                    index.add(after, head.person, head.pk, head.institution, self._seen)
                continue
            stored = head.stored
            assert stored.body is not None
            before = index_schema.bind(rows_of(key, self._codec.decompress(stored.dict, stored.body)), stored.person,
                                       stored.pk, stored.institution)
            index.change(before, index_schema.bind(after, head.person, head.pk, head.institution) if after else {})
            if after is not None:
                index.remember(after, self._seen)


_OF_PERSON = ("SELECT pk, id, institution, dict, body FROM resource WHERE body IS NOT NULL AND pk IN "
              "(SELECT pk FROM idx_resource WHERE person = ? AND type IN ?*)")


def move(transaction: Transaction, codec: Codec, index: Pending, seen: set[int],
         moves: dict[bytes, tuple[int, int]], leave: set[int], now: int) -> None:
    """Point every resource of each Patient in ``moves`` from the former person to the new, but those in ``leave``."""
    found: list[tuple[int, int]] = []
    regrouped = studies.Regrouped()
    former = {before for before, _ in moves.values()}

    def of(person: int, names: Sequence[str]) -> Iterator[tuple[int, int, Resource]]:
        kinds = [indexing.type_key(name) for name in names]
        for pk, key, institution, number, body in transaction.among(_OF_PERSON, kinds, (person,)):
            yield pk, institution, resource_of(bytes(key), codec.decompress(number, bytes(body)))

    for before in sorted(former):
        for pk, institution, resource in of(before, types.NAMES):
            held, after = moves.get(types.pack(indexing.owner(resource)), (before, before))
            if resource["resourceType"] in studies.Regrouped.TYPES:
                regrouped.see(resource, institution, before, after)
            if held == before != after and pk not in leave:
                rows = indexing.extract(resource)
                index.change(index_schema.bind(rows, before, pk, institution),
                             index_schema.bind(rows, after, pk, institution))
                found.append((after, pk))
    for person in sorted({after for _, after in moves.values()} - former):
        for _, institution, resource in of(person, studies.Regrouped.TYPES):
            regrouped.see(resource, institution, person, person)
    transaction.many("UPDATE resource SET person = ? WHERE pk = ?", sorted(found, key=lambda row: row[1]))
    ledger.move(transaction, moves)
    regrouped.write(transaction, now)


def _stored(head: _Head | None) -> _Head | None:
    """The version that the database holds of a resource that gets another."""
    return (head.stored or head) if head is not None and head.pk else None


def _require_version(if_match: int | None, head: _Head | None, where: str) -> None:
    """``If-Match`` (http.html#concurrency)."""
    if if_match is None:
        return
    current = head.version if head is not None and head.body is not None else 0
    if current != if_match:
        raise GatewayError(Category.CONFLICT, "the version named is not the current one; read it again", where,
                           detail="precondition")
