"""Stored DICOM objects by study, and which studies are to be published: some objects are not shown by their
ImagingStudy yet, or the person has changed, so that other reports may be about it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from gateway.source import Resource
from gateway.store.codec import Codec
from gateway.store.database import Reader, Transaction
from gateway.store.model import DirtyStudy, Instance
from gateway.store.writer import Job

_COLUMNS = ("pk", "study", "received", "size", "dict", "kept", "digest", "sop_uid", "series_uid", "object_key",
            "calling_aet", "facts")
_MARK = ("UPDATE study SET first_dirty = CASE WHEN generation > published THEN first_dirty ELSE ? END, last_dirty = ?, "
         "generation = generation + 1")


@dataclass(frozen=True, slots=True)
class Arrived:
    """An instance with its compressed facts."""

    instance: Instance
    dict: int
    facts: bytes


def arrived(instance: Instance, codec: Codec) -> Arrived:
    """Made in the caller's thread."""
    return Arrived(instance, *codec.compress("facts", orjson.dumps(instance.facts)))


def put(transaction: Transaction, jobs: Sequence[Job], institution: Callable[[str], int], now: int) -> None:
    """Keep new instances and mark their studies dirty.

    The first bytes under a SOP Instance UID of a study win; other bytes are set aside ("conflict"), the same bytes
    again change nothing ("same"). Counts are taken from rows, so that nothing is counted twice.
    """
    arrivals: list[Arrived] = [job.value for job in jobs]
    studies = _studies(transaction, {(a.instance.study_instance_uid, institution(a.instance.institution))
                                     for a in arrivals}, now)
    stored: dict[tuple[int, str], dict[bytes, int]] = {}
    for study, sop, digest, kept in transaction.among(
            "SELECT study, sop_uid, digest, kept FROM instance WHERE sop_uid IN ?*",
            sorted({a.instance.sop_instance_uid for a in arrivals})):
        stored.setdefault((study, sop), {})[bytes(digest)] = kept
    rows, dirty = [], set()
    for job, a in zip(jobs, arrivals, strict=True):
        i = a.instance
        study = studies[i.study_instance_uid, institution(i.institution)]
        digests = stored.setdefault((study, i.sop_instance_uid), {})
        if i.digest in digests:
            job.result = "same" if digests[i.digest] else "conflict"
            continue
        kept = 0 if digests else 1
        digests[i.digest] = kept
        job.result = "new" if kept else "conflict"
        if kept:
            dirty.add(study)
        rows.append((study, now, i.size, a.dict, kept, i.digest, i.sop_instance_uid, i.series_instance_uid,
                     i.object_key, i.calling_aet, a.facts))
    numbers = transaction.next("instance", len(rows)) if rows else ()
    transaction.insert("instance", _COLUMNS, [(pk, *row) for pk, row in zip(numbers, rows, strict=True)])
    transaction.many(f"{_MARK} WHERE key = ?", [(now, now, study) for study in sorted(dirty)])


def _studies(transaction: Transaction, wanted: set[tuple[str, int]], now: int) -> dict[tuple[str, int], int]:
    """Keys of studies, held until the commit, so that two processes do not both keep an instance's first bytes."""
    transaction.lock(f"study {number} {uid}".encode() for uid, number in wanted)
    found = {(uid, number): key for key, uid, number in transaction.among(
        "SELECT key, uid, institution FROM study WHERE uid IN ?*", sorted({uid for uid, _ in wanted}))}
    missing = sorted(wanted - found.keys())
    fresh = list(zip(transaction.next("study", len(missing)) if missing else (), missing, strict=True))
    transaction.insert("study", ("key", "first_dirty", "last_dirty", "generation", "published", "institution", "uid"),
                       [(key, now, now, 0, 0, number, uid) for key, (uid, number) in fresh])
    return found | {study: key for key, study in fresh}


class Regrouped:
    """Reports and studies of persons that become one, or part: `gateway.joining` joins the same hospital's and the same
    person's by a number, so a study that comes to a report's person, or goes from it, looks for its reports again."""

    TYPES = ("DiagnosticReport", "ImagingStudy")

    def __init__(self) -> None:
        self._reports: dict[int, set[tuple[int, int]]] = {}
        self._studies: dict[tuple[str, int], tuple[int, int]] = {}

    def see(self, resource: Resource, institution: int, before: int, after: int) -> None:
        """A resource of these types with its person before and after."""
        if resource["resourceType"] == "DiagnosticReport":
            self._reports.setdefault(institution, set()).add((before, after))
            return
        numbers = resource.get("identifier", ())
        if any(coding.get("code") == "ACSN" for one in numbers for coding in one.get("type", {}).get("coding", ())):
            for one in numbers:
                if one.get("system") == "urn:dicom:uid":
                    uid = str(one.get("value", "")).removeprefix("urn:oid:")
                    self._studies[uid, institution] = before, after

    def write(self, transaction: Transaction, now: int) -> None:
        """Mark the studies unpublished, with the change of persons in one transaction."""
        transaction.many(f"{_MARK} WHERE uid = ? AND institution = ?", sorted(
            (now, now, *study) for study, (before, after) in self._studies.items()
            if any((report[0] == before) != (report[1] == after) for report in self._reports.get(study[1], ()))))


def published(transaction: Transaction, studies: Sequence[tuple[int, int]]) -> None:
    """These generations are shown; what came after them stays dirty."""
    transaction.many("UPDATE study SET published = ?, first_dirty = last_dirty WHERE key = ? AND published < ?",
                     [(generation, key, generation) for key, generation in sorted(studies)])


def dirty(reader: Reader, institutions: Callable[[int], str]) -> list[DirtyStudy]:
    """Oldest first."""
    found = reader.all("SELECT key, institution, uid, generation, first_dirty, last_dirty FROM study "
                       "WHERE generation > published ORDER BY first_dirty, key")
    return [DirtyStudy(key, institutions(number), uid, generation, first, last)
            for key, number, uid, generation, first, last in found]


def facts(reader: Reader, codec: Codec, study: int) -> list[dict[str, Any]]:
    """Facts of a study's instances, in the order in which they came."""
    found = reader.all("SELECT dict, facts FROM instance WHERE study = ? AND kept = 1 ORDER BY pk", (study,))
    return [orjson.loads(codec.decompress(number, bytes(body))) for number, body in found]


_SHOWN = ("SELECT s.institution, s.uid, i.series_uid, i.sop_uid, i.object_key, i.size, i.digest, i.calling_aet, "
          "i.dict, i.facts FROM instance i JOIN study s ON s.key = i.study WHERE ")


def instances(reader: Reader, codec: Codec, institutions: Callable[[int], str], sop_instance_uid: str,
              kept: bool = True) -> list[Instance]:
    """The stored objects of a SOP Instance UID, one for each institution and study that sent it."""
    found = reader.all(_SHOWN + "i.sop_uid = ? AND i.kept = ? ORDER BY i.pk", (sop_instance_uid, int(kept)))
    return [Instance(institutions(number), study, series, sop, key, size, bytes(digest), aet,
                     orjson.loads(codec.decompress(n, bytes(body))))
            for number, study, series, sop, key, size, digest, aet, n, body in found]
