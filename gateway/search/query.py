"""A query string as FHIR reads it: names, modifiers, chains, values, and what is said about the result."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import parse_qsl

from gateway.errors import Category, GatewayError
from gateway.indexing import parameters_of

#: Rows of a page when ``_count`` does not say, and at most (search.html#count).
COUNT, MOST = 50, 1000
#: Parameters of a query string together, so that no statement grows without end.
LONGEST = 100

#: Parameters about the answer's form: the edge's work.
PASSED = frozenset(("_format", "_pretty", "_elements", "_summary"))
_SUMMARIES = ("true", "text", "data", "count", "false")


@dataclass(frozen=True, slots=True)
class Criterion:
    """``name:modifier.chain=value``; several values of one are "or", several criteria are "and"."""

    name: str
    modifier: str
    chain: str
    value: str

    def __str__(self) -> str:
        return self.name + (f":{self.modifier}" if self.modifier else "") + (f".{self.chain}" if self.chain else "")


@dataclass(frozen=True, slots=True)
class Include:
    """``_include=source:name:target``, or ``_revinclude``; ``name`` may be ``*``."""

    source: str
    name: str
    target: str
    iterate: bool


@dataclass(slots=True)
class Query:
    """What was asked, sorted out. ``pairs`` is the query as it is repeated in ``self`` and ``next``."""

    criteria: list[Criterion] = field(default_factory=list)
    sort: list[tuple[str, bool]] = field(default_factory=list)  # name, descending
    count: int = COUNT
    total: str = "none"
    summary: str = "false"
    elements: tuple[str, ...] = ()
    include: list[Include] = field(default_factory=list)
    revinclude: list[Include] = field(default_factory=list)
    cursor: str = ""
    pairs: list[tuple[str, str]] = field(default_factory=list)


def invalid(message: str, where: str) -> GatewayError:
    """INVALID for a search value; ``where`` is the parameter, never its value."""
    return GatewayError(Category.INVALID, message, where, detail="search")


def unsupported(message: str, where: str) -> GatewayError:
    """UNSUPPORTED for a parameter or modifier that we do not know."""
    return GatewayError(Category.UNSUPPORTED, message, where, detail="search")


def split(text: str, mark: str) -> list[str]:
    """Parts between unescaped marks, still escaped (search.html#escaping)."""
    if mark not in text:
        return [text]
    if "\\" not in text:
        return text.split(mark)
    parts, start, at = [], 0, 0
    while at < len(text):
        if text[at] == "\\":
            at += 1
        elif text[at] == mark:
            parts.append(text[start:at])
            start = at + 1
        at += 1
    return [*parts, text[start:]]


def escape(value: str) -> str:
    """A value as it stands in a criterion, so that none of its characters is a mark (search.html#escaping)."""
    for character in "\\$,|":
        value = value.replace(character, "\\" + character)
    return value


def unescape(text: str) -> str:
    r"""``\,`` ``\|`` ``\$`` ``\\`` as the character itself."""
    if "\\" not in text:
        return text
    out, at = [], 0
    while at < len(text):
        if text[at] == "\\" and at + 1 < len(text) and text[at + 1] in ",|$\\":
            at += 1
        out.append(text[at])
        at += 1
    return "".join(out)


def values_of(criterion: Criterion) -> list[str]:
    """The alternatives of a criterion, still escaped for ``|``."""
    return [part for part in split(criterion.value, ",") if part]


def pairs_of(raw: str | list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Names and values in the order given; a parameter without a value says nothing (search.html#3.1.1.1)."""
    given = parse_qsl(raw.lstrip("?"), keep_blank_values=True) if isinstance(raw, str) else raw
    pairs = [(name, value) for name, value in given if name and value]
    if len(pairs) > LONGEST:
        raise invalid(f"a search has at most {LONGEST} parameters; ask for less at once", "")
    return pairs


def read(resource_type: str, raw: str | list[tuple[str, str]]) -> Query:
    """Sort out a query; names are not looked up yet, but for ``_sort`` and ``_include`` their form is."""
    query = Query()
    for name, value in pairs_of(raw):
        if name == "_cursor":
            query.cursor = value
            continue
        query.pairs.append((name, value))
        if name in _RESULT:
            _RESULT[name](query, value, resource_type)
        elif name.startswith(("_include", "_revinclude")):
            _include(query, name, value)
        elif name not in PASSED:
            query.criteria.append(criterion(name, value))
    return query


def criterion(name: str, value: str) -> Criterion:
    """One criterion; of ``_has`` the modifier is everything after it."""
    if name.startswith("_has:"):
        return Criterion("_has", name[5:], "", value)
    head, _, chain = name.partition(".")
    head, _, modifier = head.partition(":")
    return Criterion(head, modifier, chain, value)


def _sort(query: Query, value: str, resource_type: str) -> None:
    query.sort = [(name.removeprefix("-"), name.startswith("-")) for name in value.split(",") if name]
    names = [name for name, _ in query.sort]
    if len(set(names)) != len(names):
        raise invalid("_sort names a parameter twice; name each once", "_sort")
    if len(names) > 5:
        raise invalid("_sort takes at most 5 parameters", "_sort")


def _count(query: Query, value: str, resource_type: str) -> None:
    if not value.isascii() or not value.isdigit():
        raise invalid("_count must be a whole number", "_count")
    query.count = min(int(value[:9]), MOST)
    if query.count == 0:  # search.html#count: the same as _summary=count
        query.summary = "count"


def _total(query: Query, value: str, resource_type: str) -> None:
    if value not in ("none", "accurate", "estimate"):
        raise invalid("_total must be none, accurate or estimate", "_total")
    query.total = value


def _summary(query: Query, value: str, resource_type: str) -> None:
    if value not in _SUMMARIES:
        raise invalid(f"_summary must be one of {', '.join(_SUMMARIES)}", "_summary")
    query.summary = value


def _elements(query: Query, value: str, resource_type: str) -> None:
    query.elements += tuple(part.strip() for part in value.split(",") if part.strip())


_RESULT = {"_sort": _sort, "_count": _count, "_total": _total, "_summary": _summary, "_elements": _elements}


def _include(query: Query, name: str, value: str) -> None:
    kind, _, modifier = name.partition(":")
    if kind not in ("_include", "_revinclude") or modifier not in ("", "iterate", "recurse"):
        raise unsupported("this include has an unknown modifier; use :iterate", name)
    parts = value.split(":")
    if value == "*":
        found = Include("*", "*", "", bool(modifier))
    elif len(parts) in (2, 3) and all(parts):
        found = Include(parts[0], parts[1], parts[2] if len(parts) == 3 else "", bool(modifier))
    else:
        raise invalid("an include is Type:parameter, Type:parameter:TargetType or *", kind)
    if found.name != "*":
        known = parameters_of(found.source).get(found.name)
        if known is None or known.type.value != "reference":
            raise unsupported("an include must name a reference parameter of its type; see the CapabilityStatement",
                              f"{kind}={found.source}:{found.name}")
    (query.include if kind == "_include" else query.revinclude).append(found)
