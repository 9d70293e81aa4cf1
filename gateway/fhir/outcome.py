"""Refusals and remarks as OperationOutcome (operationoutcome.html). Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from gateway.errors import Category, GatewayError

#: http://hl7.org/fhir/R4/valueset-issue-type.html: what ``GatewayError.detail`` narrows comes before the category.
_CODES = {Category.MALFORMED: "structure", Category.UNSUPPORTED: "not-supported", Category.INVALID: "invalid",
          Category.FORBIDDEN: "forbidden", Category.NOT_FOUND: "not-found", Category.CONFLICT: "conflict",
          Category.BUSY: "transient", Category.FAULT: "exception"}
_DETAILS = {(Category.INVALID, "required"): "required", (Category.INVALID, "data-type"): "value",
            (Category.INVALID, "table-value"): "code-invalid", (Category.NOT_FOUND, "gone"): "deleted",
            (Category.FORBIDDEN, "login"): "login", (Category.BUSY, "throttled"): "throttled",
            (Category.CONFLICT, "duplicate"): "duplicate", (Category.INVALID, "business-rule"): "business-rule"}
_PATH = re.compile(r"[A-Z][A-Za-z]*(?:\.[A-Za-z]+(?:\[[0-9]+\])?)*"
                   r"|[a-z-]+\.(?:tsv|toml)(?::[0-9]+)?")  # or the line of a table that the resource carries


@dataclass(frozen=True, slots=True)
class Issue:
    """One issue: ``code`` of the value set issue-type, ``where`` a FHIRPath such as ``Bundle.entry[3].request.url``."""

    code: str
    message: str
    where: str = ""
    severity: str = "error"


class InvalidResource(GatewayError):
    """INVALID with every issue that the check found; the message is the first one's."""

    def __init__(self, issues: list[Issue]) -> None:
        first = issues[0]
        detail = {"required": "required", "value": "data-type", "code-invalid": "table-value"}.get(first.code, "")
        super().__init__(Category.INVALID, first.message, first.where, detail=detail)
        self.issues = issues


def issues_of(error: GatewayError) -> list[Issue]:
    """The issues behind a refusal."""
    if isinstance(error, InvalidResource):
        return error.issues
    code = _DETAILS.get((error.category, error.detail)) or _CODES[error.category]
    severity = "fatal" if error.category is Category.FAULT else "error"
    return [Issue(code, error.message, error.where, severity)]


def operation_outcome(problem: GatewayError | Iterable[Issue]) -> dict[str, Any]:
    """The OperationOutcome of a refusal, or of a list of issues; without any, one of severity information."""
    issues = issues_of(problem) if isinstance(problem, GatewayError) else list(problem)
    issues = issues or [Issue("informational", "nothing to report", severity="information")]
    return {"resourceType": "OperationOutcome", "issue": [_rendered(issue) for issue in issues]}


def _rendered(issue: Issue) -> dict[str, Any]:
    """``expression`` only where the place is one; a header, parameter or position goes into the sentence."""
    found: dict[str, Any] = {"severity": issue.severity, "code": issue.code}
    if _PATH.fullmatch(issue.where):
        return found | {"diagnostics": issue.message, "expression": [issue.where]}
    return found | {"diagnostics": f"{issue.where}: {issue.message}" if issue.where else issue.message}
