"""The account of a message for people and programs: what became of each of its values."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, NamedTuple

import click

from gateway.commands.opening import table
from gateway.hl7v2.accounting import Account, Fate
from gateway.hl7v2.differing import AS_OF, folded, grouped

_ORDINAL = re.compile(r"^([A-Za-z ]+)\[\d+\]")
_SEQUENCE = re.compile(r"^(\w{3})\[(\d+)\]-")
#: Kind of fate → the word that stands before paths or a reason.
_WORDS = {"used": "→", "reported": "!", "read": "read", "kept": "kept", "hook": "hook", "refused": "REFUSED"}


class _Line(NamedTuple):
    places: list[Fate]
    paths: list[str]


def show(account: Account, refused_at: str, fields: bool, values: bool) -> None:
    """Print the account: equal fates of the same field in several segments in one line, unless ``fields``.

    ``values`` prints what was sent, which is patient data, and each field by itself. ``refused_at`` is the place that
    the receipt names, for a message that was refused after its conversion.
    """
    rows = []
    for line in _lines(account.fates, fields or values):
        first = line.places[0]
        if account.refusal and first.kind != "refused" and not (fields or values):
            continue
        row = [_place(line.places), _outcome(first, line.paths)]
        if refused_at and first.kind != "refused" and _is_at(first, refused_at):
            row[1] += "  ← refused here when it was to be stored"
        rows.append((row[0], *([first.leaf.text] if values else []), row[1]))
    if account.missing:
        refusal = account.refusal.message if account.refusal else ""
        rows.append((account.missing, *([""] if values else []), f"REFUSED: nothing was sent: {refusal}"))
    table(("place", *(("value",) if values else ()), "what became of it"), rows)
    counts = ", ".join(f"{count} {kind}" for kind, count in account.counts().items())
    click.echo(f"\n{len(account.fates)} values: {counts}")
    if not account.exact:
        click.echo("The message is too long to try each value: what is read is told, not what it fills.")
    if account.refusal:
        click.echo("A refused message stays as it came; nothing of it is stored elsewhere.")
    if fields and account.references:
        click.echo()
        table(("resource", "reference"), [*account.references.items()])


def as_json(account: Account, values: bool) -> dict[str, Any]:
    """The account for a program."""
    made: dict[str, Any] = {"counts": account.counts(), "exact": account.exact, "fields": [
        {"place": fate.leaf.place, **({"value": fate.leaf.text} if values else {}), "fate": fate.kind,
         "required": fate.required, "paths": list(fate.paths), "reason": fate.reason} for fate in account.fates]}
    if account.refusal is not None:
        made["refusal"] = {"category": account.refusal.category.value, "place": account.refusal.where,
                           "sentence": account.refusal.message}
    made["resources"] = account.references
    return made


def _lines(fates: Iterable[Fate], single: bool) -> list[_Line]:
    """Fates in the order of their first place; those that differ only in the number of segment and resource are one."""
    found: dict[Any, _Line] = {}
    for at, fate in enumerate(fates):
        shapes = tuple(dict.fromkeys(_ORDINAL.sub(r"\1[#]", path) for path in fate.paths))
        key = at if single else (_SEQUENCE.sub(r"\1-", fate.leaf.place), fate.kind, fate.required, fate.reason, shapes)
        line = found.setdefault(key, _Line([], []))
        line.places.append(fate)
        line.paths.extend(fate.paths)
    return list(found.values())


def _place(fates: list[Fate]) -> str:
    place = fates[0].leaf.place
    if len(fates) == 1:
        return place
    segment, rest = fates[0].leaf.segment, place.partition("-")[2]
    return grouped([f"{segment}[{fate.leaf.sequence}]-{rest}" for fate in fates])[0]


def _outcome(fate: Fate, paths: list[str]) -> str:
    """``→ Observation[1-4].valueQuantity.value``, ``kept  why``; what only orders versions in time comes last."""
    plain = grouped(path for path in paths if not path.endswith(AS_OF))
    timed = grouped(path.removesuffix(AS_OF) for path in paths if path.endswith(AS_OF))
    said = ", ".join(folded(plain))
    if timed:
        said = "; ".join(piece for piece in (said, f"which version is newer: {', '.join(timed)}") if piece)
    if fate.kind == "used" and not said:
        said = "required"
    elif fate.required and fate.kind != "read":
        said += " (required)"
    if not said:
        return f"{_WORDS[fate.kind]}: {fate.reason}"
    return f"{_WORDS[fate.kind]} {said}" + (f" ({fate.reason})" if fate.reason else "")


def _is_at(fate: Fate, where: str) -> bool:
    """Whether a value lies at a refused place, such as ``OBR-4`` or ``OBX[7]-5.2``."""
    match = re.match(r"(\w{3})(?:\[(\d+)\])?-(\d+)", where)
    return match is not None and match[1] == fate.leaf.segment \
        and int(match[2] or fate.leaf.sequence) == fate.leaf.sequence and int(match[3]) == fate.leaf.field
