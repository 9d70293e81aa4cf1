"""What a conversion makes on top of what is stored: read now, made anew, and written only if nobody else was quicker.

A message of patient administration tells the change of a visit, not the whole of it; a merge names a Patient that it
does not carry. Their Puts name the version that they were made from (``if_match``); whoever writes them tries again
when another has been written in between.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from gateway.fhir import check
from gateway.source import Amendment, Change, Conversion
from gateway.store.model import Put, Standing

if TYPE_CHECKING:
    from gateway.store import Store


def puts(store: Store, conversion: Conversion, institution: str) -> list[Put]:
    """The conversion's changes ``onto`` something stored, its amendments, and what its snapshots retire, as of now."""
    changes = [change for change in conversion.changes if change.onto]
    amendments = [*conversion.amendments, *_retired(store, conversion)]
    if not changes and not amendments:
        return []
    standing = store.standing([*((c.resource["resourceType"], c.resource["id"]) for c in changes),
                               *((a.resource_type, a.id) for a in amendments)])
    made = [_joined(change, standing.get((change.resource["resourceType"], change.resource["id"])))
            for change in changes]
    made += filter(None, (_amended(one, standing.get((one.resource_type, one.id))) for one in amendments))
    for put in made:
        put.institution = institution
        check.require_valid(put.resource, profile=True)
    return made


def _joined(change: Change, held: Standing | None) -> Put:
    if held is None:
        return Put(change.resource, as_of=change.as_of, if_match=0)
    assert change.onto is not None
    late = held.as_of is not None and change.as_of is not None and held.as_of > change.as_of
    return Put(change.onto(held.resource, change.resource, late), as_of=_later(held.as_of, change.as_of),
               if_match=held.version)


def _amended(one: Amendment, held: Standing | None) -> Put | None:
    changed = one.change(held.resource if held else None)
    if changed is None:
        return None
    as_of = _later(held.as_of, one.as_of) if held and one.on_older == "apply" else one.as_of
    return Put(changed, as_of=as_of, on_older="refuse" if one.on_older == "apply" else one.on_older,
               if_match=held.version if held else 0)


def _later(held: int | None, told: int | None) -> int | None:
    return max((time for time in (held, told) if time is not None), default=None)


def _retired(store: Store, conversion: Conversion) -> Iterator[Amendment]:
    """An Amendment for each stored part that a snapshot names no more."""
    told = {(c.resource["resourceType"], c.resource["id"]) for c in conversion.changes}
    for snapshot in conversion.snapshots:
        for part in store.parts(snapshot.resource_type, snapshot.whole):
            if part not in snapshot.kept and (snapshot.resource_type, part) not in told:
                yield Amendment(snapshot.resource_type, part,
                                lambda held, retire=snapshot.retire: retire(held) if held else None,  # type: ignore[misc]
                                snapshot.as_of, "skip")
