"""The answer table of CDS Hooks: each category's status ("Calling a CDS Service", "HTTP Status Codes").

NOT_FOUND is 412: what is not found here are the FHIR data that the service was promised. A service id that is not ours
is UNSUPPORTED, 404.
"""

from __future__ import annotations

from gateway.edges.http import answers as http
from gateway.edges.http.answers import Answer
from gateway.errors import Category, GatewayError

ANSWERS: dict[Category, Answer] = {
    Category.MALFORMED: Answer(400),
    Category.UNSUPPORTED: Answer(404),
    Category.INVALID: Answer(400),
    Category.FORBIDDEN: Answer(403),
    Category.NOT_FOUND: Answer(412),
    Category.CONFLICT: Answer(409),  # an inner part's; a feedback's own conflicts are told entry by entry
    Category.BUSY: http.ANSWERS[Category.BUSY],
    Category.FAULT: Answer(500),
}
_NARROWER: dict[tuple[Category, str], Answer] = {
    (Category.MALFORMED, "too-large"): Answer(413),
    (Category.UNSUPPORTED, "method"): Answer(405),
    (Category.UNSUPPORTED, "content-type"): Answer(415),
    (Category.FORBIDDEN, "login"): Answer(401, (("WWW-Authenticate", 'Bearer realm="huren"'),)),
    (Category.NOT_FOUND, "card"): Answer(404),  # a feedback that names no card of ours
}


def answer_for(error: GatewayError) -> Answer:
    """The row of the table for a refusal."""
    return _NARROWER.get((error.category, error.detail)) or ANSWERS[error.category]
