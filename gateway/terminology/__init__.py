"""What codes and units mean: the unified catalogue, hospitals' code maps, UCUM, and the URIs of coding systems. Pure.

Nothing here guesses: what no table or rule names is answered with None or an empty list, and the caller keeps the
source text beside it. The only input is data that ships with the program, each read once: the catalogue in
``profiles/`` and ucumvert's grammar.
"""

from __future__ import annotations

from gateway.terminology.catalogue import Catalogue, Edge, Item, Panel, catalogue, check_item_code
from gateway.terminology.codemap import CodeMap, CodeRow, code_rows, concept_map
from gateway.terminology.systems import (
    BASE,
    DCM,
    ITEMS,
    LOINC,
    PANELS,
    SNOMED,
    UCUM,
    dicom_scheme_uri,
    system_uri,
)
from gateway.terminology.units import is_ucum, quantity_kind, ucum

__all__ = [
    "BASE", "DCM", "ITEMS", "LOINC", "PANELS", "SNOMED", "UCUM",
    "Catalogue", "CodeMap", "CodeRow", "Edge", "Item", "Panel",
    "catalogue", "check_item_code", "code_rows", "concept_map", "dicom_scheme_uri", "is_ucum", "quantity_kind",
    "system_uri", "ucum",
]
