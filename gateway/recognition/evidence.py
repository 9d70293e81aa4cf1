"""The files of a settlement: the same settlement gives the same bytes. Pure.

    institutions.csv      a row for each institution and version of its rule: recognised fees, fees per head, allocation
    allocation.csv        institution → department → doctor, adding up to the cent
    filters.csv           how many lines were eligible, and why the others were not
    evidence/<slug>.csv   every eligible line: decision, day, item, price, versions of catalogue and rule; nobody's name
    summary.json          totals, as the command prints them
    manifest.json         what went in, and SHA-256 of every other file
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from hashlib import sha256
from typing import Any

from gateway.fhir import json
from gateway.recognition.measure import plain
from gateway.recognition.settlement import PerHead, Reason, Settled, Sieve, half_up

MANIFEST = "manifest.json"


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one institution; its facts are written at once and not kept."""

    institution: str
    name: str
    counts: tuple[tuple[str, int], ...]
    settled: tuple[Settled, ...]

    @property
    def cents(self) -> int:
        return sum(part.cents for part in self.settled)


def result_of(sieve: Sieve, name: str, settled: Sequence[Settled]) -> Result:
    """What is kept of an institution until the end of the run."""
    return Result(sieve.institution, name, tuple((reason.value, sieve.counts[reason]) for reason in Reason),
                  tuple(settled))


def evidence_csv(sieve: Sieve) -> bytes:
    """The eligible lines of an institution, by day and line."""
    rules = [part.rule.version if part.rule else "" for part in sieve.parts]
    return _csv(("day", "line", "decision", "item", "department", "doctor", "scheme", "price", "catalogue", "rule"), (
        (fact.day, fact.line, fact.decision, fact.item, fact.department, fact.doctor, fact.scheme, money(fact.price),
         fact.catalogue, rules[fact.part]) for fact in sorted(sieve.facts)))


def tables(results: Sequence[Result]) -> dict[str, bytes]:
    """The files that tell of all institutions."""
    return {"allocation.csv": _allocation(results), "filters.csv": _filters(results),
            "institutions.csv": _institutions(results)}


def _institutions(results: Iterable[Result]) -> bytes:
    rows = []
    for result in results:
        for one in result.settled:
            rule = one.part.rule
            rows.append((result.institution, result.name, rule.version if rule else "",
                         money(rule.share) if rule else "", one.part.first, one.part.last, one.lines,
                         money(one.recognised), *_per_head(one.now), *_per_head(one.before),
                         "" if one.now is None else "yes" if one.fell else "no", yuan(one.cents)))
    return _csv(("institution", "name", "rule", "share", "from", "to", "lines", "recognised_fees", "fees", "heads",
                 "fees_per_head", "fees_year_before", "heads_year_before", "fees_per_head_year_before", "fell",
                 "allocated"), rows)


def _per_head(found: PerHead | None) -> tuple[object, object, object]:
    """Fees, heads, and fees per head to the cent for the reader; what is compared is exact."""
    return ("", "", "") if found is None else (money(found.fees), found.heads, yuan(half_up(found.exact * 100)))


def _allocation(results: Iterable[Result]) -> bytes:
    rows = [(result.institution, one.part.rule.version, one.part.first, one.part.last, share.department, share.doctor,
             money(share.fees), yuan(share.cents))
            for result in results for one in result.settled if one.part.rule for share in one.shares]
    return _csv(("institution", "rule", "from", "to", "department", "doctor", "recognised_fees", "allocated"), rows)


def _filters(results: Iterable[Result]) -> bytes:
    rows = [(result.institution, reason, count) for result in results for reason, count in result.counts]
    return _csv(("institution", "reason", "lines"), rows)


def summary(run: str, first: date, last: date, results: Sequence[Result]) -> dict[str, Any]:
    """Totals of a run."""
    reasons = {reason.value: sum(dict(result.counts)[reason.value] for result in results) for reason in Reason}
    return {"run": run, "from": first.isoformat(), "to": last.isoformat(), "institutions": len(results),
            "paid_institutions": sum(result.cents > 0 for result in results), "lines": reasons,
            "recognised_fees": exact(sum((one.recognised for result in results for one in result.settled), Decimal())),
            "allocated": Decimal(sum(result.cents for result in results)).scaleb(-2)}


def manifest(run: str, first: date, last: date, asked: Sequence[str], fees: bytes,
             files: Iterable[tuple[str, str, int]], dry_run: bool) -> dict[str, Any]:
    """What went in and what came out; ``files``: name, SHA-256, bytes."""
    return {"run": run, "dry_run": dry_run, "from": first.isoformat(), "to": last.isoformat(),
            "institutions_asked_for": sorted(asked), "fees_sha256": sha256(fees).hexdigest(),
            "files": [{"name": name, "sha256": digest, "bytes": size} for name, digest, size in sorted(files)]}


def document(value: dict[str, Any]) -> bytes:
    """JSON for a file."""
    return json.dumps(value, indent=True) + b"\n"


def yuan(cents: int) -> str:
    """Cents as yuan with two places."""
    return format(Decimal(cents).scaleb(-2), "f")


def exact(amount: Decimal) -> Decimal:
    """An amount with at least two places, and as many as it has."""
    return amount if amount.as_tuple().exponent <= -2 else amount.quantize(Decimal("0.01"))  # type: ignore[operator]


def money(amount: Decimal) -> str:
    """The same as text."""
    return format(exact(amount), "f")


def _csv(head: Sequence[str], rows: Iterable[Sequence[object]]) -> bytes:
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(head)
    writer.writerows([plain(cell) if isinstance(cell, str) else cell for cell in row] for row in rows)
    return out.getvalue().encode()
