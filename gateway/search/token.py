"""Token and uri parameters (search.html#token, #uri): codings, codes, identifiers, contacts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.indexing import As, Param, Type, contact, keys, param_key, present_bits, token_key, values
from gateway.search.nodes import Node, Of, Terms, Tokens, any_of, like, padded
from gateway.search.query import Criterion, invalid, split, unescape, unsupported, values_of

if TYPE_CHECKING:
    from gateway.search.criteria import Asking

#: Parameters whose values are (nearly) unique, and those that hardly tell resources apart.
_UNIQUE = frozenset(("identifier", "accession", "instance", "series", "requisition", "container-id"))
#: Dictionary rows that are bound as keys; where there are more, the dictionary is joined.
_FEW = 32


def token(asking: Asking, t: str, p: Param, criterion: Criterion) -> Node:
    """The condition of a token criterion; the caller handles ``:not`` and ``:missing``."""
    if criterion.modifier == "text":
        if p.read not in (As.CONCEPT, As.CODING):
            raise unsupported(":text asks for the words of a code; this parameter has none", str(criterion))
        return any_of(_listed(asking, t, p, "text", like(values.normalise(unescape(v)), anywhere=True))
                      for v in values_of(criterion))
    if criterion.modifier == "of-type":
        if p.read is not As.IDENTIFIER:
            raise unsupported(":of-type is for identifiers", str(criterion))
        return any_of(_of_type(t, p, v, criterion) for v in values_of(criterion))
    if criterion.modifier:
        raise unsupported("this modifier is not supported here; see the CapabilityStatement", str(criterion))
    return any_of(_value(asking, t, p, v) for v in values_of(criterion))


def _of_type(t: str, p: Param, value: str, criterion: Criterion) -> Node:
    parts = [unescape(part) for part in split(value, "|")]
    if len(parts) != 3 or not all(parts):
        raise invalid("a value of :of-type is system|code|value", str(criterion))
    return Tokens((keys.number_key(t, p.name, keys.OF_TYPE, "|".join(parts), parts[2]),), 1)


def _value(asking: Asking, t: str, p: Param, value: str) -> Node | None:
    """``code``, ``system|code``, ``|code`` or ``system|``; None: nothing has it."""
    parts = [unescape(part) for part in split(value, "|")]
    system, code = (None, parts[0]) if len(parts) == 1 else (parts[0], "|".join(parts[1:]))
    rank = 1 if p.name in _UNIQUE or p.read is As.CONTACT else 3
    if p.read in (As.CODE, As.UID):
        return _plain(t, p, system, code, rank)
    number = p.read in (As.IDENTIFIER, As.CONTACT)
    if p.read is As.CONTACT:
        code = contact(code)
    if system and not code:
        if number:
            return Tokens((token_key(t, p.name, keys.SYSTEM, system),))
        return _listed(asking, t, p, "system", system)
    if system in keys.PAIRED and p.read is As.CONCEPT:
        return _listed(asking, t, p, "coding", code, system)
    if number:
        systems = asking.systems(param_key(t, p.name)) if system is None else [system]
        return Tokens(padded(_number(t, p, s, code) for s in systems), rank) if systems else None
    if system is not None:
        return Tokens((token_key(t, p.name, system, code),), rank)
    return _listed(asking, t, p, "code", code)


def _number(t: str, p: Param, system: str, value: str) -> int:
    return keys.number_key(t, p.name, system, value, value) if p.read is As.IDENTIFIER \
        else token_key(t, p.name, system, value)


def _plain(t: str, p: Param, system: str | None, code: str, rank: int) -> Node | None:
    """An element of type code, id or boolean, whose system is implied."""
    if system and system != p.system:
        return None
    if not code:
        return Of(keys.type_key(t), "present", (present_bits(t)[p.name],))
    return Tokens((token_key(t, p.name, "", code),), rank)


def _listed(asking: Asking, t: str, p: Param, how: str, value: str, system: str = "") -> Node | None:
    """Tokens by the dictionary: bound as keys where they are few, so that they can drive."""
    terms = Terms(param_key(t, p.name), how, value, system)
    found = asking.matching(terms, _FEW + 1)
    if len(found) > _FEW:
        return terms
    return Tokens(padded(found)) if found else None


def uri(asking: Asking, t: str, p: Param, criterion: Criterion) -> Node:
    """A URI as it is; ``:below`` those that begin with it, ``:above`` those that it begins with."""
    texts = [unescape(v) for v in values_of(criterion)]
    if criterion.modifier == "below":
        return any_of(_listed(asking, t, p, "below", like(text, anywhere=False)) for text in texts)
    if criterion.modifier == "above":
        return any_of(Tokens(padded(token_key(t, p.name, "", text[:n]) for n in _steps(text))) for text in texts)
    if criterion.modifier:
        raise unsupported("a uri takes the modifiers :above, :below, :not and :missing", str(criterion))
    return any_of(Tokens((token_key(t, p.name, "", text),)) for text in texts)


def _steps(text: str) -> list[int]:
    """Lengths of a URI's beginnings that end where a part ends."""
    ends = [n for n, c in enumerate(text) if c in "/#?|"]
    return sorted({*ends, *(n + 1 for n in ends), len(text)} - {0})


def sortable(p: Param) -> bool:
    """Whether the dictionary has the values, so that results can be put in their order."""
    return p.type is Type.URI or p.read in (As.CONCEPT, As.CODING, As.CODE)
