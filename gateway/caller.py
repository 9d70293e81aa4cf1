"""Who asks, and what they may see: one object that travels from the edge into every store query."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from gateway.errors import Category, GatewayError

#: SMART App Launch 2.0 "Scopes for requesting FHIR Resources": create, read, update, delete, search.
INTERACTIONS = "cruds"
_V1 = {"read": "rs", "write": "cud", "*": "cruds"}


@dataclass(frozen=True, slots=True)
class Caller:
    """A client or an inner part of the gateway, with its scopes.

    ``scopes`` are SMART system scopes: ``system/*.rs``, ``system/Observation.cruds`` (v1's ``.read``, ``.write`` and
    ``.*`` are understood). The level ``institution/`` in place of ``system/`` gives the same, for the client's own
    institution's data only. ``institution`` is the slug of the hospital that the client acts for.
    """

    name: str
    institution: str | None = None
    scopes: tuple[str, ...] = ()

    def may(self, interaction: str, resource_type: str) -> bool:
        """Whether one of the letters of ``cruds`` is allowed on a resource type."""
        return bool(_levels(self.scopes, interaction, resource_type))

    def require(self, interaction: str, resource_type: str) -> None:
        """FORBIDDEN when ``may`` says no."""
        if not self.may(interaction, resource_type):
            raise GatewayError(Category.FORBIDDEN,
                               f"this client has no scope for '{interaction}' on {resource_type}; ask for "
                               f"system/{resource_type}.{interaction}", resource_type)

    def sees(self, resource_type: str, interaction: str = "r") -> str | None:
        """The institution whose data alone may be seen or written of this type; None: that of every institution."""
        if "system" in _levels(self.scopes, interaction, resource_type):
            return None
        return self.institution or ""  # an institution scope without an institution sees nothing


@lru_cache(maxsize=4096)
def _levels(scopes: tuple[str, ...], interaction: str, resource_type: str) -> frozenset[str]:
    """The levels at which one of the letters of ``cruds`` is allowed on a resource type: asked for every resource."""
    return frozenset(level for level, kind, letters in _parsed(scopes)
                     if interaction in letters and kind in ("*", resource_type))


@lru_cache(maxsize=1024)
def _parsed(scopes: tuple[str, ...]) -> tuple[tuple[str, str, str], ...]:
    rows = []
    for scope in scopes:
        level, _, rest = scope.partition("/")
        kind, _, letters = rest.partition(".")
        if level in ("system", "institution") and kind and letters:
            rows.append((level, kind, _V1.get(letters, letters)))
    return tuple(rows)


def check_scope(scope: str) -> None:
    """INVALID when a scope is not of the form that ``Caller`` understands."""
    level, slash, rest = scope.partition("/")
    kind, dot, letters = rest.partition(".")
    ok = slash and dot and level in ("system", "institution") and (kind == "*" or kind.isalpha()) \
        and (letters in _V1 or (letters and set(letters) <= set(INTERACTIONS)))
    if not ok:
        raise GatewayError(Category.INVALID, f"scope '{scope}' is not of the form system/Type.cruds or system/*.rs; "
                                             "level is system or institution", "scope")


#: The gateway's own work: conversions, publishing, reindex.
GATEWAY = Caller("gateway", None, ("system/*.cruds",))
