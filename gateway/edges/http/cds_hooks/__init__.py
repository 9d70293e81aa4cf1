"""The CDS Hooks 2.0 edge (cds-hooks.org/specification/2.0): ``/cds-services``.

    service.py    discovery, the call, feedback: HTTP only
    request.py    the body → Call; context against prefetch                             pure
    clients.py    who calls: JWT, or a client's token;  keys.py  its key sets
    fetch.py      what was not prefetched, from the client's FHIR server;  reading.py  one GET with limits
    cards.py      verdicts → cards;  words.py  what they say in Chinese and English      pure
    feedback.py   feedback → actions on order lines
    answers.py    the answer table of this edge
"""

from gateway.edges.http.cds_hooks.answers import ANSWERS, answer_for
from gateway.edges.http.cds_hooks.service import install, require_usable

__all__ = ["ANSWERS", "answer_for", "install", "require_usable"]
