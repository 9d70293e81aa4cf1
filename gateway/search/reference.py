"""Reference parameters, chains and reverse chains (search.html#reference, #chaining, #has), and what a person is."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import select

from gateway.indexing import Param, Type, keys, owner_id, param_key, parameters_of, reference_key, token_key, type_key
from gateway.search.nodes import (
    Args,
    Binder,
    Candidate,
    Clause,
    Node,
    Nothing,
    Persons,
    References,
    Shape,
    Tokens,
    any_of,
    padded,
    same,
)
from gateway.search.plan import Group
from gateway.search.query import Criterion, invalid, split, unescape, unsupported, values_of
from gateway.search.query import criterion as criterion_of
from gateway.store.index_schema import idx_reference, idx_resource
from gateway.store.types import NUMBERS

if TYPE_CHECKING:
    from gateway.search.criteria import Asking

_ID = re.compile(r"[A-Za-z0-9\-.]{1,64}")
#: Persons or targets that a chain may find and still be bound one by one; beyond, the chain becomes a subquery.
_FEW = 256


def owned(p: Param, resource_type: str) -> bool:
    """Whether a parameter that names this type is answered by the person key."""
    return p.owner and resource_type == "Patient"


def reference(asking: Asking, t: str, p: Param, criterion: Criterion) -> Node:
    """A reference by id, ``Type/id`` or URL; ``:identifier``; ``:Type``; or by a chain."""
    if criterion.chain:
        return _chain(asking, t, p, criterion)
    if criterion.modifier == "identifier":
        return any_of(node for value in values_of(criterion) for node in _by_identifier(asking, t, p, value))
    if criterion.modifier and criterion.modifier not in NUMBERS:
        raise unsupported("a reference takes :identifier, :missing or the name of a type", str(criterion))
    found: list[Node | None] = []
    for value in values_of(criterion):
        patients, others = _targets(asking, p, unescape(value), criterion)
        if patients:
            persons = asking.persons_of_patients(t, patients)
            if p.owner:
                found.append(Persons(persons) if persons else None)
            elif p.name == "patient":  # Provenance: any of the person's Patients
                others += [f"Patient/{patient}" for person in persons for patient in asking.store.patients_of(person)]
            else:
                others += [f"Patient/{patient}" for patient in patients]
        if others:
            found.append(References(_param(t, p), padded(map(reference_key, others))))
    return any_of(found)


def _param(t: str, p: Param) -> int:
    """The parameter that has the rows."""
    return param_key(t, p.same_as[0] if p.same_as else p.name)


def _targets(asking: Asking, p: Param, value: str, criterion: Criterion) -> tuple[list[str], list[str]]:
    """What a value names: ids of Patients that stand for their person, and other targets."""
    text = value.partition("/_history/")[0]
    if asking.base and text.startswith(asking.base + "/"):
        text = text[len(asking.base) + 1:]
    kind, slash, rest = text.partition("/")
    if slash and kind in NUMBERS and _ID.fullmatch(rest):
        if criterion.modifier not in ("", kind) or p.targets and kind not in p.targets:
            return [], []
        named = [text]
    elif ":" in text:  # an absolute URL or a URN
        return [], [text]
    elif not _ID.fullmatch(text):
        raise invalid("a reference is an id, Type/id or an absolute URL", str(criterion))
    else:
        kinds = [criterion.modifier] if criterion.modifier else list(p.targets)
        if not kinds:
            raise invalid("this parameter may name any type; write Type/id", str(criterion))
        named = [f"{kind}/{text}" for kind in kinds]
    patients = [patient for name in named if (patient := owner_id(name))]
    if not (p.owner or p.name == "patient"):
        patients = []
    return patients, [name for name in named if not (patients and owner_id(name))]


def _by_identifier(asking: Asking, t: str, p: Param, value: str) -> Iterable[Node | None]:
    """References that carry the identifier, and with ``patient`` the persons that one of their Patients has it."""
    parts = split(value, "|")
    system, code = ("", parts[0]) if len(parts) == 1 else (parts[0], "|".join(parts[1:]))
    row = token_key(t, p.same_as[0] if p.same_as else p.name, keys.IDENTIFIER, f"{unescape(system)}|{unescape(code)}")
    if asking.has_token(row):
        yield Tokens((row,), 1)
    if p.owner:
        persons = asking.persons_with("Patient", criterion_of("identifier", value))
        yield Persons(persons) if persons else None


# ---------------------------------------------------------------------- chains


def _chain(asking: Asking, t: str, p: Param, criterion: Criterion) -> Node:
    """``subject:Patient.name=x``: what the reference names must itself meet a criterion."""
    kinds = [criterion.modifier] if criterion.modifier else list(p.targets)
    if criterion.modifier and (criterion.modifier not in NUMBERS or p.targets and criterion.modifier not in p.targets):
        raise unsupported("the type after the colon is none that this parameter names", str(criterion))
    inner = criterion_of(criterion.chain, criterion.value)
    kinds = [kind for kind in kinds if inner.name in asking.known(kind)]
    if not kinds:
        raise unsupported("no type that this reference names has the chained parameter", str(criterion))
    found: list[Node | None] = []
    for kind in kinds:
        try:
            with asking.deeper(str(criterion)):
                found.append(asking.owned_by(kind, inner) if owned(p, kind) else _linked(asking, t, p, kind, inner))
        except Nothing:
            continue
    return any_of(found)


def _linked(asking: Asking, t: str, p: Param, kind: str, inner: Criterion) -> Node | None:
    nodes = asking.nodes(kind, [inner])
    targets = asking.planner.keys(kind, nodes, "ref", _FEW)
    if not targets:
        return None
    if len(targets) < _FEW:
        return References(_param(t, p), padded(targets))
    return Linked(_param(t, p), Group(kind, tuple(nodes)))


@dataclass(frozen=True)
class Linked:
    """By this parameter the candidate names a resource of a group."""

    param: int
    group: Group
    rank: int = 6

    @property
    def shape(self) -> Shape:
        return ("linked", self.group.plan().shape)

    @property
    def args(self) -> Args:
        return (*self.group.plan().args, type_key(self.group.resource_type), self.param)

    def probe(self, c: Candidate, bind: Binder) -> Clause:
        found = self.group.plan().candidates(bind).subquery()
        r, x = idx_resource.alias(), idx_reference.alias()
        of = Candidate(found.c.person, found.c.pk)
        links = select(x.c.pk).where(r.c.type == bind(r.c.type), same(r, of), x.c.target == r.c.ref,
                                     x.c.param == bind(x.c.param))
        return c.pk.in_(links)


@dataclass(frozen=True)
class PersonIn:
    """The candidate's person has a resource of a group."""

    group: Group
    rank: int = 6

    @property
    def shape(self) -> Shape:
        return ("personin", self.group.plan().shape)

    @property
    def args(self) -> Args:
        return self.group.plan().args

    def probe(self, c: Candidate, bind: Binder) -> Clause:
        plan = self.group.plan()
        source = plan.driver.source(bind)
        where = plan.where(source, bind)
        return bind.exists(*where, source.candidate.person == c.person)


@dataclass(frozen=True)
class NamedBy:
    """By this parameter a resource of a group names the candidate."""

    type: int
    param: int
    nodes: tuple[Node, ...]
    rank: int = 6

    @property
    def shape(self) -> Shape:
        return ("namedby", *(node.shape for node in self.nodes))

    @property
    def args(self) -> Args:
        return (self.type, self.param, *(value for node in self.nodes for value in node.args))

    def probe(self, c: Candidate, bind: Binder) -> Clause:
        r, x = idx_resource.alias(), idx_reference.alias()
        where = [r.c.type == bind(r.c.type), same(r, c), x.c.target == r.c.ref, x.c.param == bind(x.c.param)]
        by = Candidate(x.c.person, x.c.pk)
        return bind.exists(*where, *(node.probe(by, bind) for node in self.nodes))


def has(asking: Asking, t: str, criterion: Criterion) -> Node:
    """``_has:Observation:patient:code=x``: a resource of another type that names this one meets a criterion."""
    parts = criterion.modifier.split(":", 2)
    if len(parts) != 3 or parts[0] not in NUMBERS:
        raise invalid("_has is _has:Type:reference:parameter", "_has")
    kind, name, rest = parts
    p = parameters_of(kind).get(name)
    if p is None or p.type is not Type.REFERENCE or p.targets and t not in p.targets:
        raise unsupported(f"{kind}.{name} does not name {t}", "_has")
    with asking.deeper("_has"):
        nodes = asking.nodes(kind, [criterion_of(rest, criterion.value)])
    if owned(p, t):
        persons = asking.planner.keys(kind, nodes, "person", _FEW)
        persons = [person for person in persons if person]
        if not persons:
            raise Nothing
        if len(persons) < _FEW - 1:
            return Persons(padded(persons))
        return PersonIn(Group(kind, tuple(nodes)))
    return NamedBy(type_key(t), _param(kind, p), tuple(nodes))
