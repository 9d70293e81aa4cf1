"""How messages differ from a hospital's profile: what is new, what vanished, what became rarer or more frequent. Pure.

What was never there before is always told. What vanished or changed its rate is told where chance is no explanation:
Fisher's exact test on messages, its level divided by the number of places compared (Bonferroni), and a change that
matters: ten points for a field, twenty for a value. ``certain`` says that a new thing, too, is more than a rare one
that the profile's messages happened not to hold.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import exp, lgamma

from gateway.onboarding.profile import Code, Presence, Profile, TypeProfile, same_text

_LEVEL = 0.01
_FIELD_CHANGE = 0.10
_VALUE_CHANGE = 0.20
_LISTED = 10
_ASCII = "ascii"


@dataclass(frozen=True, slots=True)
class Drift:
    """One difference. ``before`` and ``now``: (messages with it, messages that could have it)."""

    kind: str
    where: str
    sentence: str
    before: tuple[int, int]
    now: tuple[int, int]
    certain: bool


def drift(known: Profile, now: Profile) -> list[Drift]:
    """What differs, certain ones first, by place; empty for the messages that the profile was made of."""
    compared = sum(len(t.places) for t in known.types.values()) + sum(len(c) for c in known.values.values())
    level = _LEVEL / max(compared, 1)
    found = [*_types(known, now, level), *_values(known, now, level), *_codes(known, now)]
    return sorted(found, key=lambda d: not d.certain)


def _types(known: Profile, now: Profile, level: float) -> Iterator[Drift]:
    for name, of_type in sorted(now.types.items()):
        before = known.types.get(name)
        if before is None:
            yield _new("type", name, (0, known.messages), (of_type.messages, now.messages), level,
                       "messages of this type never came before")
        else:
            yield from _places(name, before, of_type, level)
    for name, of_type in sorted(known.types.items()):
        if name not in now.types:
            yield from _changed("type", name, (of_type.messages, known.messages), (0, now.messages), level,
                                _FIELD_CHANGE)


def _places(name: str, known: TypeProfile, now: TypeProfile, level: float) -> Iterator[Drift]:
    for place in sorted(known.places.keys() | now.places.keys()):
        if (whole := _whole(place)) and (whole not in known.places or whole not in now.places):
            continue  # the segment or field itself is new or gone, and told
        kind = "segment" if "-" not in place else "component" if "." in place else "field"
        before, after = known.places.get(place, Presence()), now.places.get(place, Presence())
        counts = ((before.messages, known.places[whole].messages if whole else known.messages),
                  (after.messages, now.places[whole].messages if whole else now.messages))
        where = f"{name} {place}"
        if not before.messages:
            yield _new(kind, where, *counts, level, "never used before")
            continue
        yield from _changed(kind, where, *counts, level, _FIELD_CHANGE)
        if kind == "field" and before.most == 1 < after.most:
            yield _new("repetition", where, (0, before.messages), (after.repeated, after.messages), level,
                       f"never repeated before, now up to {after.most} times")


def _whole(place: str) -> str:
    """``PID-3.4`` → ``PID-3`` → ``PID`` → nothing."""
    return place.rpartition(".")[0] or place.rpartition("-")[0]


def _values(known: Profile, now: Profile, level: float) -> Iterator[Drift]:
    for place, counter in sorted(now.values.items()):
        before = known.values.get(place)
        if not before:
            continue  # the place itself is new, and told
        of = known.having[place], now.having[place]
        if place == "charset":  # ASCII is all character sets
            of = of[0] - before[_ASCII], of[1] - counter[_ASCII]
        for value in sorted(before.keys() | counter.keys()):
            if place == "charset" and value == _ASCII:
                continue
            counts = (before[value], of[0]), (counter[value], of[1])
            where = f"{place} '{value}'"
            if value in before:
                yield from _changed("value", where, *counts, level, _VALUE_CHANGE)
            elif value != "(others)":
                # Another character set or version is never a rare value that the samples happened to lack.
                yield _new("value", where, *counts, 1.0 if place in ("charset", "MSH-12", "MSH-18") else level,
                           "never sent before")


def _codes(known: Profile, now: Profile) -> Iterator[Drift]:
    for place, codes in sorted(now.codes.items()):
        before = known.codes.get(place, {})
        fresh = [code for code in sorted(codes) if code not in before]
        if fresh and before:
            some = ", ".join(fresh[:_LISTED]) + (" …" if len(fresh) > _LISTED else "")
            yield Drift("code", place, f"{len(fresh)} local code(s) never came before: {some}",
                        (0, known.messages), (sum(codes[c].messages for c in fresh), now.messages), False)
        for code, after in sorted(codes.items()):
            if code in before:
                yield from _code(place, code, before[code], after)


def _code(place: str, code: str, before: Code, after: Code) -> Iterator[Drift]:
    """A code that comes with another unit, name or type than ever: it may mean something else now."""
    for kind, old, new in (("unit", before.units, after.units), ("name", before.names, after.names),
                           ("data type", before.types, after.types)):
        strange = [text for text in sorted(new) if old and not any(same_text(text, other) for other in old)]
        for text in strange:
            yield Drift(kind, f"{place} {code}", f"its {kind} is now '{text}', was '{old.most_common(1)[0][0]}'",
                        (0, before.messages), (new[text], after.messages), True)


def _new(kind: str, where: str, before: tuple[int, int], now: tuple[int, int], level: float, sentence: str) -> Drift:
    said = f"{sentence}: now in {now[0]} of {now[1]} messages, before in none of {before[1]}"
    return Drift(f"new {kind}", where, said, before, now, chance(before, now) < level or level >= 1)


def _changed(kind: str, where: str, before: tuple[int, int], now: tuple[int, int], level: float,
             least: float) -> Iterator[Drift]:
    if not before[1] or not now[1]:
        return
    old, new = before[0] / before[1], now[0] / now[1]
    if abs(old - new) < least or chance(before, now) >= level:
        return
    if now[0] == 0:
        yield Drift(f"vanished {kind}", where, f"was in {old:.0%} of {before[1]} messages, now in none of {now[1]}",
                    before, now, True)
    else:
        yield Drift(f"{kind} rate", where, f"was in {old:.0%} of {before[1]} messages, now in {new:.0%} of {now[1]}",
                    before, now, True)


def chance(before: tuple[int, int], now: tuple[int, int]) -> float:
    """How likely two samples of one habit differ at least so much (Fisher's exact test, two-sided)."""
    (k, n), (j, m) = before, now
    if not n or not m:
        return 1.0
    drawn, total = k + j, n + m
    low, high = max(0, drawn - m), min(drawn, n)
    whole = _choose(total, drawn)
    observed = _choose(n, k) + _choose(m, drawn - k) - whole
    return min(1.0, sum(exp(term) for x in range(low, high + 1)
                        if (term := _choose(n, x) + _choose(m, drawn - x) - whole) <= observed + 1e-9))


def _choose(n: int, k: int) -> float:
    """Logarithm of n over k."""
    return lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1)
