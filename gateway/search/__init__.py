"""Search: a query string becomes one page of stored rows (http.html#search, search.html). See README.md.

    page = search(store, caller, "DiagnosticReport", "patient.identifier=…&_sort=-date")
    page.rows, page.included, page.next_query
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import quote_plus
from weakref import WeakKeyDictionary

from gateway.caller import Caller
from gateway.errors import Category, GatewayError
from gateway.search.criteria import COLUMNS, Asking
from gateway.search.cursor import opened, seal
from gateway.search.include import included
from gateway.search.nodes import Node, Nothing
from gateway.search.plan import Sort
from gateway.search.query import COUNT, MOST, Criterion, Query, escape, read
from gateway.store import types
from gateway.store.model import Row

if TYPE_CHECKING:
    from gateway.store import Store


@dataclass(slots=True)
class Page:
    """One page of a search.

    ``rows``: the matches, ``included``: what ``_include`` and ``_revinclude`` add. ``total``: how many matches there
    are, where it was asked for. ``self_query``: the query as it was understood; ``next_query``: that of the next page,
    empty on the last. ``ignored``: parameters that were left out under ``handling=lenient``, each with the reason.
    ``summary`` and ``elements``: what of each resource to show.
    """

    rows: list[Row] = field(default_factory=list)
    included: list[Row] = field(default_factory=list)
    total: int | None = None
    self_query: str = ""
    next_query: str = ""
    ignored: list[tuple[str, str]] = field(default_factory=list)
    summary: str = "false"
    elements: tuple[str, ...] = ()

    @property
    def persons(self) -> tuple[int, ...]:
        """Whose data are on the page: for the audit."""
        return tuple(sorted({row.person for rows in (self.rows, self.included) for row in rows} - {0}))


def search(store: Store, caller: Caller, resource_type: str, raw_query: str | list[tuple[str, str]],
           handling: str = "strict", base: str = "") -> Page:
    """One page of the resources of a type that meet a query and that the caller may see.

    ``base``: our own base URL, so that references in the query may be absolute. Refuses an unknown parameter or
    modifier (UNSUPPORTED) and a value that cannot be read (INVALID), naming the parameter; with ``handling`` =
    ``lenient`` an unknown parameter is left out and listed in ``ignored``.
    """
    caller.require("s", resource_type)
    number = types.number_of(resource_type)
    query = read(resource_type, raw_query)
    page = Page(summary=query.summary, elements=query.elements)
    with store.reading() as connection:
        asking = Asking(store, connection, caller, base)
        nodes: list[Node] | None
        try:
            nodes, sorts = _understood(asking, resource_type, query, handling == "lenient", page.ignored)
        except Nothing:
            nodes, sorts = None, []
        page.self_query = _encoded(query.pairs)
        about = f"{resource_type}?{page.self_query}"
        after = opened(_secret(store), about, query.cursor) if query.cursor else None
        if nodes is None:
            page.total = 0 if _counts(query) else None
            return page
        if _counts(query):
            page.total = asking.planner.count(resource_type, number, nodes)
        if query.summary != "count":
            found = asking.planner.page(resource_type, number, nodes, sorts, after, query.count + 1)
            if len(found) > query.count:
                found = found[:query.count]
                cursor = seal(_secret(store), about, found[-1])
                page.next_query = f"{page.self_query}&_cursor={cursor}".lstrip("&")
            page.rows = store.rows([pk for _, _, pk in found], caller)
            if query.include or query.revinclude:
                page.included = included(asking, query, page.rows)
    return page


def resolve_conditional(store: Store, caller: Caller, reference: str) -> list[str]:
    """Ids that a conditional reference such as ``Patient?identifier=…`` means, at most two (bundle.html#3.1.0.11.2)."""
    resource_type, _, raw = reference.partition("?")
    if resource_type not in types.NUMBERS or not raw:
        raise GatewayError(Category.INVALID, "a conditional reference is Type?parameter=value", "reference")
    query = read(resource_type, raw)
    if not query.criteria:
        raise GatewayError(Category.INVALID, "a conditional reference needs a search parameter", resource_type)
    with store.reading() as connection:
        asking = Asking(store, connection, caller)
        try:
            nodes = asking.nodes(resource_type, query.criteria)
        except Nothing:
            return []
        keys = asking.planner.page(resource_type, types.number_of(resource_type), nodes, (), None, 2)
        return [row.id for row in store.rows([pk for _, _, pk in keys], caller)]


def _counts(query: Query) -> bool:
    return query.summary == "count" or query.total != "none"


def _understood(asking: Asking, t: str, query: Query, lenient: bool,
                ignored: list[tuple[str, str]]) -> tuple[list[Node], list[Sort]]:
    """The conditions and the order; under ``lenient`` without what we do not know."""
    if lenient:
        query.criteria = [c for c in query.criteria if _known(asking, t, c, query, ignored)]
        query.sort = [s for s in query.sort if _sortable(asking, t, s, query, ignored)]
    return asking.nodes(t, query.criteria), asking.sorts(t, query.sort)


def _known(asking: Asking, t: str, criterion: Criterion, query: Query, ignored: list[tuple[str, str]]) -> bool:
    try:
        asking.nodes(t, [criterion])
    except Nothing:
        return True
    except GatewayError as error:
        if error.category is not Category.UNSUPPORTED:
            raise
        ignored.append((str(criterion), error.message))
        query.pairs = [pair for pair in query.pairs if not _said_by(pair, criterion)]
        return False
    return True


def _said_by(pair: tuple[str, str], criterion: Criterion) -> bool:
    return pair == (str(criterion), criterion.value)


def _sortable(asking: Asking, t: str, key: tuple[str, bool], query: Query, ignored: list[tuple[str, str]]) -> bool:
    try:
        asking.sorts(t, [key])
    except GatewayError as error:
        ignored.append((error.where, error.message))
        name = f"-{key[0]}" if key[1] else key[0]
        query.pairs = [(n, ",".join(p for p in v.split(",") if p != name) if n == "_sort" else v)
                       for n, v in query.pairs]
        return False
    return True


_secrets: WeakKeyDictionary[Store, bytes] = WeakKeyDictionary()


def _secret(store: Store) -> bytes:
    if (known := _secrets.get(store)) is None:
        known = _secrets[store] = store.secret("cursor")
    return known


def _encoded(pairs: list[tuple[str, str]]) -> str:
    return "&".join(f"{quote_plus(name, safe=':.*')}={quote_plus(value, safe=':/,|')}"
                    for name, value in pairs if value)


__all__ = ["COLUMNS", "COUNT", "MOST", "Page", "escape", "resolve_conditional", "search"]
