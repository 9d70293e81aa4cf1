"""The answer table of HTTP: each category's status, and the OperationOutcome that says why (http.html#Status-Codes)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from werkzeug.exceptions import HTTPException

from gateway.errors import Category, GatewayError
from gateway.fhir.outcome import Issue, operation_outcome

RETRY_SECONDS = 2


@dataclass(frozen=True, slots=True)
class Answer:
    """A row of the answer table: the status, and the header that says what to do next."""

    status: int
    headers: tuple[tuple[str, str], ...] = ()


#: What each category is answered with; `_NARROWER` has the rows that ``GatewayError.detail`` picks.
ANSWERS: dict[Category, Answer] = {
    Category.MALFORMED: Answer(400),
    Category.UNSUPPORTED: Answer(400),
    Category.INVALID: Answer(422),
    Category.FORBIDDEN: Answer(403),
    Category.NOT_FOUND: Answer(404),
    Category.CONFLICT: Answer(409),
    Category.BUSY: Answer(503, (("Retry-After", str(RETRY_SECONDS)),)),
    Category.FAULT: Answer(500),
}
_NARROWER: dict[tuple[Category, str], Answer] = {
    (Category.MALFORMED, "too-large"): Answer(413),
    (Category.UNSUPPORTED, "path"): Answer(404),
    (Category.UNSUPPORTED, "method"): Answer(405),
    (Category.UNSUPPORTED, "accept"): Answer(406),
    (Category.UNSUPPORTED, "content-type"): Answer(415),
    (Category.INVALID, "search"): Answer(400),
    (Category.INVALID, "request"): Answer(400),
    (Category.INVALID, "range"): Answer(416),
    (Category.FORBIDDEN, "login"): Answer(401, (("WWW-Authenticate", 'Bearer realm="huren"'),)),
    (Category.NOT_FOUND, "gone"): Answer(410),
    (Category.CONFLICT, "precondition"): Answer(412),
    (Category.BUSY, "throttled"): Answer(429, (("Retry-After", str(RETRY_SECONDS)),)),
}
#: What the framework itself refuses, in our words.
_FRAMEWORK: dict[int, tuple[Category, str, str]] = {
    400: (Category.MALFORMED, "", "the request cannot be read; see RFC 9112"),
    404: (Category.UNSUPPORTED, "path", "there is nothing at this path; see /fhir/metadata for what there is"),
    405: (Category.UNSUPPORTED, "method", "this path does not take this method; see /fhir/metadata for what it takes"),
    411: (Category.MALFORMED, "", "send a Content-Length"),
    413: (Category.MALFORMED, "too-large", "the request is too large; send it in parts"),
    414: (Category.MALFORMED, "too-large", "the address is too long; search by POST to _search"),
    415: (Category.UNSUPPORTED, "content-type", "send application/fhir+json or application/fhir+xml"),
}


def answer_for(error: GatewayError) -> Answer:
    """The row of the table for a refusal."""
    return _NARROWER.get((error.category, error.detail)) or ANSWERS[error.category]


def outcome_of(error: GatewayError) -> dict[str, Any]:
    """The OperationOutcome for a refusal; what was our fault is said without its inside."""
    if error.category is Category.FAULT:
        return operation_outcome([Issue("exception", "the gateway failed; its log says why", severity="fatal")])
    return operation_outcome(error)


def refusal_of(problem: BaseException) -> GatewayError:
    """Whatever was raised as a refusal: the framework's own in our words, anything else as FAULT."""
    if isinstance(problem, GatewayError):
        return problem
    if isinstance(problem, HTTPException):
        category, detail, message = _FRAMEWORK.get(
            problem.code or 500, (Category.MALFORMED, "", "the request cannot be answered; see /fhir/metadata"))
        return GatewayError(category, message, detail=detail)
    return GatewayError(Category.FAULT, "the gateway failed; its log says why")
