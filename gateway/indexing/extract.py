"""A resource's index rows: one compiled reader per type, called for the elements that are there. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any

from gateway.indexing import keys, values
from gateway.indexing.parameters import As, Param, Type, parameters_of
from gateway.indexing.repeated import Read, Rows, same_as_last, same_by_text
from gateway.indexing.results import KINDS, results

_Read = Callable[[Any, Rows], bool]  # takes one value of the element; whether it holds anything

#: Longer strings and codes are cut for the index; FHIR asks for no more of a string search.
_LONGEST = 200
#: Entries of a coding cache; a type with more different codings starts it anew.
_CACHED = 20000
#: Elements that are mostly as they were in the resource of the same type before.
_SHARED = frozenset(("meta", "status", "category", "performer", "requester", "managingOrganization"))
#: Those that the Observations of one report share.
_OF_REPORT = _SHARED | {"subject", "encounter", "specimen", "basedOn"}
#: Elements whose concepts come again in other messages.
_CONCEPTS = frozenset(("code", "type"))
#: What reading an element of another shape than FHIR's raises.
_WRONG_SHAPE = (TypeError, AttributeError, ValueError, ArithmeticError)


def extract(resource: dict[str, Any]) -> Rows:
    """Rows by table, without the columns that the store knows; see `gateway.store.index_schema.bind`.

    The same resource gives the same rows in the same order. Values that break FHIR's data types are left out: checking
    is not the index's work.
    """
    kind = resource["resourceType"]
    rows: Rows = {"idx_resource": [], "idx_token": [], "idx_reference": [], "idx_date": [], "idx_string": [],
                  "idx_quantity": [], "idx_result": [], "idx_term": []}
    present = 0
    compiled = _compiled(kind)
    for element, value in resource.items():
        if element in compiled:
            present |= compiled[element](value, rows)
    if kind == "Patient":
        present |= _deceased(resource, rows)
    elif kind in KINDS and owner(resource):
        try:  # noqa: SIM105 - `suppress` takes half a microsecond
            rows["idx_result"] += results(resource)
        except _WRONG_SHAPE:  # what no reader of an element takes either, such as half a surrogate pair
            pass
    for table in ("idx_token", "idx_reference", "idx_date", "idx_string"):
        found = rows[table]
        if len(found) > 1 and len(set(found)) < len(found):
            rows[table] = list(dict.fromkeys(found))
    if len(rows["idx_quantity"]) > 1:
        rows["idx_quantity"] = [(*row[:4], n) for n, row in enumerate(dict.fromkeys(rows["idx_quantity"]))]
    rows["idx_resource"].append((keys.type_key(kind), keys.reference_key(f"{kind}/{resource['id']}"), present))
    return rows


def owner(resource: dict[str, Any]) -> str:
    """``id`` of the Patient whose person the resource belongs to; empty when it belongs to none.

    A Patient belongs to itself; others to the Patient that ``subject`` or ``patient`` names, a Provenance to the first
    Patient among its targets, an Appointment to the first among its participants, a Binary to its security context,
    a Coverage to its beneficiary.
    """
    kind = resource["resourceType"]
    if kind == "Patient":
        return resource["id"]
    if kind in _OWNERS:
        named = _OWNERS[kind](resource)
        return next(filter(None, map(_patient, named)), "") if isinstance(named, (list, tuple)) else ""
    return _patient(resource.get("subject")) or _patient(resource.get("patient"))


def _patient(reference: Any) -> str:
    """``id`` of the Patient that a Reference names, or nothing."""
    text = reference.get("reference") if type(reference) is dict else None
    return _patient_of(text) if type(text) is str else ""


@lru_cache(maxsize=1024)
def _patient_of(reference: str) -> str:
    return owner_id(keys.target_of(reference))


def _actors(appointment: dict[str, Any]) -> list[Any]:
    participants = appointment.get("participant")
    return [one.get("actor") for one in participants if isinstance(one, dict)] if isinstance(participants, list) else []


#: Where the types that have neither ``subject`` nor ``patient`` name the Patient.
_OWNERS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "Provenance": lambda provenance: provenance.get("target"), "Appointment": _actors,
    "Binary": lambda binary: (binary.get("securityContext"),),
    "Coverage": lambda coverage: (coverage.get("beneficiary"),)}


def owner_id(target: str) -> str:
    """``id`` of ``Patient/id``; empty for any other target."""
    return target[8:] if target.startswith("Patient/") and "/" not in target[8:] else ""


@lru_cache(maxsize=1024)
def present_bits(resource_type: str) -> dict[str, int]:
    """The bit of each parameter in ``idx_resource.present``; one answered by others has the bits of those."""
    table = parameters_of(resource_type)
    own = [name for name, p in table.items() if p.path]
    bits = {name: 1 << n for n, name in enumerate(own)}
    for name, p in table.items():
        if name not in bits:
            bits[name] = sum(bits[other] for other in p.same_as)
    return bits


def _deceased(resource: dict[str, Any], rows: Rows) -> int:
    """Patient-deceased is about every Patient: dead by flag or by date, otherwise alive."""
    bit, read = _deceased_reader()
    read(resource.get("deceasedBoolean") is True or "deceasedDateTime" in resource, rows)
    return bit


@lru_cache(maxsize=1)
def _deceased_reader() -> tuple[int, _Read]:
    return present_bits("Patient")["deceased"], _code("Patient", parameters_of("Patient")["deceased"])


# ------------------------------------------------------------------ compiling


@lru_cache(maxsize=1024)
def _compiled(resource_type: str) -> dict[str, Read]:
    """For each top-level element, what takes its value and returns the bits of the parameters that it has."""
    found: dict[str, list[tuple[int, _Read]]] = {}
    bits = present_bits(resource_type)
    for name, p in parameters_of(resource_type).items():
        for path in p.path.split("|") if p.path and p.path[0] != "$" else ():
            element, *rest = path.split(".")
            read = _narrowed(p) if p.same_as else _reader(resource_type, p)
            found.setdefault(element, []).append((bits[name], _walk(rest, read, bool(p.same_as))))
    shared = _OF_REPORT if resource_type == "Observation" else _SHARED
    return {element: same_as_last(_together(readers)) if element in shared else
            same_by_text(_together(readers)) if element in _CONCEPTS else _together(readers)
            for element, readers in found.items()}


def _together(readers: list[tuple[int, _Read]]) -> Read:
    """Every parameter of an element."""
    def read(value: Any, rows: Rows) -> int:
        present = 0
        for bit, one in readers:
            try:
                if one(value, rows):
                    present |= bit
            except _WRONG_SHAPE:
                continue
        return present
    return read


def _walk(path: list[str], read: _Read, one: bool) -> _Read:
    """Follow the rest of a path through objects and lists; ``one``: the first that holds anything is enough."""
    if path:
        inner, name = _walk(path[1:], read, one), path[0]

        def step(value: Any, rows: Rows) -> bool:
            if type(value) is not list:
                return type(value) is dict and name in value and inner(value[name], rows)
            held = False
            for item in value:
                if step(item, rows):
                    held = True
                    if one:
                        break
            return held
        return step

    def each(value: Any, rows: Rows) -> bool:
        if type(value) is not list:
            return read(value, rows)
        held = False
        for item in value:
            if read(item, rows):
                held = True
                if one:
                    break
        return held
    return each


def _narrowed(p: Param) -> _Read:
    """A parameter that has no rows of its own is only noted as present."""
    prefixes = tuple(f"{t}/" for t in p.targets)
    return lambda value, rows: keys.reference_target(value).startswith(prefixes)


def _reader(t: str, p: Param) -> _Read:
    if p.type is Type.TOKEN:
        make = {As.CONCEPT: _concept, As.CODING: _coding, As.IDENTIFIER: _identifier, As.CONTACT: _contact,
                As.CODE: _code, As.UID: _uid}[p.read]
        return make(t, p)
    if p.type is Type.REFERENCE:
        return _canonical(t, p) if p.read is As.CANONICAL else _reference(t, p)
    return {Type.DATE: _date, Type.STRING: _string, Type.QUANTITY: _quantity, Type.URI: _uri}[p.type](t, p)


# ------------------------------------------------------------------ tokens


def _term(param: int, key: int, system: str, code: str | None, text: str) -> tuple[Any, ...]:
    """A row of the dictionary; its id is a hash of all the rest, so that equal rows are one."""
    return keys.signed64(f"{param}\0{key}\0{system}\0{code}\0{text}"), param, key, system, code, text


def _coding(t: str, p: Param) -> _Read:
    name, param = p.name, keys.param_key(t, p.name)
    cache: dict[tuple[Any, Any, Any], tuple[tuple[int], tuple[Any, ...]]] = {}

    def read(value: Any, rows: Rows) -> bool:
        if type(value) is not dict:
            return False
        get = value.get
        coding = (get("system"), get("code"), get("display"))
        known = cache.get(coding)
        if known is None:
            system, code, display = coding
            if not isinstance(code, str):
                return display is not None
            key = keys.token_key(t, name, system or "", code)
            known = (key,), _term(param, key, system or "", code, values.normalise(display or "")[:_LONGEST])
            if len(cache) >= _CACHED:
                cache.clear()
            if system is None or type(system) is str:  # of numbers 1, 1.0 and True would be one here
                cache[coding] = known
        rows["idx_token"].append(known[0])
        rows["idx_term"].append(known[1])
        return True
    return read


def _concept(t: str, p: Param) -> _Read:
    coding, pair, name, param = _coding(t, p), _pair(t, p), p.name, keys.param_key(t, p.name)

    def read(value: Any, rows: Rows) -> bool:
        if type(value) is not dict:
            return False
        codings = value.get("coding", ())
        for item in pair(codings, rows) if type(codings) is list and len(codings) > 1 else codings:
            coding(item, rows)
        text = value.get("text")
        if text and not any(item.get("display") == text and "code" in item for item in codings):
            plain = values.normalise(text)[:_LONGEST]
            key = keys.token_key(t, name, keys.TEXT, plain)
            rows["idx_token"].append((key,))
            rows["idx_term"].append(_term(param, key, "", None, plain))
        return bool(codings or text)
    return read


def _pair(t: str, p: Param) -> Callable[[list[Any], Rows], list[Any]]:
    """Takes a unified coding with LOINC's behind it as one token, and returns the other codings.

    Our conversions write the two together for most results, and each token of a result costs a page of the database:
    the dictionary leads from both codings to the one key (`keys.PAIRED`).
    """
    name, param = p.name, keys.param_key(t, p.name)

    @lru_cache(maxsize=4096)
    def rows_of(*coding: str) -> tuple[tuple[int], list[tuple[Any, ...]]]:
        (system, code, display), (loinc, other, words) = coding[:3], coding[3:]
        key = keys.token_key(t, name, system, f"{code}\0{loinc}\0{other}")
        return (key,), [_term(param, key, system, code, values.normalise(display)[:_LONGEST]),
                        _term(param, key, loinc, other, values.normalise(words)[:_LONGEST])]

    def take(codings: list[Any], rows: Rows) -> list[Any]:
        first, second = codings[0], codings[1]
        if type(first) is not dict or type(second) is not dict or first.get("system") not in keys.UNIFIED \
                or second.get("system") != keys.LOINC:
            return codings
        both = (first["system"], first.get("code"), first.get("display", ""),
                keys.LOINC, second.get("code"), second.get("display", ""))
        if not all(isinstance(text, str) for text in both):
            return codings
        token, terms = rows_of(*both)
        rows["idx_token"].append(token)
        rows["idx_term"] += terms
        return codings[2:]
    return take


def _identifier(t: str, p: Param) -> _Read:
    name, system_row = p.name, _system_row(t, p.name)

    def read(value: Any, rows: Rows) -> bool:
        if type(value) is not dict:
            return False
        number, system = value.get("value"), value.get("system") or ""
        if not isinstance(number, str):
            return False
        token = rows["idx_token"]
        token.append((keys.number_key(t, name, system, number, number),))
        key, term = system_row(system)
        token.append(key)
        rows["idx_term"].append(term)
        for coding in (value.get("type") or {}).get("coding", ()):
            if "code" in coding:
                of_type = f"{coding.get('system') or ''}|{coding['code']}|{number}"
                token.append((keys.number_key(t, name, keys.OF_TYPE, of_type, number),))
        return True
    return read


def _system_row(t: str, name: str) -> Callable[[str], tuple[tuple[int], tuple[Any, ...]]]:
    """The row that says "has a value of this system", and the dictionary's row that lists the system."""
    param = keys.param_key(t, name)

    @lru_cache(maxsize=4096, typed=True)
    def rows_of(system: str) -> tuple[tuple[int], tuple[Any, ...]]:
        key = keys.token_key(t, name, keys.SYSTEM, system)
        return (key,), _term(param, key, system, None, "")
    return rows_of


def _contact(t: str, p: Param) -> _Read:
    name, system_row, only = p.name, _system_row(t, p.name), p.where.partition("=")[2]

    def read(value: Any, rows: Rows) -> bool:
        if type(value) is not dict or only and value.get("system") != only:
            return False
        number, system = value.get("value"), value.get("system") or ""
        if not isinstance(number, str):
            return False
        key, term = system_row(system)
        rows["idx_token"] += ((keys.token_key(t, name, system, contact(number)),), key)
        rows["idx_term"].append(term)
        return True
    return read


def contact(value: str) -> str:
    """A telephone number without its punctuation, an address of electronic mail in lower case."""
    if "@" in value:
        return value.strip().lower()
    digits = "".join(c for c in value if c.isalnum() or c == "+")
    return digits or value


def _code(t: str, p: Param) -> _Read:
    name, param = p.name, keys.param_key(t, p.name)

    @lru_cache(maxsize=4096)
    def row(code: str) -> tuple[tuple[int], tuple[Any, ...]]:
        key = keys.token_key(t, name, "", code)
        return (key,), _term(param, key, "", code, "")

    def read(value: Any, rows: Rows) -> bool:
        if value is True or value is False:
            value = "true" if value else "false"
        if not isinstance(value, str):
            return False
        key, term = row(value)
        rows["idx_token"].append(key)
        rows["idx_term"].append(term)
        return True
    return read


def _uid(t: str, p: Param) -> _Read:
    name = p.name

    def read(value: Any, rows: Rows) -> bool:
        if not isinstance(value, str):
            return False
        rows["idx_token"].append((keys.token_key(t, name, "", value),))
        return True
    return read


# ------------------------------------------------------------------ references, URIs


def _reference(t: str, p: Param) -> _Read:
    name, param, owned = p.name, keys.param_key(t, p.name), p.owner

    def read(value: Any, rows: Rows) -> bool:
        if type(value) is not dict:
            return False
        text = value.get("reference")
        if type(text) is str and (target := keys.target_of(text)) and not (owned and owner_id(target)):
            rows["idx_reference"].append((keys.reference_key(target), param))
        identifier = value.get("identifier")
        if type(identifier) is dict and isinstance(identifier.get("value"), str):
            text = f"{identifier.get('system') or ''}|{identifier['value']}"
            rows["idx_token"].append((keys.token_key(t, name, keys.IDENTIFIER, text),))
        return True
    return read


def _canonical(t: str, p: Param) -> _Read:
    param = keys.param_key(t, p.name)

    def read(value: Any, rows: Rows) -> bool:
        if not isinstance(value, str):
            return False
        rows["idx_reference"].append((keys.reference_key(value), param))
        url, bar, _ = value.partition("|")
        if bar:
            rows["idx_reference"].append((keys.reference_key(url), param))
        return True
    return read


def _uri(t: str, p: Param) -> _Read:
    name, param = p.name, keys.param_key(t, p.name)

    @lru_cache(maxsize=4096)
    def row(uri: str) -> tuple[tuple[int], tuple[Any, ...]]:
        key = keys.token_key(t, name, "", uri)
        return (key,), _term(param, key, "", uri, "")

    def read(value: Any, rows: Rows) -> bool:
        if not isinstance(value, str):
            return False
        key, term = row(value)
        rows["idx_token"].append(key)
        rows["idx_term"].append(term)
        return True
    return read


# ------------------------------------------------------------------ dates, strings, quantities


def _date(t: str, p: Param) -> _Read:
    param = keys.param_key(t, p.name)

    def read(value: Any, rows: Rows) -> bool:
        found = values.date_range(value) if type(value) is str else values.outer_range(value)
        if found is None:
            return False
        lo, hi = found
        rows["idx_date"].append((param, lo, hi - lo))
        return True
    return read


_NAME = ("text", "family", "given", "prefix", "suffix")
_ADDRESS = ("text", "line", "city", "district", "state", "country", "postalCode")


def _string(t: str, p: Param) -> _Read:
    param = keys.param_key(t, p.name)
    parts = {As.NAME: _NAME, As.ADDRESS: _ADDRESS}.get(p.read)

    def read(value: Any, rows: Rows) -> bool:
        texts = [value] if parts is None else list(_texts(value, parts))
        held = False
        for text in texts:
            if isinstance(text, str) and (raw := text[:_LONGEST]):
                plain = values.normalise(raw)
                rows["idx_string"].append((param, plain, "" if plain == raw else raw))
                held = True
        return held
    return read


def _texts(value: Any, parts: tuple[str, ...]) -> Iterable[str]:
    """The parts of a HumanName or Address; a Chinese name also as it is written, family and given together."""
    if type(value) is not dict:
        return
    for part in parts:
        item = value.get(part)
        yield from item if type(item) is list else (item,) if item else ()
    family, given = value.get("family"), value.get("given")
    if isinstance(family, str) and given and not family.isascii() and isinstance(given[0], str):
        yield family + "".join(g for g in given if isinstance(g, str))


def _quantity(t: str, p: Param) -> _Read:
    param = keys.param_key(t, p.name)

    @lru_cache(maxsize=4096, typed=True)
    def unit_of(system: str, code: str, unit: str) -> tuple[int, tuple[Any, ...]]:
        key = keys.unit_key(system, code, unit)
        return key, _term(keys.UNITS, key, system, code, unit[:_LONGEST])

    def read(value: Any, rows: Rows) -> bool:
        found = values.quantity_range(value) if type(value) is dict else None
        if found is None:
            return False
        unit = None
        if "code" in value or "unit" in value:
            unit, term = unit_of(value.get("system") or "", value.get("code") or "", value.get("unit") or "")
            rows["idx_term"].append(term)
        rows["idx_quantity"].append((param, *found, unit, 0))
        return True
    return read
