"""What it means to load, change or take back a version: what is refused, and what is written with it in one unit."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from gateway.caller import GATEWAY, Caller
from gateway.errors import Category, GatewayError
from gateway.fhir import json
from gateway.fhir.resource import text
from gateway.recognition import library, published
from gateway.recognition.rules import RuleSet
from gateway.recognition.tables import Faults, Head, Refused, read
from gateway.recognition.versions import Rulebook, shipped, shipped_tables
from gateway.source import Resource
from gateway.store.model import Delete, Put, Unit

if TYPE_CHECKING:
    from gateway.store import Store


class Loading:
    """Checks what changes the catalogue; one per process, safe from many threads."""

    def __init__(self, rulebook: Rulebook, store: Store, institutions: Callable[[], Iterable[str]]) -> None:
        self._rulebook = rulebook
        self._store = store
        self._institutions = institutions  # slugs of the manifests, read when a version is loaded

    def complete(self, operations: Sequence[Put | Delete], caller: Caller, now: int) -> list[Put | Delete]:
        """What is written beside a client's operations: nothing, where no version of the catalogue is among them.

        INVALID (`Refused`) for tables with faults, CONFLICT for a version that holds or was superseded, FORBIDDEN for
        a client that may not write Libraries of every institution; the store asks for the scopes of the types that are
        written beside. A base comes before what is based on it.
        """
        if not any(_touches(operation) for operation in operations):
            return []
        self._rulebook.refresh()
        there = {rules.version: rules for rules in self._rulebook.plain()}
        extra: list[Put | Delete] = []
        for operation in operations:
            if not _touches(operation):
                continue
            letters = "cu" if isinstance(operation, Put) else "d"
            if not any(caller.sees("Library", letter) is None for letter in letters):
                raise GatewayError(Category.FORBIDDEN, "the catalogue is everybody's: changing it needs a scope of the "
                                   "system level, such as system/*.cruds", "Library")
            if isinstance(operation, Put):
                operation.institution = ""
                if operation.if_match is None:  # of two loads at once the second is told
                    operation.if_match = self._number(operation.resource["id"])
                extra += self._put(operation.resource, there, now)
            else:
                extra += self._delete(operation.id, there, now)
        return extra

    def check(self, resource: Resource, now: int) -> RuleSet:
        """The version that a Library would be, when it could be loaded now."""
        self._rulebook.refresh()
        there = {rules.version: rules for rules in self._rulebook.plain()}
        self._put(resource, there, now)
        return there[resource["version"]]

    def refresh(self) -> None:
        """See what was just written."""
        self._rulebook.refresh()

    # ---------------------------------------------------------------- one version

    def _put(self, resource: Resource, there: dict[str, RuleSet], now: int) -> list[Put | Delete]:
        faults = Faults()
        head, files = library.head_in(resource, faults), library.files_in(resource, faults)
        if head is None:
            faults.raise_any()
            raise AssertionError("a head that cannot be read leaves a fault")
        if resource.get("purpose") == library.SHIPPED:
            faults.add("Library.purpose", "this is no version that ships with the program; say another purpose")
        if resource["id"] != library.PREFIX + head.version:
            faults.add("Library.id", f"the id of this version must be {library.PREFIX}{head.version}")
        old = self._stored(head.version)
        if old is not None and _same(old, resource):
            return []  # the answer to the first was lost: the store changes nothing
        self._require_open(head.version, there, now)
        today = self._rulebook.day(now)
        if head.effective < today and self._rulebook.loaded():
            faults.add("Library.effectivePeriod.start", f"the effective day {head.effective} is past, and decisions "
                       f"may have been made since; take {today} or later")
        earlier = [rules for name, rules in there.items() if name != head.version]
        rules, given = read(files, earlier, head, frozenset(self._institutions()), faults)
        there[rules.version] = rules
        made = published.resources(rules, given)
        keep = {(one["resourceType"], one["id"]) for one in made}
        gone = [one for one in self._published(old, earlier) if one not in keep] if old else []
        return [*(Put(one) for one in made), *(Delete(*one) for one in gone)]

    def _delete(self, library_id: str, there: dict[str, RuleSet], now: int) -> list[Put | Delete]:
        version = library_id.removeprefix(library.PREFIX)
        old = self._stored(version)
        if old is None:
            return []
        self._require_open(version, there, now)
        earlier = [rules for name, rules in there.items() if name != version]
        there.pop(version, None)
        return [Delete(*one) for one in self._published(old, earlier)]

    def _require_open(self, version: str, there: dict[str, RuleSet], now: int) -> None:
        """CONFLICT for a version by which decisions may have been made, or that another one needs."""
        if version == shipped().version or version in self._rulebook.kept():
            raise GatewayError(Category.CONFLICT, f"version {version} ships with the program; give yours another name",
                               "Library.version", detail="duplicate")
        rules = there.get(version)
        if rules is None:
            return
        if rules.effective <= self._rulebook.day(now):
            raise GatewayError(Category.CONFLICT, f"version {version} has been in effect since {rules.effective} and "
                               "decisions cite it; load a new version", "Library.version")
        needing = [name for name, base in self._rulebook.bases().items() if base == version and name in there]
        if needing:
            raise GatewayError(Category.CONFLICT, f"version {needing[0]} is based on {version}; delete that one first, "
                                                  "or load a new version", "Library.version")

    def _number(self, library_id: str) -> int:
        """The version of a Library as the store counts; 0: there is none."""
        row = self._store.read("Library", library_id, GATEWAY)
        return row.version if row is not None and not row.deleted else 0

    def _stored(self, version: str) -> Resource | None:
        """The version's Library as it is stored."""
        row = self._store.read("Library", library.PREFIX + version, GATEWAY)
        if row is None or row.deleted:
            return None
        return json.loads(text(row.resource_type, row.id, row.version, row.updated, row.tail))

    def _published(self, resource: Resource, earlier: list[RuleSet]) -> list[tuple[str, str]]:
        """Type and id of what was written with a stored version."""
        faults = Faults()
        head, files = library.head_in(resource, faults), library.files_in(resource, faults)
        try:
            rules, given = read(files, earlier, head, None, faults)
        except Refused:  # stored by a program with other checks; what it made stays
            return []
        return [(one["resourceType"], one["id"]) for one in published.resources(rules, given)]


def keep_shipped(store: Store) -> None:
    """Put the program's own version, and what FHIR clients read of it, into the store, if it is not there.

    A later program may ship another one: decisions that cite it and versions that are based on it outlive the program
    that brought it.
    """
    rules = shipped()
    head = Head(rules.version, rules.effective, rules.title)
    resource = library.library(head, shipped_tables(), shipped=True)
    if store.read("Library", resource["id"], GATEWAY) is not None:
        return
    made = published.resources(*read(shipped_tables(), (), head))
    with contextlib.suppress(GatewayError):  # another process has just done it
        store.write(Unit([Put(resource, if_match=0), *(Put(one) for one in made)]), GATEWAY)


def _touches(operation: Put | Delete) -> bool:
    if isinstance(operation, Delete):
        return operation.resource_type == "Library" and operation.id.startswith(library.PREFIX)
    return library.is_catalogue(operation.resource)


def _same(stored: Resource, given: Resource) -> bool:
    def content(resource: Resource) -> dict[str, Any]:
        return {name: value for name, value in resource.items() if name not in ("meta", "text")}

    return content(stored) == content(given)
