"""The DIMSE listener: C-ECHO, and C-STORE of every storage SOP class; the manual is in `gateway/imaging/README.md`."""

from gateway.edges.dimse.answers import ANSWERS
from gateway.edges.dimse.listener import Limits, Listener, listen, serve

__all__ = ["ANSWERS", "Limits", "Listener", "listen", "serve"]
