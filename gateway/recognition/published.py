"""What FHIR clients read of a version: resources made of its tables, beside the Library that holds them. Pure.

Only tables that a version brings are published; for the others, those of its base stand. All are under their canonical
URLs with the version's name in ``version`` (and, in the store, at the end of the id).
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from typing import Any

from gateway.recognition.marks import REGIONS, code_of
from gateway.recognition.rules import ALL, Period, Qualification, Reason, RuleSet
from gateway.recognition.tables import EDGES, ITEMS, PANELS, TABLES, Given
from gateway.source import Resource
from gateway.terminology import BASE
from gateway.terminology import ITEMS as ITEM_SYSTEM
from gateway.terminology import PANELS as PANEL_SYSTEM
from profiles import build

REASONS = f"{BASE}/CodeSystem/recognition-reason"
AFFILIATION = f"{BASE}/recognition-qualification"
_IDS = uuid.uuid5(uuid.NAMESPACE_URL, AFFILIATION)


def resources(rules: RuleSet, given: Given) -> list[Resource]:
    """Everything that is published of a version, with ids of the version's own."""
    made = [_versioned(resource, rules) for resource in definitions(rules, given)]
    return made + (affiliations(rules) if "qualifications.tsv" in given.tables else [])


def _versioned(resource: Resource, rules: RuleSet) -> Resource:
    return {**resource, "id": f"{resource['id']}-{rules.version}", "version": rules.version,
            "date": rules.effective.isoformat()}


def definitions(rules: RuleSet, given: Given) -> list[Resource]:
    """CodeSystems, ValueSets and ConceptMaps, under their canonical ids."""
    made: list[Resource] = []
    if ITEMS in given.tables:
        rows = _full_rows(given, ITEMS)
        for row in rows:
            row["category_zh"] = row["category_zh"] or row["category"]  # R4: no name is empty
        made += [build.categories(rows), build.item_system(rows), build.loinc_map(rows)]
    if PANELS in given.tables:
        rows = _full_rows(given, PANELS)
        made += [build.panel_system(rows), build.panel_loinc_map(rows)]
    if EDGES in given.tables:
        rows = _full_rows(given, EDGES)
        for row in rows:
            row["prior_name"] = rules.catalogue.display(row["prior_code"]) or ""
            row["order_name"] = rules.catalogue.display(row["order_code"]) or ""
        made.append(build.coverage(rows))
    if "regions.tsv" in given.tables:
        made += [_region_system(rules), _mark_system(rules)]
    if "reasons.tsv" in given.tables:
        made += [_reason_system(rules), *_reason_sets(rules)]
    return [resource for resource in made if _has_content(resource)]


def _full_rows(given: Given, name: str) -> list[dict[str, str]]:
    """The cells of a table with every column that there may be."""
    return [dict.fromkeys(TABLES[name].columns, "") | row for row in given.rows[name]]


def _has_content(resource: Resource) -> bool:
    """R4 allows no group of a map without elements; a map of nothing is not published."""
    return all(group["element"] for group in resource.get("group", ()))


def _concept(code: str, zh: str, en: str, properties: Iterable[dict[str, Any]]) -> dict[str, Any]:
    names = [{"language": language, "value": value} for language, value in (("zh-CN", zh), ("en", en)) if value]
    concept: dict[str, Any] = {"code": code, "display": zh, "designation": names}
    if found := list(properties):
        concept["property"] = found
    return concept


def _system(id_: str, name: str, title: str, description: str, properties: Mapping[str, tuple[str, str]],
            concepts: list[dict[str, Any]]) -> Resource:
    extra: dict[str, Any] = {}
    if properties:
        extra["property"] = [{"code": code, "uri": f"{BASE}/CodeSystem/{id_}#{code}", "description": says, "type": kind}
                             for code, (kind, says) in properties.items()]
    return build.head("CodeSystem", id_, name, title, description, language="zh-CN", caseSensitive=True,
                      compositional=False, versionNeeded=False, content="complete", count=len(concepts), **extra,
                      concept=concepts)


def _region_system(rules: RuleSet) -> Resource:
    concepts = [_concept(region.code, region.name_zh, region.name_en,
                         [{"code": "parent", "valueCode": region.parent}] if region.parent else [])
                for region in rules.regions.values()]
    return _system("recognition-region", "RecognitionRegion", "Regions of mutual recognition",
                   "The regions that recognise results, each within its parent.",
                   {"parent": ("code", "The region in which this one lies.")}, concepts)


def _mark_system(rules: RuleSet) -> Resource:
    concepts = [_concept(code_of(region.code), region.mark, "",
                         [{"code": "region", "valueCoding": {"system": REGIONS, "code": region.code}}])
                for region in rules.regions.values() if region.mark]
    return _system("recognition-mark", "RecognitionMark", "Marks of qualified results",
                   "The mark, region and HR, of a result whose item passed quality assessment for the region.",
                   {"region": ("Coding", "The region for which the result is qualified.")}, concepts)


def _reason_system(rules: RuleSet) -> Resource:
    """Every code once, as the first row of the table says it."""
    first: dict[str, Reason] = {}
    for row in rules.reasons:
        first.setdefault(row.code, row)
    return _system("recognition-reason", "RecognitionReason", "Reasons not to recognise a result",
                   "Lawful reasons to repeat an exam or test although an earlier result covers it; the value set of a "
                   "region says which it allows.", {
                       "counts": ("string", "As a refusal: yes, no, or reviewed, when a review says so."),
                       "needs-text": ("boolean", "The doctor writes why."),
                       "availability": ("boolean", "A fault of the hospital that made the result; it is shown to it."),
                       "preselected-by": ("string", "A state of the patient that proposes this reason.")},
                   [_concept(row.code, row.text_zh, row.text_en, _reason_properties(row)) for row in first.values()])


def _reason_properties(row: Reason) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [{"code": "counts", "valueString": row.counts}]
    found += [{"code": code, "valueBoolean": True}
              for code, holds in (("needs-text", row.needs_text), ("availability", row.availability)) if holds]
    return found + [{"code": "preselected-by", "valueString": state} for state in row.preselected_by]


def _reason_sets(rules: RuleSet) -> list[Resource]:
    """A value set for each region with reasons of its own: those and what it takes over from the regions above."""
    made = []
    for region in dict.fromkeys(row.region for row in rules.reasons):
        found: dict[str, Reason] = {}
        for within in reversed(rules.chain(region)):
            found.update((row.code, row) for row in rules.reasons if row.region == within
                         and (row.period.end is None or row.period.end >= rules.effective))
        concepts = [{"code": row.code, "display": row.text_zh,
                     "designation": [{"language": "en", "value": row.text_en}]} for row in found.values()]
        made.append(build.head(
            "ValueSet", f"recognition-reason-{region}", f"RecognitionReasons{region}",
            f"Reasons not to recognise a result, {rules.regions[region].name_zh}",
            "The reasons that doctors of this region may give, in its own words.",
            compose={"include": [{"system": REASONS, "concept": concepts}]}))
    return made


# ---------------------------------------------------------------------------------------------------- qualifications

def affiliations(rules: RuleSet) -> list[Resource]:
    """An OrganizationAffiliation for each institution, region and period, with the items as specialties."""
    groups: dict[tuple[str, str, Period], list[Qualification]] = {}
    for row in rules.qualifications:
        groups.setdefault((row.institution, row.region, row.period), []).append(row)
    return [_affiliation(rules, *key, [row.item for row in rows]) for key, rows in groups.items()]


def _affiliation(rules: RuleSet, slug: str, region: str, period: Period, items: list[str]) -> Resource:
    days = {name: day.isoformat() for name, day in (("start", period.begin), ("end", period.end)) if day}
    key = "|".join((rules.version, slug, region, *days.values()))
    resource: Resource = {
        "resourceType": "OrganizationAffiliation", "id": str(uuid.uuid5(_IDS, "|".join((key, *days)))),
        "identifier": [{"system": AFFILIATION, "value": key}], "active": True}
    if days:
        resource["period"] = days
    resource["organization"] = {"identifier": {"system": REGIONS, "value": region},
                                "display": rules.regions[region].name_zh}
    resource["participatingOrganization"] = {"reference": f"Organization/{slug}", "display": rules.name_of(slug)}
    resource["code"] = [{"text": "quality assessment passed"}]
    return resource | {"specialty": [_specialty(rules, item) for item in dict.fromkeys(items)]}


def _specialty(rules: RuleSet, item: str) -> dict[str, Any]:
    if item == ALL:
        return {"text": "all items"}
    system = ITEM_SYSTEM if item in rules.catalogue.items else PANEL_SYSTEM if item in rules.catalogue.panels \
        else build.CATEGORIES
    display = rules.catalogue.display(item)
    return {"coding": [{"system": system, "code": item} | ({"display": display} if display else {})]}
