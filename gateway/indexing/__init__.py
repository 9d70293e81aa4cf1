"""What of a resource can be searched: the parameter table, and a resource's index rows. Pure: no SQL, no I/O."""

from __future__ import annotations

import xxhash

from gateway.indexing.extract import contact, extract, owner, owner_id, present_bits
from gateway.indexing.keys import (
    param_key,
    reference_key,
    reference_target,
    token_key,
    type_key,
)
from gateway.indexing.parameters import PARAMETERS, As, Param, Type, parameters_of, resource_types
from gateway.indexing.values import set_zone, zone

#: Raised by one when the same table gives other rows than before.
FORMAT = 4


def fingerprint() -> str:
    """A hash of all that decides what rows a resource has; where the database holds another, `huren reindex`."""
    said = f"{FORMAT}\n{zone()}\n" + "\n".join(map(repr, PARAMETERS))
    return xxhash.xxh3_64_hexdigest(said.encode())


__all__ = ["PARAMETERS", "As", "Param", "Type", "contact", "extract", "fingerprint", "owner", "owner_id",
           "param_key", "parameters_of", "present_bits", "reference_key", "reference_target", "resource_types",
           "set_zone", "token_key", "type_key", "zone"]
