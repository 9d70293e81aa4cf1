"""The HTTP edge: FHIR R4 REST, health, figures and pages; Flask on granian's worker processes.

``create_app(settings, store)`` makes the WSGI application; ``serve(settings, ready)`` serves it until SIGTERM.
"""

from gateway.edges.http.app import create_app
from gateway.edges.http.server import serve

__all__ = ["create_app", "serve"]
